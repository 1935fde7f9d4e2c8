"""Mirror of a run on Weights & Biases: the only file that imports wandb.

The files under results_dir are the truth. Whatever W&B does or lacks costs a run one warning and at most
the time limits below, never a result.
"""

import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from repro.config import WandbConfig, WandbMode
from repro.files import escaped
from repro.record import publishable

if TYPE_CHECKING:
    import wandb

    from repro.request import Run
    from repro.train.loop import Progress

INIT_TIMEOUT = 10.0  # seconds; W&B's own 90 would hold up every run on a machine without internet
FINISH_TIMEOUT = 20.0  # seconds; what is not uploaded by then stays on disk for `wandb sync`
LONGEST_NAME = 128  # characters that the server takes for a name, group or job type
LONGEST_TAG = 64
ID_FILE = "wandb-id"
"""Beside a run's checkpoint."""
NAMES = {
    "train_loss": "train/loss",
    "train_top1": "train/top1",
    "val_loss": "val/loss",
    "val_top1": "val/top1",
    "val_top5": "val/top5",
}
"""Of the curve's columns, so that W&B groups their panels."""
LONGEST_REASON = 160


class Tracker:
    """One run on W&B, or nothing: after the first failure it warns once and stays silent.

    As a context manager it always ends the W&B run, as failed where an exception passes through.
    """

    def __init__(self, run: "wandb.Run | None", id_file: Path | None = None) -> None:
        """`id_file` keeps the run's id until it is finished."""
        self._run, self._id_file = run, id_file
        self._run_id: str | None = run.id if run else None

    @property
    def run_id(self) -> str | None:
        """Id of the W&B run; None where there is none."""
        return self._run_id

    @property
    def goes_on(self) -> bool:
        """Tells whether W&B went on with a run that has the epochs before the checkpoint."""
        return self._run is not None and bool(self._run.resumed)

    def log_progress(self, step: "Progress") -> None:
        """Adds the mean loss of the last steps to its curve, at the step."""
        done = step.epoch * step.steps + step.step + 1
        self._attempt(lambda run: run.log({"train/step_loss": step.recent_loss}, step=done))

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        """Adds one point to every curve, at the step: `train/loss`, `val/top1`, and so on."""
        named = {NAMES.get(key, key): value for key, value in row.items() if key != "step"}
        self._attempt(lambda run: run.log(named, step=int(row["step"])))

    def finish(
        self, summary: Mapping[str, Any], files: Sequence[Path], worst: Sequence[tuple[str, int, float]] = ()
    ) -> str | None:
        """Ends the run with its final numbers, the worst classes, and `files` as an artifact; returns the run's id.

        The numbers are filed as `final/<key>`: under a curve's own name W&B puts the curve's last value over them. The
        id is None where there is no run.
        """
        self._attempt(lambda run: run.summary.update({f"final/{key}": value for key, value in summary.items()}))
        if worst:
            self._attempt(partial(_log_classes, worst=worst))
        if files:
            self._attempt(partial(_log_record, files=files))
        self._end(exit_code=0)
        if self._id_file is not None:
            self._id_file.unlink(missing_ok=True)
        return self._run_id

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._end(exit_code=0 if kind is None else 1)

    def _end(self, exit_code: int) -> None:
        if self._run is None:
            return
        run = self._run
        self._attempt(lambda run: run.finish(exit_code=exit_code))
        self._run = None
        if run.offline:
            _say(f"offline run, to upload it: wandb sync {_shortest(Path(run.settings.sync_dir))}")

    def _attempt(self, action: Callable[["wandb.Run"], object]) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:
            _say(f"stopped, the run goes on without it: {_line(error)}")
            run, self._run = self._run, None
            with suppress(Exception):
                run.finish(exit_code=1)


def of_run(wanted: "Run", goes_on: bool = False) -> Tracker:
    """The mirror of a run, named and grouped as W&B shows it; the same one where the run goes on from a checkpoint."""
    config, label = wanted.config, wanted.label
    return tracking(
        config.wandb,
        results_dir=Path(config.results_dir),
        id_file=wanted.raw / ID_FILE,
        goes_on=goes_on,
        name=f"{label}-seed{config.seed}",
        group=f"{config.setup}/{config.recipe}",
        job_type=label,
        tags=[config.setup, config.recipe, label],
        settings={"ablation": label, **publishable(wanted.plain)},
    )


