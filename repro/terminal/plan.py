"""The plan of a run, as labelled lines that are shown before it begins.

The first of them, `by_words`, are there before PyTorch is read in, which takes over a second.
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro import threads
from repro.config import Config
from repro.distributed import from_environment
from repro.environment import device_name
from repro.evidence.comparison import plain_text
from repro.experiments import naming
from repro.experiments.registry import ablations
from repro.experiments.words import chosen_ablations
from repro.pace import seconds_left, span
from repro.text import counted

if TYPE_CHECKING:
    from repro.data.store import ImageData
    from repro.request import Run
    from repro.train.loop import Training

Lines = list[tuple[str, str]]
"""What each is about, and its text."""


def asked(label: str, config: Config, difference: Mapping[str, Sequence[Any]]) -> tuple[str, Lines]:
    """One line that tells a run from others; what it asks and changes."""
    title = f"{label}, seed {config.seed}: setup {config.setup}, recipe {config.recipe}"
    questions = [("asks", ablations()[name].question) for name in label.split("+") if name in ablations()]
    return title, questions + changes(difference)


def by_words(config: Config, words: Sequence[str]) -> tuple[str, Lines] | None:
    """Does as `asked`, where that follows from the words of the command alone: not from weights or from the device.

    Raises UserError where an ablation does not apply.
    """
    label, difference = naming.identify(config, chosen_ablations(words))
    return None if config.init_from or naming.PRECISION in difference else asked(label, config, difference)


def before(run: "Run") -> Lines:
    """Says what else is known before an image is read."""
    train = run.config.train
    return [
        ("files", str(run.folder)),
        ("on", _where(run.config)),
        ("trains", f"{counted(train.epochs, 'epoch')} in batches of {counted(train.batch_size, 'image')}"),
        ("takes", _seconds(run)),
    ]


def changes(difference: Mapping[str, Sequence[Any]]) -> Lines:
    """A line for each key: its value in the plain recipe and setup, and here."""
    return [
        ("changes", f"{key}: {plain_text(before)} -> {plain_text(after)}")
        for key, (before, after) in difference.items()
    ]


def of_images(config: Config, data: "ImageData") -> Lines:
    """Says how many images there are."""
    from repro.data.batches import held_out_count

    train, val = len(data.train.labels), len(data.val.labels)
    held = held_out_count(config, train)
    apart = f", {held:,} more as minival" if held else ""
    classes = counted(len(data.classes), "class", "classes")
    text = f"{train - held:,} to train on, {val:,} for validation{apart}; {classes}"
    return [("images", f"{text}; {config.data.source.value}")]


def of_training(training: "Training") -> Lines:
    """Says what is known once the network and the threads are there."""
    import torch

    parameters = sum(parameter.numel() for parameter in training.network.parameters())
    steps = f"{counted(training.steps, 'step')} an epoch"
    return [("network", f"{parameters:,} parameters, {steps}, {counted(torch.get_num_threads(), 'thread')}")]


def _where(config: Config) -> str:
    import torch

    from repro.train.device import choose_device

    world = from_environment()
    device = choose_device(config.train.device, world)
    given = any(name in os.environ for name in threads.NUMBER_SET_BY)
    most = counted(torch.get_num_threads() if given else threads.cores(), "thread")
    shared = f", shared by {world.size} processes" if world.size > 1 else ""
    name = device_name(str(device))
    return f"{device} ({name}), {config.train.precision.name}, {'' if given else 'up to '}{most}{shared}"


def _seconds(run: "Run") -> str:
    seconds = seconds_left(run)
    if seconds is None:
        return "not known yet: the first steps will tell"
    return f"{span(seconds)}, as runs of this setup took here"
