"""The throughput of a training step beside what the device can do, batch by batch.

A step cannot be faster than the device makes its operations, nor than memory moves its bytes, each layer reading and
writing once. The slower of the two is the bound.
"""

import statistics
import time
from dataclasses import asdict, dataclass
from functools import partial

import torch

from repro.benchmarks import training_steps
from repro.benchmarks.alternating import Measured, Reasons, in_turn, one_after_the_other
from repro.config import Config, Precision
from repro.model import build
from repro.profiling.ceilings import copy_bandwidth, matmul_rate
from repro.profiling.roofline import Ceilings
from repro.profiling.work import UPDATE_OPERATIONS, Work, layer_work
from repro.train.precision import has_bf16

BATCHES = {"cpu": (64,), "cuda": (128, 512, 2048)}
ROUNDS = 5
SECONDS = 40.0
"""No round begins later than this: a slow processor makes fewer."""
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
    """The table by batch: in bf16, or in fp32 where that is what the processor has."""
    precision = Precision.bf16 if has_bf16(device) else Precision.fp32
    configs = {f"batch {batch}": training_steps.configuration(batch, precision) for batch in BATCHES[device.type]}
    makers = {
        name: partial(training_steps.measure, training_steps.ours, config, device) for name, config in configs.items()
    }
    failed: Reasons = {}
    if device.type == "cuda":
        rounds = one_after_the_other(makers, ROUNDS, failed)
    else:
        rounds = in_turn({name: make() for name, make in makers.items()}, ROUNDS, time.perf_counter() + SECONDS)
    ceilings = Ceilings(matmul_rate(device, precision), copy_bandwidth(device))
    table = [asdict(row(configs[name], statistics.median(rates), ceilings)) for name, rates in rounds.items()]
    return Measured(rounds, f"one update of the full net in {precision.name}", table, failed=failed)


def row(
    config: Config, images_per_second: float, ceilings: Ceilings, classes: int = training_steps.CLASSES
) -> Throughput:
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


def step_work(config: Config, classes: int = training_steps.CLASSES) -> Work:
    """Counts one update, from shapes alone."""
    with torch.device("meta"):
        network = build(config, classes).train()
        x = torch.empty(config.train.batch_size, 3, config.crop, config.crop)
        if config.train.precision is Precision.bf16:
            network, x = network.bfloat16(), x.bfloat16()
        with layer_work(network) as found:
            network(x)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return sum(found.values(), Work(UPDATE_OPERATIONS * parameters, UPDATE_BYTES * parameters))
