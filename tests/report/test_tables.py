import csv
import io
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from repro import record
from repro.evidence import comparison, simultaneous, stats
from repro.evidence.comparison import comparisons
from repro.evidence.published import published
from repro.experiments.folder import choices
from repro.report import tables
from tests.synthetic import CHANGES, file_record, make_record, stuck

STEM = "imagenette_small-paper-cpu"
BASELINE = {0: 25.0, 1: 26.0, 2: 24.5}
NO_LRN = {0: 28.0, 1: 29.5, 2: 27.7}


def render(folder: Path, *runs: record.Record) -> dict[str, str]:
    """The files of these records, as if their folder were the project's own."""
    for run in runs:
        file_record(folder, run)
    files = tables.render(comparisons(record.find(folder)))
    return {name: text.replace(f" results_dir={folder}", "") for name, text in files.items()}


def arm(ablation: str, errors: dict[int, Any], **changed: Any) -> list[record.Record]:
    return [make_record(ablation, seed, error, **changed) for seed, error in errors.items()]


def csv_rows(files: dict[str, str], stem: str = STEM) -> dict[str, dict[str, str]]:
    return {row["ablation"]: row for row in csv.DictReader(io.StringIO(files[f"{stem}.csv"]))}


def page_row(page: str, ablation: str, table: int = 0) -> list[str]:
    """Cells of an ablation in the n-th table of a page."""
    plain = [re.sub(r"^\| \[([^]]*)\]\([^)]*\)", r"| \1", line) for line in page.splitlines()]
    rows = [line for line in plain if line.startswith(f"| {ablation} |")]
    return [cell.strip() for cell in rows[table].strip("|").split("|")]


def test_a_row_says_what_was_asked_published_and_found(tmp_path: Path) -> None:
    files = render(tmp_path, *arm("baseline", BASELINE), *arm("no_lrn", NO_LRN))
    cells = page_row(files[f"{STEM}.md"], "no_lrn")
    name, question, published, ten, whole, could, centre, n, verdict, p_t, p_images, notes = cells
    expected = stats.paired_difference(BASELINE, NO_LRN)
    assert (name, n, verdict, notes) == ("no_lrn", "3", "worse at n=3", "")
    assert question == "Does response normalisation lower the error?"
    assert published.startswith("+1.370 / +1.152 (ILSVRC-2012 val, ten crops, n=1)")
    assert ten == centre == f"{expected.mean:+.2f} [{expected.low:+.2f}, {expected.high:+.2f}]"
    (found,) = simultaneous.compare(BASELINE, {"no_lrn": NO_LRN}).values()
    assert whole == f"[{found.low:+.2f}, {found.high:+.2f}] Dunnett"
    assert could == f"{found.detectable:.2f}"
    assert p_t == f"{expected.p:.3f}"
    assert 0 <= float(p_images) <= 1


@pytest.mark.parametrize(
    ("processes", "words"),
    [((1, 1), "Xeon, 2 threads, torch"), ((4, 4), "Xeon, 2 threads in each of 4 processes, torch"),
     ((1, 4), "Xeon, 2 threads in each of 1, 4 processes, torch")],
)  # fmt: skip
def test_a_table_says_how_many_processes_shared_a_run(tmp_path: Path, processes: tuple[int, int], words: str) -> None:
    runs = arm("baseline", {0: 25.0, 1: 26.0})
    shared = [
        replace(run, machine=replace(run.machine, processes=count)) for run, count in zip(runs, processes, strict=True)
    ]
    assert words in render(tmp_path, *shared)[f"{STEM}.md"]


@pytest.mark.parametrize(("processes", "words"), [(1, "H200, torch"), (2, "H200, 2 processes, torch")])
def test_a_gpus_table_tells_no_threads(tmp_path: Path, processes: int, words: str) -> None:
    runs = [
        replace(run, machine=replace(run.machine, device="H200", device_type="cuda", threads=n, processes=processes))
        for n, run in enumerate(arm("baseline", {0: 25.0, 1: 26.0}), 9)
    ]
    files = render(tmp_path, *runs)
    assert words in next(text for name, text in files.items() if name.endswith("-cuda.md"))


