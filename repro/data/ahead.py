"""Crops cut ahead of the device by threads: reading the store and decoding JPEG files both release the interpreter.

The draws are made in order by the thread that asks, so a batch is the same whatever was read ahead.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repro.data.augmentation import Windows, cut, cut_into
from repro.data.store import Split

AHEAD = 2  # batches beyond the one in use
PART = 32  # images that a thread cuts at a time, so that all work on the next batch


@dataclass(frozen=True)
class Draw:
    """What was drawn for a batch: images (N,) of a split, places, and colour noise (N, 3) or none."""

    indices: np.ndarray
    windows: Windows
    noise: Tensor | None = None

    def part(self, rows: slice) -> "Draw":
        """The draw of some of the images."""
        windows = Windows(self.windows.tops[rows], self.windows.lefts[rows], self.windows.flips[rows])
        return Draw(self.indices[rows], windows, None if self.noise is None else self.noise[rows])


def cut_ahead(split: Split, draws: Iterator[Draw], crop: int, pinned: bool) -> Iterator[tuple[Draw, Tensor]]:
    """Each draw with its crops, as of `cut`; `pinned` in memory from which a GPU copies without the host.

    An error of a thread is raised here. The threads end with the iteration, whatever ends it.
    """
    if isinstance(split.images, Tensor):  # on the device already
        for draw in draws:
            yield draw, cut(split.images, split.places(draw.indices), draw.windows, crop)
        return
    waiting: deque[tuple[Draw, Tensor, list[Future[None]]]] = deque()
    with ThreadPoolExecutor(os.cpu_count(), "crops") as pool:
        try:
            for draw in draws:
                waiting.append((draw, *_start(pool, split, draw, crop, pinned)))
                if len(waiting) > AHEAD:
                    yield _finished(*waiting.popleft())
            while waiting:
                yield _finished(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start(
    pool: ThreadPoolExecutor, split: Split, draw: Draw, crop: int, pinned: bool
) -> tuple[Tensor, list[Future[None]]]:
    crops = torch.empty(len(draw.indices), crop, crop, 3, dtype=torch.uint8, pin_memory=pinned)
    out, places, windows = crops.numpy(), split.places(draw.indices), draw.windows
    futures = []
    for start in range(0, len(places), PART):
        part = slice(start, start + PART)
        there = Windows(windows.tops[part], windows.lefts[part], windows.flips[part])
        futures.append(pool.submit(cut_into, out[part], split.images, places[part], there))
    return crops, futures


def _finished(draw: Draw, crops: Tensor, futures: list[Future[None]]) -> tuple[Draw, Tensor]:
    for future in futures:
        future.result()
    return draw, crops.permute(0, 3, 1, 2)
