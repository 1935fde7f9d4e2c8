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
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from tests.pretend.graph import Graph, graph
from tests.pretend.machine import GIB, Event, Gpu, Race, Stream, mark, memory, on_stream, place, synchronize
from tests.pretend.operators import Operators, download, triton_launch

__all__ = ["GIB", "Gpu", "Race", "gpu"]
_to, _numpy, _tolist = torch.Tensor.to, torch.Tensor.numpy, torch.Tensor.tolist


def _methods(gpu: Gpu) -> dict[str, Any]:
    """What is asked of a tensor without an operator."""

    def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        given = (place(args[0]), args[0].dtype, *args[1:]) if args and isinstance(args[0], Tensor) else args
        rest = {name: value for name, value in kwargs.items() if name != "copy"}
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*given, **rest)
        if device is not None and device.type == "cuda":
            device = torch.device("cuda", gpu.index(device))
        elif memory(self) is None:
            return _to(self, *given, **kwargs)
        if device is not None and device.type != "cuda":
            return download(gpu, self, dtype, layout, non_blocking)
        moves = device is not None and device != place(self)
        lies = layout in (None, torch.preserve_format) or self.is_contiguous(memory_format=layout)
        if not (moves or kwargs.get("copy")) and dtype in (None, self.dtype) and lies:
            return self
        return torch.ops.aten._to_copy.default(
            self, dtype=dtype, device=device if moves else None, non_blocking=non_blocking, memory_format=layout
        )

    def cuda(self: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
        return to(self, torch.device("cuda", gpu.index(device)), non_blocking=non_blocking)

    def numpy(self: Tensor, **kwargs: Any) -> Any:
        if memory(self):
            raise TypeError(f"can't convert {place(self)} device type tensor to numpy. Use Tensor.cpu() first.")
        return _numpy(self, **kwargs)

    def record_stream(self: Tensor, stream: Stream) -> None:
        mark(self).recorded = True

    return {
        "device": property(place),
        "is_cuda": property(lambda self: memory(self) is not None),
        "is_cpu": property(lambda self: place(self).type == "cpu"),
        "get_device": lambda self: -1 if memory(self) is None else place(self).index,
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
        "synchronize": functools.partial(synchronize, gpu),
        "Stream": functools.partial(Stream, gpu),
        "Event": functools.partial(Event, gpu),
        "stream": functools.partial(on_stream, gpu),
        "current_stream": gpu.stream,
        "default_stream": lambda device=None: gpu.streams[gpu.index(device)],
        "CUDAGraph": functools.partial(Graph, gpu),
        "graph": functools.partial(graph, gpu),
        "is_current_stream_capturing": lambda: gpu.recording() is not None,
    }


@contextmanager
def gpu(count: int = 1, **settings: Any) -> Iterator[Gpu]:
    """A machine with so many GPUs, and its `settings` of `Gpu`."""
    if torch.cuda.is_available():
        torch.cuda.init()  # PyTorch does so once a process, and would take what stands in for it here for that
    machine = Gpu(count, **settings)
    run, autocast, grouped = threading.Thread.run, torch.autocast, torch._C._group_tensors_by_device_and_dtype

    def with_mode(thread: threading.Thread) -> None:
        with Operators(machine):
            run(thread)

    class Autocast(autocast):  # type: ignore[misc,valid-type]
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu", *args, **kwargs)

    def group(lists: Any, with_indices: bool = False) -> Any:
        found = grouped(lists, with_indices).items()
        return {
            (place(next(t for t in tensors[0] if t is not None)), kind): (tensors, at)
            for (_, kind), (tensors, at) in found
        }

    def made(make: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        return make(*args, **kwargs).to(device)

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

            launch = functools.partialmethod(functools.partial(triton_launch, machine, InterpretedFunction.run))
            stack.enter_context(mock.patch.object(InterpretedFunction, "run", launch))
        stack.enter_context(Operators(machine))
        yield machine
