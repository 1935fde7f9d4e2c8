"""A training step beside other work on the machine: ours as a run computes it, and plain PyTorch's."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from repro import threads
from repro.benchmarks import plain_pytorch, training_steps
from repro.benchmarks.alternating import Measure, Measured, Rounds, apart, in_turn, rate
from repro.benchmarks.training_steps import Step
from repro.config import Config, Precision
from repro.experiments.compose import compose

CLASSES = 10
ROUNDS = 5
SECONDS = 40.0
"""Under one load, no round begins later than this."""
LEAST_SECONDS = 0.6
SETTLED = 3 * threads.LOOK_EVERY
"""Seconds before each value, in which the watcher of a candidate sees that the others do nothing."""
BUSY = [sys.executable, "-S", "-c", "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"]
"""A neighbour: it wants a core, as long as the one who started it lives."""


def race(device: torch.device) -> Measured:
    """Images/s with no neighbour, with one, and with one for each core; each candidate in a process of its own.

    A candidate of ours takes its threads under the load that it is measured with, as a run that begins then; another
    one has begun when the machine was quiet, and keeps its number.
    """
    config = compose(["setup=embedded", "ablation=no_lrn", "optimizer.lr=1e-6"])
    loads = {"one core taken": 1, "a neighbour on every core": threads.cores()}
    with _nothing_set(), ExitStack() as stack:
        plain, begun, usual = (
            stack.enter_context(apart(measure, make, config, device)) for make in (without_lrn, taking_threads, ours)
        )
        rounds = _under("quiet", {"ours": begun, "torch's threads": usual})
        for load, count in loads.items():
            with neighbours(count), apart(measure, taking_threads, config, device) as now:
                beside = {"ours": now, "ours begun when quiet": begun, "plain PyTorch": plain}
                rounds |= _under(load, beside)
    least = min(map(len, rounds.values()))
    rounds = {name: values[:least] for name, values in rounds.items()}
    return Measured(rounds, f"setup=embedded without LRN, batch {config.train.batch_size}, {threads.cores()} cores")


def _under(load: str, candidates: dict[str, Measure]) -> Rounds:
    until = time.perf_counter() + SECONDS
    return in_turn({f"{name}, {load}": candidate for name, candidate in candidates.items()}, ROUNDS, until)


def measure(make: Callable[[Config, torch.device], Step], config: Config, device: torch.device) -> Measure:
    """Images/s of a candidate, once the one before it has come to rest."""
    value = rate(make(config, device), config.train.batch_size, device, LEAST_SECONDS)

    def settled() -> float:
        time.sleep(SETTLED)
        return value()

    return settled


def ours(config: Config, device: torch.device) -> Step:
    """Our step with as many threads as torch starts, however they wait."""
    return training_steps.ours(config, device, CLASSES)


def taking_threads(config: Config, device: torch.device) -> Step:
    """Our step as a run computes it."""
    threads.take()
    return ours(config, device)


def without_lrn(config: Config, device: torch.device) -> Step:
    """The same net in PyTorch's own layers, less those of response normalisation."""
    layers = plain_pytorch.paper_network(config.model, config.crop, CLASSES)
    network = nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.LocalResponseNorm))).to(device)
    images = torch.randn(config.train.batch_size, 3, config.crop, config.crop, device=device) * 50
    labels = torch.randint(0, CLASSES, (len(images),), device=device)
    optimizer = plain_pytorch.sgd(network, config.optimizer)
    return plain_pytorch.training_step(network.train(), optimizer, images, labels, Precision.fp32)


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many processes that never rest, until the end of the block."""
    processes = [subprocess.Popen(BUSY) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def _nothing_set() -> Iterator[None]:
    """Unsets the variables by which the one who measures speaks for the threads, for processes started within."""
    names = (*threads.NUMBER_SET_BY, *threads.WAITING_SET_BY)
    taken = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)
