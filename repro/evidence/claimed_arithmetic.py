"""Claims that need no training: computed from the network, the code or the paper's own numbers at every run.

Each check takes the claim's printed numbers by name and returns whether it is right, and what was found.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repro.config import Config
    from repro.model.summary import Layer

Values = Mapping[str, float]
Answer = tuple[bool, str]


@cache
def _config(*words: str) -> "Config":
    from repro.experiments.compose import compose

    return compose(["setup=ilsvrc2012", "recipe=paper", *words])


@cache
def _layers(*words: str) -> list["Layer"]:
    """The layers with weights."""
    from repro.model.summary import DEFAULT_CLASSES, layer_table

    return [layer for layer in layer_table(_config(*words), DEFAULT_CLASSES) if layer.neurons]


def _total(*words: str) -> dict[str, int]:
    from repro.model.summary import total

    return total(_layers(*words))


def _agrees(count: int, printed: float) -> bool:
    """Tells whether a round number is the exact one, rounded or cut off at its last digit that is not 0."""
    digits = f"{printed:.0f}"
    unit = 10 ** (len(digits) - len(digits.rstrip("0")))
    return printed in (count // unit * unit, round(count / unit) * unit)


def parameters(values: Values) -> Answer:
    """C1: weights and biases."""
    two, one = (_total(*words)["parameters"] for words in ((), ("ablation=one_gpu_half",)))
    return _agrees(two, values["parameters"]), f"{two:,}; the one-GPU net {one:,}, {100 * one / two:.1f} % of them"


def neurons(values: Values) -> Answer:
    """C2: outputs of layers with weights."""
    ours = _total()["neurons"]
    caption = sum(round(values[layer.name]) for layer in _layers())
    text = f"{ours:,}; the layers in the caption of figure 2 sum to {caption:,} (C3)"
    return _agrees(ours, values["neurons"]), text


def neurons_by_layer(values: Values) -> Answer:
    """C3: the same, layer by layer, and the numbers of a crop."""
    crop = _config().crop
    sizes = {"input": [3, crop, crop]} | {layer.name: layer.output_shape for layer in _layers()}
    counts = {"input": 3 * crop**2} | {layer.name: layer.neurons for layer in _layers()}
    wrong = [name for name, count in counts.items() if count != values[name]]
    texts = [f"{name} has {' x '.join(map(str, reversed(sizes[name])))} = {counts[name]:,}" for name in wrong]
    return not wrong, "; ".join([*texts, f"the other {len(counts) - len(wrong)} numbers agree"])


def shares(values: Values) -> Answer:
    """C4: each convolution's parameters over those of the net, %."""
    whole = _total()["parameters"]
    found = {layer.name: 100 * layer.parameters / whole for layer in _layers() if layer.kind == "conv"}
    text = ", ".join(f"{name} {share:.2f} %" for name, share in found.items())
    return max(found.values()) <= values["share"], text


def views(values: Values) -> Answer:
    """C6: the different crops and mirror images that training draws from one image."""
    import torch

    from repro.config import AugmentConfig
    from repro.data.augmentation import random_windows

    data = _config().data
    border = data.image_size - data.crop
    windows = random_windows(AugmentConfig(), 50_000, border, torch.Generator().manual_seed(0))
    side = border + 1
    count = len(((windows.tops * side + windows.lefts) * 2 + windows.flips).unique())
    return count == values["views"], f"{data.crop} pixels of {data.image_size}: {side} x {side} x 2 = {count:,}"


def validation_against_test(values: Values) -> Answer:
    """C20: between the printed errors of table 2."""
    gaps = [round(abs(values[f"{name}_val"] - values[f"{name}_test"]), 1) for name in ("five", "seven")]
    return max(gaps) <= values["most"], f"{gaps[0]} and {gaps[1]} points between the printed errors, two pairs in all"


def update_rule(values: Values) -> Answer:
    """C25: our optimizer against the printed rule, and torch.optim.SGD, in 100 steps and one after a drop."""
    import torch

    from repro.train.optimizer import PaperSGD

    rates = [0.01] * 100 + [0.001]
    momentum, decay = values["momentum"], values["decay"]
    ours, theirs = (torch.nn.Parameter(torch.ones((), dtype=torch.float64)) for _ in range(2))
    group = {"lr": rates[0], "weight_decay": decay}
    paper_sgd = PaperSGD([{"params": [ours], **group}], momentum)
    torch_sgd = torch.optim.SGD([{"params": [theirs], **group}], momentum=momentum)
    w, v, same = 1.0, 0.0, True
    for rate in rates:
        before = ours.item(), theirs.item()
        v = momentum * v - decay * rate * w - rate * 1.0
        w += v
        for parameter, optimizer in ((ours, paper_sgd), (theirs, torch_sgd)):
            parameter.grad = torch.ones_like(parameter)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
        same &= abs(ours.item() - w) < 1e-12
    ratio = (ours.item() - before[0]) / (theirs.item() - before[1])
    return (
        same,
        f"`recipe=paper` takes these steps; at a drop to a tenth the first is {ratio:.1f} times torch.optim.SGD's",
    )


CHECKS: dict[str, Callable[[Values], Answer]] = {
    check.__name__: check
    for check in (parameters, neurons, neurons_by_layer, shares, views, validation_against_test, update_rule)
}
