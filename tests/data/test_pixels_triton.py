"""The Triton kernel of the input: run by Triton's interpreter on the CPU, and compiled where there is a GPU."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from repro.config import ColorNoise, Config, Mean, Precision
from repro.data.augmentation import Windows, color_draws, random_windows
from repro.data.preprocess import Pixels, on_device, places_of
from repro.data.store import ImageData
from tests.crops import cut
from tests.tiny import tiny_data

triton = pytest.importorskip("triton", reason="no Triton on this system")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from repro.data import pixels_triton  # noqa: E402

CPU = torch.device("cpu")
SIDE, CROP, COUNT = 17, 14, 9  # a crop has more than one block of numbers, and ends within one
VARIANTS = {
    "paper": {},
    "no noise": {"noise": ColorNoise.none},
    "source": {"mean": Mean.image_centre, "divisor": 1.1},
    "channel mean, unit variance": {"mean": Mean.channel, "unit_variance": True},
    "all": {"mean": Mean.image_centre, "divisor": 1.1, "unit_variance": True},
}


def configured(mean: Mean = Mean.image, noise: ColorNoise = ColorNoise.deviation, divisor: float = 1.0,
               unit_variance: bool = False) -> Config:  # fmt: skip
    config = Config()
    config.data.image_size, config.data.crop = SIDE, CROP
    config.data.mean, config.data.unit_variance = mean, unit_variance
    config.augment.color_noise, config.augment.color_noise_divisor = noise, divisor
    return config


def drawn(config: Config, seed: int) -> tuple[np.ndarray, Windows, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randperm(20, generator=generator)[:COUNT].numpy()
    windows = random_windows(config.augment, COUNT, SIDE - CROP, generator)
    return indices, windows, color_draws(config.augment, COUNT, generator)


def data_of() -> ImageData:
    return tiny_data(train=20, size=SIDE)


def expected(config: Config, data: ImageData, seed: int) -> Tensor:
    """By the plain way of a CPU."""
    indices, windows, noise = drawn(config, seed)
    return Pixels(config, data, CPU).prepare(cut(data.train.images, indices, windows, CROP), windows, noise)


def check_in_interpreter() -> None:
    """Runs where TRITON_INTERPRET=1: the kernel's result is the plain one to the bit."""
    data = data_of()
    for variant in VARIANTS.values():
        config = configured(**variant)
        indices, windows, noise = drawn(config, 0)
        pixels, plain = Pixels(config, data, CPU), expected(config, data, 0)
        pixels.kernels = pixels_triton
        shifts, crops = pixels.shifts(noise), cut(data.train.images, indices, windows, CROP).permute(0, 2, 3, 1)
        of_crops, of_whole = places_of(np.arange(COUNT), windows), places_of(indices, windows)
        for dtype in (torch.float32, torch.bfloat16):
            pixels.dtype = dtype
            for images, places in ((torch.from_numpy(np.array(data.train.images)), of_whole), (crops, of_crops)):
                found = pixels.prepare_on_device(images, places, shifts)
                assert found.dtype == dtype
                assert found.is_contiguous(memory_format=torch.channels_last)
                cut_off = 2.0**-7 if dtype is torch.bfloat16 else 0  # the interpreter does not round to bf16
                torch.testing.assert_close(found, plain.to(dtype), rtol=cut_off, atol=0)


@pytest.mark.slow
def test_the_interpreter_gives_the_plain_result_to_the_bit() -> None:
    """The interpreter is chosen when a kernel is defined, so it has a process of its own."""
    program = (
        "import os; os.environ['TRITON_INTERPRET'] = '1';"
        "from tests.data import test_pixels_triton as own; own.check_in_interpreter()"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@pytest.mark.parametrize("at_test", [False, True], ids=["training", "test"])
def test_the_kernel_compiles_for_gpus_that_are_not_here(
    at_test: bool, kind: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    fixed = {"centred": False, "crop": 224, "image_side": 256, "mean_side": 256, "block": pixels_triton.BLOCK}
    absent = dict.fromkeys(("shifts", "divisor", "deviation") if at_test else ())
    types = {"out": f"*{kind}", "images": "*u8", "places": "*i32", "divisor": "fp32"}
    names = pixels_triton._fill.arg_names
    constants = fixed | absent
    signature = {name: "constexpr" if name in constants else types.get(name, "*fp32") for name in names}
    source = ASTSource(pixels_triton._fill, signature, constants)
    compiled = triton.compile(source, GPUTarget("cuda", capability, 32), pixels_triton.OPTIONS)
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared == 0
    assert compiled.asm["ttgir"].count("tt.store") == 1


@pytest.mark.cuda
@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("compiled", [True, False], ids=["kernel", "PyTorch's operations"])
def test_a_gpu_gives_the_result_of_the_cpu_to_the_bit(compiled: bool, variant: str, precision: Precision) -> None:
    config, data, device = configured(**VARIANTS[variant]), data_of(), torch.device("cuda")
    config.train.precision, config.train.fast_kernels = precision, compiled
    pixels = Pixels(config, data, device)
    assert pixels.kernels is (pixels_triton if compiled else None)
    plain = expected(config, data, 0).to(torch.bfloat16 if precision is Precision.bf16 else torch.float32)
    indices, windows, noise = drawn(config, 0)
    shifts = pixels.shifts(noise)
    there = [None if value is None else on_device(value, device) for value in (places_of(indices, windows), shifts)]
    images = torch.from_numpy(np.array(data.train.images)).to(device)
    crops = cut(data.train.images, indices, windows, CROP)
    of_crops = on_device(places_of(np.arange(COUNT), windows), device)
    crops_there = on_device(crops.permute(0, 2, 3, 1), device)
    for found in (pixels.prepare_on_device(images, *there), pixels.prepare_on_device(crops_there, of_crops, there[1])):
        assert found.dtype == plain.dtype
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(found.cpu(), plain)


@pytest.mark.cuda
def test_a_graph_replays_it_with_what_its_inputs_hold_by_then() -> None:
    config, data, device = configured(), data_of(), torch.device("cuda")
    pixels, images = Pixels(config, data, device), torch.from_numpy(np.array(data.train.images)).to(device)
    inputs = []
    for seed in (0, 1):
        indices, windows, noise = drawn(config, seed)
        inputs.append((places_of(indices, windows), pixels.shifts(noise)))
    places, shifts = (value.to(device) for value in inputs[0])
    assert torch.equal(pixels.prepare_on_device(images, places, shifts).cpu(), expected(config, data, 0))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = pixels.prepare_on_device(images, places, shifts)
    places.copy_(inputs[1][0])
    shifts.copy_(inputs[1][1])
    graph.replay()
    assert torch.equal(out.cpu(), expected(config, data, 1))
