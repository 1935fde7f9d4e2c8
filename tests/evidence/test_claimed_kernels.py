from pathlib import Path

import numpy as np
import pytest

from repro import record
from repro.evidence import claimed_kernels
from repro.evidence.claims import Verdict, load
from repro.evidence.comparison import comparisons
from repro.report.claims_page import text
from tests.synthetic import answers, make_curve, make_record, place


def test_chroma_is_none_of_grey_and_two_thirds_of_one_colour() -> None:
    grey, red = np.ones((1, 3, 4, 4)), np.zeros((1, 3, 4, 4))
    red[:, 0] = 5.0
    assert claimed_kernels.chroma(np.concatenate([grey, red])).tolist() == pytest.approx([0.0, 2 / 3])


def test_the_permutation_test_tells_columns_apart() -> None:
    first = np.arange(20) < 10
    apart, alike = np.where(first, 1.0, 0.0), np.tile([0.0, 1.0], 10)
    assert claimed_kernels.permutation_p(apart, first) < 0.001
    assert claimed_kernels.permutation_p(alike, first) == 1.0


def test_the_same_kernels_have_the_same_p() -> None:
    values, first = np.random.default_rng(1).uniform(size=20), np.arange(20) < 10
    assert claimed_kernels.permutation_p(values, first) == claimed_kernels.permutation_p(values, first)


def grey_first(generator: np.random.Generator, grey: bool = True) -> np.ndarray:
    """Kernels (32, 3, 11, 11) at random; those of the first column without colour."""
    kernels = generator.normal(size=(32, 3, 11, 11))
    kernels[:16] = kernels[:16].mean(axis=1, keepdims=True) if grey else kernels[:16]
    return kernels


@pytest.mark.parametrize(
    ("grey", "verdict", "words"),
    [
        ([True, True, True], Verdict.holds, "p < 0.05 in 3 of 3 runs"),
        ([True, True], Verdict.not_distinguishable, "p < 0.05 in 2 of 2 runs"),
        ([True, True, False], Verdict.not_distinguishable, "p < 0.05 in 2 of 3 runs"),
    ],
)
def test_colour_of_columns(grey: list[bool], verdict: Verdict, words: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for seed, own in enumerate(grey):
        run = make_record("baseline", seed, 25.0)
        record.write(place(tmp_path, run), run, make_curve(), answers(run), grey_first(generator, own))
    (found,) = claimed_kernels.colour_of_columns(load()["C22"], comparisons(record.find(tmp_path)))
    assert found.verdict is verdict
    assert words in text(found)
    assert "apart by 0." in text(found)


def test_records_without_kernels_answer_nothing(tmp_path: Path) -> None:
    run = make_record("baseline", 0, 25.0)
    record.write(place(tmp_path, run), run, make_curve(), answers(run))
    assert claimed_kernels.colour_of_columns(load()["C22"], comparisons(record.find(tmp_path))) == []
