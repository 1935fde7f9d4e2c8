"""The authors' recipe against a rewrite of their update in a few lines of numpy, across every event of a run."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from repro.config import Config
from repro.experiments.compose import compose
from repro.train.loop import Training
from repro.train.schedule import Schedule
from tests.tiny import WORDS, make_training, tiny_data

EPOCHS: dict[str, Any] = {"drops": (25, 51, 79), "conv1_lowered": 67, "conv1_frozen": 72}  # layer-params-145.cfg, of 91


class Recorded(Training):
    """Keeps each step's gradients."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gradients: dict[str, list[np.ndarray]] = defaultdict(list)
        self.start = self.weights()
        self.optimizer.register_step_pre_hook(lambda *_: self.keep())

    def keep(self) -> None:
        for name, parameter in self.network.named_parameters():
            frozen = "conv1" in name and len(self.gradients[name]) >= EPOCHS["conv1_frozen"]
            assert (parameter.grad is None) == frozen
            gradient = np.zeros(parameter.shape) if parameter.grad is None else parameter.grad.numpy()
            self.gradients[name].append(gradient.astype(np.float64))

    def weights(self) -> dict[str, np.ndarray]:
        named = self.network.named_parameters()
        return {name: parameter.detach().numpy().astype(np.float64) for name, parameter in named}


def authors_rule(name: str, w: np.ndarray, gradients: list[np.ndarray], rate: float) -> np.ndarray:
    """weights.cu:146-197, one update an epoch; `rate` is epsW at the start. A matrix with rate 0 stays as it is."""
    conv1, bias = "conv1" in name, name.endswith("bias")
    inc = np.zeros_like(w)
    for epoch, g in enumerate(gradients):
        eps = rate * 0.1 ** sum(epoch >= drop for drop in EPOCHS["drops"])
        eps *= 2 if bias else 1
        eps *= 0.1 if conv1 and epoch >= EPOCHS["conv1_lowered"] else 1
        if conv1 and epoch >= EPOCHS["conv1_frozen"]:
            continue
        inc = 0.9 * inc - eps * g
        inc -= 0 if bias else 0.0005 * eps * w
        w = w + inc
    return w


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """91 epochs of one batch each."""
    words = [word for word in WORDS if not word.startswith("train.epochs")]
    config = compose(["recipe=source", *words])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.tiny.Training", Recorded)
        training = make_training(config, tmp_path_factory.mktemp("run"), tiny_data(train=16))
    assert isinstance(training, Recorded)
    training.run()
    return training


def distance(run: Recorded, name: str) -> float:
    """Largest difference from the authors' rule, in units of what rounding to fp32 in each step can make."""
    expected = authors_rule(name, run.start[name], run.gradients[name], 0.01 * 16 / 128)
    moved = np.abs(expected - run.start[name]).max()
    assert moved > 0, name
    rounding = 91 * 2**-24 * np.abs(expected).max() + 1e-4 * moved
    return float(np.abs(run.weights()[name] - expected).max() / rounding)


def test_the_weights_follow_the_authors_rule_across_every_event(run: Recorded) -> None:
    assert run.config.train.epochs == 91
    assert {len(gradients) for gradients in run.gradients.values()} == {91}
    assert {name: distance(run, name) for name in run.start if distance(run, name) > 1} == {}


@pytest.mark.parametrize(
    ("event", "without", "name"),
    [
        ("drops", (25, 999, 79), "classifier.fc8.weight"),
        ("conv1_lowered", 999, "features.conv1.weight"),
        ("conv1_frozen", 999, "features.conv1.weight"),
    ],
)
def test_the_comparison_would_notice_a_missing_event(
    run: Recorded, event: str, without: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EPOCHS, event, without)
    assert distance(run, name) > 1


def test_the_curve_tells_each_event_in_its_epoch(run: Recorded) -> None:
    told = {row["epoch"]: row["events"] for row in run.curve if row["events"] not in ("", "loss at ln(classes)")}
    events = {epoch: text.removesuffix("; loss at ln(classes)") for epoch, text in told.items()}
    assert events == {
        26: "learning rate divided by 10 (1)",
        52: "learning rate divided by 10 (2)",
        68: "conv1's learning rate lowered; colour noise off",
        73: "conv1 frozen",
        80: "learning rate divided by 10 (3)",
    }


@pytest.mark.parametrize(
    ("setup", "steps", "epochs", "log"),
    [
        ("ilsvrc2012", 10_010, 91, {25: 1, 51: 1, 67: 2, 72: 1, 79: 1}),  # layer-params-145.cfg
        ("ilsvrc2010", 9_855, 93, {23: 1, 51: 1, 68: 2, 72: 1, 78: 1}),  # layer-params-145-2010.cfg
    ],
)
def test_the_paper_setups_follow_the_authors_log_to_the_step(
    setup: str, steps: int, epochs: int, log: dict[int, int]
) -> None:
    config = compose(["recipe=source", f"setup={setup}"])
    assert config.train.epochs == epochs
    schedule = Schedule(config, steps * epochs)
    near = [epoch * steps + offset for epoch in log for offset in (-1, 0)]
    assert {step / steps: len(news) for step in near if (news := schedule.events(step))} == log


@pytest.mark.parametrize(("drop_biases", "bias_rate"), [(True, 2e-5), (False, 0.02)])
def test_the_rate_of_biases_can_stay(drop_biases: bool, bias_rate: float) -> None:
    config = Config()
    config.optimizer.bias_lr_factor, config.schedule.drop_biases = 2.0, drop_biases
    groups = [{"layer": "fc8", "bias": bias, "lr_factor": 2.0 if bias else 1.0} for bias in (False, True)]
    Schedule(config, 91).set_rates(groups, 90)
    assert [group["lr"] for group in groups] == pytest.approx([1e-5, bias_rate])
