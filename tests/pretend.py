"""A GPU that is not there: tensors of the host bear a mark, and whatever asks takes them for a CUDA device's.

    with pretend.gpu(count=2) as gpu:
        ...            # torch.cuda.is_available(), and tensors can be moved to "cuda:1"
        gpu.waits      # where the host waited for a device
        gpu.allocated  # bytes that tensors hold there

The mark, `Memory`, hangs on a tensor's storage: views share it, and it goes when the last of them goes. A mode of
PyTorch's dispatcher sees each operator, those of the backward pass too, and does the numbers on the CPU. Around them
it keeps what a CUDA device is particular about:

- Operators refuse tensors of two places, and fused optimizers parameters and gradients that lie in different order.
- Reading a number, copying from memory that is not pinned, and shapes that depend on values make the host wait.
- A copy to the host that nobody waited for reads as NaN. Pinned memory must not change while it is copied from.
- Streams run apart: who reads, writes or reuses memory of another stream must be ordered behind it by an event.
- Current device and current stream are each thread's own, and a device has its own generator.
- A graph's recording changes nothing and must not wait. A replay runs the same operators, their numbers as recorded,
  on the same memory, which must still be there.
"""

import functools
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map

GIB = 2**30
VALUES_MATTER = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
INDEXING = ("aten::index", "aten::index_put_", "aten::_index_put_impl_")
CAPTURING = "CUDA error: operation not permitted when stream is capturing"
Clock = dict["Stream", int]
"""How much of each stream's work is known to be done."""
_to, _numpy, _tolist = torch.Tensor.to, torch.Tensor.numpy, torch.Tensor.tolist
_device = torch.Tensor.device.__get__  # type: ignore[attr-defined]


class Race(RuntimeError):
    """What a real GPU would get wrong now and then."""


@dataclass(eq=False)
class Memory:
    """The mark of a storage on a device, with who last wrote it and who has read it since."""

    gpu: "Gpu"
    stream: "Stream"
    """Whose allocation it is."""
    size: int
    written: Clock = field(default_factory=dict)
    read: Clock = field(default_factory=dict)
    recorded: bool = False
    """By `record_stream`, which makes the allocator wait for the other stream."""

    def __del__(self) -> None:
        self.gpu.allocated -= self.size
        if not self.recorded:
            self.stream.freed.append(self.written | self.read)