def tracking(
    config: WandbConfig,
    *,
    results_dir: Path,
    id_file: Path | None = None,
    goes_on: bool = False,
    name: str,
    group: str,
    job_type: str,
    tags: Sequence[str],
    settings: Mapping[str, Any],
) -> Tracker:
    """Starts a W&B run with its files in `results_dir`/raw/wandb, or in WANDB_DIR; never raises.

    `settings` is the full resolved configuration, nested. The run's id is kept in `id_file`, and taken from there where
    it `goes_on`; W&B resumes it then. A run that cannot go online is kept offline. What W&B's own
    environment variables say holds where the configuration says nothing.
    """
    mode = _mode(config)
    if mode == "disabled":
        return Tracker(None)
    folder = Path(os.environ.get("WANDB_DIR") or results_dir / "raw")
    if escaped(str(folder)) != str(folder):
        _say(f"not available, the run goes on without it: {escaped(str(folder))} is no UTF-8, as W&B needs it")
        return Tracker(None)
    arguments = {
        **_place(config),
        "dir": str(folder),
        "name": name[:LONGEST_NAME],
        "group": group[:LONGEST_NAME],
        "job_type": job_type[:LONGEST_NAME],
        "tags": [tag[:LONGEST_TAG] for tag in tags],
        "config": dict(settings),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Tracker(_start(mode, arguments | _identity(id_file, goes_on)), id_file)
    except Exception as error:
        _say(f"not available, the run goes on without it: {_line(error)}")
        return Tracker(None)


def _identity(id_file: Path | None, goes_on: bool) -> dict[str, str]:
    """The id that W&B knows the run by: that of its beginning, of WANDB_RUN_ID, or a new one."""
    kept = id_file.read_text(encoding="utf-8") if goes_on and id_file is not None and id_file.is_file() else ""
    if kept:
        return {"id": kept, "resume": "allow"}
    # WANDB_RUN_ID is for one run: the others of a sweep would write over it.
    own_id = os.environ.pop("WANDB_RUN_ID", None) or secrets.token_hex(4)
    if id_file is not None:
        id_file.parent.mkdir(parents=True, exist_ok=True)
        id_file.write_text(own_id, encoding="utf-8")
    return {"id": own_id}


def _place(config: WandbConfig) -> dict[str, str | None]:
    """Project and entity: W&B's own environment variables hold where the configuration says nothing."""
    project = config.project
    if project == WandbConfig().project:
        project = os.environ.get("WANDB_PROJECT") or project
    return {"project": project, "entity": config.entity or os.environ.get("WANDB_ENTITY")}


def _mode(config: WandbConfig) -> str:
    if config.mode is not WandbMode.auto:
        return config.mode.value
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on"):
        return "disabled"
    return os.environ.get("WANDB_MODE") or config.mode.value


def _start(mode: str, arguments: dict[str, Any]) -> "wandb.Run":
    os.environ.setdefault("WANDB_DATA_DIR", arguments["dir"])  # where artifacts wait: not in the user's home
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    if mode != "offline" and not wandb.login(prompt=False, verify=False):
        if mode == "online":
            _say("not logged in (`wandb login`), the run is kept offline")
        mode = "offline"
    # create_new leaves alone a W&B run that the caller has open.
    start = {**arguments, "reinit": "create_new", "settings": _quiet_settings()}
    if mode == "offline":
        start.pop("resume", None)  # there is nobody to ask; the whole curve is written again, under the same id
        return wandb.init(**start, mode="offline")
    try:
        run = wandb.init(**start, mode="online")
    except wandb.Error as error:
        _say(f"not reached, the run is kept offline: {_line(error)}")
        start.pop("resume", None)
        return wandb.init(**start, mode="offline")
    _say(str(run.url))
    return run


def _quiet_settings() -> "wandb.Settings":
    """No capture of the terminal (it breaks progress bars), and nothing about the user or the machine."""
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        host="",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        init_timeout=INIT_TIMEOUT,
        finish_timeout=FINISH_TIMEOUT,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


def _log_record(run: "wandb.Run", files: Sequence[Path]) -> None:
    """Logs the files of a record as an artifact, which holds copies of them."""
    import wandb

    artifact = wandb.Artifact(f"record-{run.id}", type="record")
    for path in files:
        artifact.add_file(str(path), name=path.name)
    run.log_artifact(artifact)


def _log_classes(run: "wandb.Run", worst: Sequence[tuple[str, int, float]]) -> None:
    import wandb

    columns: list[str | int] = ["class", "validation images", "top-1 error, %"]
    run.log({"worst_classes": wandb.Table(columns=columns, data=[list(one) for one in worst])})


def _shortest(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__


def _say(message: str) -> None:
    print(f"W&B: {message}", file=sys.stderr)
