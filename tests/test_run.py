"""Whole runs from a command line to their files, on a folder of a few images."""

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repro import record as records
from repro import runner, stopping
from repro.config import Config, Precision, TrainConfig
from repro.terminal.screen import Screen
from repro.train import loop, precision
from tests.tiny import WORDS, content, latest, only_record, run_command

ROOT = Path(__file__).parents[1]
EPOCHS = 12  # enough for a signal to arrive in the middle

pytestmark = pytest.mark.usefixtures("one_thread")

Start = Callable[..., int]


@pytest.fixture
def start(images: Path, results: Path) -> Start:
    """Runs the tiny setup with these words added, in this process."""
    return lambda *words: run_command(*WORDS, f"data.root={images}", f"results_dir={results}", *words)


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with seeds 0 and 1, each run alone; to be read only."""
    folder = tmp_path_factory.mktemp("finished")
    for own in (["seed=0"], ["seed=1", "ablation=baseline"]):
        assert run_command(*WORDS, f"data.root={images}", f"results_dir={folder}", *own) == 0
    return folder


@pytest.fixture(scope="module")
def singles(finished: Path) -> list[dict[str, Any]]:
    """What the two seeds left."""
    return [content(record) for record in records.find(finished)]


@pytest.fixture(scope="module")
def uninterrupted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run of twelve epochs leaves."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run_command(*WORDS, f"data.root={images}", f"results_dir={folder}", f"train.epochs={EPOCHS}") == 0
    return content(only_record(folder))


def interrupt(monkeypatch: pytest.MonkeyPatch, epoch: int) -> Callable[[], None]:
    """Makes Ctrl-C arrive after an epoch; returns what takes that back."""
    show = Screen.epoch

    def shown(self: Screen, row: dict[str, Any]) -> None:
        show(self, row)
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(Screen, "epoch", shown)
    return lambda: monkeypatch.setattr(Screen, "epoch", show)


# ---- one run ---------------------------------------------------------------------------------------------------------


def test_a_run_leaves_a_whole_record(finished: Path) -> None:
    record, _ = records.find(finished)
    assert (record.setup, record.recipe, record.seed, record.status) == ("imagefolder", "paper", 0, "complete")
    names = {"record.json", "curve.csv", "correct.npz", "kernels.npz"}
    assert {path.name for path in record.folder.iterdir()} == names
    assert (record.data.classes, record.data.train_images, record.data.val_images) == (2, 40, 12)
    counted = record.data.val_images_in_train, record.data.classes_out_of_order
    assert (*counted, record.data.exif_oriented, record.data.transparent) == (0, 0, 0, 0)
    assert record.difference["train.epochs"] == [90, 3]
    assert record.metrics.answers in (1, 2)
    assert record.data.guessing_loss == pytest.approx(np.log(2))
    assert record.metrics.train.loss == pytest.approx(np.log(2), abs=0.5)
    assert record.cost.images_per_second == pytest.approx(3 * 40 / record.cost.minutes / 60)
    assert re.fullmatch(r"[0-9a-f]{16}", record.numerics or "")
    loads = (record.cost.load_start, record.cost.load_end, record.cost.steal, record.cost.others)
    assert all(load is None or load >= 0 for load in loads)
    kernels = record.kernels()
    assert kernels is not None
    assert kernels.shape == (6, 3, 11, 11)
    assert 0 < np.abs(kernels).max() < 1
    assert record.command.startswith("python -m repro.run setup=imagefolder ")
    for mode, errors in (("centre", record.metrics.centre), ("ten_crops", record.metrics.ten_crops)):
        assert errors.top1 == pytest.approx(100 * (1 - np.mean(record.correct()[mode])))
    curve = record.curve()
    assert [row["epoch"] for row in curve] == [1, 2, 3]
    assert curve[-1]["val_top1"] == record.metrics.centre.top1
    assert curve[-1]["val_loss"] == record.metrics.val_loss


def test_a_record_says_which_ablations_were_chosen(finished: Path) -> None:
    assert [record.chosen for record in records.find(finished)] == [None, ["baseline"]]


def test_a_run_keeps_its_weights_and_no_checkpoint(finished: Path) -> None:
    raw = finished / "raw" / records.find(finished)[0].folder.relative_to(finished / "runs")
    assert sorted(path.name for path in raw.iterdir()) == ["run.lock", "weights.safetensors"]


def test_a_record_does_not_tell_where_it_was_made(finished: Path, images: Path) -> None:
    text = (records.find(finished)[0].folder / "record.json").read_text()
    assert str(images.parent) not in text


def test_the_same_seed_leaves_the_same_record_and_the_screen_tells_the_errors(
    start: Start, results: Path, singles: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert start() == 0
    assert content(only_record(results)) == singles[0]
    out, _ = capfd.readouterr()
    assert out.count("training error") == 3
    assert "ten crops" in out
    assert f"record: {only_record(results).folder}\n" in out


def test_another_seed_leaves_another(singles: list[dict[str, Any]]) -> None:
    losses = [{row["train_loss"] for row in single["curve"]} for single in singles]
    assert not losses[0] & losses[1]


def test_a_result_may_lie_in_a_folder_with_an_odd_name(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my [bold] runs [/]"
    words = (*WORDS, f"data.root={images}", f"results_dir='{folder}'", "train.epochs=1")
    assert run_command(*words) == run_command(*words) == 0
    assert capfd.readouterr().out.count(f"{folder}/runs/") == 4  # as it is: the brackets are not markup


def test_another_way_to_compute_the_same_is_the_same_run(start: Start, results: Path, finished: Path) -> None:
    assert start("train.micro_batch=8", "train.checkpoint_activations=true", "train.device=auto") == 0
    same = records.find(finished)[0]
    assert only_record(results).folder.relative_to(results) == same.folder.relative_to(finished)
    assert only_record(results).config_hash == same.config_hash


def test_the_plan_is_told_before_images_are_read(
    start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert start("ablation=no_lrn", f"data.root={tmp_path / 'nowhere'}") == 2
    out = capfd.readouterr().out
    assert "  asks     Does response normalisation lower the error?" in out
    assert "model.norm.kind: lrn -> none" in out


# ---- done, forced, in the way ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hardware", "became"), [(True, "bf16"), (False, "fp32")])
def test_the_record_holds_what_auto_has_become_and_its_name_does_not(
    start: Start, results: Path, monkeypatch: pytest.MonkeyPatch, hardware: bool, became: str
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: hardware)
    assert start("train.precision=auto", "train.epochs=1") == 0
    record = only_record(results)
    assert record.config["train"]["precision"] == became
    assert "train.precision" not in record.difference
    assert "precision" not in record.ablation


def test_bf16_that_is_emulated_is_told_once(
    start: Start, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    monkeypatch.setattr(precision, "bf16_slowdown", lambda device: 12.3)
    assert start("train.precision=bf16", "train.epochs=1") == 0
    assert capsys.readouterr().out.count("12 times slower") == 1
    assert only_record(results).config["train"]["precision"] == "bf16"


def test_a_finished_run_is_skipped_until_forced(
    start: Start, results: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, results)
    path = records.find(results)[0].folder / "record.json"
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(runner, "open_data", lambda _: pytest.fail("a finished run needs no images"))
        assert start() == 0
    out, _ = capfd.readouterr()
    assert "done already (complete); force=true runs it again" in out
    assert "ten crops" in out
    assert path.read_bytes() == before

    assert start("force=true") == 0
    assert json.loads(path.read_text())["command"].endswith("force=true")


@pytest.mark.parametrize("name", ["curve.csv", "correct.npz"])
@pytest.mark.parametrize("other", [None, b"damaged"])
def test_a_finished_run_whose_files_are_not_its_own_is_not_done(
    name: str, other: bytes | None, start: Start, results: Path, finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, results)
    path = records.find(results)[0].folder / name
    if other is None:
        path.unlink()
    else:
        path.write_bytes(other)
    assert start() == 2
    error = capfd.readouterr().err
    assert error.count("error: ") == 1
    assert f"{path}: not a readable record" in error


def test_a_diverged_run_is_filed_as_such_and_not_repeated(
    start: Start, results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert start("optimizer.lr=1e9") == 0
    record = only_record(results)
    assert record.status == "diverged"
    assert record.metrics.centre.top1 is record.metrics.ten_crops.top1 is record.metrics.val_loss is None
    last = record.curve()[-1]
    assert last["events"].endswith("loss not finite")
    assert not {"correct.npz", "kernels.npz"} & {path.name for path in record.folder.iterdir()}
    capfd.readouterr()
    assert start("optimizer.lr=1e9") == 0
    assert "done already (diverged)" in capfd.readouterr().out


def test_a_run_that_diverges_within_an_epoch_tells_its_true_step_and_speed(
    start: Start, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "REPORT_STEPS", 1)
    assert start("optimizer.lr=1e9", "train.batch_size=8") == 0  # five steps an epoch
    record = only_record(results)
    (row,) = record.curve()
    assert row["step"] in (2, 3)
    assert record.cost.images_per_second == pytest.approx(8 * row["step"] / record.cost.minutes / 60)
    assert record.cost.images_per_second == pytest.approx(row["images_per_second"])


@pytest.mark.parametrize(
    ("section", "key", "value", "reason"),
    [
        ("config", "train", {"epochs": 7}, "older configuration"),
    ],
)
def test_a_record_of_something_else_is_not_overwritten(
    section: str,
    key: str,
    value: Any,
    reason: str,
    start: Start,
    results: Path,
    finished: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(finished, results)
    path = records.find(results)[0].folder / "record.json"
    plain = json.loads(path.read_text())
    before = plain[section][key]
    plain[section][key] = before | value if isinstance(before, dict) else value
    path.write_text(json.dumps(plain))
    assert start() == 2
    err = capfd.readouterr().err
    assert err.count("error: ") == 1
    assert reason in err
    assert "force=true" in err
    assert json.loads(path.read_text()) == plain


@pytest.mark.parametrize(
    ("setup", "precision", "difference", "leaf"),
    [
        ("imagenette_small", Precision.bf16, {}, "seed0"),
        ("imagenette_small", Precision.fp32, {}, "seed0-fp32"),
        ("imagenette_small", Precision.fp32, {"train.precision": ("bf16", "fp32")}, "seed0"),
        ("embedded", Precision.fp32, {}, "seed0"),
    ],
)
def test_an_automatic_precision_other_than_bf16_has_a_folder_of_its_own(
    setup: str, precision: Precision, difference: dict[str, Any], leaf: str
) -> None:
    config = Config(setup=setup, train=TrainConfig(precision=precision, device="cpu"))
    wanted = runner.Run(config, "baseline", difference, {}, "", [])
    assert wanted.folder == Path("results/runs") / setup / "paper" / "baseline" / leaf
    assert wanted.raw == Path("results/raw") / setup / "paper" / "baseline" / leaf


# ---- sweeps ----------------------------------------------------------------------------------------------------------


def test_the_jobs_of_a_sweep_leave_what_single_runs_leave(
    start: Start, results: Path, singles: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert start("-m", "seed=1,0") == 0
    assert [content(record) for record in records.find(results)] == singles
    assert [record.command.split()[-1] for record in records.find(results)] == ["seed=0", "seed=1"]
    out = capfd.readouterr().out
    assert out.startswith("sweep: 2 runs\n  seed     1, 0\n")
    assert re.search(r"^1 of 2: .*, seed 1: setup imagefolder", out, re.MULTILINE)
    assert re.search(r"^2 of 2: .*, seed 0: setup imagefolder", out, re.MULTILINE)
    assert out.endswith("sweep: 2 of 2 runs done\n")


def test_a_pattern_of_names_is_a_sweep_like_others(
    start: Start, results: Path, singles: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert start("-m", "ablation=glob(baselin*)") == 0
    assert content(only_record(results)) == singles[0]
    assert "1 of 1: " in capfd.readouterr().out


def test_a_job_that_fails_does_not_hold_up_the_others(
    start: Start, results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert start("-m", "model.scale=0.01,0.0625", "train.epochs=1") == 2
    assert only_record(results).status == "complete"
    err = capfd.readouterr().err
    assert err.count("error: ") == 1
    assert "scale 0.01" in err


def test_ctrl_c_ends_a_sweep(start: Start, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, epoch=1)
    assert start("-m", "seed=0,1") == 130
    assert (only_record(results).seed, only_record(results).status) == (0, "stopped")


# ---- cut off and given again -----------------------------------------------------------------------------------------


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """The background jobs of a shell ignore Ctrl-C, and so would the processes that they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGKILL, -signal.SIGKILL, ""),
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "stopped by SIGTERM"),
    ],
)
def test_a_run_cut_off_by_a_signal_goes_on_to_the_same_end(
    number: signal.Signals,
    code: int,
    line: str,
    images: Path,
    results: Path,
    uninterrupted: dict[str, Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = latest(*WORDS, f"data.root={images}", f"results_dir={results}", f"train.epochs={EPOCHS}")
    command = [sys.executable, "-m", "repro.run", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("epoch   2/12"))
        process.send_signal(number)
        time.sleep(0.03)
        process.send_signal(number)  # as impatient people do
        out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    found = records.find(results)
    if number is not signal.SIGKILL:
        assert [record.status for record in found] == ["stopped"]
        assert 2 <= len(found[0].curve()) < EPOCHS
        assert f"of {EPOCHS}: the same command goes on from there" in out
        assert err.splitlines()[-1] == line
        assert "Traceback" not in err
    else:
        assert found == []

    assert run_command(*words) == 0
    assert "going on after epoch" in capfd.readouterr().out
    assert content(only_record(results)) == uninterrupted


def test_no_signal_changes_the_code_of_a_run_that_has_stopped(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter gives back what is caught, and leaves what is ignored, before the process is gone."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in stopping.SIGNALS}
    try:
        stopping.listen()
        interrupt(monkeypatch, epoch=1)
        assert start("train.epochs=2") == 130
        assert {signal.getsignal(number) for number in stopping.SIGNALS} == {signal.SIG_IGN}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_run_goes_on_when_nobody_reads_what_it_says(
    images: Path, results: Path, singles: list[dict[str, Any]]
) -> None:
    words = latest(*WORDS, f"data.root={images}", f"results_dir={results}")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "repro.run", *words], cwd=ROOT, stdout=full, stderr=full)
    assert done.returncode == 0
    assert content(only_record(results)) == singles[0]


def press_ctrl_c(*_: object) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_while_the_end_is_measured_leaves_a_run_to_go_on_with(
    start: Start,
    results: Path,
    singles: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(runner, "measure", press_ctrl_c)
        assert start() == 130
    assert "the same command goes on" in capfd.readouterr().out
    assert only_record(results).status == "stopped"
    assert start() == 0
    assert content(only_record(results)) == singles[0]


def test_ctrl_c_before_the_first_epoch_has_ended_starts_over(
    start: Start, results: Path, singles: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Screen, "progress", press_ctrl_c)
        assert start() == 130
    stopped = only_record(results)
    assert (stopped.status, stopped.curve()) == ("stopped", [])
    assert start() == 0
    assert content(only_record(results)) == singles[0]


def test_a_forced_run_that_cannot_begin_leaves_the_checkpoint(
    start: Start, results: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    undo = interrupt(monkeypatch, epoch=2)
    assert start() == 130
    undo()
    (checkpoint,) = results.rglob("checkpoint.pt")
    before = checkpoint.read_bytes()
    nowhere = f"data.root={tmp_path / 'nowhere'}"
    assert run_command(*WORDS, nowhere, f"results_dir={results}", "force=true") == 2
    assert checkpoint.read_bytes() == before


def test_a_forced_run_starts_from_the_beginning(
    start: Start,
    results: Path,
    singles: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    undo = interrupt(monkeypatch, epoch=2)
    assert start() == 130
    undo()
    capfd.readouterr()
    assert start("force=true") == 0
    assert "going on" not in capfd.readouterr().out
    found = content(only_record(results))
    assert found.pop("config") == singles[0]["config"] | {"force": True}
    assert found == {key: value for key, value in singles[0].items() if key != "config"}


def test_a_run_does_not_go_on_with_other_code(
    start: Start, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    undo = interrupt(monkeypatch, epoch=2)
    assert start() == 130
    undo()
    monkeypatch.setattr(runner, "fingerprint", lambda *_: "0123456789abcdef")
    assert start() == 2
    assert "the checkpoint is of another configuration, other images or other code" in capfd.readouterr().err


def test_a_run_killed_after_its_last_epoch_only_measures(
    start: Start, results: Path, singles: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    undo = interrupt(monkeypatch, epoch=3)
    start()
    undo()
    with monkeypatch.context() as patch:
        patch.setattr("repro.train.step.TrainingStep.__call__", lambda *_: pytest.fail("all epochs are done"))
        assert start() == 0
    assert content(only_record(results)) == singles[0]


def test_a_resumed_run_has_its_whole_curve_on_wandb(
    start: Start, results: Path, singles: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.test_tracking import inspect

    undo = interrupt(monkeypatch, epoch=2)
    assert start("wandb.mode=offline") == 130
    undo()
    first = only_record(results).wandb_id
    (folder,) = (results / "raw" / "wandb").glob("offline-run-*")
    folder.rename(results / "first")
    assert start("wandb.mode=offline") == 0
    record = only_record(results)
    assert record.wandb_id == first is not None  # W&B's own run goes on, here with its whole curve again
    run = inspect(results)
    losses = [row["item"]["train/loss"] for row in run["history"] if "train/loss" in row["item"]]
    assert losses == [row["train_loss"] for row in record.curve()]
    final = {key: value for summary in run["summary"] for key, value in summary["update"].items()}
    assert final["final/train_top1"] == record.metrics.train.top1  # the centre crops' after the last step
    assert final["train/top1"] == record.curve()[-1]["train_top1"]  # the last epoch's, crops and noise included
    assert run["exit"][0]["exit_code"] == 0
    found = content(record)
    assert found.pop("config")["wandb"]["mode"] == "offline"
    assert found == {key: value for key, value in singles[0].items() if key != "config"}


# ---- the command itself ----------------------------------------------------------------------------------------------


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = """
import runpy, sys
sys.argv[1:] = ["--help"]
try:
    runpy.run_module("repro.run", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
loaded = {"torch", "torchvision", "pandas", "scipy", "wandb", "seaborn", "rich"} & set(sys.modules)
assert not loaded, loaded
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode == 0, ended.stderr
    assert "ablation: adam, add_lrn, average_pool" in ended.stdout
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 2  # seconds, others' load aside
