"""Every part that a GPU measures, on a tiny net: on a pretended device, and on a real one where there is one."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

import tests.pretend as pretend
from repro import bench
from repro.benchmarks import gpu_inputs, lrn, plain_pytorch, throughput, training_steps, whole_runs
from repro.benchmarks.targets import CUDA, targets
from repro.config import Config, Precision
from repro.experiments.compose import compose
from repro.profiling import ceilings

SMALL = ("model.scale=0.0625", "data.image_size=72", "data.crop=64")
pytestmark = pytest.mark.usefixtures("one_thread", "short")


@pytest.fixture(params=["pretended", pytest.param("real", marks=pytest.mark.cuda)])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[pretend.Gpu | None]:
    """The pretended one computes on the CPU, which has neither Triton nor PyTorch's normalisation in bf16."""
    if request.param == "pretended":
        monkeypatch.setattr(lrn, "response_norm", lambda config: nn.Identity())
        monkeypatch.setattr(plain_pytorch, "response_norm", lambda config: nn.Identity())
    with pretend.gpu() if request.param == "pretended" else nullcontext() as machine:
        yield machine


def small_configuration(batch: int, precision: Precision = Precision.fp32, *words: str) -> Config:
    own = [f"train.batch_size={batch}", f"train.precision={precision.name}", "optimizer.lr=1e-6"]
    return compose(["setup=ilsvrc2012", *own, *SMALL, "train.fast_kernels=false", *words])


def small_alexnet(num_classes: int) -> nn.Module:
    pooled = nn.Sequential(nn.Conv2d(3, 8, 11, stride=4), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(pooled, nn.Linear(32, num_classes))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds each, of as little as there can be."""
    monkeypatch.setattr(training_steps, "configuration", small_configuration)
    monkeypatch.setattr("torchvision.models.alexnet", small_alexnet)
    monkeypatch.setattr(lrn, "SIDE", 5)
    for part in (lrn, training_steps):
        monkeypatch.setattr(part, "BATCH", {CUDA: 4})
        monkeypatch.setattr(part, "ROUNDS", {CUDA: 2})
        monkeypatch.setattr(part, "LEAST_SECONDS", {CUDA: 0.0})
    for part in (gpu_inputs, throughput):
        monkeypatch.setattr(part, "ROUNDS", 2)
    monkeypatch.setattr(throughput, "BATCHES", {CUDA: (4, 6)})
    for name, value in {"IMAGES": 8, "STEPS": 6, "EPOCHS": 3, "EVALUATED": 10}.items():
        monkeypatch.setattr(whole_runs, name, value)
    for name, value in {"FIRST_BATCHES": 2, "BATCHES": 9, "COPIED": 2**16, "LEAST_SECONDS": 0.0}.items():
        monkeypatch.setattr(gpu_inputs, name, value)
    monkeypatch.setattr(ceilings, "COPIED", {CUDA: 2**16})
    monkeypatch.setattr(ceilings, "SIDE", {CUDA: 64})


@pytest.mark.parametrize("part", bench.PARTS[CUDA])
def test_a_part_measures_all_that_its_targets_ask_for(part: str, gpu: pretend.Gpu | None, capsys: Any) -> None:
    done, failed = bench.measure(part, CUDA)
    assert failed == {}
    assert len(done.rows) == len(targets(CUDA, part))
    for row in done.rows:
        assert row.ours is not None
        assert row.ours > 0
        assert row.peer_name is None or row.ratio is not None
    assert done.note
    assert done.machine.device_type == CUDA
    assert "images/s" in capsys.readouterr().err  # each candidate is told as it is measured


def test_the_table_has_a_row_a_batch(gpu: pretend.Gpu | None) -> None:
    done, _ = bench.measure("throughput", CUDA)
    assert [row["batch"] for row in done.table] == [4, 6]


def test_what_is_timed_waits_for_nothing(gpu: pretend.Gpu | None) -> None:
    if gpu is None:
        pytest.skip("a real device does not tell")
    step = training_steps.ours(small_configuration(4, Precision.bf16), torch.device(CUDA))
    for _ in range(5):
        step()
    before = len(gpu.waits)
    step()
    assert gpu.waits[before:] == []


def test_a_candidate_that_fails_does_not_stop_the_others(gpu: pretend.Gpu | None, monkeypatch: Any) -> None:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError("no kernel image\nis available")

    config = small_configuration(4, Precision.bf16)
    names = ("ours, bf16", "plain PyTorch, fp32", "torchvision's alexnet, bf16", "ours, tf32")
    makers = dict(zip(names, (training_steps.ours, training_steps.plain, broken, training_steps.ours), strict=True))
    candidates = {name: (maker, config) for name, maker in makers.items()}
    monkeypatch.setattr(training_steps, "_on_gpu", lambda batch: candidates)
    wanted = [target for target in targets(CUDA, "step") if {target.ours, target.peer} <= set(names)]
    monkeypatch.setattr(bench, "targets", lambda kind, part: wanted)
    done, failed = bench.measure("step", CUDA)
    (candidate,) = failed
    assert candidate == "torchvision's alexnet, bf16"
    assert failed[candidate].startswith("no kernel image (test_on_gpu.py:")
    rows = {row.name: row for row in done.rows}
    assert rows["step over torchvision's, bf16"].reason == failed[candidate]
    assert rows["training step, bf16"].ratio is not None
