"""The advice when the memory of a device or machine does not suffice, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from repro.config import Config, Normalization
from repro.errors import RunFailure

# Of torch's allocator on CPUs, of cuDNN, and the names of the error codes of cuBLAS and cuDNN.
_WORDS = ("not enough memory", "allocate memory", "out of memory", "alloc_failed")


@contextmanager
def advised(config: Config, at_once: int | None) -> Iterator[None]:
    """Turns a lack of memory within into a RunFailure with a remedy.

    `at_once` images are worked on at a time; None where the network and the images are only moved to the device.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _about_memory(error):
            raise
        raise RunFailure(_remedy(config, at_once)) from error


def _about_memory(error: Exception) -> bool:
    """Tells whether there is too little of it; torch has a type of its own for that on GPUs only."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(word in str(error).lower() for word in _WORDS)


def _remedy(config: Config, at_once: int | None) -> str:
    """The next size that divides the batch, at most half of what was tried, where a run may work in parts."""
    if at_once is None:
        return "out of memory before the first step: end what else uses the device, or take one with more memory"
    if at_once == 1:
        return "out of memory with one image at a time: a machine with more memory is needed"
    lack = f"out of memory with {at_once} images at once"
    if config.model.norm.kind is Normalization.batch_norm:
        return f"{lack}: set a smaller train.batch_size, for batch normalisation needs whole batches"
    batch = config.train.batch_size
    size = next(size for size in range(min(at_once, batch) // 2 or 1, 0, -1) if batch % size == 0)
    graph = " and leave train.cuda_graph out" if config.train.cuda_graph else ""
    return f"{lack}: try train.micro_batch={size}{graph} (same result)"
