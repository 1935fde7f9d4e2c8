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
from tests.tiny import make_training, tiny_config

IDENTITY = {"config": "c0ffee", "data": "beef"}
STATE = IDENTITY | {"weights": torch.arange(3.0), "curve": [{"epoch": 1, "val_top1": 50.0, "events": "x"}]}


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "run", STATE)
    loaded = checkpoint.load(tmp_path / "run", IDENTITY)
    assert loaded is not None
    assert torch.equal(loaded.pop("weights"), torch.arange(3.0))
    assert loaded == {key: STATE[key] for key in ("config", "data", "curve")}
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
        checkpoint.load(tmp_path, IDENTITY)


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
    checkpoint.finish(tmp_path, training.network, Origin("here", {}, ("a", "b"), {}))
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
