import pytest

from repro.evidence.claimed_arithmetic import CHECKS
from repro.evidence.claims import load

ANSWERS = {
    "C1": (True, "60,965,224; the one-GPU net 59,798,312, 98.1 % of them"),
    "C2": (True, "659,272; the layers in the caption of figure 2 sum to 622,312 (C3)"),
    "C3": (False, "conv1 has 55 x 55 x 96 = 290,400; the other 8 numbers agree"),
    "C4": (False, "conv1 0.06 %, conv2 0.50 %, conv3 1.45 %, conv4 1.09 %, conv5 0.73 %"),
    "C6": (False, "224 pixels of 256: 33 x 33 x 2 = 2,178"),
    "C20": (True, "0.0 and 0.1 points between the printed errors, two pairs in all"),
    "C25": (True, "`recipe=paper` takes these steps; at a drop to a tenth the first is 9.1 times torch.optim.SGD's"),
}
OTHER_NUMBERS: dict[str, dict[str, float]] = {
    "C1": {"parameters": 62_000_000},
    "C2": {"neurons": 620_000},
    "C3": {"conv1": 290_400},
    "C4": {"share": 2},
    "C6": {"views": 2_178},
    "C20": {"five_test": 16.6},
}


@pytest.mark.parametrize("name", ANSWERS)
def test_computed_at_every_run(name: str) -> None:
    claim = load()[name]
    (check,) = claim.checks
    assert CHECKS[check](claim.values) == ANSWERS[name]


@pytest.mark.parametrize("name", OTHER_NUMBERS)
def test_another_printed_number_turns_the_answer_round(name: str) -> None:
    claim = load()[name]
    right, _ = CHECKS[claim.checks[0]](claim.values | OTHER_NUMBERS[name])
    assert right is not ANSWERS[name][0]


def test_the_update_is_compared_with_the_optimizer_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from repro.train import optimizer

    monkeypatch.setattr(optimizer, "PaperSGD", lambda groups, momentum: torch.optim.SGD(groups, momentum=momentum))
    right, text = CHECKS["update_rule"](load()["C25"].values)
    assert not right
    assert "1.0 times" in text
