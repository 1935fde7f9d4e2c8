"""What runs: PyTorch's operators and Triton's kernels, done on the CPU and refused where CUDA would."""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from tests.pretend.graph import fresh, spoil
from tests.pretend.machine import CAPTURING, Gpu, Race, mark, memory, place, tensors

VALUES_MATTER = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
INDEXING = ("aten::index", "aten::index_put_", "aten::_index_put_impl_")


class Operators(TorchDispatchMode):
    """What runs; each thread has one, for PyTorch's modes are a thread's own."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name, dict(kwargs or {})
        if name in _SPECIAL:
            return _SPECIAL[name](self.gpu, func, *args, **kwargs)
        wanted = kwargs.pop("device", None)
        if name.startswith("aten::new_") and wanted == torch.device("cpu"):  # see `_convert`
            wanted = None
        if wanted is not None and wanted.type != "cuda":
            kwargs["device"] = wanted
        given = tensors((args, kwargs))
        places = {place(tensor) for tensor in given if memory(tensor)}
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
        target = args[0] if func._schema.is_mutable else None
        host = [tensor for tensor in given if memory(tensor) is None and (tensor.dim() or tensor is target)]
        if len(places) > 1 or (host and name not in INDEXING):
            found = sorted(str(place(tensor)) for tensor in given)
            raise RuntimeError(f"Expected all tensors to be on the same device, but found {found} ({name})")
        if name.startswith("aten::_fused_"):
            _refuse_other_layouts(name, args)
        by_mask = name in INDEXING and any(tensor.dtype in (torch.bool, torch.uint8) for tensor in tensors(args[1]))
        if host or by_mask or (name not in INDEXING and VALUES_MATTER & set(func.tags)):
            self.gpu.wait(name, self.gpu.stream(next(iter(places))).clock())


def _refuse_other_layouts(name: str, args: Any) -> None:
    lists = [argument for argument in args[:3] if isinstance(argument, list | tuple) and argument]
    for group in zip(*lists, strict=False):
        first, *rest = ([step for step, size in zip(x.stride(), x.shape, strict=True) if size != 1] for x in group)
        if any(other != first for other in rest):
            raise RuntimeError(f"params, grads and states must have same dtype, device, and layout ({name})")


@functools.cache
def _outputs(func: Any) -> list[tuple[int, str]]:
    """The arguments that an operator changes in place, by number and name."""
    infos = [(number, argument.name, argument.alias_info) for number, argument in enumerate(func._schema.arguments)]
    return [(number, name) for number, name, info in infos if info is not None and info.is_write]


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    found = [args[number] if number < len(args) else kwargs.get(name) for number, name in _outputs(func)]
    return tensors(found)


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
    new = [gpu.claim(tensor, device) for tensor in fresh(out, (args, kwargs))]
    if tape is not None and (new or written):  # else a view
        tape.add(func, args, kwargs, new)
    elif new or written:
        used = [found for tensor in tensors((args, kwargs)) if (found := memory(tensor))]
        gpu.work(gpu.stream(torch.device("cuda", device)), used, [mark(tensor) for tensor in (*written, *new)])
    return out


def triton_launch(gpu: Gpu, run: Any, kernel: Any, *args: Any, **kwargs: Any) -> None:
    """A launch in Triton's interpreter; what a kernel writes, nobody knows."""
    given = tensors((args, kwargs))
    if not any(memory(tensor) for tensor in given):
        return run(kernel, *args, **kwargs)
    if any(place(tensor) != torch.device("cuda", gpu.index(None)) for tensor in given):
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


def _is_pinned(gpu: Gpu, func: Any, tensor: Tensor, *_: Any) -> bool:
    return getattr(tensor.untyped_storage(), "pinned", False)


def _pinned(gpu: Gpu, tensor: Tensor) -> Tensor:
    gpu.refuse_while_capturing()
    gpu.initialized = True
    tensor.untyped_storage().pinned = True  # type: ignore[attr-defined]
    return tensor


def _pin(gpu: Gpu, func: Any, tensor: Tensor, *_: Any) -> Tensor:
    if memory(tensor):
        raise RuntimeError(f"cannot pin a tensor on {place(tensor)}: only dense CPU tensors can be pinned")
    return _pinned(gpu, tensor.clone())


def _convert(
    gpu: Gpu, func: Any, source: Tensor, *, device: Any = None, non_blocking: bool = False, **kwargs: Any
) -> Tensor:
    """`to`, where it makes a new tensor; what lies on a device comes to the host by `download` alone."""
    here = memory(source)
    if device is None or device.type != "cuda":  # PyTorch's own code takes what bears the mark for the host's
        kwargs |= {} if device is None else {"device": device}
        return _launch(gpu, here.stream.device_index, func, (source,), kwargs) if here else func(source, **kwargs)
    return _transfer(gpu, gpu.claim(func(source, **kwargs), gpu.index(device)), source, non_blocking)


@torch.no_grad()
def download(gpu: Gpu, source: Tensor, dtype: Any, layout: Any, non_blocking: bool) -> Tensor:
    """What lies on a device as a new tensor of the host, pinned if the host does not wait for it."""
    with _disable_current_modes():
        result = torch.ops.aten._to_copy.default(source, dtype=dtype, memory_format=layout)
        return _transfer(gpu, _pinned(gpu, result) if non_blocking else result, source, non_blocking)


def _copy(gpu: Gpu, func: Any, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """`copy_`, within a place or from one to another."""
    if memory(target) is None and memory(source) is None:
        return func(target, source)
    if memory(target) and memory(source) and place(target) == place(source):
        return _launch(gpu, mark(target).stream.device_index, func, (target, source), {})
    func(target, source)
    return _transfer(gpu, target, source, non_blocking)


def _copy_each(gpu: Gpu, func: Any, targets: list[Tensor], sources: list[Tensor], *more: Any) -> None:
    for target, source in zip(targets, sources, strict=True):
        _copy(gpu, torch.ops.aten.copy_.default, target, source, *more)


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
    elif not (non_blocking and _is_pinned(gpu, None, host)):
        gpu.wait("copy between host and device", stream.clock())
    elif host is target:
        gpu.copies.append((stream, stream.time, functools.partial(_arrive, target, target.clone())))
        spoil(target)
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


_SPECIAL: dict[str, Any] = {
    "aten::_to_copy": _convert,
    "aten::copy_": _copy,
    "aten::_foreach_copy_": _copy_each,
    "aten::_pin_memory": _pin,
    "aten::is_pinned": _is_pinned,
}
