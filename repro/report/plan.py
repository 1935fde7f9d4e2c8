"""What a run is going to do, as labelled lines that are shown before it begins."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from repro import threads
from repro.config import Config
from repro.data.batches import held_out_count
from repro.data.store import ImageData
from repro.environment import device_name
from repro.experiments import ablations
from repro.pace import span, timings_of
from repro.ranks import from_environment
from repro.report.effects import plain_text
from repro.train.device import choose_device
from repro.train.loop import Training

if TYPE_CHECKING:
    from repro.runner import Run

Lines = list[tuple[str, str]]
"""What each is about, and its text."""


def title(run: "Run") -> str:
    """One line that tells a run from others."""
    config = run.config
    return f"{run.label}, seed {config.seed}: setup {config.setup}, recipe {config.recipe}"


def before(run: "Run") -> Lines:
    """What is known before an image is read."""
    train = run.config.train
    return [
        *(("asks", ablations()[name].question) for name in run.label.split("+") if name in ablations()),
        *changes(run.difference),
        ("files", str(run.folder)),
        ("on", _where(run.config)),
        ("trains", f"{counted(train.epochs, 'epoch')} in batches of {train.batch_size} images"),
        ("takes", _seconds(run)),
    ]


def changes(difference: Mapping[str, Sequence[Any]]) -> Lines:
    """A line for each key: its value in the plain recipe and setup, and here."""
    return [
        ("changes", f"{key}: {plain_text(before)} -> {plain_text(after)}")
        for key, (before, after) in difference.items()
    ]


def of_images(config: Config, data: ImageData) -> Lines:
    """How many there are."""
    train, val = len(data.train.labels), len(data.val.labels)
    held = held_out_count(config, train)
    apart = f", {held:,} more as minival" if held else ""
    text = f"{train - held:,} to train on, {val:,} for validation{apart}; {len(data.classes)} classes"
    return [("images", f"{text}; {config.data.source.value}")]


def of_training(training: Training) -> Lines:
    """What is known once the network and the threads are there."""
    parameters = sum(parameter.numel() for parameter in training.network.parameters())
    steps = f"{counted(training.steps, 'step')} an epoch"
    return [("network", f"{parameters:,} parameters, {steps}, {counted(torch.get_num_threads(), 'thread')}")]


def counted(count: int, noun: str) -> str:
    """`1 epoch`, `2 epochs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _where(config: Config) -> str:
    ranks = from_environment()
    device = choose_device(config.train.device, ranks)
    given = any(name in os.environ for name in threads.NUMBER_SET_BY)
    most = counted(torch.get_num_threads() if given else threads.cores(), "thread")
    shared = f", shared by {ranks.count} processes" if ranks.count > 1 else ""
    name = device_name(str(device))
    return f"{device} ({name}), {config.train.precision.name}, {'' if given else 'up to '}{most}{shared}"


def _seconds(run: "Run") -> str:
    seconds = timings_of(run).estimate(run)
    if seconds is None:
        return "not known yet: the first steps will tell"
    return f"{span(seconds)}, as runs of this setup took here"
