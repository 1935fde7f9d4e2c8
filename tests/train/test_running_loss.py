import math
import warnings
from pathlib import Path

import pytest
import torch

from repro.train import loop
from repro.train.loop import Progress
from repro.train.running_loss import RunningLoss
from tests.tiny import make_training, tiny_config, tiny_data


def test_a_look_keeps_what_the_sums_were() -> None:
    running = RunningLoss.on(torch.device("cpu"))
    running.add(torch.tensor(6.0), torch.tensor(1))
    running.images = 4
    snapshot = running.snapshot()
    running.add(torch.tensor(math.nan), torch.tensor(1))
    running.images = 8
    assert snapshot.means() == (1.5, 25.0)


@pytest.mark.parametrize("lr", [0.01, 1e38])
def test_a_look_at_a_gpu_is_read_after_the_next_one_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lr: float
) -> None:
    monkeypatch.setattr(loop, "REPORT_STEPS", 1)
    monkeypatch.setitem(loop.SNAPSHOTS_BEHIND, "cpu", loop.SNAPSHOTS_BEHIND["cuda"])
    config, seen, when = tiny_config(), list[Progress](), list[int]()
    config.train.epochs, config.optimizer.lr = 1, lr
    training = make_training(config, tmp_path, tiny_data(42 + 32), on_progress=seen.append)
    step = training.step

    def counting(*batch: object) -> None:
        when.append(len(seen))
        step(*batch)  # type: ignore[arg-type]

    training.step = counting  # type: ignore[assignment]
    training.run()
    assert when == [0, 0, 1, 2, 3][: len(when)]
    told = len([progress for progress in seen if math.isfinite(progress.loss)])
    assert [progress.step for progress in seen] == list(range(5 if lr < 1 else told + 1))
    assert training.diverged is (lr > 1)


@pytest.mark.cuda
def test_on_a_gpu_a_look_waits_for_nothing() -> None:
    running = RunningLoss.on(torch.device("cuda"))
    running.images = 1
    running.snapshot().means()  # what is made at the first use may wait
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")  # which warns, too, that it is a prototype
        try:
            snapshot = running.snapshot()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert [warning for warning in told if "called a synchronizing" in str(warning.message)] == []
    assert snapshot.means() == (0.0, 0.0)
