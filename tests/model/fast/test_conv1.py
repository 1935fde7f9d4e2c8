"""The first convolution over blocks of pixels against the plain one in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from repro.config import Precision
from repro.model import build
from repro.model.fast import conv1
from repro.model.fast.conv1 import SpaceToDepthConv1
from repro.model.layers import Conv1
from repro.train.precision import arithmetic, has_bf16
from tests.tiny import tiny_config

ROUNDING = 2.0**-8
"""Of bf16: half a unit in its last place, relative."""


def random(*shape: int, seed: int) -> Tensor:
    """Numbers that bf16 holds exactly."""
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).float()


def layer(**geometry: int) -> Conv1:
    conv = SpaceToDepthConv1(3, 4, **geometry)
    with torch.no_grad():
        conv.weight.copy_(random(*conv.weight.shape, seed=1) / 64)
        conv.bias.copy_(random(4, seed=2))
    return conv


def exact(conv: Conv1, x: Tensor, gradient: Tensor) -> list[Tensor]:
    return both_ways(conv, x, gradient, conv.weight, conv.bias)


def sums_of_sizes(conv: Conv1, x: Tensor, gradient: Tensor) -> list[Tensor]:
    """The same sums over the absolute values of their terms: they bound what rounding within a sum may do."""
    return both_ways(conv, x.abs(), gradient.abs(), conv.weight.abs(), conv.bias.abs())


def both_ways(conv: Conv1, x: Tensor, gradient: Tensor, *parameters: Tensor) -> list[Tensor]:
    weight, bias = (p.detach().double().requires_grad_() for p in parameters)
    wide = F.pad(x.double(), (conv.zeros, conv.zeros + conv.right_bottom) * 2)
    out = F.conv2d(wide, weight, bias, conv.stride)
    return [out.detach(), *torch.autograd.grad(out, (weight, bias), gradient.double())]


def passes(conv: Conv1, x: Tensor, gradient: Tensor) -> list[Tensor]:
    out = conv(x)
    return [out.detach(), *torch.autograd.grad(out, (conv.weight, conv.bias), gradient.to(out))]


GEOMETRIES = [
    {"kernel": 11, "stride": 4, "right_bottom": 3},
    {"kernel": 11, "stride": 4},
    {"kernel": 11, "stride": 4, "padding": 2},
    {"kernel": 11, "stride": 4, "padding": 1},
    {"kernel": 7, "stride": 2, "padding": 1},
    {"kernel": 5, "stride": 5, "right_bottom": 1},
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels last"])
@pytest.mark.parametrize("height", [64, 65, 66, 67])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_blocks_give_the_convolution_to_the_rounding_of_bf16(
    geometry: dict[str, int], height: int, layout: torch.memory_format
) -> None:
    conv, x = layer(**geometry), random(2, 3, height, 61, seed=3).contiguous(memory_format=layout)
    gradient = random(*conv(x).shape, seed=4)
    with arithmetic(torch.device("cpu"), Precision.bf16):
        found = passes(conv, x, gradient)
    assert found[0].dtype == torch.bfloat16
    for ours, expected, size in zip(found, exact(conv, x, gradient), sums_of_sizes(conv, x, gradient), strict=True):
        within = 0 if has_bf16(torch.device("cpu")) else ROUNDING * size  # emulated, sums are not kept in fp32
        assert ((ours.double() - expected).abs() <= ROUNDING * expected.abs() + within + 1e-9).all()


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_blocks_in_fp32_give_the_convolution_too(geometry: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does in tf32; sums of these numbers are exact."""
    conv, x = layer(**geometry), random(2, 3, 66, 61, seed=3)
    monkeypatch.setattr(conv1, "_matrix_unit", lambda x: torch.float32)
    gradient = random(*conv(x).shape, seed=4)
    for ours, expected in zip(passes(conv, x, gradient), exact(conv, x, gradient), strict=True):
        assert torch.equal(ours.double(), expected)


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "rounding"), [(Precision.bf16, 2 * ROUNDING), (Precision.tf32, 2.0**-10)])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_blocks_on_a_gpu_give_the_convolution_to_rounding(
    geometry: dict[str, int], precision: Precision, rounding: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", precision is Precision.tf32)
    conv, x = layer(**geometry), random(2, 3, 66, 61, seed=3)
    gradient, calls = random(*conv(x).shape, seed=4), []
    wanted = exact(conv, x, gradient)
    over_blocks = SpaceToDepthConv1._over_blocks
    monkeypatch.setattr(
        SpaceToDepthConv1, "_over_blocks", lambda self, x, kind: calls.append(kind) or over_blocks(self, x, kind)
    )
    device = torch.device("cuda")
    with arithmetic(device, precision):
        found = passes(conv.to(device), x.to(device, memory_format=torch.channels_last), gradient.to(device))
    kind = torch.bfloat16 if precision is Precision.bf16 else torch.float32
    assert calls == [kind]
    assert found[0].dtype == kind
    for ours, expected in zip(found, wanted, strict=True):
        assert (ours.cpu().double() - expected).abs().max() <= rounding * expected.abs().max()


def test_zeros_fill_the_kernels_and_take_no_part() -> None:
    """What lies beyond the last pixel that the stride reaches is not read either."""
    conv, x = layer(kernel=11, stride=4), random(1, 3, 66, 66, seed=3)
    spoilt = x.clone()
    spoilt[:, :, 63:], spoilt[:, :, :, 63:] = torch.inf, torch.inf  # 14 positions: pixels 0 to 62
    with arithmetic(torch.device("cpu"), Precision.bf16):
        assert conv(x).equal(F.conv2d(x, conv.weight, conv.bias, 4))
        assert conv(spoilt)[:, :, :13, :13].equal(conv(x)[:, :, :13, :13])


@pytest.mark.parametrize(("compile", "precision", "taken"), [
    (True, Precision.bf16, True),
    (True, Precision.fp32, False),
    (False, Precision.bf16, False),
])  # fmt: skip
def test_blocks_are_for_bf16_and_can_be_switched_off(
    compile: bool, precision: Precision, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, calls = tiny_config(), []
    config.train.fast_kernels = compile
    over_blocks = SpaceToDepthConv1._over_blocks
    monkeypatch.setattr(
        SpaceToDepthConv1, "_over_blocks", lambda self, *given: calls.append(1) or over_blocks(self, *given)
    )
    with arithmetic(torch.device("cpu"), precision):
        build(config, 4)(torch.randn(2, 3, config.crop, config.crop, generator=torch.Generator().manual_seed(0)))
    assert bool(calls) is taken


def test_the_state_is_that_of_a_plain_convolution() -> None:
    assert {name: value.shape for name, value in Conv1(3, 4, 11, 4, right_bottom=3).state_dict().items()} == {
        "weight": (4, 3, 11, 11),
        "bias": (4,),
    }
