import math
from pathlib import Path

from tests.report.arms import arm, compared, curve


def test_a_run_that_learned_late_is_told(tmp_path: Path) -> None:
    stalled = [math.log(10)] * 4 + [1.0] * 4
    curves = {"no_dropout": [curve("val_loss", stalled), curve("val_loss", stalled[::-1][:4] + [0.9] * 4)]}
    (part,) = compared(tmp_path, *arm("baseline", [25.0, 26.0]), *arm("no_dropout", [70.0, 27.0]), curves=curves)
    (changed,) = [arm for arm in part.arms if arm.name == "no_dropout"]
    assert part.notes(changed) == ["learned late: the loss stayed that of guessing in epochs: 4 of 8 (seed 0)"]
