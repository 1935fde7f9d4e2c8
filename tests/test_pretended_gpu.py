"""The CUDA path without a GPU, on `tests.pretend`: runs there are the CPU's, and their steps wait for nothing."""

import gc
import math
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tests.pretend as pretend
from repro import evaluate, profile, runner
from repro.config import Config, Mean, OptimizerKind, Precision
from repro.data.store import ImageData, open_data
from repro.distributed import World
from repro.errors import RunFailure, UserError
from repro.experiments.compose import compose
from repro.model import build
from repro.profiling import ceilings, recorded_steps, roofline
from repro.record import find
from repro.train import loop
from repro.train.cuda_graph import WARM_UPS
from repro.train.device import choose_device
from repro.train.loop import Training
from repro.train.running_loss import RunningLoss
from tests.pretend import Gpu
from tests.tiny import IDENTITY, WORDS, only_record, run_command, tiny_config, tiny_data

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES = 42
"""In batches of 16: two whole ones an epoch, and one of 10."""
EPOCHS = 3
"""So that the graph is recorded in the second one, and replayed."""
MAY_WAIT = ("Snapshot.means", "evaluate", "Training.__post_init__", "RecordedStep.__init__")
"""Functions in which alone a run may wait: looks, evaluation, first moves, recording of a graph."""
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "kernel by kernel": {"train.cuda_graph": False},
    "many steps": {"train.batch_size": 4, "train.epochs": 1},
    "drops and a frozen layer": {"schedule.drops": [0.4, 0.8], "schedule.conv1_freeze_at": 0.7},
    "clipped": {"optimizer.clip_norm": 1.0},
    "in parts": {"train.micro_batch": 4},
    "recomputed": {"train.checkpoint_activations": True},
    "torch_sgd": {"optimizer.kind": OptimizerKind.torch_sgd, "schedule.drops": [0.8]},
    "adam": {"optimizer.kind": OptimizerKind.adam, "optimizer.lr": 1e-3, "schedule.drops": [0.8]},
    "other input": {"data.unit_variance": True, "data.mean": Mean.image_centre, "augment.color_noise_divisor": 1.1},
}
FROM_THE_HOST = ("as it is", "many steps", "in parts", "other input")
"""Variants that run without resident images too."""


def configured(variant: str) -> Config:
    config = tiny_config()
    config.train.epochs = EPOCHS
    for key, value in VARIANTS[variant].items():
        part, name = key.split(".")
        setattr(getattr(config, part), name, value)
    return config


def made(config: Config, device: str, folder: Path, data: ImageData | None = None) -> Training:
    chosen = choose_device(device)
    torch.manual_seed(config.seed)
    return Training(config, build(config, 4), data or tiny_data(IMAGES), chosen, folder, IDENTITY)


def trained(config: Config, device: str, folder: Path, data: ImageData | None = None) -> Training:
    training = made(config, device, folder, data)
    training.run()
    return training


@pytest.fixture(scope="module", name="on_cpu")
def _on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Training]:
    """Runs on the CPU to compare with, each made once."""

    @cache
    def run(variant: str) -> Training:
        return trained(configured(variant), "cpu", tmp_path_factory.mktemp("cpu"))

    return run


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with pretend.gpu(count=2) as machine:
        yield machine


def assert_same(ours: Training, theirs: Training) -> None:
    weights = {name: weight.cpu() for name, weight in ours.network.state_dict().items()}
    torch.testing.assert_close(weights, dict(theirs.network.state_dict()), rtol=1e-4, atol=1e-5)
    for row, other in zip(ours.curve, theirs.curve, strict=True):
        for key in ("train_loss", "train_top1", "val_loss", "val_top1"):
            assert row[key] == pytest.approx(other[key], rel=1e-4), key


@pytest.mark.parametrize(
    ("variant", "resident"),
    [
        *(pytest.param(name, True, id=name) for name in VARIANTS),
        *(pytest.param(name, False, id=f"{name}, from the host to the second GPU") for name in FROM_THE_HOST),
    ],
)
def test_a_run_is_that_of_the_cpu_and_waits_for_nothing(
    variant: str, resident: bool, tmp_path: Path, on_cpu: Callable[[str], Training], gpu: Gpu
) -> None:
    theirs, config = on_cpu(variant), configured(variant)
    ours = made(config, "cuda" if resident else "cuda:1", tmp_path)
    if not resident:
        ours.data = theirs.data
        ours.train_split = theirs.train_split
    assert isinstance(ours.train_split.images, torch.Tensor) is resident
    ours.run()
    assert [wait for wait in gpu.waits if not any(f" {name}" in wait for name in MAY_WAIT)] == []
    whole = IMAGES // config.train.batch_size * config.train.epochs
    assert gpu.replays == (whole - WARM_UPS if config.may_record else 0)
    assert_same(ours, theirs)


