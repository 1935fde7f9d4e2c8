from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from repro.config import Config
from repro.evidence import claimed_errors
from repro.evidence.claims import load
from repro.evidence.comparison import Comparison
from repro.experiments.naming import settings
from repro.experiments.registry import named_keys
from repro.report.claims_page import evidence, text
from repro.report.claims_page import verdict as told
from tests.report.arms import arm, compared, of_net

C = load()
BASELINE = [25.0, 26.0, 24.0]
ORDER = {"tanh": 9.0, "one_gpu_half": 4.0, "no_lrn": 2.0, "nonoverlapping_pool": 1.0}
PLAIN = settings(Config())


def changes_of(name: str) -> dict[str, Any]:
    """The difference that an ablation makes to the records' configuration."""
    return {key: [PLAIN[key], value] for key, value in named_keys(name).items() if PLAIN[key] != value}


def shifted(name: str, *shifts: float) -> Any:
    """An arm worse than the baseline by these points, seed by seed."""
    errors = [error + shift for error, shift in zip(BASELINE, shifts, strict=False)]
    return arm(name, errors, difference=changes_of(name))


@pytest.mark.parametrize(
    ("shifts", "words", "verdict"),
    [
        ([1.2, 1.4, 1.6], "+1.40 [+0.90, +1.90] points, n=3", "holds"),
        ([3.2, 3.4, 3.6], "+3.40 [+2.90, +3.90] points, n=3", "holds in direction"),
        ([-1.2, -1.4, -1.6], "-1.40 [-1.90, -0.90] points, n=3", "does not hold"),
        ([-1.0, 1.4, 3.0], "+1.13 [-3.87, +6.13] points, n=3", "not distinguishable, n=3"),
        ([1.4], "+1.40 points, n=1; seeds 1, 2 missing here", "not distinguishable, n=1"),
    ],
)
def test_an_effect_against_the_published_one(shifts: Sequence[float], words: str, verdict: str, tmp_path: Path) -> None:
    parts = compared(tmp_path, *arm("baseline", BASELINE), *shifted("no_lrn", *shifts))
    top1, top5 = claimed_errors.effects(C["C8"], parts)
    assert text(top1) == f"`no_lrn`, top-1: {words}"
    assert told(top1) == verdict
    assert evidence(top1) == "[table](imagenette_small-paper-cpu.md)"
    assert text(top5).startswith("`no_lrn`, top-5: ")


def test_an_ingredient_that_is_added_speaks_for_itself_where_the_error_falls(tmp_path: Path) -> None:
    without = {"model.norm.kind": "none"}
    errors = [error - shift for error, shift in zip(BASELINE, (1.2, 1.4, 1.6), strict=True)]
    added = arm("add_lrn", errors, difference={"model.norm.kind": ["none", "lrn"]})
    (found,) = claimed_errors.effects(C["C9"], compared(tmp_path, *arm("baseline", BASELINE, keys=without), *added))
    assert text(found) == "`add_lrn`, top-1: +1.40 [+0.90, +1.90] points, n=3"
    assert told(found) == "holds"


def test_top5_is_compared_with_the_published_top5(tmp_path: Path) -> None:
    """The synthetic top-5 error is a fifth of the top-1 error."""
    parts = compared(tmp_path, *arm("baseline", BASELINE), *shifted("no_lrn", 5.6, 5.76, 5.9))
    top1, top5 = claimed_errors.effects(C["C8"], parts)
    assert (told(top1), told(top5)) == ("holds in direction", "holds")


def test_setups_recipes_and_devices_have_findings_of_their_own(tmp_path: Path) -> None:
    runs = [*arm("baseline", BASELINE), *shifted("no_lrn", 1.2, 1.4, 1.6)]
    for key, value in (("recipe", "source"), ("setup", "imagenette")):
        runs += arm("baseline", BASELINE, **{key: value}) + arm("no_lrn", [26.2, 27.4, 25.6], **{key: value})
    found = claimed_errors.effects(C["C8"], compared(tmp_path, *runs))
    places = {(finding.part.setup, finding.part.recipe) for finding in found if finding.part}
    assert places == {("imagenette_small", "paper"), ("imagenette_small", "source"), ("imagenette", "paper")}
    assert len(found) == 2 * 3


def importance(tmp_path: Path, names: Sequence[str] = tuple(ORDER), **sizes: Sequence[float]) -> Any:
    runs = [run for name in names for run in shifted(name, *sizes.get(name, [ORDER[name]] * 3))]
    (found,) = claimed_errors.order_of_importance(C["C26"], compared(tmp_path, *arm("baseline", BASELINE), *runs))
    return found


def test_the_order_of_importance_holds(tmp_path: Path) -> None:
    found = importance(tmp_path)
    assert told(found) == "holds"
    assert text(found) == (
        "effects on top-1: 3.1 `tanh` +9.00 [+9.00, +9.00] points, n=3;"
        " 3.2 `one_gpu_half` +4.00 [+4.00, +4.00] points, n=3;"
        " 3.3 `no_lrn` +2.00 [+2.00, +2.00] points, n=3;"
        " 3.4 `nonoverlapping_pool` +1.00 [+1.00, +1.00] points, n=3"
    )


