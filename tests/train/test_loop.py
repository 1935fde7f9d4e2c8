import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from repro import threads
from repro.config import ColorNoise, Config, Normalization, OptimizerKind, Precision, ScheduleKind
from repro.errors import RunFailure
from repro.train import checkpoint, loop
from repro.train.evaluation import evaluate
from repro.train.loop import Progress, Training
from tests.tiny import make_training, tiny_config, tiny_data

IMAGES = 42  # in batches of 16: 16, 16, 10


def trained(config: Config, folder: Path, **callbacks: Callable[[Any], None]) -> Training:
    training = make_training(config, folder, tiny_data(IMAGES), **callbacks)
    training.run()
    return training


def largest_change(training: Training, other: Training) -> float:
    """Largest difference of a weight, over the largest change that training made to that layer."""
    start = make_training(training.config, training.folder, training.data).network.state_dict()
    states = training.network.state_dict(), other.network.state_dict()
    return max(
        ((a - b).abs().max() / (a - start[name]).abs().max()).item()
        for (name, a), b in zip(states[0].items(), states[1].values(), strict=True)
    )


def without_dropout() -> Config:
    config = tiny_config()
    config.model.dropout.rate = 0.0
    return config


def test_training_lowers_the_loss_and_the_errors(tmp_path: Path) -> None:
    warnings: list[str] = []
    config = without_dropout()
    config.train.epochs, config.train.batch_size = 10, 4
    curve = trained(config, tmp_path, on_warning=warnings.append).curve
    assert curve[-1]["train_loss"] < 0.5 < 1 < curve[0]["train_loss"]
    assert curve[-1]["train_top1"] < 20  # four classes: chance is 75
    assert curve[-1]["val_top1"] < 20
    assert not any(warning.startswith("epoch 10:") for warning in warnings)
    assert curve[-1]["events"] == ""


@pytest.mark.parametrize("micro_batch", [1, 4, 8])
def test_a_batch_in_parts_makes_the_same_update(micro_batch: int, tmp_path: Path) -> None:
    whole = trained(tiny_config(), tmp_path)
    config = tiny_config()
    config.train.micro_batch = micro_batch
    parts = trained(config, tmp_path)
    assert largest_change(whole, parts) < 1e-3
    assert parts.curve[0]["train_loss"] == pytest.approx(whole.curve[0]["train_loss"], rel=1e-5)


def test_recomputed_activations_make_the_same_update(tmp_path: Path) -> None:
    kept = trained(tiny_config(), tmp_path)
    config = tiny_config()
    config.train.checkpoint_activations = True
    recomputed = trained(config, tmp_path)
    assert recomputed.network.checkpoint_activations
    assert largest_change(kept, recomputed) < 1e-5


@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_clipping_bounds_the_norm_of_the_whole_gradient(clip_norm: float | None, tmp_path: Path) -> None:
    config = tiny_config()
    config.optimizer.clip_norm = clip_norm
    training = make_training(config, tmp_path)
    norms = []
    update = training.optimizer.step

    def step() -> None:
        gradients = [
            parameter.grad.flatten() for parameter in training.network.parameters() if parameter.grad is not None
        ]
        norms.append(torch.cat(gradients).norm().item())
        update()

    training.optimizer.step = step  # type: ignore[method-assign, assignment]
    training.run()
    assert len(norms) == 3
    assert max(norms) == pytest.approx(0.01, rel=1e-3) if clip_norm else min(norms) > 0.1


def test_bf16_trains_fp32_weights_to_about_the_same_loss(tmp_path: Path) -> None:
    config = without_dropout()
    full = trained(config, tmp_path).curve[0]
    config.train.precision = Precision.bf16
    training = trained(config, tmp_path)
    assert training.curve[0]["train_loss"] == pytest.approx(full["train_loss"], rel=0.02)
    assert training.curve[0]["train_loss"] != full["train_loss"]
    assert {parameter.dtype for parameter in training.network.parameters()} == {torch.float32}


def test_the_curve_holds_means_over_images_not_over_batches(tmp_path: Path) -> None:
    config = without_dropout()
    config.augment.random_crop = config.augment.flip = False
    config.augment.color_noise = ColorNoise.none
    config.optimizer.lr = 1e-12  # the network stands still
    training = trained(config, tmp_path)
    train, val = (
        evaluate(training.network, split, training.pixels, training.config.train)
        for split in (training.data.train, training.data.val)
    )
    row = training.curve[0]
    assert row["train_loss"] == pytest.approx(train.loss, rel=1e-5)
    assert row["train_top1"] == pytest.approx(train.top1)
    assert (row["val_loss"], row["val_top1"], row["val_top5"]) == (val.loss, val.top1, val.top5)


