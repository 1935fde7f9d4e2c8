"""A few warm training steps under torch.profiler, taken apart by layer, phase and kernel."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from repro.config import Config
from repro.data.augmentation import Pixels
from repro.data.batches import training_batches
from repro.model import build
from repro.profiling.attribution import Attribution, Span
from repro.profiling.noise import random_store
from repro.profiling.operators import CountOperators
from repro.profiling.ranges import INPUT, UPDATE, layers, named_ranges
from repro.profiling.timing import seconds
from repro.profiling.work import LayerWork, input_work, layer_work, update_work
from repro.train import memory
from repro.train.optimizer import make_optimizer
from repro.train.precision import set_precision
from repro.train.step import Tally, TrainingStep

WARM_UP = 3
LEARNING_RATE = 1e-9
"""Noise teaches nothing, and weights that grow without bound are not what a run has; 0 would freeze the layers."""


@dataclass(frozen=True)
class Profiled:
    """What was seen of so many steps."""

    layers: tuple[str, ...]
    work: LayerWork
    """Of one step."""
    spans: list[list[Span]]
    """Of each step."""
    seconds: list[float]
    """Of each step; it ends when the device has done it."""
    bare_seconds: list[float]
    """Of as many steps before, without the profiler."""


def profile_steps(config: Config, device: torch.device, steps: int, trace: Path) -> Profiled:
    """Profiles training steps on random pixels; writes their Chrome trace to `trace`, `*.pt.trace.json.gz`."""
    set_precision(config.train.precision)
    memory.keep_freed(device)
    torch.manual_seed(config.seed)
    data = random_store(config, batches=WARM_UP + 1 + steps + 1 + steps)
    network = build(config, len(data.classes)).to(device).to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(network, config.optimizer)
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE * group["lr_factor"]
    train, tally = TrainingStep(config, network, optimizer, device), Tally.on(device)
    batches = training_batches(config, data.train, Pixels(config, data, device), epoch=0)

    def step() -> torch.Tensor:
        with record_function(INPUT):
            images, labels = next(batches)
        train(images, labels, tally)
        return images

    for _ in range(WARM_UP):
        step()
    with layer_work(network) as work, CountOperators() as operators:
        work[INPUT, INPUT] = input_work(step())
    work[UPDATE, UPDATE] = update_work(optimizer)
    bare = [seconds(step, 1, device) for _ in range(steps)]
    with named_ranges(network):
        profiler, watched = _watch(step, steps, device)
    _write_trace(profiler, trace)
    names = layers(network)
    spans = Attribution(names, operators.calls, work).spans(profiler.events() or [])
    return Profiled(tuple(names), work, spans, watched, bare)


def _watch(step: Callable[[], object], steps: int, device: torch.device) -> tuple[profile, list[float]]:
    """The profiler after so many steps, and the seconds of each; one more before them warms it up."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    plan = schedule(wait=0, warmup=1, active=steps, repeat=1)
    watched = []
    with profile(activities=activities, schedule=plan, record_shapes=True) as profiler:
        for _ in range(1 + steps):
            watched.append(seconds(step, 1, device))
            profiler.step()
    return profiler, watched[1:]


def _write_trace(profiler: profile, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(".new.json.gz")
    profiler.export_chrome_trace(str(new))
    new.replace(path)
