import math

import pytest

from repro.config import Config, ScheduleKind
from repro.train.schedule import Schedule

STEPS = 91


def schedule(kind: ScheduleKind = ScheduleKind.step, **changes: object) -> Schedule:
    config = Config()
    config.schedule.kind = kind
    for key, value in changes.items():
        setattr(config.schedule, key, value)
    return Schedule(config, STEPS)


def test_step_divides_the_rate_at_its_shares_of_the_run() -> None:
    plan = schedule()  # drops at 25, 51 and 79 of 91
    for step, divisions in ((0, 0), (24, 0), (25, 1), (50, 1), (51, 2), (78, 2), (79, 3), (90, 3)):
        assert plan.lr(step) == pytest.approx(0.01 / 10**divisions)


def test_cosine_falls_from_the_whole_rate_to_almost_nothing() -> None:
    plan = schedule(ScheduleKind.cosine)
    rates = [plan.lr(step) for step in range(STEPS)]
    assert rates[0] == 0.01
    assert rates[45] == pytest.approx(0.005 * (1 + math.cos(math.pi * 45 / 91)))
    assert 0 < rates[-1] < 1e-5
    assert rates == sorted(rates, reverse=True)


def test_warm_up_rises_linearly_to_the_rate() -> None:
    plan = schedule(drops=[0.5])
    plan.config.optimizer.warmup_steps = 4
    assert [plan.lr(step) for step in range(5)] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])
    assert plan.lr(46) == pytest.approx(0.001)


def test_the_rate_scales_with_the_batch() -> None:
    plan = schedule()
    plan.config.train.batch_size = 256
    assert plan.lr(0) == pytest.approx(0.02)


def test_plateau_drops_after_more_than_patience_epochs_without_a_lower_error() -> None:
    plan = schedule(ScheduleKind.plateau, patience=2, max_drops=2)
    rates = []
    for error in (50, 40, 40, 45, 41, 39, 39, 39, 39, 39, 39, 39, 39, 39):
        plan.observe(error)
        rates.append(round(plan.lr(0) / 0.01, 6))
    # 40 is not beaten three times; 39 is; then only the drop that is left
    assert rates == [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01]


def groups() -> list[dict[str, object]]:
    return [
        {"layer": "conv1", "bias": False, "lr_factor": 1.0},
        {"layer": "conv1", "bias": True, "lr_factor": 2.0},
        {"layer": "conv2", "bias": False, "lr_factor": 1.0},
        {"layer": "conv2", "bias": True, "lr_factor": 2.0},
    ]


@pytest.mark.parametrize(("step", "conv1"), [(1, 1.0), (2, 0.1), (5, 0.1), (6, 0.0), (7, 0.0)])
def test_conv1_is_lowered_then_frozen(step: int, conv1: float) -> None:
    plan = schedule(drops=[], conv1_lower_at=0.25, conv1_freeze_at=0.75)
    plan.steps = 8
    parameter_groups = groups()
    plan.set_rates(parameter_groups, step)
    assert [group["lr"] for group in parameter_groups] == pytest.approx([0.01 * conv1, 0.02 * conv1, 0.01, 0.02])


def test_drops_may_leave_the_biases_out_and_warm_up_does_not() -> None:
    with_biases, without = schedule(), schedule(drop_biases=False)
    for step in range(STEPS):
        rates = []
        for plan in (with_biases, without):
            plan.config.optimizer.warmup_steps = 4
            parameter_groups = groups()
            plan.set_rates(parameter_groups, step)
            rates.append([group["lr"] for group in parameter_groups])
        drops = 10 ** with_biases._drops(step)
        assert rates[1] == pytest.approx(
            [rate * (drops if group["bias"] else 1) for rate, group in zip(rates[0], groups(), strict=True)]
        )


def test_every_event_is_told_once() -> None:
    plan = schedule(drops=[0.5, 0.75], conv1_lower_at=0.25, conv1_freeze_at=0.75)
    plan.steps = 8
    plan.config.augment.color_noise_off_at = 0.5
    told = {step: news for step in range(8) if (news := plan.events(step))}
    assert told == {
        2: ["conv1's learning rate lowered"],
        4: ["colour noise off", "learning rate divided by 10 (1)"],
        6: ["conv1 frozen", "learning rate divided by 10 (2)"],
    }


def test_state_goes_through_a_checkpoint() -> None:
    plan = schedule(ScheduleKind.plateau, patience=0)
    for error in (50, 60, 40):
        plan.observe(error)
    plan.events(0)
    other = schedule(ScheduleKind.plateau, patience=0)
    other.restore(plan.state())
    assert other == plan
    assert other.drops == 1
    assert other.events(0) == []
    other.observe(39)  # beats 40, which only the restored state knows
    assert other.drops == 1
    other.observe(39)
    assert other.drops == 2