@dataclass
class Gpu:
    """A machine with `count` devices, and what was seen on it."""

    count: int = 1
    limit: int = 60 * GIB
    """Bytes that tensors may take."""
    lag: float = 0.0
    """Seconds for which each wait lasts."""
    initialized: bool = False
    allocated: int = 0
    peak: int = 0
    waits: list[str] = field(default_factory=list)
    """`what < function < its caller < ...`, of functions of the project and its tests."""
    launches: list[tuple[str, int]] = field(default_factory=list)
    """Triton's kernels, and the device they were started on."""
    replays: int = 0
    host: Clock = field(default_factory=dict)
    copies: list[tuple["Stream", int, Callable[[], None]]] = field(default_factory=list)
    """On their way: stream, its time, and what becomes of them when the host learns that they were made."""
    tape: "Tape | None" = None

    def __post_init__(self) -> None:
        self.streams: list[Stream] = []
        for device in range(self.count):
            Stream(self, device)
        self.generators = [torch.Generator() for _ in range(self.count)]
        self.thread = threading.local()

    def index(self, device: Any) -> int:
        """The number of a device; that of `cuda` or None is the thread's current one."""
        device = torch.device("cuda" if device is None else device)
        index = getattr(self.thread, "device", 0) if device.index is None else device.index
        if device.type != "cuda" or index >= self.count:
            raise RuntimeError(f"CUDA error: invalid device ordinal ({device})")
        return int(index)

    def exchange(self, device: int) -> int:
        """Makes a device current, and returns which one was."""
        before = self.index(None)
        self.thread.device, self.initialized = self.index(torch.device("cuda", device)), True
        return before

    def stream(self, device: Any = None) -> "Stream":
        """The thread's current one on a device."""
        index = self.index(device)
        return getattr(self.thread, "streams", {}).get(index, self.streams[index])

    def recording(self) -> "Tape | None":
        """The graph that this thread records."""
        return self.tape if self.tape is not None and self.tape.thread == threading.get_ident() else None

    def refuse_while_capturing(self) -> None:
        """For calls that CUDA forbids then: of the thread that records, and of all if its mode is `global`."""
        if self.recording() or (self.tape is not None and self.tape.mode == "global"):
            raise RuntimeError(CAPTURING)

    def wait(self, what: str, until: Clock) -> None:
        """Notes that the host waits."""
        self.refuse_while_capturing()
        self.waits.append(" < ".join([what, *_functions()]))
        time.sleep(self.lag)
        self.learn(until)

    def learn(self, clock: Clock) -> None:
        """The host knows of so much work that it is done."""
        self.host = _later(self.host, clock)
        arrived = [copy for copy in self.copies if self.host.get(copy[0], 0) >= copy[1]]
        self.copies = [copy for copy in self.copies if copy not in arrived]
        for _, _, land in arrived:
            land()

    def claim(self, tensor: Tensor, device: int) -> Tensor:
        """Marks a new tensor as the device's."""
        storage, stream = tensor.untyped_storage(), self.stream(device)
        if self.allocated + storage.nbytes() > self.limit:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {storage.nbytes() / 2**20:.2f} MiB.")
        freed, stream.freed = stream.freed, []
        for uses in freed:
            self._check(stream, uses, "memory was freed while another stream may use it: record_stream")
        self.initialized = True
        self.allocated += storage.nbytes()
        self.peak = max(self.peak, self.allocated)
        storage.memory = Memory(self, stream, storage.nbytes())  # type: ignore[attr-defined]
        return tensor

    def work(self, stream: "Stream", read: list[Memory], written: list[Memory]) -> None:
        """A kernel on a stream; Race where what it meets there may still be under way on another."""
        stream.time += 1
        for memory in [*read, *written]:
            self._check(stream, memory.written, "memory is used before the stream that writes it was waited for")
        for memory in written:
            self._check(stream, memory.read, "memory is written before the stream that reads it was waited for")
            memory.written, memory.read = {stream: stream.time}, {}
        for memory in read:
            memory.read[stream] = stream.time

    def _check(self, stream: "Stream", uses: Clock, fault: str) -> None:
        for other, moment in uses.items():
            known = max(self.host.get(other, 0), stream.known.get(other, 0))
            if other is not stream and known < moment:
                raise Race(fault)


def _later(one: Clock, other: Clock) -> Clock:
    return one | {stream: max(moment, one.get(stream, 0)) for stream, moment in other.items()}


