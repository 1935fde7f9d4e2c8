import math
import re
from pathlib import Path

import pytest

from repro.errors import UserError
from repro.evidence import (
    claimed_arithmetic,
    claimed_curves,
    claimed_errors,
    claimed_kernels,
    claimed_rates,
    claims,
    stats,
)
from repro.evidence.claims import (
    CLAIMS,
    AuthorsRun,
    Verdict,
    load,
    of_effect,
    of_error,
    published_size,
    standard_errors,
)
from repro.evidence.comparison import TOPS
from repro.evidence.published import published
from repro.experiments.folder import choices
from repro.record import CROP_MODES

ROOT = Path(__file__).parents[2]
MODULES = (claimed_arithmetic, claimed_curves, claimed_errors, claimed_kernels, claimed_rates)
CHECKS = set().union(*(module.CHECKS for module in MODULES))


def effect(*differences: float) -> stats.Difference:
    return stats.paired_difference(dict.fromkeys(range(len(differences)), 0.0), dict(enumerate(differences)))


def test_all_27_claims_stand_there() -> None:
    assert list(load()) == [f"C{number}" for number in range(1, 28)]
    for claim in load().values():
        assert claim.statement
        assert claim.paper
        assert claim.section
        assert claim.checks or claim.tests or claim.needs


@pytest.mark.parametrize("name", claims.IDS)
def test_what_a_claim_names_exists(name: str) -> None:
    claim = load()[name]
    assert set(claim.ablations) <= set(choices("ablation"))
    assert set(claim.checks) <= CHECKS
    assert set(claim.measures) <= set(TOPS)
    assert {run.crops for run in claim.authors} <= set(CROP_MODES)
    assert {run.setup for run in claim.authors} <= {None, *choices("setup")}
    assert not claim.data or claim.data in {row.data for row in published()}
    for test in claim.tests:
        path, _, function = test.partition("::")
        assert re.search(rf"^def {function}\(", (ROOT / path).read_text(), re.MULTILINE), test


def test_every_check_answers_a_claim() -> None:
    assert {check for claim in load().values() for check in claim.checks} == CHECKS


def test_the_authors_errors_differ_by_the_published_effects() -> None:
    """paper.csv has the effects, claims.yaml the errors behind them."""
    compared = 0
    for claim in load().values():
        for row in claimed_errors.published_rows(claim) if claim.authors else []:
            changed, plain = claim.authors
            assert row.top1_effect == f"{changed.top1 - plain.top1:+.3f}"
            assert row.top5_effect == f"{changed.top5 - plain.top5:+.3f}"
            assert row.data == changed.data == plain.data
            compared += 1
    assert compared == 3


def test_the_printed_numbers_are_filled_in() -> None:
    claims = load()
    assert claims["C2"].paper == "650,000"
    assert claims["C3"].paper.startswith("input 150,528, then 253,440–186,624–")
    assert claims["C14"].paper == "substantially; roughly 2 times as many iterations"
    assert "55 x 48 x 96" in claims["C3"].note
    assert claims["C3"].values["conv1"] == 55 * 48 * 96


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "  statement: The net's neurons\n",
            "  statment: The net's neurons\n",
            "C2.statment: unknown key: did you mean statement?",
        ),
        ("\nC27:", "\nC28:", "unknown or missing: C27, C28"),
        ("\nC27:", "\nC26:", "duplicate key C26"),
        ("  kind: figure\n", "  kind: picture\n", "C22.kind: 'picture' is not one of arithmetic, "),
        ("{parameters: 60e6}", "{parameters: many}", "C1.values: {'parameters': 'many'} is not a mapping to a number"),
        ("{parameters: 60e6}", "{others: 60e6}", "parameters"),
        ("  statement: The net's neurons\n", "", "statement"),
        ("what: ", "which: ", "C19.authors.which: unknown key: there are crops,"),
    ],
)
def test_a_wrong_file_is_an_error_in_one_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = CLAIMS.read_text(encoding="utf-8")
    assert old in text
    copy = tmp_path / "claims.yaml"
    copy.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)) as error:
        load(copy)
    assert "claims.yaml: " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("differences", "published", "expected"),
    [
        ((1.2, 1.4, 1.6), "+1.370", Verdict.holds),
        ((1.2, 1.4, 1.6), "", Verdict.holds),
        ((1.2, 1.4, 1.6), "+5.0", Verdict.in_direction),
        ((1.2, 1.4, 1.6), "about +1", Verdict.holds),
        ((1.2, 1.4, 1.6), "about +0.5", Verdict.in_direction),
        ((1.2, 1.4, 1.6), "over +1", Verdict.holds),
        ((1.2, 1.4, 1.6), "over +1.8", Verdict.holds),  # the interval reaches 1.90
        ((1.2, 1.4, 1.6), "over +2", Verdict.in_direction),
        ((1.2, 1.4, 1.6), "above 0", Verdict.holds),
        ((-1.2, -1.4, -1.6), "+1.370", Verdict.does_not_hold),
        ((-1.0, 1.4, 3.0), "+1.370", Verdict.not_distinguishable),
        ((9.0,), "+9.0", Verdict.not_distinguishable),
        ((-9.0,), "", Verdict.not_distinguishable),
        ((), "+1.370", Verdict.not_distinguishable),
        ((0.0, 0.0), "", Verdict.not_distinguishable),
    ],
)
def test_verdict_on_an_effect(differences: tuple[float, ...], published: str, expected: Verdict) -> None:
    assert of_effect(effect(*differences), published_size(published)) == expected


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ("+1.370", (1.37, 1.37)),
        ("-0.5", (-0.5, -0.5)),
        ("about +2", (2, 2)),
        ("over +1", (1, math.inf)),
        ("above 0", (0, math.inf)),
        ("", None),
    ],
)
def test_published_sizes_are_read(words: str, size: claims.Size | None) -> None:
    assert published_size(words) == size


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ((37.2, 37.5, 37.6), Verdict.holds),
        ((38.0, 38.1, 38.2), Verdict.does_not_hold),
        ((36.0, 36.1, 36.2), Verdict.in_direction),
        ((37.4727,), Verdict.not_distinguishable),
    ],
)
def test_verdict_on_an_error(errors: tuple[float, ...], expected: Verdict) -> None:
    assert of_error(stats.mean(dict(enumerate(errors))), 37.4727) == expected


def test_standard_error_of_two_nets_on_images_of_their_own() -> None:
    runs = [AuthorsRun("ILSVRC-2012 val", 50_000, "ten_crops", 1, top1, 20.0, "made up") for top1 in (50.0, 50.0)]
    errors = standard_errors(*runs)
    assert errors["top1"] == pytest.approx(100 * math.sqrt(2 * 0.5 * 0.5 / 50_000))
    assert errors["top5"] == pytest.approx(100 * math.sqrt(2 * 0.2 * 0.8 / 50_000))
