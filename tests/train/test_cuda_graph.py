"""A recorded step; `tests/test_pretended_gpu.py` has whole runs of it on a GPU that is not there."""

from pathlib import Path
from typing import Any

import pytest
import torch

from repro.config import OptimizerKind
from repro.data.on_gpu import resident
from repro.errors import RunFailure
from repro.train import cuda_graph
from repro.train.loop import Training
from tests.tiny import IDENTITY, make_training, tiny_config, tiny_data

IMAGES = 90  # in batches of 16: five whole ones and ten images


class Refusing:
    """A recording that meets something which waits for the device."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might ...")

    def __exit__(self, *_: object) -> None: ...


def test_what_cannot_be_recorded_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", Refusing)
    told = r"\(operation not permitted when stream is capturing\): set train.cuda_graph=false$"
    with pytest.raises(RunFailure, match=told):
        cuda_graph.record(lambda: None)


def test_the_rates_of_a_recorded_update_are_read_from_memory() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([{"params": [weight], "lr": 0.5}])
    rates = cuda_graph.Rates(optimizer, torch.device("cpu"))
    with rates.in_groups():
        recorded = optimizer.param_groups[0]["lr"]
    assert optimizer.param_groups[0]["lr"] == recorded == 0.5
    optimizer.param_groups[0]["lr"] = 0.25
    assert recorded == 0.5
    rates.write()
    assert recorded == 0.25


VARIANTS: dict[str, dict[str, Any]] = {
    "late events": {"schedule.conv1_freeze_at": 0.7, "schedule.drops": [0.4], "augment.color_noise_off_at": 0.5},
    "clipped": {"optimizer.clip_norm": 1.0},
    "adam": {"optimizer.kind": OptimizerKind.adam, "optimizer.lr": 1e-3},
    "torch_sgd": {"optimizer.kind": OptimizerKind.torch_sgd, "schedule.drops": [0.4]},
}


def run_on_gpu(folder: Path, changes: dict[str, Any]) -> Training:
    config, device = tiny_config(), torch.device("cuda:0")
    config.train.epochs, config.train.fast_kernels = 2, True
    for key, value in changes.items():
        part, name = key.split(".")
        setattr(getattr(config, part), name, value)
    start = make_training(config, folder, tiny_data(IMAGES))
    data = resident(start.data, device)
    training = Training(config, start.network, data, device, start.folder, IDENTITY | {"device": "cuda"})
    training.run()
    return training


@pytest.mark.cuda
@pytest.mark.parametrize("variant", VARIANTS)
def test_on_a_gpu_replayed_steps_make_the_same_run(variant: str, tmp_path: Path) -> None:
    one_by_one, replayed = (
        run_on_gpu(tmp_path / str(recorded), VARIANTS[variant] | {"train.cuda_graph": recorded})
        for recorded in (False, True)
    )
    assert replayed.step.recorded is not None
    assert one_by_one.step.recorded is None
    for ours, theirs in zip(replayed.network.parameters(), one_by_one.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert replayed.curve[-1]["train_loss"] == pytest.approx(one_by_one.curve[-1]["train_loss"], rel=1e-5)


@pytest.mark.cuda
def test_on_a_gpu_the_same_run_twice_leaves_the_same_bits(tmp_path: Path) -> None:
    first, second = (run_on_gpu(tmp_path / name, {}) for name in ("first", "second"))
    for ours, theirs in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
