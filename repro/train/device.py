"""The device that a run computes on."""

import torch

from repro.distributed import SINGLE, World
from repro.errors import UserError


def choose_device(name: str, world: World = SINGLE) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device; of several GPUs a process takes the one of its number.

    A GPU becomes the current one: events, streams and Triton's kernels belong to it from now on. UserError where the
    machine lacks it, or where processes that share a run would share a GPU.
    """
    chosen = name
    if chosen == "auto":
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
    if chosen == "cuda":
        chosen = f"cuda:{world.local_rank}"
    elif chosen.startswith("cuda:") and world.size > 1:
        raise UserError(f"train.device={name}: {world.size} processes would share one GPU: write train.device=cuda")
    try:
        device = torch.device(chosen)
    except RuntimeError as error:
        raise UserError(f"train.device={name}: choose auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"train.device={name}: choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        there = torch.cuda.device_count()
        # torch keeps an index in one byte, so that a large one comes out negative
        if not 0 <= (device.index or 0) < there:
            share = f", and {world.size} processes need one each" if world.size > 1 else ""
            raise UserError(f"train.device={name}: this machine has {there} CUDA devices{share}")
        torch.cuda.set_device(device)
    return device