def _functions() -> Iterator[str]:
    """Names of the functions that run, the innermost first."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        name = frame.f_code.co_filename
        if ("/repro/" in name or "/tests/" in name) and name != __file__:
            yield frame.f_code.co_qualname
        frame = frame.f_back


class Stream:
    """A queue of kernels on a device."""

    def __init__(self, gpu: Gpu, device: Any = None, **_: Any) -> None:
        self.gpu, self.device_index = gpu, gpu.index(device)
        self.device = torch.device("cuda", self.device_index)
        self.time, self.known = 0, Clock()
        self.freed: list[Clock] = []
        gpu.streams.append(self)

    def clock(self) -> Clock:
        """What is done once its kernels are."""
        return self.known | {self: self.time}

    def wait_event(self, event: "Event") -> None:
        """Orders what comes behind an event; the host goes on."""
        self.known = _later(self.known, event.clock)

    def wait_stream(self, other: "Stream") -> None:
        """Orders what comes behind what the other has been given."""
        self.known = _later(self.known, other.clock())

    def record_event(self, event: "Event | None" = None) -> "Event":
        """An event behind what it has been given."""
        event = event or Event(self.gpu)
        event.record(self)
        return event

    def synchronize(self) -> None:
        """The host waits."""
        self.gpu.wait("stream", self.clock())

    def is_capturing(self) -> bool:
        """Whether it is given what a graph records."""
        return self.gpu.recording() is not None


class Event:
    """A mark in a stream, without argument in that of the current device."""

    def __init__(self, gpu: Gpu, enable_timing: bool = False, **_: Any) -> None:
        self.gpu, self.clock, self.at = gpu, Clock(), 0.0

    def record(self, stream: Stream | None = None) -> None:
        """Behind what the stream has been given."""
        self.clock, self.at = (stream or self.gpu.stream()).clock(), time.perf_counter()

    def wait(self, stream: Stream | None = None) -> None:
        """As `Stream.wait_event`."""
        (stream or self.gpu.stream()).wait_event(self)

    def synchronize(self) -> None:
        """The host waits."""
        self.gpu.wait("event", self.clock)

    def query(self) -> bool:
        """Done by the time one asks."""
        self.gpu.learn(self.clock)
        return True

    def elapsed_time(self, end: "Event") -> float:
        """Milliseconds."""
        return 1000 * max(end.at - self.at, 1e-6)


@dataclass
class Tape:
    """What a graph records: operators, and what they changed, for nothing has run when the recording ends."""

    thread: int
    mode: str
    steps: list[tuple[Callable[..., Any], Any, Any, list[Tensor]]] = field(default_factory=list)
    own: set[Memory] = field(default_factory=set)
    others: dict[int, "Weak"] = field(default_factory=dict)
    before: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def save(self, written: list[Tensor]) -> None:
        """Keeps what is about to change in memory that the graph did not make."""
        for tensor in written:
            storage = tensor.untyped_storage()
            if memory(tensor) not in self.own and storage._cdata not in self.before:
                content = torch.empty(0, dtype=torch.uint8).set_(storage)  # type: ignore[call-overload]
                self.before[storage._cdata] = content, content.clone()

    def add(self, func: Callable[..., Any], args: Any, kwargs: Any, new: list[Tensor]) -> None:
        """One operator, whose results `new` lie in the graph's own memory from now on."""
        self.own |= {_of(tensor) for tensor in new}
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
                _spoil(tensor)


class Weak:
    """A tensor that a graph knows by its address only."""

    def __init__(self, tensor: Tensor) -> None:
        self.storage, self.dtype = StorageWeakRef(tensor.untyped_storage()), tensor.dtype
        self.place = tensor.storage_offset(), tensor.size(), tensor.stride()

    def tensor(self) -> Tensor:
        """As it lies there now. RuntimeError where it was freed."""
        if self.storage.expired():
            raise RuntimeError("CUDA error: an illegal memory access was encountered (a graph uses freed memory)")
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)  # type: ignore[attr-defined]
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
                used += [_of(tensor) for tensor in _tensors((args, kwargs)) if memory(tensor)]
                for there, result in zip(new, _new(func(*args, **kwargs), (args, kwargs)), strict=True):
                    there.copy_(result)
        gpu.work(gpu.stream(), [], list(dict.fromkeys(used)))


@contextmanager
def _graph(
    gpu: Gpu, recorded: Graph, pool: Any = None, stream: Stream | None = None, capture_error_mode: str = "global"
) -> Iterator[None]:
    """torch.cuda.graph."""
    _synchronize(gpu)
    states = [generator.get_state() for generator in gpu.generators]
    gpu.tape = recorded.tape = Tape(threading.get_ident(), capture_error_mode)
    try:
        with _on_stream(gpu, stream or Stream(gpu)):
            yield
    finally:
        gpu.tape = None
        with _disable_current_modes(), torch.no_grad():
            recorded.tape.end()
        for generator, state in zip(gpu.generators, states, strict=True):
            generator.set_state(state)


@contextmanager
def _on_stream(gpu: Gpu, stream: Stream) -> Iterator[None]:
    """torch.cuda.stream."""
    streams, device = getattr(gpu.thread, "streams", {}), gpu.exchange(stream.device_index)
    gpu.thread.streams = streams | {stream.device_index: stream}
    try:
        yield
    finally:
        gpu.thread.streams = streams
        gpu.exchange(device)