def test_a_row_counts_every_image_and_step(tmp_path: Path) -> None:
    seen: list[Progress] = []
    rows: list[dict[str, Any]] = []
    config = tiny_config()
    config.train.epochs = 2
    training = trained(config, tmp_path, on_progress=seen.append, on_epoch=rows.append)
    assert rows == training.curve
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 3), (2, 6)]
    assert [(at.epoch, at.step, at.steps) for at in seen] == [(0, 2, 3), (1, 2, 3)]
    assert rows[1]["minutes"] > rows[0]["minutes"] > 0
    assert rows[0]["images_per_second"] == pytest.approx(IMAGES / rows[0]["minutes"] / 60)


def test_the_curve_tells_rates_and_events(tmp_path: Path) -> None:
    config = tiny_config()
    config.train.epochs = 4
    config.optimizer.lr = 0.16  # times 16 / 128
    config.schedule.drops = [0.5]
    config.schedule.conv1_freeze_at = 0.75
    curve = trained(config, tmp_path).curve
    assert [row["lr"] for row in curve] == pytest.approx([0.02, 0.02, 0.002, 0.002])
    told = [(row["epoch"], event) for row in curve for event in row["events"].split("; ")]
    assert [(epoch, event) for epoch, event in told if event not in ("", "loss at ln(classes)")] == [
        (3, "learning rate divided by 10 (1)"),
        (4, "conv1 frozen"),
    ]


def test_a_frozen_conv1_does_not_move(tmp_path: Path) -> None:
    config = tiny_config()
    config.schedule.conv1_freeze_at = 0.0
    training = trained(config, tmp_path)
    start = make_training(config, tmp_path).network.state_dict()
    moved = {name for name, value in training.network.state_dict().items() if not torch.equal(value, start[name])}
    assert moved == {name for name in start if "conv1" not in name}


def test_plateau_watches_images_that_are_not_trained_on(tmp_path: Path) -> None:
    config = tiny_config()
    config.train.epochs = 3
    config.schedule.kind = ScheduleKind.plateau
    config.schedule.patience = 0
    config.data.minival = 0.25
    config.optimizer.lr = 1e-12  # the error stands still
    training = trained(config, tmp_path)
    assert training.steps == 2  # 32 of 42 images
    assert [row["events"] for row in training.curve][1:] == ["", "learning rate divided by 10 (1)"]


@pytest.mark.parametrize("lr", [1e6, 1e38])
def test_a_loss_that_is_not_finite_ends_the_run(lr: float, tmp_path: Path) -> None:
    config = tiny_config()
    config.train.epochs = 5
    config.optimizer.lr = lr
    training = trained(config, tmp_path)
    assert training.diverged
    assert len(training.curve) < 5
    assert training.curve[-1]["events"] == "loss not finite"
    assert "val_loss" not in training.curve[-1]


def test_a_run_that_breaks_in_its_very_last_step_has_diverged(tmp_path: Path) -> None:
    """The training loss is that of the weights before the step; only the validation shows what it did."""
    config = tiny_config()
    config.train.batch_size = IMAGES  # one step
    config.optimizer.lr = 1e30
    training = trained(config, tmp_path)
    assert math.isfinite(training.curve[0]["train_loss"])
    assert training.diverged
    assert training.curve[0]["events"] == "loss not finite"


def test_a_loss_that_has_not_moved_is_told(tmp_path: Path) -> None:
    warnings: list[str] = []
    config = tiny_config()
    config.optimizer.lr = 1e-12
    config.model.init.keep_gain = False  # every output is next to 0
    row = trained(config, tmp_path, on_warning=warnings.append).curve[0]
    assert row["train_loss"] == pytest.approx(math.log(4), rel=0.01)
    assert row["events"] == "loss at ln(classes)"
    (warning,) = warnings
    assert "epoch 1" in warning
    assert re.search(r"validation loss, 1\.\d{3}, is no better than guessing among 4 classes, 1\.386$", warning)