def test_crop_modes_have_columns_of_their_own(tmp_path: Path) -> None:
    files = render(tmp_path, *arm("baseline", BASELINE))
    row = csv_rows(files)["baseline"]
    assert float(row["centre_top1_error"]) == pytest.approx(float(row["ten_crops_top1_error"]) + 2, abs=1e-3)
    assert (row["centre_top5_error"], row["ten_crops_top5_error"]) == ("6.2917", "5.0333")
    cells = page_row(files[f"{STEM}.md"], "baseline", table=1)
    assert cells[2].startswith("25.17 [")
    assert cells[4].startswith("27.17 [")


def test_csv_holds_plain_numbers(tmp_path: Path) -> None:
    files = render(tmp_path, *arm("baseline", BASELINE), *arm("no_lrn", NO_LRN))
    text = {
        *("setup", "recipe", "device", "device_type", "data", "content_hash", "base_hash", "ablation", "question"),
        *("data_remark", "published", "seeds", "notes", "centre_p_mcnemar_by_seed", "ten_crops_p_mcnemar_by_seed"),
        *("given", "precision", "numerics", "commits", "did_not_learn", "verdict", "simultaneous_method"),
    }
    for row in csv_rows(files).values():
        for key in row.keys() - text:
            assert row[key] == "" or math.isfinite(float(row[key]))
    assert csv_rows(files)["no_lrn"]["parameters"] == "15000000"


def test_mcnemar_is_of_the_bits_in_the_records(tmp_path: Path) -> None:
    files = render(tmp_path, *arm("baseline", BASELINE), *arm("no_lrn", NO_LRN))
    runs = record.find(tmp_path)
    right = [
        {run.seed: run.correct()["centre"] for run in runs if run.ablation == name} for name in ("baseline", "no_lrn")
    ]
    expected = stats.mcnemar(*right)
    row = csv_rows(files)["no_lrn"]
    assert expected is not None
    assert int(row["centre_only_baseline_right"]) == expected.only_baseline
    assert float(row["centre_p_mcnemar"]) == pytest.approx(expected.p, rel=1e-2)
    assert row["centre_p_mcnemar_by_seed"].count(";") == 2


def test_baseline_first_then_by_effect(tmp_path: Path) -> None:
    changes = {"sigmoid": 9.0, "no_dropout": 0.2, "no_lrn": 1.0}
    runs = [run for name, size in changes.items() for run in arm(name, {s: e + size for s, e in BASELINE.items()})]
    files = render(tmp_path, *arm("baseline", BASELINE), *runs)
    assert list(csv_rows(files)) == ["baseline", "sigmoid", "no_lrn", "no_dropout"]


def test_missing_seeds_are_told_and_not_averaged(tmp_path: Path) -> None:
    files = render(tmp_path, *arm("baseline", {0: 25.0, 1: 26.0}), *arm("no_lrn", {0: 26.0, 2: 90.0}))
    cells = page_row(files[f"{STEM}.md"], "no_lrn")
    assert cells[3] == "+1.00"
    assert cells[7:9] == ["2", "not distinguishable at n=2"]  # not by pairs, of which there is one
    assert cells[-1] == "seed 2 missing in the baseline; seed 1 missing here"
    page = files[f"{STEM}.md"]
    assert "    python -m repro.run setup=imagenette_small recipe=paper ablation=baseline seed=2\n" in page
    assert "    python -m repro.run setup=imagenette_small recipe=paper ablation=no_lrn seed=1\n" in page


def test_without_a_baseline_nothing_is_compared(tmp_path: Path) -> None:
    files = render(tmp_path, *arm("no_lrn", NO_LRN))
    cells = page_row(files[f"{STEM}.md"], "no_lrn")
    assert cells[3:10] == ["", "", "", "", "0", "no seed in common", ""]
    assert cells[-1] == "seeds 0, 1, 2 missing in the baseline"
    assert (
        "python -m repro.run -m setup=imagenette_small recipe=paper ablation=baseline seed=0,1,2" in files[f"{STEM}.md"]
    )


def test_diverged_and_stopped_runs_are_counted_and_left_out(tmp_path: Path) -> None:
    stopped = make_record("no_lrn", 3, None, status=record.STOPPED)
    files = render(tmp_path, *arm("baseline", BASELINE), *arm("no_lrn", {0: 26.0, 1: 27.0, 2: None}), stopped)
    row = csv_rows(files)["no_lrn"]
    assert (row["n"], row["ten_crops_top1_error"], row["ten_crops_top1_difference"]) == ("2", "26.5", "1.0")
    assert row["notes"] == (
        "1 of 4 runs diverged (seed 2), not in the mean; stopped before the end, not in the mean: seed 3"
    )