def _synchronize(gpu: Gpu, device: Any = None) -> None:
    gpu.wait("synchronize", {stream: stream.time for stream in gpu.streams})


def memory(tensor: Tensor) -> Memory | None:
    """The mark of a tensor that lies on a device."""
    return getattr(tensor.untyped_storage(), "memory", None)


def _of(tensor: Tensor) -> Memory:
    found = memory(tensor)
    assert found is not None
    return found


def _place(tensor: Tensor) -> torch.device:
    found = memory(tensor)
    return _device(tensor) if found is None else found.stream.device


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _new(results: Any, given: Any) -> list[Tensor]:
    """Those of an operator's results that are no memory of what it was given."""
    known = {tensor.untyped_storage()._cdata for tensor in _tensors(given)}
    return [tensor for tensor in _tensors(results) if tensor.untyped_storage()._cdata not in known]


@functools.cache
def _outputs(func: Any) -> list[tuple[int, str]]:
    """The arguments that an operator changes in place, by number and name."""
    infos = [(number, argument.name, argument.alias_info) for number, argument in enumerate(func._schema.arguments)]
    return [(number, name) for number, name, info in infos if info is not None and info.is_write]


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    found = [args[number] if number < len(args) else kwargs.get(name) for number, name in _outputs(func)]
    return _tensors(found)


def _spoil(tensor: Tensor) -> None:
    """Values that show."""
    if tensor.dtype is not torch.bool:
        tensor.fill_(math.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max)


class _Operators(TorchDispatchMode):
    """What runs; each thread has one, for PyTorch's modes are a thread's own."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name, dict(kwargs or {})
        special = {"aten::_to_copy": _convert, "aten::copy_": _copy, "aten::_pin_memory": _pin}.get(name)
        if special is not None:
            return special(self.gpu, func, *args, **kwargs)
        if name == "aten::is_pinned":
            return _is_pinned(args[0])
        if name == "aten::_foreach_copy_":
            return [
                _copy(self.gpu, torch.ops.aten.copy_.default, *pair, *args[2:]) for pair in zip(*args[:2], strict=True)
            ]
        wanted = kwargs.pop("device", None)
        if name.startswith("aten::new_") and wanted == torch.device("cpu"):  # see `_convert`
            wanted = None
        if wanted is not None and wanted.type != "cuda":
            kwargs["device"] = wanted
        given = _tensors((args, kwargs))
        places = {_place(tensor) for tensor in given if memory(tensor)}
        if wanted is not None:
            places = {torch.device("cuda", self.gpu.index(wanted))} if wanted.type == "cuda" else set()
        if not places:
            pinned = kwargs.pop("pin_memory", False)
            out = func(*args, **kwargs)
            return _pinned(self.gpu, out) if pinned else out
        self._check(name, func, given, places, args)
        return _launch(self.gpu, places.pop().index, func, args, kwargs)

    def _check(self, name: str, func: Any, given: list[Tensor], places: set[torch.device], args: Any) -> None:
        """What CUDA refuses, and what it must wait for."""
        host = [tensor for tensor in given if memory(tensor) is None and tensor.dim()]
        if len(places) > 1 or (host and name not in INDEXING):
            found = sorted(str(_place(tensor)) for tensor in given)
            raise RuntimeError(f"Expected all tensors to be on the same device, but found {found} ({name})")
        if name.startswith("aten::_fused_"):
            _refuse_other_layouts(name, args)
        by_mask = name in INDEXING and any(tensor.dtype in (torch.bool, torch.uint8) for tensor in _tensors(args[1]))
        if host or by_mask or (name not in INDEXING and VALUES_MATTER & set(func.tags)):
            self.gpu.wait(name, self.gpu.stream(next(iter(places))).clock())


def _refuse_other_layouts(name: str, args: Any) -> None:
    lists = [argument for argument in args[:3] if isinstance(argument, list | tuple) and argument]
    for tensors in zip(*lists, strict=False):
        first, *rest = ([step for step, size in zip(x.stride(), x.shape, strict=True) if size != 1] for x in tensors)
        if any(other != first for other in rest):
            raise RuntimeError(f"params, grads and states must have same dtype, device, and layout ({name})")


def _launch(gpu: Gpu, device: int, func: Any, args: Any, kwargs: Any) -> Any:
    """Runs an operator on a device."""
    written = _written(func, args, kwargs)
    if torch.Tag.nondeterministic_seeded in func.tags:
        func = functools.partial(_drawn, gpu.generators[device], func)
    return _booked(gpu, device, func, args, kwargs, written)


def _booked(gpu: Gpu, device: int, func: Any, args: Any, kwargs: Any, written: list[Tensor]) -> Any:
    """Runs a kernel, and notes in its stream, or in the graph that is recorded, what memory it uses."""
    tape = gpu.recording()
    if tape is not None:
        tape.save(written)
    out = func(*args, **kwargs)
    new = [gpu.claim(tensor, device) for tensor in _new(out, (args, kwargs))]
    if tape is not None and (new or written):  # else a view
        tape.add(func, args, kwargs, new)
    elif new or written:
        used = [found for tensor in _tensors((args, kwargs)) if (found := memory(tensor))]
        gpu.work(gpu.stream(torch.device("cuda", device)), used, [_of(tensor) for tensor in (*written, *new)])
    return out


def _triton(gpu: Gpu, run: Any, kernel: Any, *args: Any, **kwargs: Any) -> None:
    """A launch in Triton's interpreter; what a kernel writes, nobody knows."""
    given = _tensors((args, kwargs))
    if not any(memory(tensor) for tensor in given):
        return run(kernel, *args, **kwargs)  # type: ignore[no-any-return]
    if any(_place(tensor) != torch.device("cuda", gpu.index(None)) for tensor in given):
        raise ValueError("Pointer argument cannot be accessed from Triton (cpu tensor?)")
    gpu.launches.append((kernel.fn.__name__, gpu.index(None)))
    with _disable_current_modes(), torch.no_grad():
        _booked(gpu, gpu.index(None), functools.partial(run, kernel), args, kwargs, given)


