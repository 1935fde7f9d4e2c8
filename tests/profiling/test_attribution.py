"""Attribution on a real profile of a tiny net, and, for CUDA, on made events."""

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from repro.config import Config
from repro.model import build
from repro.model.network import Network
from repro.profiling.attribution import BETWEEN, LOSS, OVERHEAD, Attribution, Span
from repro.profiling.operators import CountOperators, OperatorWork
from repro.profiling.ranges import layers, named_ranges
from repro.profiling.work import LayerWork, Work, layer_work
from tests.tiny import CROP, tiny_config

pytestmark = pytest.mark.usefixtures("one_thread")


class _Sleep(torch.autograd.Function):
    """As a function in C is for the profiler: time passes, and no operator is called."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        time.sleep(0.02)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        time.sleep(0.03)
        return gradients[0].clone()


class _Slow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, _Sleep.apply(x))


def spans_of_a_step(config: Config, network: Network | None = None, parts: int = 1) -> tuple[list[Span], LayerWork]:
    network = network or build(config, 4)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-9)

    def step() -> None:
        with record_function("input"):
            x = torch.randn(4, 3, CROP, CROP)
        for part in x.chunk(parts):
            F.cross_entropy(network(part), torch.zeros(len(part)).long()).backward()
        optimizer.step()

    step()
    with layer_work(network) as work, CountOperators() as operators:
        step()
    plan = schedule(wait=0, warmup=1, active=2, repeat=1)
    with named_ranges(network), profile(activities=[ProfilerActivity.CPU], schedule=plan, acc_events=True) as profiler:
        for _ in range(3):
            step()
            profiler.step()
    first, _ = Attribution(layers(network), operators.calls, work).spans(profiler.events() or [])
    return first, work


def find(spans: Sequence[Span], **wanted: str) -> list[Span]:
    return [span for span in spans if all(getattr(span, key) == value for key, value in wanted.items())]


def places(spans: Sequence[Span], kernel: str) -> set[tuple[str, str]]:
    return {(span.layer, span.phase) for span in spans if span.kernel == kernel}


CONVS = [f"conv{number}" for number in (1, 2, 3, 4, 5)]
FCS = ["fc6", "fc7", "fc8"]


def test_kernels_belong_to_the_layers_that_called_them() -> None:
    spans, _ = spans_of_a_step(tiny_config())
    assert places(spans, "convolution") == {(name, "forward") for name in CONVS}
    assert places(spans, "convolution_backward") == {(name, "backward") for name in CONVS}
    assert places(spans, "addmm") == {(name, "forward") for name in FCS}
    assert places(spans, "mm") == {(name, "backward") for name in FCS}
    assert places(spans, "_LocalResponseNorm") == {("norm1", "forward"), ("norm2", "forward")}
    assert places(spans, "_LocalResponseNormBackward") == {("norm1", "backward"), ("norm2", "backward")}
    assert places(spans, "_log_softmax") == {(LOSS, "forward")}
    assert places(spans, "_log_softmax_backward_data") == {(LOSS, "backward")}
    assert places(spans, "randn") == {("input", "input")}
    assert find(spans, layer="update", phase="update")
    assert find(spans, layer=BETWEEN, phase="forward")  # the maps are laid out for fc6


def test_kernels_have_the_work_of_their_calls() -> None:
    spans, work = spans_of_a_step(tiny_config())
    for layer in CONVS:
        (forward,) = find(spans, layer=layer, kernel="convolution")
        assert forward.work.flops == work[layer, "forward"].flops
        if layer != "conv1":  # its kernel reads the zeros beside the images too
            assert forward.work.bytes == work[layer, "forward"].bytes
        (backward,) = find(spans, layer=layer, kernel="convolution_backward")
        assert backward.work.flops == work[layer, "backward"].flops
    for layer in FCS:
        products = find(spans, layer=layer, phase="backward", kernel="mm")
        assert sum(product.work.flops for product in products) == work[layer, "backward"].flops
    for layer, phase in places(spans, "_LocalResponseNorm") | places(spans, "_LocalResponseNormBackward"):
        own = [span for span in find(spans, layer=layer, phase=phase) if span.kernel != OVERHEAD]
        assert sum((span.work for span in own), Work()).flops == work[layer, phase].flops


def test_a_function_that_calls_no_operator_counts_for_its_layer() -> None:
    network = build(tiny_config(), 4)
    network.features.norm1 = _Slow()
    spans, _ = spans_of_a_step(tiny_config(), network)
    (forward,), (backward,) = find(spans, kernel="_Sleep"), find(spans, kernel="_SleepBackward")
    assert (forward.layer, backward.layer) == ("norm1", "norm1")
    assert forward.seconds >= 0.02
    assert backward.seconds >= 0.03


def test_parts_of_a_batch_are_calls_of_the_same_layer() -> None:
    spans, _ = spans_of_a_step(tiny_config(), parts=2)
    assert len(find(spans, layer="conv2", kernel="convolution_backward")) == 2


def test_activations_that_are_computed_again_belong_to_the_backward_pass() -> None:
    config = tiny_config()
    config.train.checkpoint_activations = True
    spans, _ = spans_of_a_step(config)
    assert places(spans, "convolution") == {(name, phase) for name in CONVS for phase in ("forward", "backward")}
    assert places(spans, "convolution_backward") == {(name, "backward") for name in CONVS}


def made(
    name: str,
    start: float,
    end: float,
    *children: Any,
    scope: int = 0,
    number: int = -1,
    identity: int = 0,
    **kernels: float,
) -> Any:
    """An event as the profiler makes it; times and kernels' durations in microseconds."""
    event = SimpleNamespace(
        name=name,
        scope=scope,
        sequence_nr=number,
        device_type=SimpleNamespace(name="CPU"),
        is_async=False,
        time_range=SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start),
        self_cpu_time_total=end - start,
        id=identity,
        kernels=[SimpleNamespace(name=kernel, duration=duration) for kernel, duration in kernels.items()],
        cpu_children=list(children),
        cpu_parent=None,
    )
    for child in children:
        child.cpu_parent = event
    return event