def test_arm_that_always_diverged(tmp_path: Path) -> None:
    files = render(tmp_path, *arm("baseline", BASELINE), *arm("sigmoid", dict.fromkeys(BASELINE)))
    cells = page_row(files[f"{STEM}.md"], "sigmoid")
    assert cells[8] == "diverged (3 of 3)"
    assert cells[-1] == "3 of 3 runs diverged (seeds 0, 1, 2), not in the mean"


def test_a_baseline_that_always_diverged_is_no_lack_of_seeds(tmp_path: Path) -> None:
    page = render(tmp_path, *arm("baseline", dict.fromkeys(BASELINE)), *arm("no_lrn", NO_LRN))[f"{STEM}.md"]
    assert page_row(page, "no_lrn")[8] == "the baseline: diverged (3 of 3)"


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"threads": 1}, "other threads (seeds 0, 2)"), ({"processes": 2}, "other processes (seeds 0, 2)")],
)
def test_pairs_of_other_threads_or_processes_are_marked(tmp_path: Path, changed: dict[str, int], words: str) -> None:
    runs = arm("no_lrn", NO_LRN)
    for seed in (0, 2):
        runs[seed] = replace(runs[seed], machine=replace(runs[seed].machine, **changed))
    page = render(tmp_path, *arm("baseline", BASELINE), *runs)[f"{STEM}.md"]
    assert page_row(page, "no_lrn")[-1] == words


def test_kinds_of_device_have_files_of_their_own(tmp_path: Path) -> None:
    gpu = {"device": "H100", "device_type": "cuda"}
    files = render(tmp_path, *arm("baseline", BASELINE), *arm("no_lrn", NO_LRN), *arm("no_lrn", {7: 40.0}, **gpu))
    assert sorted(files) == ["README.md", *(f"{STEM}{end}" for end in (".csv", ".md")),
                             "imagenette_small-paper-cuda.csv", "imagenette_small-paper-cuda.md"]  # fmt: skip
    assert csv_rows(files)["no_lrn"]["n"] == "3"
    assert csv_rows(files, "imagenette_small-paper-cuda")["no_lrn"]["ten_crops_top1_difference"] == ""
    assert "H100" in files["README.md"]


@pytest.mark.parametrize("changed", [{"device": "other Xeon"}, {"content_hash": "beef" * 16}, {"epochs": 10}])
def test_what_does_not_compare_gets_a_section_of_its_own(tmp_path: Path, changed: dict[str, Any]) -> None:
    files = render(tmp_path, *arm("baseline", BASELINE), *arm("no_lrn", NO_LRN, **changed))
    page = files[f"{STEM}.md"]
    assert page.count("### Effect of each change") == 2
    assert page.count("never compared") == 1
    assert page_row(page, "no_lrn")[8] == "no seed in common"
    titles = [line for line in page.splitlines() if line.startswith("## ")]
    assert len(set(titles)) == len(titles)


def test_what_is_filed_under_an_ablation_of_another_version_is_an_arm_of_its_own(tmp_path: Path) -> None:
    def rate(seed: int, value: float) -> record.Record:
        return make_record("no_dropout", seed, 25.0, difference={"model.dropout.rate": [0.5, value]})

    files = render(tmp_path, *arm("baseline", BASELINE), rate(0, 0.0), rate(1, 0.0), rate(2, 0.1))
    rows = csv_rows(files)
    assert (rows["no_dropout"]["seeds"], rows["rate=0.1"]["seeds"]) == ("0, 1", "2")


def test_a_key_that_the_schema_gains_keeps_old_records_comparable(tmp_path: Path) -> None:
    old = make_record("baseline", 0, 25.0)
    del old.config["train"]["checkpoint_activations"]
    del old.config["schedule"]["patience"]
    assert comparison.base_hash(old) == comparison.base_hash(make_record("no_lrn", 0, 26.0))


BY_HAND = {"train.epochs": [24, 1], "model.scale": [0.5, 0.25]}


