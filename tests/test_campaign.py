"""Suites within a time, on a folder of a few images."""

import io
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from repro import campaign, pace, stopping
from repro import record as records
from repro.campaign import requests, summary
from repro.evidence import rate_search
from repro.experiments import suites
from repro.pace import FILE, Clock, Timings, timings_of
from repro.terminal import screen
from repro.terminal.screen import Screen
from repro.train import checkpoint
from tests.tiny import WORDS, content, latest, run_command

ROOT = Path(__file__).parents[1]
SUITE = ("suite=cifar_lrn", "ablation=baseline,no_lrn", "seed=0,1", *WORDS)
RUNS = 4

pytestmark = pytest.mark.usefixtures("one_thread")

Start = Callable[..., int]


@pytest.fixture
def words(images: Path, results: Path) -> list[str]:
    """A suite of two arms and two seeds."""
    return [*SUITE, f"data.root={images}", f"results_dir={results}"]


@pytest.fixture
def start(words: list[str]) -> Start:
    """Runs the suite in this process."""
    return lambda *more: run_command(*words, *more)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the suite leaves."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_command(*SUITE, f"data.root={images}", f"results_dir={folder}") == 0
    return [content(record) for record in records.find(folder)]


def last_line(capfd: pytest.CaptureFixture[str]) -> str:
    return capfd.readouterr().out.splitlines()[-1]


def measured(results: Path, run: campaign.Run, seconds: float) -> None:
    """As if a run of that arm had taken so long here."""
    (results / "raw").mkdir(parents=True, exist_ok=True)
    timings_of(run).add(run, seconds)


def test_a_suite_leaves_what_single_runs_leave_with_their_commands(
    start: Start, results: Path, whole: list[dict[str, Any]], images: Path, tmp_path: Path
) -> None:
    assert start() == 0
    found = records.find(results)
    assert [content(record) for record in found] == whole
    assert len(found) == RUNS
    assert "recipe=paper ablation=no_lrn seed=0 " in found[0].command
    single = [*WORDS, f"data.root={images}", f"results_dir={tmp_path / 'single'}", "ablation=no_lrn", "seed=1"]
    assert run_command(*single) == 0
    assert [content(record) for record in records.find(tmp_path / "single")] == [whole[1]]