def _drawn(generator: torch.Generator, func: Any, /, *args: Any, **kwargs: Any) -> Any:
    """An operator whose random numbers are a device's."""
    if any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values())):
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    host = torch.default_generator.get_state()
    torch.default_generator.set_state(generator.get_state())
    try:
        return func(*args, **kwargs)
    finally:
        generator.set_state(torch.default_generator.get_state())
        torch.default_generator.set_state(host)


def _is_pinned(tensor: Tensor) -> bool:
    return getattr(tensor.untyped_storage(), "pinned", False)


def _pinned(gpu: Gpu, tensor: Tensor) -> Tensor:
    gpu.refuse_while_capturing()
    gpu.initialized = True
    tensor.untyped_storage().pinned = True  # type: ignore[attr-defined]
    return tensor


def _pin(gpu: Gpu, func: Any, tensor: Tensor, *_: Any) -> Tensor:
    if memory(tensor):
        raise RuntimeError(f"cannot pin a tensor on {_place(tensor)}: only dense CPU tensors can be pinned")
    return _pinned(gpu, tensor.clone())


def _convert(
    gpu: Gpu, func: Any, source: Tensor, *, device: Any = None, non_blocking: bool = False, **kwargs: Any
) -> Tensor:
    """`to`, where it makes a new tensor; what lies on a device comes to the host by `_download` alone."""
    here = memory(source)
    if device is None or device.type != "cuda":  # PyTorch's own code takes what bears the mark for the host's
        kwargs |= {} if device is None else {"device": device}
        return (
            func(source, **kwargs) if here is None else _launch(gpu, here.stream.device_index, func, (source,), kwargs)
        )
    return _transfer(gpu, gpu.claim(func(source, **kwargs), gpu.index(device)), source, non_blocking)


@torch.no_grad()
def _download(gpu: Gpu, source: Tensor, dtype: Any, layout: Any, non_blocking: bool) -> Tensor:
    with _disable_current_modes():
        result = torch.ops.aten._to_copy.default(source, dtype=dtype, memory_format=layout)
        return _transfer(gpu, _pinned(gpu, result) if non_blocking else result, source, non_blocking)


