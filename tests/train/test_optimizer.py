import gc
import weakref
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repro.config import OptimizerConfig, OptimizerKind
from repro.model import Network
from repro.train.optimizer import PaperSGD, make_optimizer, parameter_groups

RATES = [0.01, 0.01, 0.01, 0.001, 0.001, 0.0001]  # two drops


def network() -> Network:
    features = nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 2, 2), norm1=nn.BatchNorm2d(2)))
    return Network(features, nn.Sequential(OrderedDict(fc8=nn.Linear(2, 4)))).double()


def train(
    parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, gradient: Callable[[str, int], Tensor]
) -> None:
    for step, rate in enumerate(RATES):
        for name, parameter in parameters.items():
            parameter.grad = gradient(name, step)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        optimizer.step()


def section_5(w: np.ndarray, gradients: list[np.ndarray], decay: float, lr_factor: float) -> np.ndarray:
    """The rule of section 5, as it is printed."""
    v = np.zeros_like(w)
    for rate, g in zip(RATES, gradients, strict=True):
        epsilon = rate * lr_factor
        v = 0.9 * v - decay * epsilon * w - epsilon * g
        w = w + v
    return w


@pytest.mark.parametrize("bias_lr_factor", [1.0, 2.0])
@pytest.mark.parametrize("decay_biases", [False, True])
def test_the_update_is_the_rule_of_section_5_across_drops(bias_lr_factor: float, decay_biases: bool) -> None:
    config = OptimizerConfig(weight_decay=0.5, decay_biases=decay_biases, bias_lr_factor=bias_lr_factor)
    config.decay_factor.fc8 = 3.0
    net = network()
    parameters = dict(net.named_parameters())
    before = {name: parameter.detach().numpy().copy() for name, parameter in parameters.items()}
    gradients = {name: [torch.randn_like(parameter) for _ in RATES] for name, parameter in parameters.items()}
    train(parameters, make_optimizer(net, config), lambda name, step: gradients[name][step].clone())
    for name, parameter in parameters.items():
        bias = name.endswith("bias") or "norm1" in name
        decay = 0.0 if bias and not decay_biases else 1.5 if "fc8" in name else 0.5
        printed = [gradient.numpy() for gradient in gradients[name]]
        expected = section_5(before[name], printed, decay, bias_lr_factor if bias else 1.0)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12, atol=1e-14, err_msg=name)


def test_torch_sgd_is_the_same_rule_until_the_rate_drops() -> None:
    weights = [nn.Parameter(torch.linspace(-1, 1, 5, dtype=torch.float64)) for _ in range(2)]
    groups = [{"params": [weight], "lr": 0.01, "weight_decay": 0.5} for weight in weights]
    paper, sgd = PaperSGD(groups[:1], momentum=0.9), torch.optim.SGD(groups[1:], momentum=0.9)

    def step() -> None:
        gradient = torch.randn(5, dtype=torch.float64)
        for weight, optimizer in zip(weights, (paper, sgd), strict=True):
            weight.grad = gradient.clone()
            optimizer.step()

    for _ in range(4):
        step()
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-12, atol=1e-14)

    velocity = -0.01 * paper.state[weights[0]]["momentum_buffer"]
    for optimizer in (paper, sgd):
        optimizer.param_groups[0]["lr"] /= 10
    step()
    # the paper's velocity keeps the size of the old rate; PyTorch's shrinks with the new one
    torch.testing.assert_close(weights[0] - weights[1], 0.9 * velocity * (1 - 1 / 10), rtol=1e-9, atol=1e-14)
    assert velocity.abs().min() > 1e-4


def test_a_group_with_rate_0_stands_still() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = PaperSGD([{"params": [weight], "lr": 0.1, "weight_decay": 0.5}], momentum=0.9)
    weight.grad = torch.ones(3)
    optimizer.step()
    moved, velocity = weight.detach().clone(), optimizer.state[weight]["momentum_buffer"].clone()
    assert (moved < 1).all()
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert torch.equal(weight, moved)
    assert torch.equal(optimizer.state[weight]["momentum_buffer"], velocity)


