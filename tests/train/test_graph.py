from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from repro.config import Config
from repro.data.resident import resident
from repro.errors import RunFailure
from repro.train import graph
from repro.train.loop import Training
from tests.tiny import IDENTITY, make_training, tiny_config, tiny_data

IMAGES = 42  # in batches of 16: 16, 16, 10


def recorded_config() -> Config:
    config = tiny_config()
    config.train.epochs, config.train.cuda_graph = 2, True
    return config


class OnHost:
    """Stands for a GPU's graphs: like these it writes what a replay finds where the recorded pass wrote it."""

    replays = 0

    def __init__(self, training: Training) -> None:
        self.parameters = list(training.network.parameters())

    def gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        for _ in range(graph.WARM_UPS):
            run()
        recorded = self.gradients()

        def replay() -> None:
            self.replays += 1
            run()
            for there, gradient in zip(recorded, self.gradients(), strict=True):
                there.copy_(gradient)

        return replay


def test_replayed_passes_make_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout masks, the smaller batch that ends an epoch, and a layer that is frozen half-way included."""
    runs = []
    for cuda_graph in (False, True):
        config = recorded_config()
        config.train.cuda_graph, config.schedule.conv1_freeze_at = cuda_graph, 0.7
        training = make_training(config, tmp_path / str(cuda_graph), tiny_data(IMAGES))
        host = OnHost(training)
        monkeypatch.setattr(graph, "record", host.record)
        training.run()
        assert host.replays == (4 if cuda_graph else 0)
        runs.append(training)
    one_by_one, replayed = runs
    for (name, ours), theirs in zip(
        replayed.network.state_dict().items(), one_by_one.network.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    timing = {"minutes", "images_per_second"}
    for ours, theirs in zip(replayed.curve, one_by_one.curve, strict=True):
        assert {key: ours[key] for key in ours.keys() - timing} == {key: theirs[key] for key in theirs.keys() - timing}


class Refusing:
    """A recording that meets something which waits for the device."""

    def __init__(self, graph: object) -> None: ...

    def __enter__(self) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might ...")

    def __exit__(self, *_: object) -> None: ...


class Stream:
    def wait_stream(self, stream: "Stream") -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_what_cannot_be_recorded_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    for name, value in {"Stream": Stream, "current_stream": Stream, "CUDAGraph": Stream, "graph": Refusing}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    with pytest.raises(
        RunFailure, match=r"\(operation not permitted when stream is capturing\): leave train"
    ) as caught:
        graph.record(lambda: runs.append(1))
    assert "\n" not in str(caught.value)
    assert len(runs) == graph.WARM_UPS


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_replayed_passes_make_the_same_run(tmp_path: Path) -> None:
    runs = []
    for cuda_graph in (False, True):
        config, device = recorded_config(), torch.device("cuda")
        config.train.cuda_graph, config.train.compile = cuda_graph, True
        start = make_training(config, tmp_path / str(cuda_graph), tiny_data(IMAGES))
        data = resident(start.data, device)
        training = Training(config, start.network, data, device, start.folder, IDENTITY | {"device": "cuda"})
        training.run()
        runs.append(training)
    for ours, theirs in zip(runs[1].network.parameters(), runs[0].network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert runs[1].curve[-1]["train_loss"] == pytest.approx(runs[0].curve[-1]["train_loss"], rel=1e-5)