def test_what_does_not_fit_is_left_for_the_next_call(
    start: Start, words: list[str], results: Path, whole: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = requests(words).wanted
    assert [run.label.startswith("no_lrn") for run in wanted] == [False, True, False, True]
    measured(results, wanted[1], seconds=1200)
    measured(results, wanted[0], seconds=0.1)
    assert start("minutes=10") == 0
    assert [record.ablation.startswith("no_lrn") for record in records.find(results)] == [False, False]
    out = capfd.readouterr().out
    assert "2 of 4 runs done, 2 left, about 40 minutes: the same command goes on" in out
    assert "(2 of them with more minutes: the longest takes about 20 minutes)" in out
    assert start("minutes=30") == 0
    assert [content(record) for record in records.find(results)] == whole
    assert last_line(capfd) == "suite=cifar_lrn: 4 of 4 runs done"
    assert start("minutes=30") == 0
    out = capfd.readouterr().out
    assert "done already: 4 of 4" in out
    assert "epoch" not in out


def test_a_run_whose_first_steps_tell_that_it_takes_too_long_goes_on_later(
    start: Start,
    results: Path,
    whole: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pace, "SECONDS_WATCHED", 0)
        patch.setattr(screen, "EPOCHS_OF_END", 10**9)  # so that the third look, in the third epoch, says so
        assert start("minutes=10") == 0
    out = capfd.readouterr().out
    assert (
        len(re.findall(r"would take about \d+\.\d hours more, left for another call", out)) == 1
    )  # others are as long
    assert "0 of 4 runs done, 4 left" in out
    assert records.find(results) == []
    (results / "raw" / FILE).unlink()
    assert start("minutes=10") == 0
    assert capfd.readouterr().out.count("going on after epoch 2 of 3") == 1
    assert [content(record) for record in records.find(results)] == whole


def test_an_arm_that_cannot_be_is_told_once_and_holds_nothing_up(
    words: list[str], results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command(*words, "ablation=baseline,add_lrn", "train.epochs=1") == 2
    assert [record.seed for record in records.find(results)] == [0, 1]
    out, err = capfd.readouterr()
    assert err.count("error: ablation=add_lrn changes nothing") == 1
    assert "2 of 2 runs done" in out


def test_a_run_that_another_process_makes_is_left_alone(
    start: Start, words: list[str], results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = requests(words).wanted[1].raw
    place.mkdir(parents=True)
    with FileLock(place / "run.lock"):
        assert start() == 0
    out, err = capfd.readouterr()
    assert "3 of 4 runs done, 1 left" in out
    assert "error" not in err


def test_several_at_once_share_the_list_and_tell_what_fails(
    words: list[str], results: Path, whole: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command(*words, "model.scale=0.0625,0.01", "ablation=baseline", "at_once=2", "minutes=10") == 2
    assert [content(record) for record in records.find(results)] == whole[2:]
    *lines, end = capfd.readouterr().out.splitlines()
    lines = [line for line in lines if line.startswith("[")]
    assert {line[:4] for line in lines} <= {"[1] ", "[2] "}
    assert sum("epoch   3/3" in line for line in lines) == 2
    assert {line[4:28] for line in lines if "error: " in line} == {"error: model.sizes.conv1"}
    assert "2 of 4 runs done" in end


def test_wandbs_number_of_one_run_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: list[str | None] = []

    class Done:
        def __init__(self, *_: object, env: dict[str, str], **__: object) -> None:
            self.stdout = io.BytesIO()
            numbers.append(env.get("WANDB_RUN_ID"))

        def wait(self) -> int:
            return 0

    monkeypatch.setenv("WANDB_RUN_ID", "once1234")
    monkeypatch.setattr("subprocess.Popen", Done)
    assert campaign._several([], Clock(math.inf), 2) == 0
    assert numbers == ["once1234", None]


def test_ctrl_c_ends_a_suite(start: Start, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Screen, "epoch", interrupted)
    assert start("minutes=10") == 130
    assert [record.status for record in records.find(results)] == ["stopped"]


@pytest.mark.slow
def test_a_signal_ends_all_processes_of_a_suite_and_each_files_what_it_has(words: list[str], results: Path) -> None:
    command = [sys.executable, "-m", "repro.run", *latest(*words, "train.epochs=200"), "at_once=2"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        waiting = {"[1]", "[2]"}
        while waiting:
            line = process.stdout.readline()
            assert line, "it ended"
            waiting -= {line[:3]} if "epoch   1/200" in line else set()
        process.terminate()
        out, _ = process.communicate(timeout=120)  # to the last of them
    assert process.returncode == 128 + signal.SIGTERM
    assert sum("] stopped by SIGTERM" in line for line in out.splitlines()) == 2
    assert [record.status for record in records.find(results)] == ["stopped", "stopped"]


def test_a_killed_suite_goes_on(words: list[str], results: Path, whole: list[dict[str, Any]]) -> None:
    command = [sys.executable, "-m", "repro.run", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [line for line in iter(process.stdout.readline, "") if line.startswith("epoch   2/3")][:1]
        process.kill()
    assert seen
    assert run_command(*words) == 0
    assert [content(record) for record in records.find(results)] == whole


def test_late_arms_branch_from_the_baseline_and_end_as_from_their_beginning(
    images: Path, results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nine steps: conv1 is slowed and the noise ends at the seventh, the biases' rate differs from the second on."""
    arms = ("baseline", "bias_lr_constant", "color_noise_off_late", "freeze_conv1_late")
    words = [*WORDS, f"data.root={images}"]
    suite = ("suite=source_differences", f"ablation={','.join(arms)}", "seed=0", f"results_dir={results}")
    assert run_command(*words, *suite) == 0
    assert capfd.readouterr().out.count("going on after epoch 2 of 3") == 2
    whole = tmp_path / "whole"
    assert run_command(*words, "-m", f"ablation={','.join(arms)}", f"results_dir={whole}") == 0
    found = [content(record) for record in records.find(results)]
    (baseline,) = [record for record in records.find(results) if record.ablation.startswith("scale=")]
    origins = [record.pop("branched_from") for record in found]
    assert found == [
        {key: value for key, value in content(record).items() if key != "branched_from"}
        for record in records.find(whole)
    ]
    origin = f"imagefolder/paper/{baseline.folder.parent.name}/{baseline.folder.name} after epoch 2"
    assert [origin if "late" in record["ablation"] else None for record in found] == origins
    assert not list(results.rglob(checkpoint.NAME))


def test_an_arm_that_has_begun_is_not_branched(
    words: list[str], results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    late = latest(*words, "suite=source_differences", "ablation=freeze_conv1_late,baseline", "seed=0")
    assert run_command(*late) == 0
    assert "going on" not in capfd.readouterr().out
    assert {record.branched_from for record in records.find(results)} == {None}


# ---- how long runs take ----------------------------------------------------------------------------------------------


def test_a_runs_length_is_that_of_its_other_seeds_or_of_the_setups_other_runs(
    words: list[str], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline, no_lrn, _, again = requests(words).wanted
    timings = Timings(results / "seconds.jsonl", "this one")
    results.mkdir()
    assert timings.estimate(baseline) is None
    timings.add(baseline, 30.0)
    Timings(timings.path, "another device").add(no_lrn, 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(pace, "CALL", "an earlier one")
        timings.add(no_lrn, 2.0, guess=True)
    assert timings.estimate(no_lrn) == 30
    timings.add(no_lrn, 60.0)
    assert timings.estimate(again) == 60
    timings.add(no_lrn, 50.0, guess=True)
    assert timings.estimate(again) == 50
    timings.add(no_lrn, 60.0)
    with timings.path.open("a") as file:
        file.write('{"device": "this')  # a kill while it was written
    longer = requests(latest(*words, "train.epochs=6")).wanted
    assert timings.estimate(longer[0]) == pytest.approx(2 * 45)
    other = requests(latest(*words, "setup=embedded")).wanted
    assert timings.estimate(other[0]) is None


def test_the_summary_tells_what_was_not_measured(words: list[str], results: Path) -> None:
    wanted = requests(words).wanted
    assert summary("suite=x", wanted, math.inf) == (
        "suite=x: 0 of 4 runs done, 4 left, 4 of them not measured yet: the same command goes on"
    )
    measured(results, wanted[0], seconds=3600)
    assert "4 left, about 4.0 hours: the same command" in summary("x", wanted, math.inf)


def test_time_runs_out() -> None:
    assert Clock(time.monotonic() - 1).left < 0 < Clock(math.inf).left


@pytest.mark.parametrize(
    ("mistake", "answer"),
    [
        ("minutes=0", "minutes=0: must be a number above 0"),
        ("minutes=soon", "minutes=soon: must be a number"),
        ("minutes=nan", "minutes=nan: must be a number"),
        ("at_once=1.5", "at_once=1.5: must be a whole number"),
        ("at_once=5000", "at_once=5000: each run takes a core at least, and here are"),
        ("seed=x", "seed=x"),
        ("abl=no_lrn", "unknown key abl"),
    ],
)
def test_words_that_mean_nothing(
    mistake: str, answer: str, start: Start, results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command(*(word for word in SUITE if word[:5] != mistake[:5]), mistake) == 2
    err = capfd.readouterr().err
    assert answer in err
    assert err.count("error: ") == 1


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ((), "add suite=NAME, or -m and lists"),
        (("suite=cousins", "hydra/launcher=submitit_slurm"), "leave out hydra/launcher=submitit_slurm"),
        (("-m", "seed=interval(0,1)"), "leave out seed=interval(0,1)"),
    ],
)
def test_only_runs_that_this_process_makes_have_a_clock(
    words: tuple[str, ...], remedy: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_command(*words, "minutes=3") == 2
    assert f"minutes=3 is for several runs that this process makes: {remedy}" in capfd.readouterr().err


def test_a_sweep_has_a_clock_too(images: Path, results: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = latest(*WORDS, f"data.root={images}", f"results_dir={results}", "seed=0,1", "minutes=1e-9")
    assert run_command("-m", *words) == 0
    assert (
        "sweep: 0 of 2 runs done, 2 left, 2 of them not measured yet: the same command goes on"
        in capfd.readouterr().out
    )


def test_what_is_known_to_be_unusable_is_told_once(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run_command(*latest(*words, f"data.root={tmp_path / 'file'}")) == 2
    out, err = capfd.readouterr()
    assert err.count("error: ") == err.count("is a file, not a folder") == out.count(" of 4: ") == 1
    assert "0 of 4 runs done" in out


def test_runs_at_once_take_the_longest_or_their_share() -> None:
    assert campaign._wall([120.0, 120.0, 120.0], 1) == "about 6 minutes"
    assert campaign._wall([120.0, 120.0, 120.0], 3) == "about 2 minutes with 3 at once"
    assert campaign._wall([10.0, 240.0], 2) == "about 4 minutes with 2 at once"
    assert campaign._wall([30.0], 3) == "about 30 seconds"


@pytest.mark.parametrize("own", ["minutes=3", "at_once=2"])
def test_force_goes_on_with_nothing(own: str, start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    assert start(own, "force=true") == 2
    assert "makes runs over and over" in capfd.readouterr().err


def test_processes_that_share_a_run_have_no_clock(
    start: Start, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert start("minutes=3") == 2
    assert "for one process" in capfd.readouterr().err


def test_what_the_disk_refuses_one_run_holds_no_other_up(
    start: Start, words: list[str], results: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write, first = records.write, requests(words).wanted[0].folder

    def refusing(folder: Path, *content: Any) -> None:
        if folder == first:
            raise PermissionError(13, "Permission denied", str(folder))
        write(folder, *content)

    monkeypatch.setattr(records, "write", refusing)
    assert start("ablation=baseline") == 1
    out, err = capfd.readouterr()
    assert f"error: {first}: Permission denied\n" in err
    assert "1 of 2 runs done" in out


def test_a_second_signal_is_handed_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    class Child:
        def __init__(self, *_: object, **__: object) -> None:
            self.stdout = io.BytesIO()

        def send_signal(self, number: int) -> None:
            sent.append(number)

        def wait(self) -> int:
            if len(sent) < 3:
                raise stopping.Stopped(signal.SIGTERM if sent else signal.SIGINT)
            return 3

    monkeypatch.setattr("subprocess.Popen", Child)
    assert campaign._several([], Clock(math.inf), 2) == 128 + signal.SIGINT
    assert sent == 2 * [signal.SIGINT] + 2 * [signal.SIGTERM]


def test_a_damaged_record_costs_a_suite_its_own_run_alone(
    start: Start, words: list[str], results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = requests(words).wanted[0].folder
    damaged.mkdir(parents=True)
    (damaged / "record.json").write_text("{")
    assert start("ablation=baseline") == 2
    out, err = capfd.readouterr()
    assert f"error: {damaged / 'record.json'}: not a readable record" in err
    assert "1 of 2 runs done" in out


def test_a_seed_in_quotes_is_that_seed(words: list[str]) -> None:
    assert [run.config.seed for run in requests(latest(*words, "seed='0',1", "ablation=baseline")).wanted] == [0, 1]


# ---- what fails, and what is left behind -----------------------------------------------------------------------------


def test_a_fault_of_the_program_costs_its_own_run_alone(
    start: Start, words: list[str], results: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write, first = records.write, requests(words).wanted[0].folder

    def faulty(folder: Path, *content: Any) -> None:
        if folder == first:
            raise RuntimeError("a fault")
        write(folder, *content)

    monkeypatch.setattr(records, "write", faulty)
    assert start("ablation=baseline") == 1
    out, err = capfd.readouterr()
    assert "Traceback (most recent call last)" in err
    assert "RuntimeError: a fault\n" in err
    assert "1 of 2 runs done" in out


def test_a_record_of_an_older_configuration_is_not_done(
    start: Start, words: list[str], results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = latest(*words, "ablation=baseline", "seed=0")
    assert run_command(*words) == 0
    (run,) = requests(words).wanted
    path = run.folder / "record.json"
    path.write_text(path.read_text().replace('"momentum": 0.9', '"momentum": 0.8'))
    capfd.readouterr()
    assert run_command(*words) == 2
    out, err = capfd.readouterr()
    assert "there is a record of an older configuration: force=true replaces it" in err
    assert "0 of 1 run done" in out
    assert "older settings" in out


def test_what_is_left_of_a_run_is_told_from_its_checkpoint(
    words: list[str], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = latest(*words, "ablation=baseline", "seed=0", "train.epochs=4")
    (run,) = requests(words).wanted
    measured(results, run, seconds=400)
    assert pace.seconds_left(run) == 400

    def interrupted(self: Screen, row: dict[str, Any]) -> None:
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Screen, "epoch", interrupted)
    assert run_command(*words) == 130
    assert checkpoint.epochs(run.raw) == 3
    assert pace.seconds_left(run) == pytest.approx(100)
    assert "1 left, about 2 minutes" in summary("x", [run], math.inf)
    (run.raw / checkpoint.NAME).write_bytes(b"damaged")
    assert checkpoint.epochs(run.raw) == 2  # of the one before it


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["parent", "child"])
def test_a_kill_of_one_process_is_told_or_ends_the_others(whose: str, words: list[str], results: Path) -> None:
    command = [sys.executable, "-m", "repro.run", *latest(*words, "train.epochs=200", "seed=0,1"), "at_once=2"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "epoch   1/200" in line:
                break
        children = [
            int(number) for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ]
        assert len(children) == 2
        if whose == "child":
            for number in children:
                os.kill(number, signal.SIGKILL)
            out, _ = process.communicate(timeout=120)
            assert process.returncode == 128 + signal.SIGKILL
            assert "error: process 1 ended by SIGKILL\nerror: process 2 ended by SIGKILL\n" in out
            return
        process.kill()
    deadline = time.monotonic() + 60
    while any(_alive(number) for number in children):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert {record.status for record in records.find(results)} == {"stopped"}


def _alive(process: int) -> bool:
    """Tells whether it runs: one that has ended stays in the table until it is waited for."""
    try:
        return "Z (zombie)" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_a_sweep_over_names_by_a_pattern_is_made_here(
    images: Path, results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = latest(*WORDS, f"data.root={images}", f"results_dir={results}", "ablation=glob(no_fc*)", "minutes=1e-9")
    assert run_command("-m", *words) == 0
    out = capfd.readouterr().out
    assert "ablation no_fc6, no_fc7" in out
    assert "sweep: 0 of 2 runs done" in out


# ---- suites that tune a key ------------------------------------------------------------------------------------------


@pytest.fixture
def tuned(words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A suite of one arm and two seeds whose learning rate is sought: the largest makes the run diverge."""
    suite = suites.Suite(
        "tuned", "Which?", "imagefolder", ("paper",), ("baseline",), (0, 1), tune={"optimizer.lr": [1e-9, 0.01, 1e9]}
    )
    monkeypatch.setattr(suites, "read", lambda name: suite)
    return ["suite=tuned", *(word for word in words if word.split("=")[0] not in ("suite", "ablation", "seed"))]


def test_a_suite_that_tunes_a_key_searches_and_then_runs_all_seeds(
    tuned: list[str], results: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    best = {1e-9: 80.0, 0.01: 60.0}
    monkeypatch.setattr(rate_search, "measure", lambda run: best.get(run.config["optimizer"]["lr"], math.inf))
    assert run_command(*tuned) == 0
    out = capfd.readouterr().out
    assert "  then     all seeds of each arm at its own best optimizer.lr" in out
    assert "suite=tuned: 5 of 5 runs done" in out
    found = {
        (run.seed, run.config["optimizer"]["lr"], run.metrics.minival is not None) for run in records.find(results)
    }
    assert found == {(0, 1e-9, True), (0, 0.01, True), (0, 1e9, False), (0, 0.01, False), (1, 0.01, False)}
    searched = next(run for run in records.find(results) if run.metrics.minival is not None)
    assert searched.data.train_images == 36  # of 40
    assert run_command(*tuned) == 0
    assert "done already: 5 of 5" in capfd.readouterr().out


def test_a_best_value_at_the_edge_ends_an_arm_with_what_to_do(
    tuned: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rate_search, "measure", lambda run: run.config["optimizer"]["lr"])
    assert run_command(*tuned) == 2
    out, err = capfd.readouterr()
    assert err.count("error: ") == err.count("1e-09 is best, the edge of the grid: add a smaller one") == 1
    assert "3 of 3 runs done" in out


def test_force_does_not_go_with_a_search(tuned: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(*tuned, "force=true") == 2
    assert "a suite that tunes a key: choose another results_dir" in capfd.readouterr().err
