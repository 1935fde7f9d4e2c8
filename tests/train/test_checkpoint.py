import errno
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from repro.errors import RunFailure, UserError
from repro.train import checkpoint
from repro.weights.own import Origin
from tests.interrupting import Kill, interrupt
from tests.tiny import make_training, tiny_config

IDENTITY = {"config": "c0ffee", "data": "beef"}
STATE = IDENTITY | {
    "network": {"conv1": torch.arange(3.0)},
    "optimizer": {},
    "schedule": {},
    "curve": [{"epoch": 1, "val_top1": 50.0, "events": "x"}],
}


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "run", STATE)
    loaded = checkpoint.load(tmp_path / "run", IDENTITY)
    assert loaded is not None
    assert torch.equal(loaded.pop("network")["conv1"], torch.arange(3.0))
    assert loaded == {key: value for key, value in STATE.items() if key != "network"}
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint.pt"]


def test_without_a_checkpoint_there_is_nothing_to_load(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path, IDENTITY) is None
    checkpoint.delete(tmp_path)


@pytest.mark.parametrize("identity", [IDENTITY | {"config": "other"}, IDENTITY | {"data": "other"}])
def test_a_checkpoint_of_something_else_is_refused(identity: dict[str, str], tmp_path: Path) -> None:
    checkpoint.save(tmp_path, STATE)
    with pytest.raises(UserError, match=r"checkpoint\.pt: .*another configuration.* force=true"):
        checkpoint.load(tmp_path, identity)


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_truncated_checkpoint_is_refused(kept: int, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, STATE)
    path = tmp_path / checkpoint.NAME
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"checkpoint\.pt: .*damaged.* force=true"):
        checkpoint.settle(tmp_path, pytest.fail)


def flip_a_bit(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 0.999])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(place: float, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, STATE | {"curve": [1]})
    checkpoint.save(tmp_path, STATE | {"curve": [1, 2]})
    flip_a_bit(tmp_path / checkpoint.NAME, place)
    warnings: list[str] = []
    checkpoint.settle(tmp_path, warnings.append)
    loaded = checkpoint.load(tmp_path, IDENTITY)
    assert loaded is not None
    assert loaded["curve"] == [1]
    assert len(warnings) == 1
    assert f"{tmp_path / checkpoint.NAME}: the checkpoint is damaged" in warnings[0]


def test_the_one_before_it_is_not_given_up_for_a_damaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for epoch in (1, 2):
        checkpoint.save(tmp_path, STATE | {"curve": [epoch]})
    flip_a_bit(tmp_path / checkpoint.NAME, 0.5)
    checkpoint.settle(tmp_path, lambda _: None)
    with monkeypatch.context() as patch:
        interrupt(patch, torch, "save", 1, Kill())
        with pytest.raises(Kill):
            checkpoint.save(tmp_path, STATE)
    checkpoint.settle(tmp_path, pytest.fail)
    assert (checkpoint.load(tmp_path, IDENTITY) or {})["curve"] == [1]


@pytest.mark.parametrize("names", [[checkpoint.NAME], [checkpoint.NAME, checkpoint.BEFORE], [checkpoint.BEFORE]])
def test_damaged_checkpoints_without_a_whole_one_are_refused(names: list[str], tmp_path: Path) -> None:
    for name in reversed(names):  # the newest last
        checkpoint.save(tmp_path, STATE)
        (tmp_path / checkpoint.NAME).rename(tmp_path / name)
        flip_a_bit(tmp_path / name, 0.5)
    with pytest.raises(UserError, match=rf"{names[0]}: the checkpoint is damaged.* force=true"):
        checkpoint.settle(tmp_path, pytest.fail)


def test_a_checkpoint_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / checkpoint.NAME).mkdir()
    with pytest.raises(
        UserError, match=rf"{checkpoint.NAME}: the checkpoint cannot be read \(Is a directory\): move it"
    ):
        checkpoint.settle(tmp_path, pytest.fail)


def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    for part in ("network", "optimizer", "schedule", "curve"):
        checkpoint.save(tmp_path, {key: value for key, value in STATE.items() if key != part})
        with pytest.raises(UserError, match=rf"checkpoint\.pt: the checkpoint has no {part}"):
            checkpoint.load(tmp_path, IDENTITY)


@pytest.mark.parametrize("part", ["network", "optimizer", "schedule"])
def test_a_part_that_is_empty_is_refused(part: str, tmp_path: Path) -> None:
    training = make_training(tiny_config(), tmp_path)
    checkpoint.save(tmp_path, training.state() | {part: {}})
    with pytest.raises(UserError, match=r"checkpoint\.pt: the checkpoint lacks a part"):
        training.resume()


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "touched",)

    for save in (torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))):
        save(IDENTITY | {"weights": Evil()}, tmp_path / checkpoint.NAME)
        with pytest.raises(UserError, match="damaged"):
            checkpoint.load(tmp_path, IDENTITY)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed")])
def test_a_full_disk_leaves_the_old_checkpoint_whole(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, STATE)

    def save(state: Any, file: Any) -> None:
        file.write(b"half of it")
        raise error

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(RunFailure, match="make room"):
        checkpoint.save(tmp_path, STATE | {"epoch": 2})
    checkpoint.settle(tmp_path, pytest.fail)
    assert checkpoint.load(tmp_path, IDENTITY) is not None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_folder_that_cannot_be_made_is_a_failure_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFailure, match="cannot be written"):
        checkpoint.save(tmp_path / "file" / "run", STATE)


def test_the_end_of_a_run_keeps_its_weights_only(tmp_path: Path) -> None:
    training = make_training(tiny_config(), tmp_path)
    training.run()
    assert (tmp_path / checkpoint.NAME).exists()
    checkpoint.keep_weights(tmp_path, training.network, Origin("here", {}, ("a", "b"), {}))
    checkpoint.delete(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.WEIGHTS]
    weights = load_file(tmp_path / checkpoint.WEIGHTS)
    assert weights.keys() == training.network.state_dict().keys()
    for name, value in training.network.state_dict().items():
        assert torch.equal(weights[name], value)


def test_a_diverged_epoch_leaves_no_checkpoint(tmp_path: Path) -> None:
    config = tiny_config()
    config.optimizer.lr = 1e30
    training = make_training(config, tmp_path)
    training.run()
    assert training.diverged
    assert not (tmp_path / checkpoint.NAME).exists()
