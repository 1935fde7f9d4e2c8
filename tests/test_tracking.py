import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from repro.config import WandbConfig, WandbMode
from repro.tracking import Tracker, tracking
from repro.train.loop import Progress

ROWS = [
    {"epoch": 1, "step": 12, "lr": 0.01, "train_loss": 2.5, "val_top1": None, "events": ""},
    {"epoch": 2, "step": 24, "lr": 0.01, "train_loss": 1.25, "val_top1": 60.0, "events": ""},
    {"epoch": 3, "step": 36, "lr": 0.001, "train_loss": 0.625, "val_top1": 40.5, "events": "lr / 10"},
]
SHOWN = [
    {"epoch": 1, "lr": 0.01, "train/loss": 2.5, "val/top1": None, "events": ""},
    {"epoch": 2, "lr": 0.01, "train/loss": 1.25, "val/top1": 60.0, "events": ""},
    {"epoch": 3, "lr": 0.001, "train/loss": 0.625, "val/top1": 40.5, "events": "lr / 10"},
]
WORST = [("tench", 3, 66.7), ("church", 4, 25.0)]
SETTINGS = {"seed": 1, "model": {"norm": {"k": 2.0, "n": 5}, "layers": ["conv1", "fc8"]}, "data": {"root": None}}


def start(results_dir: Path, mode: WandbMode = WandbMode.offline, label: str = "no_lrn") -> Tracker:
    return tracking(
        WandbConfig(mode=mode),
        results_dir=results_dir,
        name=f"{label}-seed1",
        group="embedded/paper",
        job_type=label,
        tags=["embedded", label],
        settings=SETTINGS,
    )


def run_folders(results_dir: Path) -> list[Path]:
    return sorted((results_dir / "raw" / "wandb").glob("*run-*-*"))


