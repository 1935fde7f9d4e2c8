"""A few warm training steps under torch.profiler, taken apart by layer, phase and kernel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from repro.config import Config
from repro.data.batches import training_batches
from repro.data.on_gpu import resident
from repro.data.preprocess import Pixels
from repro.model import build
from repro.profiling.attribution import Attribution, Span
from repro.profiling.operators import CountOperators
from repro.profiling.random_pixels import random_store
from repro.profiling.ranges import INPUT, UPDATE, layers, named_ranges
from repro.profiling.timing import seconds
from repro.profiling.work import LayerWork, input_work, layer_work, update_work
from repro.train import memory
from repro.train.cuda_graph import WARM_UPS
from repro.train.optimizer import make_optimizer
from repro.train.precision import set_precision
from repro.train.running_loss import RunningLoss
from repro.train.step import TrainingStep

ACTIVITIES = {"cpu": [ProfilerActivity.CPU], "cuda": [ProfilerActivity.CPU, ProfilerActivity.CUDA]}
WARM_UP = 3
TURNS = 5
"""So often each of several configurations is looked at for a few steps: a drift of the machine meets all alike."""
IMAGES_ON_GPU = 1024
"""Of 256 x 256 pixels: four times what the caches of a large GPU hold. On a CPU a batch is met again and again."""
LEARNING_RATE = 1e-9
"""Noise teaches nothing, and weights that grow without bound are not what a run has; 0 would freeze the layers."""


@dataclass(frozen=True)
class Profiled:
    """The events and times of so many steps."""

    layers: tuple[str, ...]
    work: LayerWork
    """Of one step."""
    spans: list[list[Span]] = field(default_factory=list)
    """Of each step."""
    seconds: list[float] = field(default_factory=list)
    """Of each step; it ends when the device has done it."""
    bare_seconds: list[float] = field(default_factory=list)
    """Of as many steps, each turn's before the profiled ones, without the profiler."""
    graph_seconds: list[float] = field(default_factory=list)
    """Of as many steps after the last turn, recorded as a CUDA graph, as a run on a GPU makes them; else none."""


def profile_steps(subjects: Sequence[tuple[Config, Path]], device: torch.device, steps: int) -> list[Profiled]:
    """Profiles training steps of configurations in turn, on random pixels, kernel by kernel.

    Writes the Chrome trace of each one's last turn to its path, `*.pt.trace.json.gz`.
    """
    memory.keep_freed(device)
    turns = min(TURNS, steps) if len(subjects) > 1 else 1
    prepared = [_Subject(config, device, steps, turns) for config, _ in subjects]
    for turn in range(turns):
        share = steps // turns + (turn < steps % turns)
        for index in range(len(subjects))[:: -1 if turn % 2 else 1]:
            profiler = prepared[index].watch(share)
            if turn == turns - 1:
                _write_trace(profiler, subjects[index][1])
                prepared[index].time_graph(steps)
    return [subject.found for subject in prepared]


class _Subject:
    """A configuration's network and images, and what was found of its steps."""

    def __init__(self, config: Config, device: torch.device, steps: int, turns: int) -> None:
        self.config, self.device = config, device
        torch.manual_seed(config.seed)
        images = IMAGES_ON_GPU if device.type == "cuda" else config.train.batch_size
        data = random_store(config, WARM_UP + 1 + 2 * (steps + turns) + WARM_UPS + 2 + steps, images)
        data = resident(data, device)
        self.network = build(config, len(data.classes)).to(device).to(memory_format=torch.channels_last).train()
        self.optimizer = make_optimizer(self.network, config.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = LEARNING_RATE * group["lr_factor"]
        self.train, self.running = self._training_step(cuda_graph=False), RunningLoss.on(device)
        self.batches = training_batches(config, data.train, Pixels(config, data, device), epoch=0)
        self.set_precision()
        for _ in range(WARM_UP):
            self.step()
        with layer_work(self.network) as work, CountOperators() as operators:
            work[INPUT, INPUT] = input_work(self.step())
        work[UPDATE, UPDATE] = update_work(self.optimizer)
        names = layers(self.network)
        self.attribution, self.found = Attribution(names, operators.calls, work), Profiled(tuple(names), work)

    def _training_step(self, cuda_graph: bool | None) -> TrainingStep:
        config = replace(self.config, train=replace(self.config.train, cuda_graph=cuda_graph))
        return TrainingStep(config, self.network, self.optimizer, self.device)

    def set_precision(self) -> None:
        """The process-wide switches: configurations that take turns may differ in them."""
        set_precision(self.config.train.precision, self.config.train.cudnn_benchmark)

    def step(self) -> torch.Tensor:
        """One step; its images."""
        with record_function(INPUT):
            images, labels = next(self.batches)
        self.train(images, labels, self.running)
        return images

    def watch(self, steps: int) -> profile:
        """So many steps without the profiler and as many with it, after one for the caches, which others have used."""
        self.set_precision()
        self.step()
        self.found.bare_seconds.extend(seconds(self.step, 1, self.device) for _ in range(steps))
        with named_ranges(self.network):
            profiler, watched = _watch(self.step, steps, self.device)
        self.found.seconds.extend(watched)
        self.found.spans.extend(self.attribution.spans(profiler.events() or []))
        return profiler

    def time_graph(self, steps: int) -> None:
        """The same step as a run on a GPU makes it, after those that prepare and record it."""
        if self.device.type != "cuda" or not self.config.may_record:
            return
        self.set_precision()
        self.train = self._training_step(cuda_graph=None)
        for _ in range(WARM_UPS + 2):
            self.step()
        self.found.graph_seconds.extend(seconds(self.step, 1, self.device) for _ in range(steps))
        self.train = self._training_step(cuda_graph=False)  # the graph's memory is free again


def _watch(step: Callable[[], object], steps: int, device: torch.device) -> tuple[profile, list[float]]:
    """The profiler after so many steps, and the seconds of each; one more before them warms it up."""
    plan = schedule(wait=0, warmup=1, active=steps, repeat=1)
    watched = []
    with profile(activities=ACTIVITIES[device.type], schedule=plan, record_shapes=True, acc_events=True) as profiler:
        for _ in range(1 + steps):
            watched.append(seconds(step, 1, device))
            profiler.step()
    return profiler, watched[1:]


def _write_trace(profiler: profile, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(".new.json.gz")
    profiler.export_chrome_trace(str(new))
    new.replace(path)
