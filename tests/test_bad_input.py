"""Each mistake ends in one line that says what is wrong and what to do: exit code 2 for the user's, 1 for a failure."""

import errno
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from repro import record as records
from repro.errors import UserError
from repro.model import Network
from repro.terminal.screen import Screen
from repro.train import checkpoint, memory
from repro.train.device import choose_device
from tests.tiny import WORDS, make_image_folder, only_record, run_command

pytestmark = pytest.mark.usefixtures("one_thread")

Refuse = Callable[..., str]


@pytest.fixture
def words(images: Path, results: Path) -> list[str]:
    """A run that would go well."""
    return [*WORDS, "train.epochs=1", f"data.root={images}", f"results_dir={results}"]


@pytest.fixture
def refuse(words: list[str], capfd: pytest.CaptureFixture[str]) -> Refuse:
    """Runs the command with words that replace those of the good run; returns its one line of error."""

    def run(*mistakes: str, code: int = 2) -> str:
        keys = {word.partition("=")[0] for word in mistakes}
        kept = [word for word in words if word.partition("=")[0] not in keys]
        assert run_command(*kept, *mistakes) == code
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        (error,) = (line for line in err.splitlines() if line.startswith("error: "))
        return error.removeprefix("error: ")

    return run


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mistake", "answer"),
    [
        ("ablation=no_lnr", "did you mean no_lrn?"),
        ("setup=imagenet", "ilsvrc2012"),
        ("trian.epochs=3", "did you mean train?"),
        ("train.epochs=many", "train.epochs=many"),
        ("model.activation=relux", "sigmoid"),
        ("seed=-1", "seed=-1: must be at least 0"),
        ("train.micro_batch=5", "must divide train.batch_size=16"),
        ("data.crop=99", "does not fit images of 72"),
        ("seed=0,1", "put -m in front"),
    ],
)
def test_words_that_mean_nothing(mistake: str, answer: str, refuse: Refuse, results: Path) -> None:
    assert answer in refuse(mistake)
    assert not results.exists()


def test_a_sweep_with_a_bad_value_starts_no_run(refuse: Refuse, results: Path) -> None:
    assert "seed=x" in refuse("-m", "seed=0,x")
    assert records.find(results) == []


# ---- images and network ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (lambda path: None, "no such folder"),
        (lambda path: path.mkdir(), "is empty"),
        (lambda path: path.touch(), "is a file"),
        (lambda path: make_image_folder(path, classes=1), "at least two"),
        (lambda path: make_image_folder(path, train=15), "train.batch_size=15 or less"),
        (lambda path: (make_image_folder(path) / "train" / "class_0" / "0.png").write_bytes(b"?"), "1 image cannot"),
    ],
    ids=["missing", "empty", "file", "one class", "fewer than a batch", "damaged"],
)
def test_images_that_cannot_be_trained_on(
    make: Callable[[Path], object], answer: str, refuse: Refuse, results: Path, tmp_path: Path
) -> None:
    root = tmp_path / "images"
    make(root)
    assert answer in refuse(f"data.root={root}")
    assert records.find(results) == []


def test_a_minival_that_leaves_less_than_a_batch(refuse: Refuse) -> None:
    assert "data.minival=0.99" in refuse("data.minival=0.99")


@pytest.mark.parametrize(
    ("mistake", "answer"),
    [
        ("data.crop=12", "data.crop=12"),
        ("model.layers=[conv1,fc8]", "conv2"),
    ],
)
def test_networks_that_do_not_fit(mistake: str, answer: str, refuse: Refuse, results: Path) -> None:
    assert answer in refuse(mistake)
    assert records.find(results) == []


def test_a_network_larger_than_the_memory_is_refused_before_an_image_is_packed(
    refuse: Refuse, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "size_of", lambda device: 2**19)
    answer = refuse(f"data.cache={tmp_path / 'packed'}")
    assert "81,898 parameters, their gradients and velocities take 0 GiB, and this machine has 0: make model" in answer
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize(
    ("mistake", "answer"),
    [
        ("model.columns=7", "7 columns cannot share"),
        ("data.crop=12", "data.crop=12"),
        ("train.batch_size=41", "train.batch_size=40 or less"),
        ("data.minival=0.99", "data.minival=0.99"),
    ],
)
def test_no_image_is_packed_for_what_cannot_run(mistake: str, answer: str, refuse: Refuse, tmp_path: Path) -> None:
    root = make_image_folder(tmp_path / "images")
    assert answer in refuse(f"data.root={root}", mistake)
    assert not (root / ".repro-cache").exists()