def _copy(gpu: Gpu, func: Any, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """`copy_`, within a place or from one to another."""
    if memory(target) is None and memory(source) is None:
        return func(target, source)  # type: ignore[no-any-return]
    if memory(target) and memory(source) and _place(target) == _place(source):
        return _launch(gpu, _of(target).stream.device_index, func, (target, source), {})  # type: ignore[no-any-return]
    func(target, source)
    return _transfer(gpu, target, source, non_blocking)


def _transfer(gpu: Gpu, target: Tensor, source: Tensor, non_blocking: bool) -> Tensor:
    """Books a copy between host and devices that has been made; a graph here records none."""
    if gpu.recording():
        raise RuntimeError(CAPTURING)
    on_device = [found for tensor in (source, target) if (found := memory(tensor))]
    stream = gpu.stream(on_device[0].stream.device)
    read, written = ([found] if (found := memory(tensor)) else [] for tensor in (source, target))
    gpu.work(stream, read, written)
    host = target if memory(target) is None else source
    if len(on_device) == 2:
        gpu.stream(on_device[1].stream.device).wait_stream(stream)
    elif not (non_blocking and _is_pinned(host)):
        gpu.wait("copy between host and device", stream.clock())
    elif host is target:
        gpu.copies.append((stream, stream.time, functools.partial(_arrive, target, target.clone())))
        _spoil(target)
    else:
        gpu.copies.append((stream, stream.time, functools.partial(_unchanged, source, source.clone())))
    return target


@torch.no_grad()
def _arrive(target: Tensor, content: Tensor) -> None:
    with _disable_current_modes():
        target.copy_(content)


def _unchanged(source: Tensor, copied: Tensor) -> None:
    with _disable_current_modes():
        if not torch.equal(source, copied):
            raise Race("pinned memory was changed before it was known to be copied")


def _methods(gpu: Gpu) -> dict[str, Any]:
    """What is asked of a tensor without an operator."""

    def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        given = (_place(args[0]), args[0].dtype, *args[1:]) if args and isinstance(args[0], Tensor) else args
        rest = {name: value for name, value in kwargs.items() if name != "copy"}
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*given, **rest)
        if device is not None and device.type == "cuda":
            device = torch.device("cuda", gpu.index(device))
        elif memory(self) is None:
            return _to(self, *given, **kwargs)
        if device is not None and device.type != "cuda":
            return _download(gpu, self, dtype, layout, non_blocking)
        moves = device is not None and device != _place(self)
        lies = layout in (None, torch.preserve_format) or self.is_contiguous(memory_format=layout)
        if not (moves or kwargs.get("copy")) and dtype in (None, self.dtype) and lies:
            return self
        return torch.ops.aten._to_copy.default(  # type: ignore[no-any-return]
            self, dtype=dtype, device=device if moves else None, non_blocking=non_blocking, memory_format=layout
        )

    def cuda(self: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
        return to(self, torch.device("cuda", gpu.index(device)), non_blocking=non_blocking)

    def numpy(self: Tensor, **kwargs: Any) -> Any:
        if memory(self):
            raise TypeError(f"can't convert {_place(self)} device type tensor to numpy. Use Tensor.cpu() first.")
        return _numpy(self, **kwargs)

    def record_stream(self: Tensor, stream: Stream) -> None:
        _of(self).recorded = True

    return {
        "device": property(_place),
        "is_cuda": property(lambda self: memory(self) is not None),
        "is_cpu": property(lambda self: _place(self).type == "cpu"),
        "get_device": lambda self: -1 if memory(self) is None else _place(self).index,
        "to": to,
        "cpu": lambda self: to(self, "cpu"),
        "cuda": cuda,
        "numpy": numpy,
        "tolist": lambda self: _tolist(to(self, "cpu")),
        "record_stream": record_stream,
    }


def _cuda(gpu: Gpu) -> dict[str, Any]:
    """What is asked of `torch.cuda`."""

    def reset_peak_memory_stats(device: Any = None) -> None:
        if not gpu.initialized and device is not None and torch.device(device).index is not None:
            raise RuntimeError(f"Invalid device argument {device}: did you call init?")
        gpu.peak = gpu.allocated

    def manual_seed_all(seed: int) -> None:
        for generator in gpu.generators:
            generator.manual_seed(seed)

    return {
        "_lazy_init": lambda: None,
        "_exchange_device": gpu.exchange,
        "_maybe_exchange_device": gpu.exchange,
        "is_available": lambda: True,
        "is_initialized": lambda: gpu.initialized,
        "device_count": lambda: gpu.count,
        "current_device": lambda: gpu.index(None),
        "set_device": lambda device: gpu.exchange(gpu.index(device)),
        "get_device_name": lambda device=None: f"Pretended GPU {gpu.index(device)}",
        "get_device_capability": lambda device=None: (9, 0),
        "is_bf16_supported": lambda *_: True,
        "mem_get_info": lambda device=None: (gpu.limit - gpu.allocated, gpu.limit),
        "memory_allocated": lambda device=None: gpu.allocated,
        "max_memory_allocated": lambda device=None: gpu.peak,
        "reset_peak_memory_stats": reset_peak_memory_stats,
        "empty_cache": lambda: None,
        "get_rng_state": lambda device=None: gpu.generators[gpu.index(device)].get_state(),
        "set_rng_state": lambda state, device=None: gpu.generators[gpu.index(device)].set_state(state),
        "manual_seed_all": manual_seed_all,
        "synchronize": functools.partial(_synchronize, gpu),
        "Stream": functools.partial(Stream, gpu),
        "Event": functools.partial(Event, gpu),
        "stream": functools.partial(_on_stream, gpu),
        "current_stream": gpu.stream,
        "default_stream": lambda device=None: gpu.streams[gpu.index(device)],
        "CUDAGraph": functools.partial(Graph, gpu),
        "graph": functools.partial(_graph, gpu),
        "is_current_stream_capturing": lambda: gpu.recording() is not None,
    }


@contextmanager
def gpu(count: int = 1, **settings: Any) -> Iterator[Gpu]:
    """A machine with so many GPUs, and its `settings` of `Gpu`."""
    machine = Gpu(count, **settings)
    run, autocast, grouped = threading.Thread.run, torch.autocast, torch._C._group_tensors_by_device_and_dtype

    def with_mode(thread: threading.Thread) -> None:
        with _Operators(machine):
            run(thread)

    class Autocast(autocast):  # type: ignore[misc,valid-type]
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu", *args, **kwargs)

    def group(lists: Any, with_indices: bool = False) -> Any:
        found = grouped(lists, with_indices).items()
        return {
            (_place(next(t for t in tensors[0] if t is not None)), kind): (tensors, at)
            for (_, kind), (tensors, at) in found
        }

    def made(make: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        return make(*args, **kwargs).to(device)  # type: ignore[no-any-return]

    with ExitStack() as stack:
        for owner, values in ((torch.Tensor, _methods(machine)), (torch.cuda, _cuda(machine))):
            for name, value in values.items():
                stack.enter_context(mock.patch.object(owner, name, value))
        for name in ("tensor", "as_tensor", "asarray"):
            stack.enter_context(mock.patch.object(torch, name, functools.partial(made, getattr(torch, name))))
        stack.enter_context(mock.patch.object(torch, "autocast", Autocast))
        stack.enter_context(mock.patch.object(torch.accelerator, "current_stream", machine.stream))
        stack.enter_context(mock.patch.object(torch._C, "_group_tensors_by_device_and_dtype", group))
        stack.enter_context(mock.patch.object(threading.Thread, "run", with_mode))
        if os.environ.get("TRITON_INTERPRET") == "1":
            from triton.runtime.interpreter import InterpretedFunction

            launch = functools.partialmethod(functools.partial(_triton, machine, InterpretedFunction.run))
            stack.enter_context(mock.patch.object(InterpretedFunction, "run", launch))
        stack.enter_context(_Operators(machine))
        yield machine