def inspect(results_dir: Path) -> dict[str, list[dict[str, Any]]]:
    """The one run in a folder, as W&B's own reader prints it: record type -> its records."""
    (folder,) = run_folders(results_dir)
    command = [sys.executable, "-m", "wandb", "leet", "inspect", str(folder), "--json"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    records: dict[str, list[dict[str, Any]]] = {}
    for line in printed.splitlines():
        record = json.loads(line)
        records.setdefault(record["type"], []).append(record[record["type"]])
    return records


class BrokenRun:
    """A W&B run whose every call fails."""

    id = "abc"
    offline = True

    def __getattr__(self, name: str) -> Any:
        raise OSError("no space left on device")


def use_all_of(tracker: Tracker, file: Path) -> str | None:
    with tracker:
        for row in ROWS:
            tracker.log_epoch(row)
        return tracker.finish({"train_loss": 0.5, "top1": 25.0}, [file], WORST)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "seed1" / "record.json"
    path.parent.mkdir()
    path.write_text('{"seed": 1}')
    return path


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> tuple[str | None, Path, dict[str, list[dict[str, Any]]]]:
    """Id, folder and records of a run with three epochs."""
    folder = tmp_path_factory.mktemp("results")
    file = folder / "record.json"
    file.write_text('{"seed": 1}')
    run_id = use_all_of(start(folder), file)
    file.unlink()  # W&B has its own copy
    return run_id, run_folders(folder)[0], inspect(folder)


def test_an_offline_run_holds_the_curve_the_configuration_and_the_record(offline: Any) -> None:
    run_id, _, records = offline
    rows = [row["item"] for row in records["history"]]
    curve = [{key: value for key, value in row.items() if key[0] != "_" and "worst" not in key} for row in rows]
    assert curve == SHOWN
    assert [row["step"]["num"] for row in records["history"]] == [12, 24, 36]
    assert (rows[2]["worst_classes.ncols"], rows[2]["worst_classes.nrows"]) == (3, 2)  # with the last epoch
    artifacts = {artifact["type"]: artifact["manifest"]["contents"] for artifact in records["artifact"]}
    assert [file["path"] for file in artifacts["record"]] == ["record.json"]
    (run,) = records["run"]
    assert {key: value for key, value in run["config"]["update"].items() if key != "_wandb"} == SETTINGS
    assert run["run_id"] == run_id
    assert run["display_name"] == "no_lrn-seed1"
    assert (run["project"], run["run_group"], run["job_type"]) == ("alexnet-repro", "embedded/paper", "no_lrn")
    assert run["tags"] == ["embedded", "no_lrn"]
    final: dict[str, Any] = {}
    for summary in records["summary"]:
        final |= summary["update"]
    assert (final["train/loss"], final["final/train_loss"], final["final/top1"]) == (0.625, 0.5, 25.0)
    assert records["exit"][0]["exit_code"] == 0


def test_a_run_tells_nothing_about_user_machine_and_repository(offline: Any) -> None:
    _, folder, records = offline
    assert not {"host", "git", "entity"} & set(records["run"][0])
    assert not {"environment", "stats", "output", "output_raw"} & set(records)
    assert [path.name for path in (folder / "files").iterdir()] == ["media"]


def test_the_terminal_gets_one_line_with_the_command_that_uploads(
    tmp_path: Path, record: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    use_all_of(start(Path("results")), record)
    out, err = capfd.readouterr()
    (folder,) = run_folders(Path("results"))
    assert out == ""
    assert err == f"W&B: offline run, to upload it: wandb sync {folder}\n"


def test_auto_is_offline_where_nobody_is_logged_in(tmp_path: Path) -> None:
    with start(tmp_path, WandbMode.auto) as tracker:
        assert tracker.run_id
    (folder,) = run_folders(tmp_path)
    assert folder.name.startswith("offline-run-")


def test_online_without_login_asks_nothing_and_is_kept_offline(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with start(tmp_path, WandbMode.online):
        pass
    assert "not logged in" in capfd.readouterr().err
    (folder,) = run_folders(tmp_path)
    assert folder.name.startswith("offline-run-")


def test_a_run_that_cannot_go_online_is_kept_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import wandb

    def init(mode: str, **arguments: Any) -> wandb.Run:
        if mode == "online":
            raise wandb.errors.CommError("Timed out while retrying:\nno such host")
        return real_init(mode=mode, **arguments)

    real_init = wandb.init
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr(wandb, "init", init)
    with start(tmp_path, WandbMode.auto) as tracker:
        tracker.log_epoch(ROWS[0])
    first, second = capfd.readouterr().err.splitlines()
    assert first == "W&B: not reached, the run is kept offline: Timed out while retrying: no such host"
    assert "wandb sync" in second
    assert len(inspect(tmp_path)["history"]) == 1


def test_two_runs_in_one_process_are_two(tmp_path: Path, record: Path) -> None:
    ids = {use_all_of(start(tmp_path), record) for _ in range(2)}
    assert len(ids) == len(run_folders(tmp_path)) == 2


def test_an_exception_passes_and_the_run_ends_as_failed(tmp_path: Path) -> None:
    def interrupted() -> None:
        with start(tmp_path) as tracker:
            tracker.log_epoch(ROWS[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert inspect(tmp_path)["exit"][0]["exit_code"] == 1


def test_names_too_long_for_the_server_are_cut(tmp_path: Path) -> None:
    with start(tmp_path, label="x" * 300):
        pass
    (head,) = inspect(tmp_path)["run"]
    assert head["display_name"] == head["job_type"] == "x" * 128
    assert head["tags"] == ["embedded", "x" * 64]


@pytest.mark.parametrize("mode", [WandbMode.auto, WandbMode.online, WandbMode.offline])
def test_a_missing_wandb_costs_one_line(
    mode: WandbMode, record: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert use_all_of(start(record.parent, mode), record) is None
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("W&B: not available, the run goes on without it: ")


def test_an_init_that_fails_costs_one_line(
    record: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def init(**_: Any) -> None:
        raise RuntimeError("the service\ndid not start")

    monkeypatch.setattr("wandb.init", init)
    assert use_all_of(start(record.parent), record) is None
    assert capfd.readouterr().err == "W&B: not available, the run goes on without it: the service did not start\n"


def test_a_results_folder_that_cannot_be_made_costs_one_line(record: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert use_all_of(start(record), record) is None
    (line,) = capfd.readouterr().err.splitlines()
    assert "goes on without it" in line


def test_a_failure_on_the_way_costs_one_line(record: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert use_all_of(Tracker(BrokenRun()), record) == "abc"  # type: ignore[arg-type]
    assert capfd.readouterr().err == "W&B: stopped, the run goes on without it: no space left on device\n"


def test_a_file_that_is_gone_costs_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    use_all_of(start(tmp_path), tmp_path / "no_such.json")
    (line,) = capfd.readouterr().err.splitlines()
    assert "no_such.json" in line
    assert len(inspect(tmp_path)["history"]) == len(ROWS)


def test_disabled_imports_no_wandb(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from repro.config import WandbConfig, WandbMode
from repro.tracking import tracking
empty = dict(name="", group="", job_type="", tags=[], settings={})
with tracking(WandbConfig(mode=WandbMode[sys.argv[1]]), results_dir=Path(sys.argv[2]), **empty) as tracker:
    tracker.log_epoch({"epoch": 1})
    assert tracker.finish({}, []) is None
assert "wandb" not in sys.modules
"""
    for mode, environment in [("disabled", {}), ("auto", {"WANDB_MODE": "disabled"})]:
        command = [sys.executable, "-c", code, mode, str(tmp_path)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert not any(tmp_path.iterdir())


def test_a_folder_that_wandb_cannot_name_costs_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    assert start(folder, WandbMode.offline).run_id is None
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "caf\\udce9/raw is no UTF-8" in err


def test_wandbs_own_variables_hold_where_the_configuration_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("WANDB_RUN_ID", "once1234")
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("repro.tracking._quiet_settings", lambda: None)
    monkeypatch.setattr("wandb.init", lambda **arguments: asked.append(arguments) or BrokenRun())
    for config in (WandbConfig(mode=WandbMode.offline), WandbConfig(WandbMode.offline, "ours", "me")):
        tracking(config, results_dir=tmp_path, name="", group="", job_type="", tags=[], settings={})
    first, second = asked
    assert (first["project"], first["entity"], first["dir"]) == ("theirs", "team", str(tmp_path / "elsewhere"))
    assert (second["project"], second["entity"]) == ("ours", "me")
    assert first["id"] == "once1234"
    assert second["id"] not in ("once1234", None)


def test_wandb_disabled_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DISABLED", "true")
    monkeypatch.setattr("wandb.init", lambda **_: pytest.fail("disabled"))
    assert start(tmp_path, WandbMode.auto).run_id is None


def test_the_loss_of_the_last_steps_is_logged_at_its_step(tmp_path: Path) -> None:
    with start(tmp_path) as tracker:
        for number in (9, 19):
            tracker.log_progress(Progress(1, number, 20, 2.0, 50.0, 100.0, 1.5 + number))
        tracker.log_epoch({"epoch": 2, "step": 40, "train_loss": 2.0})
    history = inspect(tmp_path)["history"]
    assert [(row["step"]["num"], row["item"]["train/step_loss"]) for row in history] == [(30, 10.5), (40, 20.5)]
    assert history[1]["item"]["train/loss"] == 2.0


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_run_that_goes_on_is_the_same_one_and_another_is_not(
    goes_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("wandb.login", lambda **_: True)
    monkeypatch.setattr("wandb.init", lambda **arguments: asked.append(arguments) or BrokenRun())
    folder = tmp_path / "raw" / "seed0"
    empty: dict[str, Any] = {"name": "", "group": "", "job_type": "", "tags": [], "settings": {}}
    for again in (False, goes_on):
        tracking(
            WandbConfig(mode=WandbMode.online), results_dir=tmp_path, id_file=folder / "id", goes_on=again, **empty
        )
    first, second = asked
    assert (first["id"] == second["id"]) is goes_on
    assert (first.get("resume"), second.get("resume")) == (None, "allow" if goes_on else None)
    assert (folder / "id").read_text() == second["id"]


def test_a_finished_run_leaves_no_id_behind(tmp_path: Path, record: Path) -> None:
    path = tmp_path / "raw" / "seed0" / "id"
    empty: dict[str, Any] = {"name": "", "group": "", "job_type": "", "tags": [], "settings": {}}
    tracker = tracking(WandbConfig(mode=WandbMode.offline), results_dir=tmp_path, id_file=path, **empty)
    assert path.read_text() == tracker.run_id
    use_all_of(tracker, record)
    assert not path.exists()
