"""The work of each of PyTorch's operators in one training step: operations and bytes, in the order of the calls."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from repro.profiling.work import Work

OperatorWork = dict[str, list[Work]]
"""Operator, as the profiler calls it -> the work of its first call in a step, its second, ..."""
aten = torch.ops.aten


class CountOperators(TorchDispatchMode):
    """While it is entered, `calls` collects the work of each operator; it sees those below autograd and autocast."""

    def __init__(self) -> None:
        """Starts with none."""
        super().__init__()
        self.calls: OperatorWork = defaultdict(list)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Calls the operator and counts it."""
        out = func(*args, **(kwargs or {}))
        self.calls[func._schema.name].append(_work(func, args, kwargs or {}, out))
        return out


def _work(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> Work:
    if func.is_view or "empty" in func._schema.name:
        return Work()
    written = _tensors(out) or _changed(func, args)
    return Work(_flops(func, args, kwargs, out, written), sum(map(_bytes, [*_tensors((args, kwargs)), *written])))


def _flops(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any, written: list[Tensor]) -> float:
    """A multiply-add is two; what is neither convolution nor product counts one for each number that it writes."""
    packet = func.overloadpacket
    if packet is aten.convolution_backward:
        # torch's own formula counts groups twice; the mask says which of input, weight and bias get a gradient
        gradient, weight, mask = args[0], args[2], args[10]
        return float(2 * gradient.numel() * weight[0].numel() * (mask[0] + mask[1]))
    if packet in flop_registry:
        return float(flop_registry[packet](*args, **kwargs, out_val=out))
    return float(sum(tensor.numel() for tensor in written))


def _changed(func: Any, args: tuple[Any, ...]) -> list[Tensor]:
    """The arguments in which an operator without a result, as a fused update is, leaves what it does."""
    given = zip(func._schema.arguments, args, strict=False)
    return _tensors([value for argument, value in given if argument.alias_info and argument.alias_info.is_write])


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bytes(tensor: Tensor) -> int:
    """Counts the bytes behind a tensor at most: an expanded one has less than its shape says."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())
