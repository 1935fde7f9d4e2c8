"""The events of a profiled step, each given to a phase, a layer and a kernel.

On a CPU a kernel is an operator of PyTorch, with all that it calls; on CUDA it is what ran on the device, filed under
the operator that launched it, or, where our own code did (Triton), under the range in which it was launched. A
backward function belongs to the layer whose forward pass took its sequence number; the sum into a parameter's gradient,
which has none, to the function before it, for autograd runs it next (engine.cpp: it has the highest priority).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from torch.autograd.profiler_util import FunctionEvent, Kernel

from repro.profiling.operators import OperatorWork
from repro.profiling.ranges import BACKWARD, FORWARD, INPUT, UPDATE
from repro.profiling.work import LayerWork, Work

STEP = "ProfilerStep*"
LOSS = "loss"
BETWEEN = "between layers"
OVERHEAD = "(overhead)"
"""Python, PyTorch's dispatcher and the profiler itself, around the kernels."""

_NODE = "autograd::engine::evaluate_function: "
_ACCUMULATE = _NODE + "torch::autograd::AccumulateGrad"
_CALL_OF_CUDA = re.compile(r"cu(da)?[A-Z]")  # of its runtime or its driver
_LAUNCH = ("cudaLaunch", "cuLaunch")  # those calls that start a kernel
_USER_SCOPE = 7  # at::RecordScope::USER_SCOPE, what record_function makes
# torch's own functions end in a number; one without is a torch.autograd.Function: it may be a kernel of ours
_OWN_FUNCTION = re.compile(r"(?!aten::|autograd::|torch::)(?!\w*Backward\d+$)")


@dataclass(frozen=True)
class Span:
    """Time of one kernel in one place, in seconds, and its work."""

    phase: str
    layer: str
    kernel: str
    seconds: float
    calls: int = 1
    work: Work = field(default_factory=Work)


@dataclass(frozen=True)
class _Place:
    phase: str
    layer: str


@dataclass(frozen=True)
class _Launch:
    """A kernel that no operator launched: when the host asked for it, and how long the device took."""

    start: float
    name: str
    seconds: float


@dataclass(frozen=True)
class _Unit:
    """A call whose parts are not told apart."""

    start: float
    name: str
    place: _Place
    kernels: tuple[tuple[str, float], ...]
    """Name and seconds of each."""