# ---- the machine -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("cuda", "this machine has 0 CUDA devices"),
        ("cuda:1000", "this machine has 0 CUDA devices"),
        ("cuda:x", "choose auto, cpu, cuda or cuda:N"),
        ("tpu", "choose auto, cpu, cuda or cuda:N"),
        ("mps", "choose auto, cpu, cuda or cuda:N"),
        ("", "choose auto, cpu, cuda or cuda:N"),
    ],
)
def test_devices_that_are_not_there(name: str, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=f"train.device={name}: {answer}"):
        choose_device(name)


def test_a_cpu_records_no_graph(refuse: Refuse) -> None:
    assert "one process and a CUDA device" in refuse("train.cuda_graph=true")


def test_a_run_on_a_device_that_is_not_there(refuse: Refuse, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "train.device=cuda" in refuse("train.device=cuda")
    assert records.find(results) == []


@pytest.mark.parametrize(("sweep", "name"), [((), "file"), (("-m",), "file/results")])
def test_results_in_a_file(sweep: tuple[str, ...], name: str, refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = refuse(*sweep, f"results_dir={tmp_path / name}")
    assert "cannot be written (Not a directory)" in error or "cannot be written (File exists)" in error
    assert str(tmp_path / "file") in error


@pytest.mark.parametrize(
    ("number", "code", "answer"),
    [(errno.EROFS, 2, "choose another folder"), (errno.EACCES, 2, "choose another folder"), (errno.ENOSPC, 1, "full")],
)
def test_results_that_cannot_be_written_stop_the_run_at_its_start(
    number: int, code: int, answer: str, refuse: Refuse, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    monkeypatch.setattr("repro.runner.open_data", lambda _: pytest.fail("too late"))
    error = refuse(code=code)
    assert f"results_dir={results}" in error
    assert answer in error


@pytest.mark.parametrize("place", ["torch.save", "repro.record.write_file"])
def test_a_disk_that_fills_up_during_the_run_leaves_no_half_record(
    place: str, refuse: Refuse, words: list[str], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        error = refuse(code=1)
    assert "No space left on device" in error
    assert "give the same command again" in error
    assert records.find(results) == []
    assert not [path for path in results.rglob("*") if path.suffix in (".tmp", ".new")]
    assert run_command(*words) == 0
    assert only_record(results).status == "complete"


def test_too_little_memory(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")

    training = Network.forward
    monkeypatch.setattr(Network, "forward", lambda net, x: (forward if net.training else training)(net, x))
    assert "out of memory with 16 images at once: try train.micro_batch=8" in refuse(code=1)


# ---- a checkpoint that cannot be used --------------------------------------------------------------------------------


@pytest.fixture
def stopped(words: list[str], results: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run that Ctrl-C ended."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Screen, "epoch", interrupt)
        assert run_command(*words) == 130
    (path,) = results.rglob(checkpoint.NAME)
    return path


def test_a_truncated_checkpoint(stopped: Path, refuse: Refuse, words: list[str], results: Path) -> None:
    stopped.write_bytes(stopped.read_bytes()[:-100])
    error = refuse()
    assert f"{stopped}: the checkpoint is damaged" in error
    assert "force=true" in error
    assert only_record(results).status == "stopped"
    assert run_command(*words, "force=true") == 0
    assert only_record(results).status == "complete"


def test_a_checkpoint_of_another_configuration(stopped: Path, refuse: Refuse) -> None:
    state = torch.load(stopped, weights_only=True)
    checkpoint.save(stopped.parent, state | {"config": "another"})
    error = refuse()
    assert f"{stopped}: the checkpoint is of another configuration" in error
    assert "force=true" in error


def test_a_checkpoint_of_other_images(stopped: Path, refuse: Refuse, tmp_path: Path) -> None:
    other = make_image_folder(tmp_path / "other", train=44)
    assert "other images" in refuse(f"data.root={other}")


def test_a_damaged_record(stopped: Path, refuse: Refuse, results: Path) -> None:
    path = only_record(results).folder / "record.json"
    path.write_text("{")
    error = refuse()
    assert f"{path}: not a readable record" in error
    assert "remove" in error


def test_a_second_process_on_the_same_run(stopped: Path, refuse: Refuse) -> None:
    with FileLock(stopped.parent / "run.lock"):
        assert "another process is making this run" in refuse()