def by_hand(ablation: str, errors: dict[int, Any], label: str, keys: dict[str, Any]) -> list[record.Record]:
    """Runs of an ablation with more keys set by hand."""
    runs = arm(ablation, errors, difference={**CHANGES.get(ablation, {}), **keys})
    return [replace(run, ablation=label) for run in runs]


def test_runs_of_a_budget_set_by_hand_make_pairs(tmp_path: Path) -> None:
    baseline = by_hand("baseline", {0: 75.0, 1: 76.0}, "scale=0.25+epochs=1", BY_HAND)
    other = by_hand("no_lrn", {0: 77.0, 1: 79.0, 2: 80.0}, "no_lrn+scale=0.25+epochs=1", BY_HAND)
    files = render(tmp_path, *arm("baseline", BASELINE), *arm("no_lrn", NO_LRN), *baseline, *other)
    page = files[f"{STEM}.md"]
    plain, short = page.split("\n## ")[1:3]
    assert page_row(plain, "no_lrn")[7] == "3"
    assert page_row(short, "no_lrn")[3].startswith("+2.50 [")
    assert page_row(short, "no_lrn")[7] == "2"
    assert "`train.epochs=1`, `model.scale=0.25`, settings `" in short
    command = "setup=imagenette_small recipe=paper ablation=baseline train.epochs=1 model.scale=0.25 seed=2\n"
    assert f"    python -m repro.run {command}" in short


def test_a_key_set_by_hand_is_an_arm_alone_and_the_baseline_of_an_ablation_with_it(tmp_path: Path) -> None:
    rate = {"optimizer.lr": [0.01, 0.02]}
    alone = by_hand("baseline", {0: 30.0}, "lr=0.02", rate)
    both = by_hand("no_lrn", {0: 33.0}, "no_lrn+lr=0.02", rate)
    files = render(tmp_path, *arm("baseline", BASELINE), *alone, *both)
    plain, fast = files[f"{STEM}.md"].split("\n## ")[1:3]
    assert page_row(plain, "lr=0.02")[3] == "+5.00"
    assert page_row(fast, "no_lrn")[3] == "+3.00"
    assert page_row(fast, "baseline", table=1)[2] == "30.00"
    assert "| no_lrn |" not in plain


COSINE = {"schedule.kind": ["step", "cosine"]}


def under_cosine(chosen: list[str] | None, ablation: str, label: str, errors: dict[int, Any]) -> list[record.Record]:
    """Runs whose keys include those of an ablation, set by hand or not."""
    return [replace(run, chosen=chosen) for run in by_hand(ablation, errors, label, COSINE)]


def test_what_was_set_by_hand_beside_a_chosen_ablation_is_the_baselines_though_it_has_a_name(tmp_path: Path) -> None:
    baseline = under_cosine(["baseline"], "baseline", "cosine", {0: 30.0, 1: 31.0})
    other = under_cosine(["no_lrn"], "no_lrn", "cosine+no_lrn", {0: 32.0, 1: 34.0})
    page = render(tmp_path, *baseline, *other)[f"{STEM}.md"]
    assert page.count("### Effect of each change") == 1
    assert page_row(page, "no_lrn")[3].startswith("+2.50 [")
    assert "`schedule.kind=cosine`, settings `" in page
    assert "missing" not in page


def test_a_chosen_baseline_is_an_arm_too_where_there_is_a_baseline_for_it(tmp_path: Path) -> None:
    baseline = under_cosine(["baseline"], "baseline", "cosine", {0: 30.0, 1: 31.0})
    other = under_cosine(["no_lrn"], "no_lrn", "cosine+no_lrn", {0: 32.0, 1: 34.0, 2: 33.0})
    page = render(tmp_path, *arm("baseline", BASELINE), *baseline, *other)[f"{STEM}.md"]
    plain, cosine = page.split("\n## ")[1:3]
    assert page_row(plain, "cosine")[3].startswith("+5.00 [")
    assert page_row(plain, "cosine+no_lrn")[7] == "3"
    assert page_row(cosine, "no_lrn")[7] == "2"
    assert "recipe=paper ablation=baseline schedule.kind=cosine seed=2\n" in cosine


