"""The update rule, section 5, and which parameter learns and decays how much."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from repro.config import LAYER_NAMES, OptimizerConfig, OptimizerKind
from repro.model import Network


class PaperSGD(torch.optim.SGD):
    """v <- momentum v - weight_decay lr w - lr g;  w <- w + v.

    The velocity contains the learning rate, so after a drop it still carries steps of the old size; that of
    torch.optim.SGD does not. A group with rate 0 is frozen: no decay, no coasting (weights.cu:148).
    PyTorch's fused kernel, which reads and writes each number once, keeps -v / lr: the same rule, once that is
    brought to the new rate whenever the rate has changed.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], momentum: float) -> None:
        """Each group has `params`, `lr` (per step) and `weight_decay`."""
        super().__init__(groups, momentum=momentum, fused=True)
        self.register_step_pre_hook(_before_step)  # no method: the optimizer would hold itself, and a run's memory

    @torch.no_grad()
    def rescale_velocity(self) -> None:
        """Brings the velocities to the groups' rates; `step` does so itself, unless it is being recorded."""
        for group in self.param_groups:
            self._meet_rate(group)

    def _meet_rate(self, group: dict[str, Any]) -> None:
        if group["lr"] == 0:
            for w in group["params"]:
                w.grad = None  # what has no gradient is passed over
            return
        before = group.get("velocity_lr", group["lr"])
        if group["lr"] != before:
            for w in group["params"]:
                if self.state[w].get("momentum_buffer") is not None:
                    self.state[w]["momentum_buffer"].mul_(before / group["lr"])
        group["velocity_lr"] = group["lr"]


def _before_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    assert isinstance(optimizer, PaperSGD)
    if not any(isinstance(group["lr"], Tensor) for group in optimizer.param_groups):
        optimizer.rescale_velocity()


def parameter_groups(network: Network, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Parameters that are updated alike: few groups, for the update of each is a kernel of its own.

    A group has `params`, `layer` (`conv1`, whose rate has events of its own, or `others`), `bias`, `weight_decay` and
    `lr_factor`. What batch normalisation learns is treated as biases are.
    """
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, module in network.named_modules():
        layer = name.rpartition(".")[2]
        for kind, parameter in module.named_parameters(recurse=False):
            bias = kind == "bias" or isinstance(module, nn.BatchNorm2d)
            decay = config.weight_decay * (config.decay_factor.of(layer) if layer in LAYER_NAMES else 1.0)
            settings = {
                "layer": layer if layer == "conv1" else "others",
                "bias": bias,
                "lr_factor": config.bias_lr_factor if bias else 1.0,
                "weight_decay": decay if config.decay_biases or not bias else 0.0,
            }
            group = groups.setdefault(tuple(settings.values()), {"params": [], "lr": 0.0, **settings})
            group["params"].append(parameter)
    return list(groups.values())


def make_optimizer(network: Network, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of a configuration; the schedule sets each group's `lr` before every step."""
    groups = parameter_groups(network, config)
    if config.kind is OptimizerKind.adam:
        on_gpu = next(network.parameters()).is_cuda
        return torch.optim.Adam(groups, fused=True, capturable=on_gpu)
    if config.kind is OptimizerKind.torch_sgd:
        return torch.optim.SGD(groups, momentum=config.momentum, fused=True)
    return PaperSGD(groups, config.momentum)
