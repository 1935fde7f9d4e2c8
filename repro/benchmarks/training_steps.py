"""The training step of the paper's net beside plain PyTorch, torchvision's alexnet, and itself without LRN."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor

from repro.benchmarks import plain_pytorch
from repro.benchmarks.alternating import Measure, Measured, Reasons, apart, in_turn, one_after_the_other, rate
from repro.config import Config, Precision
from repro.experiments.compose import compose
from repro.model import build
from repro.train import memory
from repro.train.cuda_graph import WARM_UPS
from repro.train.optimizer import make_optimizer
from repro.train.precision import has_bf16, set_precision
from repro.train.running_loss import RunningLoss
from repro.train.schedule import Schedule
from repro.train.step import TrainingStep

CLASSES = 1000
GRAPH, NO_GRAPH = "train.cuda_graph=true", "train.cuda_graph=false"
EMULATED = "bf16 is emulated on this processor"
NO_TIME = "no time was left: this machine is slow or busy"
BATCH = {"cpu": 64, "cuda": 128}
ROUNDS = {"cpu": 21, "cuda": 7}
"""Many short visits: a shared machine can lose half its speed for tens of seconds, between two of a round too."""
LEAST_SECONDS = {"cpu": 0.6, "cuda": 0.15}
SECONDS = 150.0
"""No candidate is made and no round begins later than this: a slow processor makes fewer."""
Step = Callable[[], None]
Maker = Callable[[Config, torch.device], Step]
Candidates = dict[str, tuple[Maker, Config]]


def race(device: torch.device) -> Measured:
    """Images/s of one update. On a CPU each candidate is in a process of its own, and they take turns."""
    batch = BATCH[device.type]
    note = f"one update of the full net, batch {batch}"
    if device.type == "cuda":
        failed: Reasons = {}
        makers = {name: partial(measure, *made, device) for name, made in _on_gpu(batch).items()}
        return Measured(one_after_the_other(makers, ROUNDS["cuda"], failed), note, failed=failed)
    until = time.perf_counter() + SECONDS
    candidates, left_out = _on_cpu(batch, device)
    with ExitStack() as stack:
        measures: dict[str, Measure] = {}
        for name, (make, config) in candidates.items():
            if time.perf_counter() > until:
                left_out[name] = NO_TIME
            else:
                measures[name] = stack.enter_context(apart(measure, make, config, device))
        return Measured(in_turn(measures, ROUNDS["cpu"], until), note, left_out=left_out)


def _on_cpu(batch: int, device: torch.device) -> tuple[Candidates, Reasons]:
    """The candidates of a processor, and those that it is not for."""
    found: Candidates = {"plain PyTorch, fp32": (plain, configuration(batch))}
    for precision in (Precision.fp32, Precision.bf16):
        config = configuration(batch, precision)
        found |= {
            f"ours, {precision.name}": (ours, config),
            f"torchvision's alexnet, {precision.name}": (torchvision_alexnet, config),
            f"ours without LRN, {precision.name}": (ours, configuration(batch, precision, "ablation=no_lrn")),
        }
    if has_bf16(device):
        return found, {}
    emulated = {name: EMULATED for name, (_, config) in found.items() if config.train.precision is Precision.bf16}
    return {name: made for name, made in found.items() if name not in emulated}, emulated


def _on_gpu(batch: int) -> Candidates:
    """Ours as runs have it, with one thing changed, and others' nets; the most wanted first."""
    bf16 = partial(configuration, batch, Precision.bf16, GRAPH)
    config = bf16()
    return {
        "ours, bf16": (ours, config),
        "plain PyTorch, fp32": (plain, configuration(batch)),
        "torchvision's alexnet, bf16": (torchvision_alexnet, config),
        "ours kernel by kernel, bf16": (ours, configuration(batch, Precision.bf16, NO_GRAPH)),
        "ours without LRN, bf16": (ours, bf16("ablation=no_lrn")),
        "ours without dropout, bf16": (ours, bf16("ablation=no_dropout")),
        "ours in one column, bf16": (ours, bf16("ablation=one_column")),
        "ours benchmarked, bf16": (ours, bf16("train.cudnn_benchmark=true")),
        "ours with any algorithm, bf16": (with_any_algorithm, config),
        "plain PyTorch, bf16": (plain_in_bf16, configuration(batch)),
        "ours, tf32": (ours, configuration(batch, Precision.tf32, GRAPH)),
        "plain PyTorch, its defaults": (plain_with_tf32, configuration(batch)),
        "ours, fp32": (ours, configuration(batch, Precision.fp32, GRAPH)),
        "ours at the end, bf16": (ours, config),  # how far the device has drifted meanwhile
    }


