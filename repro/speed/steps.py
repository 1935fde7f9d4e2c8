"""The training step of the paper's net beside plain PyTorch, torchvision's alexnet, and itself without LRN."""

from collections.abc import Callable

import torch
from torch import Tensor

from repro import experiments
from repro.config import Config, Precision
from repro.model import build
from repro.speed import peers
from repro.speed.sidebyside import Measured, in_turn, rate
from repro.train.optimizer import make_optimizer
from repro.train.precision import set_precision
from repro.train.schedule import Schedule
from repro.train.step import Tally, TrainingStep

CLASSES = 1000
BATCH = {"cpu": 64, "cuda": 128}
ROUNDS = 15
Step = Callable[[], None]


def race(device: torch.device) -> Measured:
    """Images/s of one update."""
    batch = BATCH[device.type]
    steps: dict[str, Step] = {"plain PyTorch, fp32": plain(configuration(batch), device)}
    precisions = [Precision.fp32, Precision.bf16]
    if device.type == "cuda":
        steps["plain PyTorch, its defaults"] = plain(configuration(batch), device, tf32_convolutions=True)
        precisions.insert(1, Precision.tf32)
    for precision in precisions:
        config = configuration(batch, precision)
        without = configuration(batch, precision, "ablation=no_lrn")
        steps |= {
            f"ours, {precision.name}": ours(config, device),
            f"ours without LRN, {precision.name}": ours(without, device),
            f"torchvision's alexnet, {precision.name}": torchvision_alexnet(config, device),
        }
    rounds = in_turn({name: rate(step, batch, device) for name, step in steps.items()}, ROUNDS)
    return Measured(rounds, f"one update of the full net, batch {batch}")


def configuration(batch: int, precision: Precision = Precision.fp32, *words: str) -> Config:
    """The paper's net at a rate so low that its weights stay as they are: noise teaches nothing."""
    own = [f"train.batch_size={batch}", f"train.precision={precision.name}", "optimizer.lr=1e-6"]
    return experiments.compose(["setup=ilsvrc2012", *own, *words])


def ours(config: Config, device: torch.device, classes: int = CLASSES) -> Step:
    """The update that a run of this configuration makes."""
    torch.manual_seed(0)
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
    """The same net in fp32 as one would write it down, maps first in memory, with torch.optim.SGD.

    `tf32_convolutions`: as PyTorch has it on a GPU where nothing is set.
    """
    network = peers.paper_network(config.model, config.crop, classes).to(device).train()
    step = peers.training_step(
        network, peers.sgd(network, config.optimizer), *_batch(config, device, classes), Precision.fp32
    )

    def update() -> None:
        _pytorch_defaults()
        torch.backends.cudnn.allow_tf32 = tf32_convolutions
        step()

    return update


def torchvision_alexnet(config: Config, device: torch.device, classes: int = CLASSES) -> Step:
    """torchvision's net with the settings that ours has: channels last, the same precision, one kernel an update."""
    from torchvision.models import alexnet

    network = alexnet(num_classes=classes).to(device).to(memory_format=torch.channels_last).train()
    images, labels = _batch(config, device, classes)
    images = images.contiguous(memory_format=torch.channels_last)
    optimizer = peers.sgd(network, config.optimizer, foreach=True)
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
