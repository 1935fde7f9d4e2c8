"""Prefetch: threads make what the next batches need while the device works on those before them.

Reading the store and decoding JPEG files both release the interpreter. The draws are made in order, so a batch is the
same whatever was read ahead.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar, cast

import torch
from torch import Tensor

from repro.data.augmentation import Draw, Windows, cut_into
from repro.data.store import Split
from repro.threads import cores

AHEAD = 2  # batches beyond the one in use
DRAWS_AHEAD = 8  # batches of a GPU: their draws take microseconds, which it would otherwise wait
PART = 32  # images that a thread cuts at a time, so that all work on the next batch

T = TypeVar("T")


def prefetched(items: Iterator[T], count: int) -> Iterator[T]:
    """The same items in the same order, each made by a thread up to `count` before its turn.

    An error of the thread is raised here, in its turn. The thread ends with the iteration, whatever ends it.
    """
    end = object()
    waiting: deque[Future[T | object]] = deque()
    with ThreadPoolExecutor(1, "ahead") as pool:
        try:
            while True:
                while len(waiting) < count:
                    waiting.append(pool.submit(next, items, end))
                item = waiting.popleft().result()
                if item is end:
                    return
                yield cast(T, item)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def prefetched_to_gpu(batches: Iterator[tuple[Draw, Tensor]], device: torch.device) -> Iterator[tuple[Draw, Tensor]]:
    """Each draw with its pinned crops copied to a GPU, on a stream of its own beside the steps before it."""
    aside = _copy_stream(device)
    waiting: deque[tuple[Draw, Tensor, torch.cuda.Event]] = deque()
    for draw, crops in batches:
        with torch.cuda.stream(aside):
            there, copied = crops.to(device, non_blocking=True), torch.cuda.Event()
            copied.record(aside)
        waiting.append((draw, there, copied))
        if len(waiting) > AHEAD:
            yield _arrived(*waiting.popleft())
    while waiting:
        yield _arrived(*waiting.popleft())


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """The same for all passes over images: freed memory is kept for the stream that it was taken for."""
    return torch.cuda.Stream(device)


def _arrived(draw: Draw, crops: Tensor, copied: torch.cuda.Event) -> tuple[Draw, Tensor]:
    """The steps that follow wait for the copy, on the device; its memory is theirs until they are done."""
    current = torch.cuda.current_stream(crops.device)
    current.wait_event(copied)
    crops.record_stream(current)
    return draw, crops


def prefetched_crops(split: Split, draws: Iterator[Draw], crop: int, pinned: bool) -> Iterator[tuple[Draw, Tensor]]:
    """Each draw with its crops on the host; `pinned` in memory from which a GPU copies without the host.

    An error of a thread is raised here. The threads end with the iteration, whatever ends it.
    """
    waiting: deque[tuple[Draw, Tensor, list[Future[None]]]] = deque()
    with ThreadPoolExecutor(cores(), "crops") as pool:
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
