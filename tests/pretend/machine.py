"""Devices with their memory, streams and events: who uses what when, and what the host knows of it."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tests.pretend.graph import Tape

GIB = 2**30
CAPTURING = "CUDA error: operation not permitted when stream is capturing"
Clock = dict["Stream", int]
"""How much of each stream's work is known to be done."""
_device = torch.Tensor.device.__get__


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
        self.learn(until)

    def learn(self, clock: Clock) -> None:
        """The host knows of so much work that it is done."""
        self.host = later(self.host, clock)
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


def later(one: Clock, other: Clock) -> Clock:
    return one | {stream: max(moment, one.get(stream, 0)) for stream, moment in other.items()}


def _functions() -> Iterator[str]:
    """Names of the functions that run, the innermost first."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        name = frame.f_code.co_filename
        if ("/repro/" in name or "/tests/" in name) and not name.startswith(str(Path(__file__).parent)):
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
        self.known = later(self.known, event.clock)

    def wait_stream(self, other: "Stream") -> None:
        """Orders what comes behind what the other has been given."""
        self.known = later(self.known, other.clock())

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


@contextmanager
def on_stream(gpu: Gpu, stream: Stream) -> Iterator[None]:
    """torch.cuda.stream."""
    streams, device = getattr(gpu.thread, "streams", {}), gpu.exchange(stream.device_index)
    gpu.thread.streams = streams | {stream.device_index: stream}
    try:
        yield
    finally:
        gpu.thread.streams = streams
        gpu.exchange(device)


def synchronize(gpu: Gpu, device: Any = None) -> None:
    gpu.wait("synchronize", {stream: stream.time for stream in gpu.streams})


def memory(tensor: Tensor) -> Memory | None:
    """The mark of a tensor that lies on a device."""
    return getattr(tensor.untyped_storage(), "memory", None)


def mark(tensor: Tensor) -> Memory:
    found = memory(tensor)
    assert found is not None
    return found


def place(tensor: Tensor) -> torch.device:
    found = memory(tensor)
    return _device(tensor) if found is None else found.stream.device


def tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors(part)]