def on_device(name: str, start: float, end: float, number: int) -> Any:
    """What ran on the device, with the number of its launch."""
    span = SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start)
    kind = SimpleNamespace(name="CUDA")
    return SimpleNamespace(name=name, id=number, scope=0, device_type=kind, time_range=span, kernels=[])


def flat(event: Any) -> list[Any]:
    return [event, *(inner for child in event.cpu_children for inner in flat(child))]


def test_on_cuda_kernels_count_and_the_backward_thread_is_seen() -> None:
    convolution = made(
        "aten::convolution", 11, 12, made("aten::cudnn_convolution", 11, 12, fprop=300, split=100), number=7
    )
    norm = made("norm1", 13, 14, made("_LocalResponseNorm", 13, 14, lrn=50), scope=7)
    forward = made("forward", 10, 15, made("conv1", 11, 13, convolution, scope=7), norm, scope=7)
    step = made("ProfilerStep*", 0, 100, forward, made("Optimizer.step#SGD", 50, 60, fused=40, scope=7), scope=7)
    node = "autograd::engine::evaluate_function: "
    backward = made(
        f"{node}ConvolutionBackward0", 20, 30, made("aten::convolution_backward", 21, 29, dgrad=600), number=7
    )
    sums = made(f"{node}torch::autograd::AccumulateGrad", 31, 32, made("aten::add_", 31, 32, add=5))
    late = made(f"{node}ConvolutionBackward0", 120, 130, number=7)
    events = [*flat(step), *flat(backward), *flat(sums), late]
    operators: OperatorWork = {
        "aten::convolution": [Work(4e9, 400)],
        "aten::convolution_backward": [Work(8e9, 800)],
        "aten::add_": [Work(1, 12)],
    }
    work = {("norm1", "forward"): Work(9, 99)}
    (spans,) = Attribution({"conv1", "norm1"}, operators, work).spans(cast(list[FunctionEvent], events))
    found = {
        span.kernel: (
            span.layer,
            span.phase,
            round(span.seconds * 1e6),
            Work(round(span.work.flops), round(span.work.bytes)),
        )
        for span in spans
    }
    assert found == {
        "fprop": ("conv1", "forward", 300, Work(3e9, 300)),
        "split": ("conv1", "forward", 100, Work(1e9, 100)),
        "lrn": ("norm1", "forward", 50, Work(9, 99)),
        "dgrad": ("conv1", "backward", 600, Work(8e9, 800)),
        "add": ("conv1", "backward", 5, Work(1, 12)),
        "fused": ("update", "update", 40, Work()),
    }


def test_on_cuda_what_no_operator_launched_belongs_to_its_range_and_ranges_are_no_kernels() -> None:
    alias = made("cudaEventRecord", 31.5, 31.6, fprop=300)  # a call whose number is that of the operator
    convolution = made("aten::convolution", 31, 32, alias, fprop=300)
    conv1 = made("conv1", 31, 33, convolution, scope=7, conv1=305)  # the device's shadow of the range
    forward = made("forward", 30, 40, conv1, scope=7, forward=400)
    step = made("ProfilerStep*", 0, 100, made("input", 10, 20, scope=7, input=90), forward, scope=7)
    launch = made("cuLaunchKernelEx", 12, 13, identity=41)
    another = made("cuLaunchKernelEx", 50, 51, identity=42, tally=10)
    device = [
        on_device("fprop", 400, 700, 8),
        on_device("prepare", 200, 290, 41),
        on_device("tally", 800, 810, 42),
        on_device("conv1", 400, 705, 0),
        on_device("input", 200, 290, 41),  # a shadow, whatever its number
        on_device("lost", 0, 1, 99),  # launched before the profile began
    ]
    operators: OperatorWork = {"aten::convolution": [Work(4e9, 400)]}
    work = {("input", "input"): Work(7, 77)}
    events = [*flat(step), launch, another, *device]
    (spans,) = Attribution({"conv1"}, operators, work).spans(cast(list[FunctionEvent], events))
    found = {(span.kernel, span.layer, span.phase, round(span.seconds * 1e6)): span.work for span in spans}
    assert found == {
        ("fprop", "conv1", "forward", 300): Work(4e9, 400),
        ("prepare", "input", "input", 90): Work(7, 77),
        ("tally", LOSS, "forward", 10): Work(),
    }