def test_a_run_that_was_made_as_an_arm_serves_as_the_baseline_under_its_keys(tmp_path: Path) -> None:
    first = under_cosine(["cosine"], "baseline", "cosine", {0: 30.0})
    both = under_cosine(["cosine", "no_lrn"], "no_lrn", "cosine+no_lrn", {0: 32.0})
    later = under_cosine(["no_dropout"], "no_dropout", "cosine+no_dropout", {0: 29.0})
    page = render(tmp_path, *arm("baseline", {0: 25.0}), *first, *both, *later)[f"{STEM}.md"]
    plain, cosine = page.split("\n## ")[1:3]
    assert [page_row(plain, name)[3] for name in ("cosine", "cosine+no_lrn")] == ["+5.00", "+7.00"]
    assert [page_row(cosine, name)[3] for name in ("no_lrn", "no_dropout")] == ["+2.00", "-1.00"]


@pytest.mark.parametrize("changed", [{"numerics": "beef"}, {"keys": {"train.precision": "bf16"}}])
def test_numerics_and_precision_are_never_mixed(tmp_path: Path, changed: dict[str, Any]) -> None:
    runs = [*arm("baseline", BASELINE, numerics="cafe"), *arm("no_lrn", NO_LRN, **{"numerics": "cafe", **changed})]
    page = render(tmp_path, *runs)[f"{STEM}.md"]
    assert page.count("### Effect of each change") == 2
    assert page_row(page, "no_lrn")[8].startswith("no ")
    assert page_row(page, "no_lrn")[7] == "0"
    assert "numerics `cafe`" in page


def missing(page: str) -> list[list[str]]:
    """The commands of each section."""
    sections = page.split("\n## ")[1:]
    return [[line.strip() for line in text.splitlines() if line.startswith("    python")] for text in sections]


@pytest.mark.parametrize("newer", ["baseline", "no_lrn"])
def test_where_the_numerics_differ_the_older_of_two_runs_is_to_be_made_again(tmp_path: Path, newer: str) -> None:
    made = {
        name: {"numerics": "cafe" if name == newer else "beef", "finished": f"2026-11-2{2 + (name == newer)}T12:00:00"}
        for name in ("baseline", "no_lrn")
    }
    older = "no_lrn" if newer == "baseline" else "baseline"
    runs = [*arm("baseline", {0: 25.0, 1: 26.0}, **made["baseline"]), *arm("no_lrn", {0: 26.0}, **made["no_lrn"])]
    page = render(tmp_path, *runs)[f"{STEM}.md"]
    again = f"python -m repro.run setup=imagenette_small recipe=paper ablation={older} seed=0 force=true"
    assert all(again in commands for commands in missing(page) if len(commands) == 1)
    assert page.count(again) >= 1
    assert f"ablation={newer} seed=0 force" not in page
    assert page_row(page, "no_lrn")[8] == "no verdict: made by other code than the baseline"


def test_commands_name_the_results_folder_and_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for run in arm("no_lrn", {0: 26.0}, device="H100", device_type="cuda"):
        file_record(tmp_path / "my runs", run)
    page = tables.render(comparisons(record.find(tmp_path / "my runs")))["imagenette_small-paper-cuda.md"]
    command = "recipe=paper ablation=baseline seed=0 train.device=cuda"
    assert f"{command} 'results_dir={tmp_path / 'my runs'}'\n" in page
    monkeypatch.chdir(tmp_path)
    page = tables.render(comparisons(record.find("my runs")))["imagenette_small-paper-cuda.md"]
    assert f"{command} 'results_dir=my runs'\n" in page


def test_commits_do_not_count_where_the_numerics_are_known_to_agree(tmp_path: Path) -> None:
    known = {"numerics": "cafe"}
    page = render(tmp_path, *arm("baseline", BASELINE, **known), *arm("no_lrn", NO_LRN, commit="fed", **known))[
        f"{STEM}.md"
    ]
    assert page_row(page, "no_lrn")[8] == "worse at n=3"
    assert "Mixed code" not in page


