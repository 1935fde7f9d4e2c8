"""The Triton kernels of max-pooling: run by Triton's interpreter on the CPU, and compiled where there is a GPU."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro import triton_kernels
from repro.model import build
from repro.model.fast.pool import MaxPool
from tests.tiny import tiny_config

triton = pytest.importorskip("triton", reason="no Triton on this system")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from repro.model.fast import pool_triton  # noqa: E402

KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# The interpreter is chosen when a kernel is defined, so it has a process of its own.
CHECK = """
import itertools
import torch
import torch.nn.functional as F
from repro.model.fast import pool_triton
from repro.model.fast.pool import MaxPool

MaxPool.kernels = lambda self, x: pool_triton

def random(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 50

def images(maps, height, width):
    numbers = random((maps, height, width), 1)
    yield numbers
    yield (numbers / 40).round()  # equal numbers, zeros of both signs
    yield numbers.relu()
    yield torch.where(numbers.abs() < 9, torch.nan, numbers)  # several in a window
    yield torch.where(numbers < 40, -torch.inf, numbers)  # windows of nothing else
    yield torch.full_like(numbers, -3.0)

near = {torch.float32: 1e-6, torch.float16: 2**-11, torch.bfloat16: 2**-7}  # the interpreter cuts bf16 off
cases = [((8, 7, 9), 3, 2), ((24, 6, 8), 3, 2), ((16, 5, 6), 2, 2), ((8, 2, 3), 3, 2), ((8, 6, 5), 3, 1)]
more = [((8, 9, 8), 3, 3), ((8, 8, 7), 5, 2), ((4, 9, 11), 2, 3), ((4, 1, 4), 1, 1), ((4, 6, 7), 5, 1)]
runs = [*itertools.product(cases, pool_triton.TYPES), *itertools.product(more, [torch.float32])]
for (((maps, height, width), size, stride), dtype), round_up in itertools.product(runs, (False, True)):
    layer = MaxPool(size, stride, ceil_mode=round_up)
    if min(layer.places(height), layer.places(width)) < 1:
        continue
    x = torch.stack([*images(maps, height, width)]).to(dtype, memory_format=torch.channels_last)
    ours, plain, exact = x.clone().requires_grad_(), x.clone().requires_grad_(), x.double().requires_grad_()
    out = layer(ours)
    wanted = F.max_pool2d(plain, size, stride, ceil_mode=round_up)
    assert out.dtype == dtype and out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, wanted, rtol=0, atol=0, equal_nan=True)
    assert (out.signbit() == wanted.signbit())[~out.isnan()].all()
    g = random(out.shape, 2).to(dtype)  # maps apart: the layer puts them side by side
    found, = torch.autograd.grad(out, ours, g)
    assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
    if dtype == torch.float32:
        assert found.equal(torch.autograd.grad(wanted, plain, g)[0])
    wanted = F.max_pool2d(exact, size, stride, ceil_mode=round_up)
    wanted, = torch.autograd.grad(wanted, exact, g.double())
    torch.testing.assert_close(found.double(), wanted, rtol=near[dtype], atol=1e-4)
