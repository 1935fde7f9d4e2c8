"""CUDA graphs: a recording that runs nothing, and replays on the same memory."""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map

from tests.pretend.machine import Gpu, Memory, Stream, mark, memory, on_stream, synchronize, tensors


def fresh(results: Any, given: Any) -> list[Tensor]:
    """Those of an operator's results that are no memory of what it was given."""
    known = {tensor.untyped_storage()._cdata for tensor in tensors(given)}
    return [tensor for tensor in tensors(results) if tensor.untyped_storage()._cdata not in known]


def spoil(tensor: Tensor) -> None:
    """Values that show."""
    if tensor.dtype is not torch.bool:
        tensor.fill_(math.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max)


@dataclass
class Tape:
    """What a graph records: operators, and what they changed, for nothing has run when the recording ends."""

    thread: int
    mode: str
    steps: list[tuple[Callable[..., Any], Any, Any, list[Tensor]]] = field(default_factory=list)
    own: set[Memory] = field(default_factory=set)
    before: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def save(self, written: list[Tensor]) -> None:
        """Keeps what is about to change in memory that the graph did not make."""
        for tensor in written:
            storage = tensor.untyped_storage()
            if memory(tensor) not in self.own and storage._cdata not in self.before:
                content = torch.empty(0, dtype=torch.uint8).set_(storage)
                self.before[storage._cdata] = content, content.clone()

    def add(self, func: Callable[..., Any], args: Any, kwargs: Any, new: list[Tensor]) -> None:
        """One operator, whose results `new` lie in the graph's own memory from now on."""
        self.own |= {mark(tensor) for tensor in new}
        args, kwargs = tree_map(self._hold, (args, kwargs))
        self.steps.append((func, args, kwargs, new))

    def _hold(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or memory(value) in self.own:
            return value
        if memory(value) is None:
            return value.clone() if value.dim() == 0 else value  # a number is read when the graph is recorded
        return Weak(value)

    def end(self) -> None:
        """Undoes what the recording did."""
        for content, before in self.before.values():
            content.copy_(before)
        self.before.clear()
        for *_, new in self.steps:
            for tensor in new:
                spoil(tensor)


class Weak:
    """A tensor that a graph knows by its address only."""

    def __init__(self, tensor: Tensor) -> None:
        self.storage, self.dtype = StorageWeakRef(tensor.untyped_storage()), tensor.dtype
        self.place = tensor.storage_offset(), tensor.size(), tensor.stride()

    def tensor(self) -> Tensor:
        """As it lies there now. RuntimeError where it was freed."""
        if self.storage.expired():
            raise RuntimeError("CUDA error: an illegal memory access was encountered (a graph uses freed memory)")
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)
        return torch.empty(0, dtype=self.dtype).set_(storage, *self.place)


class Graph:
    """torch.cuda.CUDAGraph."""

    def __init__(self, gpu: Gpu, **_: Any) -> None:
        self.gpu, self.tape = gpu, Tape(0, "")

    def replay(self) -> None:
        """The operators once more, on the same memory."""
        gpu, tape = self.gpu, self.tape
        gpu.replays += 1
        used = list(tape.own)
        with _disable_current_modes(), torch.no_grad():
            for func, args, kwargs, new in tape.steps:
                args, kwargs = tree_map(
                    lambda value: value.tensor() if isinstance(value, Weak) else value, (args, kwargs)
                )
                used += [mark(tensor) for tensor in tensors((args, kwargs)) if memory(tensor)]
                for there, result in zip(new, fresh(func(*args, **kwargs), (args, kwargs)), strict=True):
                    there.copy_(result)
        gpu.work(gpu.stream(), [], list(dict.fromkeys(used)))


@contextmanager
def graph(
    gpu: Gpu, recorded: Graph, pool: Any = None, stream: Stream | None = None, capture_error_mode: str = "global"
) -> Iterator[None]:
    """torch.cuda.graph."""
    synchronize(gpu)
    states = [generator.get_state() for generator in gpu.generators]
    gpu.tape = recorded.tape = Tape(threading.get_ident(), capture_error_mode)
    try:
        with on_stream(gpu, stream or Stream(gpu)):
            yield
    finally:
        gpu.tape = None
        with _disable_current_modes(), torch.no_grad():
            recorded.tape.end()
        for generator, state in zip(gpu.generators, states, strict=True):
            generator.set_state(state)
