from collections.abc import Iterator

import pytest
import torch
from torch import nn

from repro.profiling.operators import CountOperators, OperatorWork
from repro.profiling.work import Work


@pytest.fixture
def calls() -> Iterator[OperatorWork]:
    with CountOperators() as counted:
        yield counted.calls


def test_a_grouped_convolution_does_twice_as_much_backward(calls: OperatorWork) -> None:
    layer, x = nn.Conv2d(4, 8, 3, groups=2), torch.randn(2, 4, 8, 8, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    (forward,), (backward,) = calls["aten::convolution"], calls["aten::convolution_backward"]
    assert forward.flops == 2 * (2 * 8 * 6 * 6) * (2 * 3 * 3)  # numbers out, multiply-adds for each
    assert forward.bytes == x.nbytes + y.nbytes + sum(parameter.nbytes for parameter in layer.parameters())
    assert backward.flops == 2 * forward.flops


def test_images_need_no_gradient(calls: OperatorWork) -> None:
    nn.Conv2d(4, 8, 3)(torch.randn(2, 4, 8, 8)).sum().backward()
    assert calls["aten::convolution_backward"][0].flops == calls["aten::convolution"][0].flops


def test_a_product_counts_multiply_adds_and_other_operators_the_numbers_they_write(calls: OperatorWork) -> None:
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    torch.mm(a, b)
    a.mul_(2)
    assert calls["aten::mm"] == [Work(2 * 3 * 4 * 5, a.nbytes + b.nbytes + 3 * 5 * 4)]
    assert calls["aten::mul_"] == [Work(12, 2 * a.nbytes)]


def test_what_moves_nothing_has_no_work(calls: OperatorWork) -> None:
    torch.empty(10).view(2, 5)
    assert calls["aten::empty"] == calls["aten::view"] == [Work()]


def test_an_expanded_tensor_has_the_bytes_behind_it(calls: OperatorWork) -> None:
    torch.ones(1).expand(1000).clone()
    assert calls["aten::clone"][0].bytes == 4 + 4000


def test_an_update_in_one_operator_is_read_and_written(calls: OperatorWork) -> None:
    w = torch.ones(10, requires_grad=True)
    w.grad = torch.ones(10)
    torch.optim.SGD([w], lr=0.1, fused=True).step()
    assert calls["aten::_fused_sgd_"] == [Work(20, 4 * w.nbytes)]  # reads w and gradient, which it may scale
