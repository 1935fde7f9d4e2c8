"""Kills at every change of a file between a run's last epoch and the end of its command; the command given again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from repro import pace, runner
from repro import record as records
from repro.train import checkpoint
from tests.faults.killing import killed_at
from tests.interrupting import Kill, interrupt
from tests.tiny import WORDS, content, only_record, run_command

EVENTS = 40
"""More than there are."""
OLD = b"weights of the record that is replaced"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def command(images: Path) -> Callable[..., int]:
    """Runs two epochs with their records in a folder."""
    return lambda results, *words: run_command(
        *WORDS, f"data.root={images}", f"results_dir={results}", "train.epochs=2", *words
    )


@pytest.fixture(scope="module")
def undisturbed(command: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command leaves."""
    results = tmp_path_factory.mktemp("undisturbed")
    assert command(results) == 0
    return results


def left(results: Path) -> dict[str, Any]:
    """Record, weights and names of all files; `force` and how long the run took are what differs by intent."""
    found = content(only_record(results))
    found["config"].pop("force")
    (weights,) = results.rglob(checkpoint.WEIGHTS)
    names = {str(path.relative_to(results)) for path in results.rglob("*") if path.name != pace.FILE}
    tensors = {name: values.tolist() for name, values in load_file(weights).items()}
    return found | {"weights": tensors, "names": names}


def at_its_end(command: Callable[..., int], results: Path, *words: str) -> None:
    """Kills the run when its training has ended."""
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, runner, "measure", 1, Kill())
        with pytest.raises(Kill):
            command(results, *words)


def forced_over_another(command: Callable[..., int], undisturbed: Path, results: Path) -> None:
    """A forced run at its end, in the place of a record and weights that are not its own."""
    shutil.copytree(undisturbed, results)
    next(results.rglob(checkpoint.WEIGHTS)).write_bytes(OLD)
    path = next(results.rglob("record.json"))
    path.write_text(path.read_text().replace('"finished": "20', '"finished": "19'))
    at_its_end(command, results, "force=true")


@pytest.mark.slow
@pytest.mark.parametrize("forced", [False, True])
def test_a_kill_at_any_change_of_a_file_loses_nothing(
    forced: bool, command: Callable[..., int], undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["force=true"] if forced else []
    base, expected = tmp_path / "base", left(undisturbed)
    if forced:
        forced_over_another(command, undisturbed, base)
    else:
        at_its_end(command, base)
    measured: list[Any] = []  # once: it takes longer than all else
    measure = runner.measure
    monkeypatch.setattr(runner, "measure", lambda training: measured or measured.extend(measure(training)) or measured)
    monkeypatch.setattr("repro.train.step.TrainingStep.__call__", lambda *_: pytest.fail("all epochs are done"))
    for number in range(1, EVENTS):
        results = tmp_path / str(number)
        shutil.copytree(base, results)
        with killed_at(number, (runner, "file")) as count:
            try:
                assert command(results, *words) == 0
            except Kill:
                pass
            else:
                break
        if forced and records.exists(place := only_record(results).folder):
            new = records.read(place).finished.startswith("20")
            assert not new or next(results.rglob(checkpoint.WEIGHTS)).read_bytes() != OLD
        assert command(results, *words) == 0, number
        assert left(results) == expected, number
    assert number == count() + 1 > 15


def test_a_forced_run_goes_on_where_it_was_killed(
    command: Callable[..., int], undisturbed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    shutil.copytree(undisturbed, results)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, checkpoint, "save", 2, Kill())
        with pytest.raises(Kill):
            command(results, "force=true")
    before = next(results.rglob("record.json")).read_bytes()
    assert command(results) == 0  # without force the record stands, and the forced run's checkpoint with it
    assert next(results.rglob("record.json")).read_bytes() == before
    capfd.readouterr()
    assert command(results, "force=true") == 0
    assert "going on after epoch 1 of 2" in capfd.readouterr().out
    assert left(results) == left(undisturbed)
    assert command(results, "force=true") == 0
    assert "going on" not in capfd.readouterr().out


def test_done_already_makes_lost_weights_from_the_checkpoint(
    command: Callable[..., int], undisturbed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    at_its_end(command, results)
    # as a kill left it once, between record and weights
    shutil.copytree(undisturbed / "runs", results / "runs", dirs_exist_ok=True)
    assert command(results) == 0
    told = "done already (complete), and its weights are written now, from its last checkpoint; force=true"
    assert told in capfd.readouterr().out
    assert left(results) == left(undisturbed)
    next(results.rglob(checkpoint.WEIGHTS)).unlink()
    assert command(results) == 0
    assert "done already (complete), but without whole weights; force=true" in capfd.readouterr().out


@pytest.mark.parametrize("record_or_weights", ["repro.record.write_file", "repro.files.sync_folder"])
def test_a_disk_that_is_full_at_the_end_loses_nothing(
    record_or_weights: str, command: Callable[..., int], undisturbed: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    at_its_end(command, results)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_or_weights, full)
        assert command(results) == 1
    assert records.find(results) == []
    assert command(results) == 0
    assert left(results) == left(undisturbed)
