"""The training step of the paper's net beside plain PyTorch, torchvision's alexnet, and itself without LRN."""

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor

from repro import experiments
from repro.config import Config, Precision
from repro.model import build
from repro.speed import peers
from repro.speed.sidebyside import Measured, apart, in_turn, rate
from repro.train import memory
from repro.train.optimizer import make_optimizer
from repro.train.precision import set_precision
from repro.train.schedule import Schedule
from repro.train.step import TrainingStep
from repro.train.tally import Tally

CLASSES = 1000
BATCH = {"cpu": 64, "cuda": 128}
ROUNDS = 21
"""Many short visits: a shared machine can lose half its speed for tens of seconds, between two of a round too."""
LEAST_SECONDS = 0.6
Step = Callable[[], None]
Maker = Callable[[Config, torch.device], Step]


def race(device: torch.device) -> Measured:
    """Images/s of one update; each candidate in a process of its own."""
    batch = BATCH[device.type]
    candidates: dict[str, tuple[Maker, Config]] = {"plain PyTorch, fp32": (plain, configuration(batch))}
    precisions = [Precision.fp32, Precision.bf16]
    if device.type == "cuda":
        candidates["plain PyTorch, its defaults"] = plain_with_tf32, configuration(batch)
        precisions.insert(1, Precision.tf32)
    for precision in precisions:
        config = configuration(batch, precision)
        candidates |= {
            f"ours without LRN, {precision.name}": (ours, configuration(batch, precision, "ablation=no_lrn")),
            f"ours, {precision.name}": (ours, config),
            f"torchvision's alexnet, {precision.name}": (torchvision_alexnet, config),
        }
    return _side_by_side(candidates, device)


def race_graph(device: torch.device) -> Measured:
    """Images/s of one update in bf16, its kernels started one by one and as one graph."""
    batch = BATCH[device.type]
    candidates: dict[str, tuple[Maker, Config]] = {
        "ours, bf16": (ours, configuration(batch, Precision.bf16)),
        "ours, bf16, as one graph": (ours, configuration(batch, Precision.bf16, "train.cuda_graph=true")),
    }
    return _side_by_side(candidates, device)


def _side_by_side(candidates: dict[str, tuple[Maker, Config]], device: torch.device) -> Measured:
    with ExitStack() as stack:
        measures = {
            name: stack.enter_context(apart(measure, make, config, device))
            for name, (make, config) in candidates.items()
        }
        return Measured(in_turn(measures, ROUNDS), f"one update of the full net, batch {BATCH[device.type]}")


def measure(make: Maker, config: Config, device: torch.device) -> Callable[[], float]:
    """Images/s of a candidate."""
    return rate(make(config, device), config.train.batch_size, device, LEAST_SECONDS)


def configuration(batch: int, precision: Precision = Precision.fp32, *words: str) -> Config:
    """The paper's net at a rate so low that its weights stay as they are: noise teaches nothing."""
    own = [f"train.batch_size={batch}", f"train.precision={precision.name}", "optimizer.lr=1e-6"]
    return experiments.compose(["setup=ilsvrc2012", *own, *words])


def ours(config: Config, device: torch.device, classes: int = CLASSES) -> Step:
    """The update that a run of this configuration makes."""
    torch.manual_seed(0)
    memory.keep_freed(device)
    network = build(config, classes)
    network.to(device).to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(network, config.optimizer)
    Schedule(config, steps=1000).set_rates(optimizer.param_groups, 500)
    step, tally = TrainingStep(config, network, optimizer, device), Tally.on(device)
    images, labels = _batch(config, device, classes)
    images = images.contiguous(memory_format=torch.channels_last)

    def update() -> None:
        set_precision(config.train.precision)  # the candidates of a race differ in it
        step(images, labels, tally)

    return update


def plain(config: Config, device: torch.device, classes: int = CLASSES, tf32_convolutions: bool = False) -> Step:
    """The same net in fp32 as one would write it down, maps first in memory, with torch.optim.SGD."""
    network = peers.paper_network(config.model, config.crop, classes).to(device).train()
    step = peers.training_step(
        network, peers.sgd(network, config.optimizer), *_batch(config, device, classes), Precision.fp32
    )

    def update() -> None:
        _pytorch_defaults()
        torch.backends.cudnn.allow_tf32 = tf32_convolutions
        step()

    return update


def plain_with_tf32(config: Config, device: torch.device) -> Step:
    """`plain` with TF32 in its convolutions, as PyTorch has it on a GPU where nothing is set."""
    return plain(config, device, tf32_convolutions=True)


def torchvision_alexnet(config: Config, device: torch.device, classes: int = CLASSES) -> Step:
    """torchvision's net with the settings that ours has: channels last, precision, memory, one kernel an update."""
    from torchvision.models import alexnet

    memory.keep_freed(device)
    network = alexnet(num_classes=classes).to(device).to(memory_format=torch.channels_last).train()
    images, labels = _batch(config, device, classes)
    images = images.contiguous(memory_format=torch.channels_last)
    optimizer = peers.sgd(network, config.optimizer, fused=True)
    step = peers.training_step(network, optimizer, images, labels, config.train.precision)

    def update() -> None:
        _pytorch_defaults()
        torch.backends.cuda.matmul.allow_tf32 = config.train.precision is Precision.tf32
        torch.backends.cudnn.allow_tf32 = config.train.precision is Precision.tf32
        step()

    return update


def _pytorch_defaults() -> None:
    """Takes back what `set_precision` has set: peers may use any algorithm."""
    set_precision(Precision.fp32)
    torch.backends.cudnn.deterministic = False


def _batch(config: Config, device: torch.device, classes: int) -> tuple[Tensor, Tensor]:
    """Noise as wide as pixels less their mean, (N, 3, crop, crop), and labels (N,)."""
    generator = torch.Generator().manual_seed(0)
    count = config.train.batch_size
    images = torch.randn(count, 3, config.crop, config.crop, generator=generator) * 50
    return images.to(device), torch.randint(0, classes, (count,), generator=generator).to(device)