class Attribution:
    """Takes the events of a profile apart, one step after the other."""

    def __init__(self, layers: Collection[str], operators: OperatorWork, work: LayerWork) -> None:
        """`operators` and `work`: what one step's operators and layers do."""
        self._layers, self._operators, self._work = layers, operators, work
        self._owners: dict[int, str] = {}
        """Sequence number -> layer. An operator that makes no backward function leaves its number to the next."""
        self._last = LOSS
        self._overhead: dict[_Place, float] = defaultdict(float)
        self._units: list[_Unit] = []
        self._calls: list[tuple[float, str, _Unit | None]] = []
        """Start of each counted operator, its name, and the unit that it is (None: it is within one)."""
        self._ranges: list[tuple[float, float, _Place]] = []
        """Start and end of each range that was made by `record_function`, and the place that it is."""

    def spans(self, events: Iterable[FunctionEvent]) -> list[list[Span]]:
        """The spans of each step among the events."""
        events = list(events)
        on_cpu = [event for event in events if event.device_type.name == "CPU"]
        self._on_cuda = any(event.device_type.name == "CUDA" or event.kernels for event in events)
        self._names = {event.name for event in on_cpu if event.scope == _USER_SCOPE}
        launches = self._own_launches(events, on_cpu)
        roots = [event for event in on_cpu if event.cpu_parent is None and not event.is_async]
        steps = []
        for step in (root for root in roots if root.name == STEP):
            inside = [root for root in roots if root.name.startswith(_NODE) and _starts_within(root, step)]
            own = [launch for launch in launches if step.time_range.start <= launch.start < step.time_range.end]
            steps.append(self._step([*step.cpu_children, *inside], own))
        return steps

    def _own_launches(self, events: Sequence[FunctionEvent], on_cpu: Sequence[FunctionEvent]) -> list[_Launch]:
        """Yields what ran on a GPU without an operator of PyTorch around its launch, which has the kernel's number."""
        known = Counter((kernel.name, kernel.duration) for event in on_cpu for kernel in _own_kernels(event))
        asked = {event.id: event.time_range.start for event in on_cpu if event.name.startswith(_LAUNCH)}
        found = []
        for event in events:
            if event.device_type.name != "CUDA" or event.name in self._names:  # a range has a shadow on the device
                continue
            duration = event.time_range.elapsed_us()
            if known[event.name, duration]:
                known[event.name, duration] -= 1
            elif event.id in asked:
                found.append(_Launch(asked[event.id], event.name, _s(duration)))
        return found

    def _step(self, events: Sequence[FunctionEvent], launches: Sequence[_Launch]) -> list[Span]:
        self._overhead, self._units, self._calls, self._ranges = defaultdict(float), [], [], []
        outside = _Place(FORWARD, LOSS)
        for event in sorted(events, key=lambda event: event.time_range.start):
            self._visit(event, outside)
        for launch in launches:
            around = [(end - start, place) for start, end, place in self._ranges if start <= launch.start < end]
            _, place = min(around, key=lambda found: found[0], default=(0.0, outside))
            self._units.append(_Unit(launch.start, launch.name, place, ((launch.name, launch.seconds),)))
        work = self._work_of_calls()
        spans = [Span(place.phase, place.layer, OVERHEAD, time, 0) for place, time in self._overhead.items()]
        for unit in self._units:
            own = work.get(unit) or self._own_work(unit)
            total = sum(seconds for _, seconds in unit.kernels)
            for name, seconds in unit.kernels:
                share = own * (seconds / total) if total else Work()
                spans.append(Span(unit.place.phase, unit.place.layer, name, seconds, 1, share))
        return spans

    def _visit(self, event: FunctionEvent, place: _Place) -> None:
        if _CALL_OF_CUDA.match(event.name):
            return
        place = self._place(event, place)
        if event.scope == _USER_SCOPE:
            self._ranges.append((event.time_range.start, event.time_range.end, place))
        if event.sequence_nr >= 0 and place.phase == FORWARD:
            self._owners[event.sequence_nr] = place.layer
        if self._is_unit(event):
            self._add_unit(event, place)
            return
        if self._on_cuda:
            for kernel in event.kernels:  # launched by our own code
                if kernel.name in self._names:  # the range itself, as the device saw it
                    continue
                own = ((kernel.name, _s(kernel.duration)),)
                self._units.append(_Unit(event.time_range.start, event.name, place, own))
        else:
            self._overhead[place] += _s(event.self_cpu_time_total)
        for child in event.cpu_children:
            self._visit(child, place)

    def _place(self, event: FunctionEvent, outer: _Place) -> _Place:
        name = event.name
        if name.startswith(_NODE):
            if name != _ACCUMULATE:
                self._last = self._owners.get(event.sequence_nr, LOSS)
            return _Place(BACKWARD, self._last)
        if event.scope != _USER_SCOPE:
            return outer
        if name.startswith("Optimizer."):
            return _Place(UPDATE, UPDATE)
        if name == INPUT:
            return _Place(INPUT, INPUT)
        if name in self._layers:  # in the backward pass too, where activations are computed again
            return _Place(outer.phase, name)
        return _Place(FORWARD, BETWEEN) if name == FORWARD else outer

    def _is_unit(self, event: FunctionEvent) -> bool:
        own = event.scope != _USER_SCOPE and _OWN_FUNCTION.match(event.name) is not None
        return own or event.name in self._operators

    def _add_unit(self, event: FunctionEvent, place: _Place) -> None:
        name = event.name.removeprefix("aten::")
        kernels = tuple(_kernels(event)) if self._on_cuda else ((name, _s(event.time_range.elapsed_us())),)
        unit = _Unit(event.time_range.start, name, place, kernels)
        self._units.append(unit)
        self._count(event, unit)

    def _count(self, event: FunctionEvent, unit: _Unit | None) -> None:
        """An operator that another counted one calls is not seen by the count; one of our own functions calls is."""
        if event.name in self._operators:
            self._calls.append((event.time_range.start, event.name, unit))
            return
        for child in event.cpu_children:
            self._count(child, None)

    def _work_of_calls(self) -> dict[_Unit, Work]:
        """The first call of an operator did the work of the first that was counted, and so on."""
        counted = {name: iter(calls) for name, calls in self._operators.items()}
        found = {}
        for _, name, unit in sorted(self._calls, key=lambda call: call[0]):
            work = next(counted[name], Work())
            if unit is not None:
                found[unit] = work
        return found

    def _own_work(self, unit: _Unit) -> Work:
        """Counts the work of a torch.autograd.Function of ours by its layer's formula."""
        return self._work.get((unit.place.layer, unit.place.phase), Work())


def _kernels(event: FunctionEvent) -> Iterable[tuple[str, float]]:
    """Yields what an operator and all that it called launched."""
    for kernel in _own_kernels(event):
        yield kernel.name, _s(kernel.duration)
    for child in event.cpu_children:
        yield from _kernels(child)


def _own_kernels(event: FunctionEvent) -> list[Kernel]:
    """A call of CUDA has none: its number can be that of an operator, whose kernels the profiler then names twice."""
    return [] if _CALL_OF_CUDA.match(event.name) else event.kernels


def _starts_within(event: FunctionEvent, step: FunctionEvent) -> bool:
    return bool(step.time_range.start <= event.time_range.start < step.time_range.end)


def _s(microseconds: float) -> float:
    return microseconds / 1e6