def measure(make: Maker, config: Config, device: torch.device) -> Measure:
    """Images/s of a candidate; on a GPU a step is recorded as a graph by then."""
    step = make(config, device)
    for _ in range(WARM_UPS + 1 if device.type == "cuda" else 0):
        step()
    return rate(step, config.train.batch_size, device, LEAST_SECONDS[device.type])


def configuration(batch: int, precision: Precision = Precision.fp32, *words: str) -> Config:
    """The paper's net at a rate so low that its weights stay as they are: noise teaches nothing."""
    own = [f"train.batch_size={batch}", f"train.precision={precision.name}", "optimizer.lr=1e-6"]
    return compose(["setup=ilsvrc2012", *own, *words])


def ours(config: Config, device: torch.device, classes: int = CLASSES, deterministic: bool = True) -> Step:
    """The update that a run of this configuration makes."""
    torch.manual_seed(0)
    memory.keep_freed(device)
    network = build(config, classes)
    network.to(device).to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(network, config.optimizer)
    Schedule(config, steps=1000).set_rates(optimizer.param_groups, 500)
    step, running = TrainingStep(config, network, optimizer, device), RunningLoss.on(device)
    images, labels = _as_in_a_run(config, *_batch(config, device, classes))

    def update() -> None:
        set_precision(config.train.precision, config.train.cudnn_benchmark)  # the candidates of a race differ in it
        torch.backends.cudnn.deterministic = deterministic
        step(images, labels, running)

    return update


def with_any_algorithm(config: Config, device: torch.device) -> Step:
    """`ours` where cuDNN may take algorithms whose sums differ from call to call."""
    return ours(config, device, deterministic=False)


def plain(
    config: Config,
    device: torch.device,
    classes: int = CLASSES,
    tf32_convolutions: bool = False,
    precision: Precision = Precision.fp32,
) -> Step:
    """The same net as one would write it down, maps first in memory, with torch.optim.SGD."""
    network = plain_pytorch.paper_network(config.model, config.crop, classes).to(device).train()
    step = plain_pytorch.training_step(
        network, plain_pytorch.sgd(network, config.optimizer), *_batch(config, device, classes), precision
    )

    def update() -> None:
        _pytorch_defaults()
        torch.backends.cudnn.allow_tf32 = tf32_convolutions
        step()

    return update


def plain_with_tf32(config: Config, device: torch.device) -> Step:
    """`plain` with TF32 in its convolutions, as PyTorch has it on a GPU where nothing is set."""
    return plain(config, device, tf32_convolutions=True)


def plain_in_bf16(config: Config, device: torch.device) -> Step:
    """`plain` under PyTorch's autocast."""
    return plain(config, device, precision=Precision.bf16)


def torchvision_alexnet(config: Config, device: torch.device, classes: int = CLASSES) -> Step:
    """torchvision's net with the settings that ours has: channels last, precision, memory, one kernel an update."""
    from torchvision.models import alexnet

    memory.keep_freed(device)
    network = alexnet(num_classes=classes).to(device).to(memory_format=torch.channels_last).train()
    images, labels = _as_in_a_run(config, *_batch(config, device, classes))
    optimizer = plain_pytorch.sgd(network, config.optimizer, fused=True)
    step = plain_pytorch.training_step(network, optimizer, images, labels, config.train.precision)

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


def _as_in_a_run(config: Config, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Channels last, and on a GPU in the type that `repro.data.preprocess.Pixels` makes."""
    if images.is_cuda and config.train.precision is Precision.bf16:
        images = images.bfloat16()
    return images.contiguous(memory_format=torch.channels_last), labels