@pytest.mark.parametrize("other", [{"commit": "fedcba9"}, {"code": record.Code("0123abc", True, "0.1.0")}])
def test_code_that_may_differ_is_told_and_what_to_do(tmp_path: Path, other: dict[str, Any]) -> None:
    runs = [*arm("baseline", BASELINE), *arm("no_lrn", NO_LRN, **other), *arm("no_dropout", NO_LRN)]
    page = render(tmp_path, *runs)[f"{STEM}.md"]
    assert page_row(page, "no_lrn")[8] == "worse at n=3; mixed code"
    assert page_row(page, "no_lrn")[-1] == "mixed code (seeds 0, 1, 2)"
    assert page_row(page, "no_dropout")[8] == "worse at n=3"
    assert "**Mixed code.**" in page
    assert "not the change's: `no_lrn`." in page
    command = "-m setup=imagenette_small recipe=paper ablation=baseline seed=0,1,2 force=true"
    assert f"    python -m repro.run {command}\n" in page


def test_seeds_of_several_commits_are_told_even_where_no_pair_mixes_them(tmp_path: Path) -> None:
    commits = ("fedcba9", "0123abc", "0123abc")
    runs = [
        make_record(name, seed, 25.0 + seed + 4 * (name == "no_lrn"), commit=commit)
        for name in ("baseline", "no_lrn")
        for seed, commit in enumerate(commits)
    ]
    page = render(tmp_path, *runs)[f"{STEM}.md"]
    assert page_row(page, "no_lrn")[8] == "worse at n=3"
    assert "were made by several commits: `0123abc`, `fedcba9`.\nNo pair of one seed is of two commits" in page
    assert "ablation=baseline seed=0,1,2 force=true\n" in page


def test_an_arm_that_never_left_chance_has_no_effect_in_points(tmp_path: Path) -> None:
    files = render(tmp_path, *arm("baseline", BASELINE), *stuck("sigmoid", 3))
    cells = page_row(files[f"{STEM}.md"], "sigmoid")
    assert cells[3:10] == ["", "", "", "", "0", "did not learn (3 of 3)", ""]
    assert cells[-1] == "3 of 3 runs did not learn (seeds 0, 1, 2): the loss stayed ln(10); not in the mean"
    row = csv_rows(files)["sigmoid"]
    assert (row["n"], row["did_not_learn"], row["ten_crops_top1_error"]) == ("0", "0, 1, 2", "")


def collapsed(error: float, loss: float, answers: int, guessing: float | None = None) -> list[record.Record]:
    """Three runs of `sigmoid` on images of any balance."""
    (run, *_) = stuck("sigmoid", 1)
    errors = record.Errors(error, 50.0)
    metrics = record.Metrics(errors, errors, record.TrainErrors(error, 50.0, loss), loss, answers)
    data = replace(run.data, guessing_loss=guessing)
    return [replace(run, seed=seed, metrics=metrics, data=data) for seed in range(3)]


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (collapsed(20.0, 0.5, 1, 0.5), "one answer to every validation image"),  # of two classes, 80 to 20
        (collapsed(90.0, 2.9, 1), "one answer to every validation image"),  # a loss above ln(10)
        (collapsed(20.0, 0.502, 2, 0.5), "the loss stayed that of guessing, 0.500"),
    ],
)
def test_a_net_that_collapsed_did_not_learn_whatever_its_loss(
    run: list[record.Record], words: str, tmp_path: Path
) -> None:
    cells = page_row(render(tmp_path, *arm("baseline", BASELINE), *run)[f"{STEM}.md"], "sigmoid")
    assert cells[8] == "did not learn (3 of 3)"
    assert cells[-1] == f"3 of 3 runs did not learn (seeds 0, 1, 2): {words}; not in the mean"


def test_one_answer_that_is_right_everywhere_is_no_collapse(tmp_path: Path) -> None:
    page = render(tmp_path, *arm("baseline", BASELINE), *collapsed(0.0, 0.1, 1))[f"{STEM}.md"]
    assert page_row(page, "sigmoid")[8] == "better at n=3"


def test_means_leave_out_the_runs_that_did_not_learn(tmp_path: Path) -> None:
    runs = [*stuck("no_lrn", 1), *arm("no_lrn", {1: 27.0, 2: 26.0})]
    cells = page_row(render(tmp_path, *arm("baseline", BASELINE), *runs)[f"{STEM}.md"], "no_lrn")
    assert cells[3].startswith("+1.25 [")
    assert cells[8] == "not distinguishable at n=2; did not learn (1 of 3)"


