"""Processes that share a run make what one process makes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from repro import record as records
from repro.config import Normalization
from repro.distributed import SINGLE, World, from_environment, init
from repro.errors import UserError
from repro.run_checks import check_shared
from repro.train.device import choose_device
from tests.shared_step import ROUNDING
from tests.tiny import WORDS, make_image_folder, make_training, only_record, run_command, tiny_config, tiny_data

TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")
ROOT = Path(__file__).parents[1]


def in_two_processes(*words: str) -> str:
    """What `python -m` prints; on one thread each, for a busy machine."""
    environment = {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        done = subprocess.run([sys.executable, *TWO, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("images", [0, 1, 2, 7, 128])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_image_is_one_processs(images: int, count: int) -> None:
    shares = [range(images)[World(rank, count).shard(images)] for rank in range(count)]
    assert [image for share in shares for image in share] == list(range(images))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_process_is_alone_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert from_environment() == SINGLE
    for name, value in {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert from_environment() == World(3, 8, 1)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "RANK and WORLD_SIZE without LOCAL_RANK: start the processes with torchrun"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "WORLD_SIZE and LOCAL_RANK without RANK: "),
        ({"RANK": "3"}, "RANK without WORLD_SIZE, LOCAL_RANK: start the processes with torchrun, or unset them"),
        ({"RANK": "0", "WORLD_SIZE": "two", "LOCAL_RANK": "0"}, "variable WORLD_SIZE=two: must be a whole number"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, "Slurm started 4 processes, which would each make the whole run"),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "2"}, "Slurm started 2 processes"),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI started 2 processes"),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, "MPI started 2 processes"),
        ({"WORLD_SIZE": "1"}, None),
        ({"LOCAL_RANK": "0"}, None),
        ({"SLURM_NTASKS": "4"}, None),  # the shell of an allocation
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, World(1, 2, 1)),
    ],
    ids=str,
)
def test_processes_that_nothing_joins_do_not_begin(
    environment: dict[str, str],
    message: str | World | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", *(name for name in os.environ if name.startswith("SLURM_"))):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if not isinstance(message, str):
        assert from_environment() == (message or SINGLE)
        return
    with pytest.raises(UserError, match=message):
        from_environment()
    assert run_command(*WORDS) == 2
    assert capsys.readouterr().err.count("error: ") == 1


def test_each_process_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    current = list[torch.device]()
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert choose_device("auto", World(3, 4, 1)) == torch.device("cuda:1")
    assert choose_device("auto", SINGLE) == torch.device("cuda:0")
    assert current == [torch.device("cuda:1"), torch.device("cuda:0")]
    with pytest.raises(UserError, match=r"train.device=cuda: this machine has 2 CUDA devices, and 4 processes need"):
        choose_device("cuda", World(2, 4, 2))
    with pytest.raises(UserError, match=r"train.device=cuda:1: 4 processes would share one GPU"):
        choose_device("cuda:1", World(2, 4, 0))


def test_two_processes_make_the_update_of_one_up_to_rounding() -> None:
    """Weights and losses in float64, after batches of which the last is a single image, whole and in parts."""
    *lines, left = in_two_processes("tests.shared_step").splitlines()
    assert len(lines) == 2
    assert left == "left:"
    for line in lines:
        weights, loss = map(float, line.split())
        assert weights < ROUNDING
        assert loss < ROUNDING


def test_a_shared_run_is_filed_once_and_as_one_process_files_it(tmp_path: Path) -> None:
    """A sweep of which the first run is done already."""
    words = [*WORDS, f"data.root={make_image_folder(tmp_path / 'images')}"]
    for seed, folder in ((0, "shared"), (1, "alone")):
        assert run_command(*words, f"seed={seed}", f"results_dir={tmp_path / folder}") == 0
    told = in_two_processes("repro.run", "-m", *words, "seed=0,1", f"results_dir={tmp_path / 'shared'}")
    assert told.count("done already") == told.count("epoch   3/3") == 1

    alone, shared = only_record(tmp_path / "alone"), records.find(tmp_path / "shared")[1]
    assert (alone.machine.processes, shared.machine.processes) == (1, 2)
    assert shared.config_hash == alone.config_hash
    for ours, theirs in zip(shared.curve(), alone.curve(), strict=True):
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-4)
        assert ours["train_top1"] == theirs["train_top1"]


def test_processes_refuse_what_they_cannot_share() -> None:
    config, data = tiny_config(), tiny_data(val=3)
    check_shared(config, data, World(0, 3))
    with pytest.raises(UserError, match="4 processes cannot share 3 images: start 3 or fewer"):
        check_shared(config, data, World(0, 4))
    config.model.norm.kind = Normalization.batch_norm
    with pytest.raises(UserError, match="run it without torchrun"):
        check_shared(config, data, World(0, 2))
    check_shared(config, data, SINGLE)


def test_processes_with_different_checkpoints_do_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = make_training(tiny_config(), tmp_path)
    monkeypatch.setattr(World, "broadcast", lambda world, decide: (training.identity, 5))
    with pytest.raises(UserError, match="process 0 has other images or checkpoints than process 0"):
        training.resume()


def test_variables_that_torchrun_does_not_leave_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="RANK=2 with WORLD_SIZE=2: ranks count from 0"):
        from_environment()
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="MASTER_ADDR and MASTER_PORT not set: start the processes with torchrun"):
        init(World(0, 2, 0), torch.device("cpu"))