def test_images_that_would_fill_the_memory_stay_on_the_host(tmp_path: Path, gpu: Gpu) -> None:
    gpu.limit = 3 * 2**20
    assert not isinstance(made(tiny_config(), "cuda", tmp_path).train_split.images, torch.Tensor)


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, gpu: Gpu, on_cpu: Callable[[str], Training]) -> None:
    variant = "drops and a frozen layer"
    first = made(configured(variant), "cuda", tmp_path)
    first.on_epoch = interrupt_after(2)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = made(configured(variant), "cuda", tmp_path)
    second.resume()
    assert len(second.curve) == 2
    second.run()
    assert_same(second, on_cpu(variant))


@pytest.mark.parametrize("linked", [("conv3", "fc6", "fc7"), ()], ids=["", "columns apart"])
def test_in_bf16_no_layer_hands_on_another_type(linked: tuple[str, ...], tmp_path: Path, gpu: Gpu) -> None:
    config, kinds = tiny_config(), dict[str, torch.dtype]()
    config.train.precision, config.model.linked_layers = Precision.bf16, list(linked)
    training = made(config, "cuda", tmp_path)
    for stage in (training.network.features, training.network.classifier):
        for name, layer in stage.named_children():
            layer.register_forward_hook(lambda _, given, out, name=name: kinds.__setitem__(name, out.dtype))
    training.step(*next(training._batches(0)), RunningLoss.on(training.device))
    assert {"conv1", "norm1", "fc8"} <= kinds.keys()
    assert set(kinds.values()) == {torch.bfloat16}, kinds


def interrupt_after(epoch: int) -> Callable[[dict[str, Any]], None]:
    def on_epoch(row: dict[str, Any]) -> None:
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    return on_epoch


def test_an_evaluation_waits_once(tmp_path: Path, gpu: Gpu) -> None:
    training = made(tiny_config(), "cuda", tmp_path)
    gpu.waits.clear()
    training._evaluate(training.train_split)
    assert len(gpu.waits) == 1


def test_the_clock_of_an_epoch_is_read_when_the_device_is_done(
    tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = made(tiny_config(), "cuda", tmp_path)
    gpu.waits.clear()
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: len(gpu.waits)))  # each takes a second
    training.run()
    assert training.curve[0]["minutes"] * 60 == 1
    assert training.curve[0]["images_per_second"] == IMAGES


@pytest.mark.parametrize(("name", "world", "index"), [("auto", 0, 0), ("cuda", 0, 0), ("cuda:1", 0, 1), ("cuda", 2, 1)])
def test_the_chosen_device_is_the_current_one(name: str, world: int, index: int, gpu: Gpu) -> None:
    assert torch.device("cuda", index) == choose_device(name, World(1, world, 1) if world else World())
    assert torch.cuda.current_device() == index


@pytest.mark.parametrize(("name", "world"), [("cuda:2", World()), ("cuda:1", World(0, 2, 0)), ("cuda", World(2, 3, 2))])
def test_a_device_that_cannot_be_is_refused(name: str, world: World, gpu: Gpu) -> None:
    with pytest.raises(UserError, match=r"train\.device="):
        choose_device(name, world)


def words(images: Path, results: Path, *more: str) -> list[str]:
    kept = [word for word in WORDS if not word.startswith(("train.device", "train.epochs"))]
    return [*kept, "train.epochs=1", f"data.root={images}", f"results_dir={results}", *more]


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0", "cuda:1"])
def test_a_command_files_a_record_of_its_device(device: str, images: Path, results: Path, gpu: Gpu) -> None:
    assert run_command(*words(images, results, f"train.device={device}")) == 0
    record = only_record(results)
    assert (record.status, record.machine.device_type) == ("complete", "cuda")
    assert record.machine.device == f"Pretended GPU {1 if device == 'cuda:1' else 0}"
    assert record.metrics.train.loss is not None
    assert math.isfinite(record.metrics.train.loss)
    assert record.cost.peak_memory_mib == pytest.approx(gpu.peak / 2**20)
    (weights,) = results.rglob("weights.safetensors")
    again = evaluate.measure(compose(words(images, results, f"train.device={device}")), weights)
    assert again["centre"]["top1"] == record.metrics.centre.top1
    assert gpu.index(None) == int(device == "cuda:1")


