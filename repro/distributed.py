"""The processes that share one run, as `torchrun` starts them: each has a rank, and takes its part of every batch.

They make the step of one process: the same draws, the same batch, the same dropout masks, gradients added up.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from repro.errors import RunFailure, UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process's place among `count`; on one machine it is the `local`-th."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Tells whether this one writes the files and the terminal."""
        return self.rank == 0

    def shard(self, images: int) -> slice:
        """Returns which of so many consecutive images are this process's; it may be none."""
        return slice(images * self.rank // self.size, images * (self.rank + 1) // self.size)

    def all_reduce(self, sums: "Tensor") -> None:
        """Turns each process's own sums into those of all, in place."""
        if self.size > 1:
            from torch.distributed import all_reduce

            all_reduce(sums)

    def all_gather(self, own: "Tensor", images: int) -> "Tensor":
        """Gathers what all found for their shards of the images, in the images' order: (n, ...) to (images, ...)."""
        if self.size == 1:
            return own
        whole = own.new_zeros(images, *own.shape[1:])
        whole[self.shard(images)] = own
        self.all_reduce(whole)
        return whole

    def broadcast(self, decide: Callable[[], T]) -> T:
        """Returns to all what the main process decides; all raise its UserError or RunFailure."""
        if self.size == 1:
            return decide()
        import torch
        from torch.distributed import broadcast_object_list

        told: list[Any] = [None, None]
        if self.is_main:
            try:
                told[0] = decide()
            except (UserError, RunFailure) as error:
                told[1] = error
        broadcast_object_list(told, device=torch.device("cpu"))
        if told[1] is not None:
            raise told[1]
        return told[0]


SINGLE = World()


_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_STARTERS = {
    "Slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "MPI": ("PMI_RANK", "PMI_SIZE"),
}
"""What else starts several processes: the variable that numbers them, and those that count them, the best one first."""


def from_environment() -> World:
    """Reads this process's place as torchrun tells it; a single process where nothing started several.

    Raises UserError where several were started in another way: each would make the whole run, into the same files.
    """
    told = {name: os.environ[name] for name in _TORCHRUN if name in os.environ}
    if told.keys() == set(_TORCHRUN):
        rank, count, local = (_number(name, text) for name, text in told.items())
        if rank >= count:
            raise UserError(
                f"RANK={rank} with WORLD_SIZE={count}: ranks count from 0; start the processes with torchrun"
            )
        return World(rank, count, local)
    if "RANK" in told or _number("WORLD_SIZE", told.get("WORLD_SIZE", "1")) > 1:
        missing = ", ".join(name for name in _TORCHRUN if name not in told)
        raise UserError(f"{' and '.join(told)} without {missing}: start the processes with torchrun, or unset them")
    for starter, (number, *counts) in _STARTERS.items():
        count = next((_number(name, os.environ[name]) for name in counts if name in os.environ), 1)
        if number in os.environ and count > 1:
            raise UserError(
                f"{starter} started {count} processes, which would each make the whole run: start one, or one torchrun"
                " a machine, which starts them (torchrun --nproc_per_node=GPUS -m repro.run ...)"
            )
    return SINGLE


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"environment variable {name}={text}: must be a whole number; torchrun sets it")
    return int(text)


@cache
def warn(text: str) -> None:
    """One line on stderr: once, however many runs a process makes and however many processes share a run."""
    if from_environment().is_main:
        print(f"warning: {text}", file=sys.stderr)


def init(world: World, device: "torch.device") -> None:
    """The processes can talk to each other from now on; once for all runs of a sweep.

    For a second meeting would read the addresses of the first in torchrun's store.
    """
    if world.size == 1:
        return
    import torch
    from torch import distributed

    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
            raise UserError(f"{' and '.join(missing)} not set: start the processes with torchrun, or unset RANK")
        # Its functions take the group of this moment as a default. Imported later, as torch.optim does, they would keep
        # it to the interpreter's end, where a thread of its that wants the interpreter once more aborts the process.
        import torch.distributed.nn

        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def shut_down() -> None:
    """Ends the talk; not after an error, for it would wait for the others."""
    if from_environment().size > 1:
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()
