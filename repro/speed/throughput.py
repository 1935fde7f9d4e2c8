"""How near a training step comes to what the device can do, and how long the paper's training would take.

A step cannot be faster than the device makes its operations, nor than memory moves its bytes, each layer reading and
writing once. The slower of the two is the bound.
"""

import statistics
from dataclasses import asdict, dataclass

import torch

from repro.config import Config, Precision
from repro.model import build
from repro.profiling.ceilings import copy_bandwidth, matmul_rate
from repro.profiling.roofline import Ceilings
from repro.profiling.work import UPDATE_OPERATIONS, Work, layer_work
from repro.speed import steps
from repro.speed.sidebyside import Measured, in_turn, rate

BATCHES = {"cpu": (64,), "cuda": (128, 512, 2048)}
ROUNDS = 5
PAPER_IMAGES, PAPER_EPOCHS = 1_281_167, 90  # ILSVRC-2012's training set; section 5
UPDATE_BYTES = 4 * 5
"""A parameter: w, its velocity and its gradient are read, w and the velocity written, in fp32."""


@dataclass(frozen=True)
class Throughput:
    """One row: images/s, shares (0 to 1) of the measured ceilings, and the bound in images/s with its cause."""

    batch: int
    images_per_second: float
    flops_share: float
    bandwidth_share: float
    bound: float
    bound_by: str


def race(device: torch.device) -> Measured:
    """The hours that the paper's training would take at the best batch, and the table by batch, in bf16."""
    configs = {str(batch): steps.configuration(batch, Precision.bf16) for batch in BATCHES[device.type]}
    measures = {
        name: rate(steps.ours(config, device), config.train.batch_size, device) for name, config in configs.items()
    }
    rounds = in_turn(measures, ROUNDS)
    ceilings = Ceilings(matmul_rate(device, Precision.bf16), copy_bandwidth(device))
    table = [asdict(row(config, statistics.median(rounds[name]), ceilings)) for name, config in configs.items()]
    fastest = [max(values) for values in zip(*rounds.values(), strict=True)]
    return Measured({"hours": list(map(hours, fastest))}, "one update of the full net in bf16", table)


def row(config: Config, images_per_second: float, ceilings: Ceilings, classes: int = steps.CLASSES) -> Throughput:
    """Sets a measured rate of this configuration's step against the ceilings."""
    batch, work = config.train.batch_size, step_work(config, classes)
    seconds = batch / images_per_second
    return Throughput(
        batch=batch,
        images_per_second=images_per_second,
        flops_share=work.flops / seconds / ceilings.flops,
        bandwidth_share=work.bytes / seconds / ceilings.bandwidth,
        bound=batch / ceilings.least_seconds(work),
        bound_by=ceilings.bound(work),
    )


def hours(images_per_second: float) -> float:
    """Of the paper's training at this rate."""
    return PAPER_EPOCHS * PAPER_IMAGES / images_per_second / 3600


def step_work(config: Config, classes: int = steps.CLASSES) -> Work:
    """Of one update, from shapes alone."""
    with torch.device("meta"):
        network = build(config, classes).train()
        x = torch.empty(config.train.batch_size, 3, config.crop, config.crop)
        if config.train.precision is Precision.bf16:
            network, x = network.bfloat16(), x.bfloat16()
        with layer_work(network) as found:
            network(x)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return sum(found.values(), Work(UPDATE_OPERATIONS * parameters, UPDATE_BYTES * parameters))
