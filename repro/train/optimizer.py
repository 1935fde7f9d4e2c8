"""The update rule, section 5, and which parameter learns and decays how much."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from repro.config import LAYER_NAMES, OptimizerConfig, OptimizerKind
from repro.model import Network


class PaperSGD(torch.optim.Optimizer):
    """v <- momentum v - weight_decay lr w - lr g;  w <- w + v.

    The velocity contains the learning rate, so after a drop it still carries steps of the old size;
    torch.optim.SGD's does not. A group with rate 0 is frozen: no decay, no coasting (weights.cu:148).
    """

    def __init__(self, groups: Iterable[dict[str, Any]], momentum: float) -> None:
        """Each group has `params`, `lr` (per step) and `weight_decay`."""
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from the gradients of the batch mean."""
        for group in self.param_groups:
            if group["lr"] == 0:
                continue
            for w in group["params"]:
                if w.grad is None:
                    continue
                state = self.state[w]
                if not state:
                    state["velocity"] = torch.zeros_like(w)
                v: Tensor = state["velocity"]
                v.mul_(group["momentum"]).sub_(w, alpha=group["weight_decay"] * group["lr"])
                v.sub_(w.grad, alpha=group["lr"])
                w.add_(v)


def parameter_groups(network: Network, config: OptimizerConfig) -> list[dict[str, Any]]:
    """One group a layer and kind (weights, biases), with `layer`, `bias`, `weight_decay` and `lr_factor`.

    What batch normalisation learns is treated as biases are.
    """
    groups = []
    for name, module in network.named_modules():
        layer = name.rpartition(".")[2]
        for kind, parameter in module.named_parameters(recurse=False):
            bias = kind == "bias" or isinstance(module, nn.BatchNorm2d)
            decay = config.weight_decay * (config.decay_factor.of(layer) if layer in LAYER_NAMES else 1.0)
            groups.append(
                {
                    "params": [parameter],
                    "layer": layer,
                    "bias": bias,
                    "lr": 0.0,
                    "lr_factor": config.bias_lr_factor if bias else 1.0,
                    "weight_decay": decay if config.decay_biases or not bias else 0.0,
                }
            )
    return groups


def make_optimizer(network: Network, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of a configuration; the schedule sets each group's `lr` before every step."""
    groups = parameter_groups(network, config)
    if config.kind is OptimizerKind.adam:
        return torch.optim.Adam(groups)
    if config.kind is OptimizerKind.torch_sgd:
        return torch.optim.SGD(groups, momentum=config.momentum)
    return PaperSGD(groups, config.momentum)