@pytest.mark.parametrize("kind", list(OptimizerKind))
@pytest.mark.parametrize("normalization", [Normalization.lrn, Normalization.batch_norm])
def test_a_resumed_run_ends_with_the_same_weights(
    kind: OptimizerKind, normalization: Normalization, tmp_path: Path
) -> None:
    config = tiny_config()
    config.train.epochs = 3
    config.optimizer.kind, config.model.norm.kind = kind, normalization
    config.schedule.kind, config.schedule.patience, config.data.minival = ScheduleKind.plateau, 0, 0.25
    whole = trained(config, tmp_path / "whole")

    def die(row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(config, tmp_path / "cut", on_epoch=die)
    resumed = make_training(config, tmp_path / "cut", whole.data)
    for value in resumed.network.state_dict().values():
        value.zero_()  # all of it must come from the checkpoint
    resumed.resume()
    assert len(resumed.curve) == 1
    resumed.run()
    assert without_times(resumed.curve) == without_times(whole.curve)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name


def test_a_resumed_run_computes_with_as_many_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_watch", lambda: None)
    monkeypatch.setattr(threads, "cores", lambda: 4)
    for name in threads.NUMBER_SET_BY:
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(3)
    trained(tiny_config(), tmp_path)
    torch.set_num_threads(1)
    make_training(tiny_config(), tmp_path).resume()
    taken = torch.get_num_threads()
    torch.set_num_threads(1)
    assert taken == 3


def test_a_resumed_run_that_the_user_gives_other_threads_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(threads, "_watch", lambda: None)
    torch.set_num_threads(2)
    try:
        trained(tiny_config(), tmp_path)
        torch.set_num_threads(1)
        said: list[str] = []
        resumed = make_training(tiny_config(), tmp_path)
        resumed.on_warning = said.append
        resumed.resume()  # OMP_NUM_THREADS is set: the checkpoint's number is not taken
    finally:
        torch.set_num_threads(1)
    assert resumed.threads_before == resumed.state()["threads_before"] == [2]
    (text,) = said
    assert text.startswith("it began on 2 threads and goes on on 1: the bits are no longer those of one run")


def without_times(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: row[key] for key in row if key not in ("minutes", "images_per_second")} for row in curve]


@pytest.mark.parametrize(
    ("error", "micro_batch", "advice"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), None, "train.micro_batch=12"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            12,
            "micro_batch=6",
        ),
        (MemoryError(), 3, "micro_batch=1"),
        (torch.OutOfMemoryError("CUDA out of memory."), 1, "a machine with more memory"),
    ],
)
def test_out_of_memory_names_a_batch_that_fits_into_the_batch(
    error: Exception, micro_batch: int | None, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config()
    config.train.batch_size, config.train.micro_batch = 24, micro_batch
    training = make_training(config, tmp_path)

    def forward(*_: object) -> None:
        raise error

    monkeypatch.setattr(training.network, "forward", forward)
    with pytest.raises(RunFailure, match="out of memory") as failure:
        training.run()
    assert advice in str(failure.value)


def test_the_size_to_try_divides_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config()
    config.train.batch_size, config.train.micro_batch = 25, 25
    training = make_training(config, tmp_path)

    def forward(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(training.network, "forward", forward)
    with pytest.raises(RunFailure, match=r"train\.micro_batch=5 "):
        training.run()


@pytest.mark.parametrize("text", ["CUDA error: an illegal memory access was encountered", "mat1 and mat2 differ"])
def test_other_errors_are_passed_on_as_they_are(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(tiny_config(), tmp_path)

    def forward(*_: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(training.network, "forward", forward)
    with pytest.raises(RuntimeError, match=text) as error:
        training.run()
    assert error.value.__cause__ is None


@pytest.mark.parametrize(("limit", "saves"), [(2**24, 3), (0, 1)], ids=["small", "large"])
def test_a_large_checkpoint_is_made_as_often_as_its_time_allows(
    limit: int, saves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    save = checkpoint.save

    def counting(folder: Path, state: dict[str, Any]) -> None:
        made.append(len(state["curve"]))
        save(folder, state)

    monkeypatch.setattr(checkpoint, "save", counting)
    monkeypatch.setattr(loop, "SMALL_CHECKPOINT", limit)
    monkeypatch.setattr(loop, "SAVING_SHARE", 1e-6)  # a million times as long until the next
    config = tiny_config()
    config.train.epochs = 3
    training = trained(config, tmp_path)
    assert made == [1, 2, 3][:saves]
    assert training.saved == saves