def test_one_clear_step_the_other_way_round_breaks_the_order(tmp_path: Path) -> None:
    assert told(importance(tmp_path, no_lrn=[5.0, 5.1, 5.2])) == "does not hold"


def test_an_unclear_step_leaves_the_order_open(tmp_path: Path) -> None:
    assert told(importance(tmp_path, no_lrn=[0.5, 1.5, 4.0])) == "not distinguishable, n=3"
    assert told(importance(tmp_path / "one", no_lrn=[2.0])) == "not distinguishable, n=1"


def test_the_order_needs_all_four_sections(tmp_path: Path) -> None:
    found = importance(tmp_path, ["tanh", "no_lrn"])
    assert told(found) == "not run here"
    assert "3.2 `one_gpu_half` not run" in text(found)
    assert claimed_errors.order_of_importance(C["C26"], compared(tmp_path / "b", *arm("baseline", BASELINE))) == []


def test_sigmoid_stands_in_for_tanh(tmp_path: Path) -> None:
    runs = [run for name in list(ORDER)[1:] for run in shifted(name, *[ORDER[name]] * 3)]
    parts = compared(tmp_path, *arm("baseline", BASELINE), *runs, *arm("sigmoid", [90.0, 90.0, 90.5]))
    (found,) = claimed_errors.order_of_importance(C["C26"], parts)
    assert "3.1 `sigmoid` +65" in text(found)
    assert told(found) == "holds"


def test_the_order_is_that_of_the_claim() -> None:
    assert [name for names in claimed_errors.SECTIONS.values() for name in names] == C["C26"].ablations


def cifar(setup: str, errors: Sequence[float], local3: int = 64, **changed: Any) -> Any:
    runs = of_net("cifar_local", *arm("baseline", errors, setup=setup, **changed))
    for run in runs:
        run.config["model"]["sizes"]["local3"] = local3
        run.config["model"]["norm"]["kind"] = "lrn" if setup == "cifar10" else "none"
    return runs


def test_the_authors_pair_of_cifar_nets_is_compared_across_setups(tmp_path: Path) -> None:
    normed, plain = cifar("cifar10", [11.0, 11.2, 11.1]), cifar("cifar10_13pct", [13.0, 13.1, 13.2], local3=32)
    (found,) = claimed_errors.cifar_pair(C["C9"], compared(tmp_path, *normed, *plain))
    assert text(found) == "`cifar10_13pct`, top-1, against this setup's net: +2.00 [+1.75, +2.25] points, n=3"
    assert told(found) == "holds"
    assert evidence(found) == "[table](cifar10-paper-cpu.md), [table](cifar10_13pct-paper-cpu.md)"


@pytest.mark.parametrize(
    "changed", [{"epochs": 7}, {"device": "other"}, {"content_hash": "beef" * 16}, {"recipe": "source"}]
)
def test_the_pair_is_not_compared_where_more_differs(changed: dict[str, Any], tmp_path: Path) -> None:
    parts = compared(tmp_path, *cifar("cifar10", [11.0]), *cifar("cifar10_13pct", [13.0], local3=32, **changed))
    (found,) = claimed_errors.cifar_pair(C["C9"], parts)
    assert told(found) == "not run here"
    assert text(found) == "needs runs of `cifar10_13pct` too, the authors' net without norm"


def full_net(tmp_path: Path, errors: Sequence[float]) -> list[tuple[str, str]]:
    parts: list[Comparison] = compared(tmp_path, *arm("baseline", errors, setup="ilsvrc2010"))
    return [(text(finding), told(finding)) for finding in claimed_errors.errors_of_the_full_net(C["C18"], parts)]


def test_the_full_nets_errors_for_both_crop_modes(tmp_path: Path) -> None:
    """The synthetic centre error is 2 above that of ten crops."""
    found = full_net(tmp_path, [37.4, 37.5, 37.5])
    assert [words.partition(":")[0] for words, _ in found] == [
        "ten crops, top-1", "ten crops, top-5", "centre crop, top-1", "centre crop, top-5",
    ]  # fmt: skip
    assert found[0] == ("ten crops, top-1: 37.47 [37.32, 37.61] %, n=3", "holds")
    assert [verdict for _, verdict in found[1:]] == ["holds in direction", "does not hold", "holds in direction"]


def test_one_run_of_the_full_net_is_no_verdict(tmp_path: Path) -> None:
    assert {verdict for _, verdict in full_net(tmp_path, [37.4727])} == {"not distinguishable, n=1"}


def test_the_full_net_is_not_another_setup(tmp_path: Path) -> None:
    assert claimed_errors.errors_of_the_full_net(C["C18"], compared(tmp_path, *arm("baseline", BASELINE))) == []
