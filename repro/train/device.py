"""Which device a run computes on."""

import torch

from repro.errors import UserError
from repro.ranks import ALONE, Ranks


def choose_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device; of several GPUs a process takes the one of its number.

    UserError where the machine lacks it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and ranks.count > 1:
        name = f"cuda:{ranks.local}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"train.device={name}: choose auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"train.device={name}: choose auto, cpu, cuda or cuda:N")
    # torch keeps an index in one byte, so that a large one comes out negative
    if device.type == "cuda" and not 0 <= (device.index or 0) < torch.cuda.device_count():
        raise UserError(f"train.device={name}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device