"""


@pytest.mark.slow
def test_the_interpreter_gives_what_pytorch_gives_on_a_cpu() -> None:
    """Forward to the bit; backward to the bit in fp32, where PyTorch adds in the same order."""
    program = f"import os; os.environ['TRITON_INTERPRET'] = '1'\n{CHECK}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def compiled(kernel: object, kind: str, capability: int, fixed: dict[str, int]) -> object:
    """A kernel made for a GPU that is not here."""
    types = {"x": f"*{kind}", "y": f"*{kind}", "gradient": f"*{kind}", "out": f"*{kind}", "winners": "*u8"}
    types["vectors"] = "i32"
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    aligned = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(signature) if signature[name][0] == "*"}
    return triton.compile(
        ASTSource(kernel, signature, fixed, aligned), GPUTarget("cuda", capability, 32), pool_triton.OPTIONS
    )


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("kind", "size", "stride"), [("fp32", 3, 2), ("bf16", 3, 2), ("fp16", 3, 2), ("bf16", 2, 2)])
def test_the_kernels_compile_for_gpus_that_are_not_here(
    kind: str, size: int, stride: int, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an A100 and an H100; threads exchange nothing, and load and store 16 bytes of numbers at once."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    vector = pool_triton._vector(torch.zeros(1, dtype=KINDS[kind]))
    fixed = pool_triton._fixed(MaxPool(size, stride, ceil_mode=True), torch.Size((128, 96, 55, 55)), vector)
    windows = (-(-size // stride)) ** 2
    for kernel, loads, stores in (
        (pool_triton._forward, size**2, {"numbers": 1, "winners": 1}),
        (pool_triton._backward, windows, {"numbers": stride**2, "winners": 0}),
    ):
        made = compiled(kernel, kind, capability, fixed)
        assert made.asm["cubin"]
        assert made.metadata.shared == 0
        ptx = made.asm["ptx"]
        assert ptx.count("ld.global.v4.b32") == loads
        assert ptx.count("st.global.v4.b32") == stores["numbers"]
        assert ptx.count("st.global") == sum(stores.values())


class OnGpu(torch.Tensor):
    """A tensor that says it lies on a GPU."""

    is_cuda = True


def ready(size: int, stride: int, round_up: bool = True) -> MaxPool:
    return MaxPool(size, stride, ceil_mode=round_up)


def images(maps: int, dtype: torch.dtype = torch.float32, layout: torch.memory_format = torch.channels_last) -> Tensor:
    x = torch.randn(2, maps, 7, 6, generator=torch.Generator().manual_seed(0)).to(dtype, memory_format=layout)
    return x.as_subclass(OnGpu)


@pytest.mark.parametrize(("size", "x", "served"), [
    (3, images(4), True),
    (3, images(8, torch.bfloat16), True),
    (3, images(8, torch.float16), True),
    (3, images(12, torch.bfloat16), False),  # 16 bytes do not divide them
    (3, images(6), False),
    (3, images(8, torch.float64), False),
    (3, images(8, layout=torch.contiguous_format), False),
    (3, images(8)[:, :4], False),  # gaps between pixels
    (3, images(8)[0], False),
    (3, images(8)[:0], False),
    (5, images(8), True),
    (6, images(8), False),
    (3, images(8).as_subclass(Tensor), False),
])  # fmt: skip
def test_what_the_kernels_serve(size: int, x: Tensor, served: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernels, "load", lambda name: importlib.import_module(name))
    assert (ready(size, 2).kernels(x) is pool_triton) == served


def test_without_kernels_it_is_the_layer_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernels, "load", lambda name: None)
    ours, plain = images(8).requires_grad_(), images(8).as_subclass(Tensor).requires_grad_()
    found, wanted = ready(3, 2)(ours), F.max_pool2d(plain, 3, 2, ceil_mode=True)
    assert torch.equal(found, wanted)
    assert torch.equal(torch.autograd.grad(found.sum(), ours)[0], torch.autograd.grad(wanted.sum(), plain)[0])


@pytest.mark.parametrize("fast", [True, False])
def test_the_networks_layers_are_told_to_use_kernels(fast: bool) -> None:
    config = tiny_config()
    config.train.fast_kernels = fast
    pools = [layer for layer in build(config, 4).features if isinstance(layer, nn.MaxPool2d)]
    assert [isinstance(layer, MaxPool) for layer in pools] == [fast] * 3


@pytest.mark.parametrize("round_up", [True, False])
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (2, 2), (5, 2), (2, 3), (3, 1), (3, 5)])
def test_places_are_those_of_pytorch(size: int, stride: int, round_up: bool) -> None:
    layer = MaxPool(size, stride, ceil_mode=round_up)
    for length in range(size, 20):
        assert layer.places(length) == layer(torch.zeros(1, 1, length, length)).shape[-1]


GPU_CASES = [  # with sides of unequal length; `(height - size) % stride` is 0 and more
    *((3, 2, 96, 55, True, dtype) for dtype in pool_triton.TYPES),
    (3, 2, 256, 27, True, torch.bfloat16),
    (3, 2, 24, 14, True, torch.bfloat16),
    (3, 2, 24, 14, False, torch.float32),
    (2, 2, 24, 15, True, torch.float32),
    (2, 2, 64, 16, False, torch.float16),
    (3, 1, 8, 6, True, torch.float32),
    (2, 3, 8, 9, True, torch.bfloat16),
    (5, 2, 8, 12, True, torch.float16),
]


@pytest.mark.cuda
@pytest.mark.parametrize(("size", "stride", "maps", "side", "round_up", "dtype"), GPU_CASES)
def test_on_a_gpu_too(size: int, stride: int, maps: int, side: int, round_up: bool, dtype: torch.dtype) -> None:
    layer = ready(size, stride, round_up)
    numbers = torch.randn(3, maps, side, side - 1, generator=torch.Generator().manual_seed(1)).mul(20)
    numbers[1].round_()
    numbers[2].relu_()
    numbers[0, :, ::3, ::4] = torch.nan
    x = numbers.to("cuda", dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    assert layer.kernels(x) is pool_triton
    out = layer(x)
    g = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    found = [torch.autograd.grad(out, x, g.cuda(), retain_graph=True)[0] for _ in range(2)]
    assert found[0].equal(found[1])
    leaf = x.detach().cpu().double().requires_grad_()
    exact = F.max_pool2d(leaf, size, stride, ceil_mode=round_up)
    assert torch.allclose(out.cpu().double(), exact, rtol=0, atol=0, equal_nan=True)
    (wanted,) = torch.autograd.grad(exact, leaf, g.double())
    torch.testing.assert_close(found[0].cpu().double(), wanted, rtol=torch.finfo(dtype).eps / 2, atol=1e-5)
    for tensor in (out, found[0]):
        assert tensor.dtype == dtype
        assert tensor.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.cuda
def test_a_graph_of_a_gpu_holds_both_passes() -> None:
    layer = ready(3, 2, True)
    x = torch.randn(2, 16, 9, 9, device="cuda").contiguous(memory_format=torch.channels_last).requires_grad_()

    def passes() -> list[Tensor]:
        out = layer(x)
        return [out.detach(), *torch.autograd.grad(out, x, torch.ones_like(out))]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        passes()  # compiles
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            recorded = passes()
    with torch.no_grad():
        x.neg_()
    graph.replay()
    for ours, wanted in zip(recorded, passes(), strict=True):
        assert ours.equal(wanted)