def test_nothing_is_compared_with_a_baseline_that_did_not_learn(tmp_path: Path) -> None:
    page = render(tmp_path, *stuck("baseline", 3), *arm("no_lrn", NO_LRN))[f"{STEM}.md"]
    assert page_row(page, "no_lrn")[3:9] == ["", "", "", "", "0", "the baseline did not learn"]
    assert "missing in the baseline" not in page


@pytest.mark.parametrize(("others", "shown"), [(0.0, ["7.0", "1500"]), (0.2, ["", ""]), (None, ["", ""])])
def test_time_is_told_of_runs_on_a_quiet_machine_alone(others: float | None, shown: list[str], tmp_path: Path) -> None:
    runs = arm("baseline", BASELINE, others=others)
    if others is None:  # before it was measured
        runs = [replace(run, cost=replace(run.cost, load_start=None, load_end=None, steal=None)) for run in runs]
    page = render(tmp_path, *runs)[f"{STEM}.md"]
    assert page_row(page, "baseline", table=1)[7:9] == shown
    assert "python -m repro.bench" in page


def test_an_ablation_without_a_file_is_told_by_its_difference(tmp_path: Path) -> None:
    linked = ["conv3", "conv6", "fc6", "fc7"]
    odd = arm(
        "lr=0.02", {0: 26.0}, difference={"optimizer.lr": [0.01, 0.02], "model.linked_layers": [linked, ["fc6", "fc7"]]}
    )
    files = render(tmp_path, *arm("baseline", BASELINE), *odd)
    row = page_row(files[f"{STEM}.md"], "lr=0.02+linked_layers=fc6,fc7")
    assert row[1] == f"optimizer.lr: 0.01 → 0.02; model.linked_layers: {linked} → ['fc6', 'fc7']"
    assert "recipe=paper optimizer.lr=0.02 'model.linked_layers=[fc6,fc7]' seed=1,2" in files[f"{STEM}.md"]


def test_index_links_every_table(tmp_path: Path) -> None:
    files = render(tmp_path, *arm("baseline", BASELINE), *arm("baseline", BASELINE, recipe="source"))
    for name in files.keys() - {"README.md"}:
        assert f"({name})" in files["README.md"]
    assert "| 0, 1, 2 | 7.0 |" in files["README.md"]


def test_published_effects_belong_to_ablations() -> None:
    rows = published()
    assert {row.ablation for row in rows} <= set(choices("ablation"))
    assert all(row.source and row.data and row.crops in ("ten crops", "centre", "not stated") for row in rows)
    anchors = {(row.ablation, row.data): row.top1_effect for row in rows}
    assert anchors["no_lrn", "ILSVRC-2012 val"] == f"{42.034 - 40.664:+.3f}"
    assert anchors["nonoverlapping_pool", "ILSVRC-2012 val"] == f"{41.058 - 40.664:+.3f}"
    assert anchors["one_gpu_half", "ILSVRC-2010 test"] == f"{39.168 - 37.4727:+.3f}"
    assert anchors["no_column_links", "ILSVRC-2012 val"] == f"{41.828 - 40.664:+.3f}"
    assert anchors["batch_256", "ILSVRC-2012 val"] == f"{42.2726 - 42.3407:+.3f}"


def test_a_peak_that_holds_the_memory_of_earlier_runs_is_not_shown(tmp_path: Path) -> None:
    runs = arm("baseline", {0: 25.0})
    for commit, shown in ((tables.KEPT_MEMORY[0], False), ("beef", True)):
        made = [
            replace(run, machine=replace(run.machine, device_type="cuda"), code=replace(run.code, commit=commit))
            for run in runs
        ]
        files = render(tmp_path / commit, *made)
        (row,) = csv.DictReader(next(text for name, text in files.items() if name.endswith("-cuda.csv")).splitlines())
        assert bool(row["peak_memory_mib"]) is shown


def test_an_arm_leads_to_the_folder_of_its_records(tmp_path: Path) -> None:
    page = render(tmp_path, *arm("baseline", BASELINE), *arm("no_lrn", NO_LRN))[f"{STEM}.md"]
    links = re.findall(r"^\| \[\w+\]\(([^)]*)\) \|", page, re.MULTILINE)
    assert len(links) == 2
    assert all((tmp_path / "tables" / link).resolve().is_dir() for link in links)
