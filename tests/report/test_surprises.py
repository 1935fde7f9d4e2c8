from pathlib import Path

import pytest

from repro import record
from repro.evidence.comparison import comparisons
from repro.report.surprises import section
from tests.report.test_readme import fill
from tests.synthetic import file_record, make_record, stuck


@pytest.mark.parametrize(
    ("ablation", "errors", "surprising"),
    [
        ("no_lrn", (30.0, 31.1, 32.2), False),  # expected to be worse, and is
        ("no_lrn", (25.0, 26.1, 27.0), True),  # not distinguishable
        ("no_lrn", (20.0, 21.1, 22.2), True),  # better
        ("input_227", (20.0, 21.1, 22.2), True),  # expected to be the same
    ],
)
def test_what_was_not_expected_is_shown(
    ablation: str, errors: tuple[float, ...], surprising: bool, tmp_path: Path
) -> None:
    change = {} if ablation == "no_lrn" else {"model.conv1_input": ["zero_right_bottom", "real_pixels"]}
    for seed, error in enumerate(errors):
        file_record(tmp_path, make_record(seed=seed, error=25.0 + seed))
        file_record(tmp_path, make_record(ablation, seed, error, **({"difference": change} if change else {})))
    text = section(comparisons(record.find(tmp_path)))
    assert (f"| `{ablation}` | imagenette_small, paper, cpu |" in text) == surprising
    assert ("most surprising" in text) == surprising


def test_an_arm_that_did_not_learn_is_no_surprise(tmp_path: Path) -> None:
    results = fill(tmp_path)
    for run in stuck("sigmoid", 3):
        file_record(results, run)
    assert section(comparisons(record.find(results))) == ""