def test_a_profile_has_a_step_as_one_graph_beside_its_kernels(
    results: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(
        recorded_steps.ACTIVITIES, "cuda", recorded_steps.ACTIVITIES["cpu"]
    )  # PyTorch's profiler wants a real one
    monkeypatch.setitem(ceilings.COPIED, "cuda", 2**20)
    monkeypatch.setitem(ceilings.SIDE, "cuda", 128)
    monkeypatch.setattr(roofline, "draw", lambda *_: None)
    arguments = words(Path("none"), results, "train.device=cuda:1", "data.classes=4", "steps=2")
    monkeypatch.setattr(sys, "argv", [profile.__file__, *arguments])
    profile.main()
    assert gpu.replays
    told = capsys.readouterr().out
    assert "Pretended GPU 1, fp32" in told
    assert "as one graph" in told


@pytest.fixture
def _no_collection() -> Iterator[None]:
    """What is freed is freed because nothing holds it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collection")
def test_a_run_leaves_its_memory_when_it_ends(tmp_path: Path, gpu: Gpu) -> None:
    training = trained(configured("as it is"), "cuda", tmp_path)
    network = weakref.ref(training.network)
    assert gpu.replays
    assert gpu.allocated
    del training
    assert network() is None
    assert gpu.allocated == 0


@pytest.mark.usefixtures("_no_collection")
@pytest.mark.parametrize(
    ("sweep", "fails"),
    [(["-m"], False), (["-m"], True), (["suite=headline_small", "ablation=baseline"], False)],
    ids=["sweep", "sweep whose first run fails", "suite"],
)
def test_runs_of_a_sweep_inherit_no_memory(
    sweep: list[str], fails: bool, images: Path, results: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_start = list[int]()

    def opening(*arguments: Any) -> Any:
        at_start.append(gpu.allocated)
        gpu.limit = 2**20 if fails and len(at_start) == 1 else pretend.GIB
        return open_data(*arguments)

    monkeypatch.setattr(runner, "open_data", opening)
    assert run_command(*sweep, "seed=0,1", *words(images, results)) == int(fails)
    assert at_start == [0, 0]
    assert gpu.allocated == 0
    peaks = {record.cost.peak_memory_mib for record in find(results)}
    assert len(peaks) == 1


def test_what_does_not_fit_is_told_in_a_line(tmp_path: Path, gpu: Gpu) -> None:
    """Wherever in a run memory ends: an evaluation works on twice a step's images."""
    training = made(tiny_config(), "cuda", tmp_path / "whole")
    before = gpu.allocated
    training.run()
    del training
    needed = gpu.peak - before
    for share in (0.0, 0.2, 0.4, 0.6, 0.8):
        gpu.limit = before + round(share * needed)
        with pytest.raises(
            RunFailure, match=r"^out of memory with (16|32) images at once: try train\.micro_batch=8"
        ) as error:
            made(tiny_config(), "cuda", tmp_path / str(share)).run()
        assert "\n" not in str(error.value)
        del error


@pytest.mark.parametrize(("graph", "advice"), [(None, r"8 \(same"), (True, r"8 and leave train\.cuda_graph out")])
def test_a_step_that_does_not_fit(graph: bool | None, advice: str, tmp_path: Path, gpu: Gpu) -> None:
    config = tiny_config()
    config.train.cuda_graph = graph
    training = made(config, "cuda", tmp_path)
    batch, running = next(training._batches(0)), RunningLoss.on(training.device)
    gpu.limit = gpu.allocated
    with pytest.raises(RunFailure, match=f"^out of memory with 16 images at once: try train.micro_batch={advice}"):
        training.step(*batch, running)


def test_an_evaluation_that_does_not_fit(tmp_path: Path, gpu: Gpu) -> None:
    training = made(tiny_config(), "cuda", tmp_path)
    gpu.limit = gpu.allocated
    with pytest.raises(RunFailure, match=r"^out of memory with 32 images at once: try train\.micro_batch=8"):
        training._evaluate(training.data.val)


def test_a_network_that_does_not_fit(tmp_path: Path, gpu: Gpu) -> None:
    gpu.limit = 2**16
    with pytest.raises(RunFailure, match=r"^out of memory before the first step"):
        made(tiny_config(), "cuda", tmp_path)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="started by the next test")
def test_in_triton(tmp_path: Path) -> None:
    config, data = tiny_config(), tiny_data(11, 2)
    config.train.batch_size = 2
    theirs = trained(config, "cpu", tmp_path, data)
    config.train.fast_kernels = True
    with pretend.gpu(count=2) as gpu:
        assert_same(trained(config, "cuda:1", tmp_path / "gpu", data), theirs)
    assert gpu.replays == 5 - WARM_UPS
    assert {"_forward", "_backward", "_fill"} <= {name for name, _ in gpu.launches}
    assert {device for _, device in gpu.launches} == {1}


@pytest.mark.slow
def test_kernels_in_triton_make_the_same_run() -> None:
    pytest.importorskip("triton", reason="no Triton on this system")
    command = [sys.executable, "-m", "pytest", f"{__file__}::test_in_triton"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}  # chosen when a kernel is defined
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.stdout.startswith("."), done.stdout