def test_the_state_of_a_run_that_goes_on_holds_the_rate_of_the_velocity() -> None:
    weights = [nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2)]
    whole, first = (
        PaperSGD([{"params": [weight], "lr": 0.1, "weight_decay": 0.5}], momentum=0.9) for weight in weights
    )
    for weight, optimizer in zip(weights, (whole, first), strict=True):
        weight.grad = torch.ones(3, dtype=torch.float64)
        optimizer.step()
    again = PaperSGD([{"params": [weights[1]], "lr": 0.0, "weight_decay": 0.5}], momentum=0.9)
    again.load_state_dict(first.state_dict())
    for optimizer in (whole, again):
        optimizer.param_groups[0]["lr"] = 0.01
        optimizer.step()
    assert torch.equal(weights[0], weights[1])


def test_a_parameter_without_gradient_is_left_alone() -> None:
    weight = nn.Parameter(torch.ones(3))
    PaperSGD([{"params": [weight], "lr": 0.1, "weight_decay": 0.5}], momentum=0.9).step()
    assert torch.equal(weight, torch.ones(3))


def by_parameter(config: OptimizerConfig, key: str) -> dict[str, float]:
    """A setting of the group that each parameter is in."""
    net = network()
    groups = {id(one): group for group in parameter_groups(net, config) for one in group["params"]}
    return {name: groups[id(parameter)][key] for name, parameter in net.named_parameters()}


CONV1, NORM1, FC8 = ("features.conv1.%s", "features.norm1.%s", "classifier.fc8.%s")


def test_groups_hold_each_parameter_once_and_are_few() -> None:
    net = network()
    groups = parameter_groups(net, OptimizerConfig())
    assert sorted(id(one) for group in groups for one in group["params"]) == sorted(map(id, net.parameters()))
    assert [(group["layer"], group["bias"]) for group in groups] == [
        ("conv1", False), ("conv1", True), ("others", True), ("others", False),
    ]  # fmt: skip


def test_biases_and_batch_normalisation_are_not_decayed_unless_asked() -> None:
    config = OptimizerConfig(weight_decay=0.5)
    config.decay_factor.conv1 = 0.0
    config.decay_factor.fc8 = 2.0
    decays = by_parameter(config, "weight_decay")
    assert {name for name, decay in decays.items() if decay} == {FC8 % "weight"}
    assert decays[FC8 % "weight"] == 1.0
    config.decay_biases = True
    decays = by_parameter(config, "weight_decay")
    assert [decays[NORM1 % "weight"], decays[NORM1 % "bias"], decays[FC8 % "bias"]] == [0.5, 0.5, 1.0]
    assert [decays[CONV1 % "weight"], decays[CONV1 % "bias"]] == [0, 0]


def test_the_bias_factor_reaches_biases_and_batch_normalisation() -> None:
    factors = by_parameter(OptimizerConfig(bias_lr_factor=2.0), "lr_factor")
    assert {name for name, factor in factors.items() if factor == 1} == {CONV1 % "weight", FC8 % "weight"}
    assert set(factors.values()) == {1, 2}


def test_an_optimizer_is_gone_with_its_last_user() -> None:
    optimizer = make_optimizer(network(), OptimizerConfig())
    gone = weakref.ref(optimizer)
    gc.disable()
    try:
        del optimizer
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (OptimizerKind.paper_sgd, PaperSGD),
        (OptimizerKind.torch_sgd, torch.optim.SGD),
        (OptimizerKind.adam, torch.optim.Adam),
    ],
)
def test_each_kind_makes_its_optimizer(kind: OptimizerKind, expected: type[torch.optim.Optimizer]) -> None:
    optimizer = make_optimizer(network(), OptimizerConfig(kind=kind, momentum=0.8, weight_decay=0.25))
    assert type(optimizer) is expected
    assert optimizer.param_groups[0]["weight_decay"] == 0.25
    assert optimizer.param_groups[0].get("momentum", 0.8) == 0.8
