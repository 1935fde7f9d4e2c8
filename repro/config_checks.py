"""The values that a configuration may have: the range of every number, and the rules across fields.

The types alone let through what ends in an error of PyTorch hours later, or in a run of NaN. A new number in the
schema needs its range here; a test says so.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from repro.config import JPEG_QUALITY, LAYER_NAMES, Config, Format, Net, Normalization, ScheduleKind
from repro.errors import UserError

LARGEST = 1e30
"""Of numbers that have no other bound: far from the largest float32, 3.4e38."""
LARGEST_SIDE = 4096
"""Pixels of an image's side; section 2 has 256."""
LARGEST_LAYER = 65536
"""Maps or units of a layer; section 3.5 has 4096."""
MOST_DROPS = 50
"""Of the learning rate: so many divisions by `DIVISOR` at most stay within a float64, 1.8e308."""
DIVISOR = 1e6
COUNT = 2**31 - 1


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; `above` leaves `low` itself out, `below` leaves `high` out."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low, high = (f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (self.low, self.high))
        low_words, high_words = "above" if self.above else "at least", "below" if self.below else "at most"
        return f"{low_words} {low} and {high_words} {high}"


_SHARE = Range(0, 1)
_RATE = Range(0, 1, below=True)
_FACTOR = Range(0, LARGEST)
_POSITIVE = Range(0, LARGEST, above=True)

RANGES = {
    "seed": Range(0, 2**64 - 1),  # torch.manual_seed takes 64 bits
    "model.columns": Range(1, LARGEST_LAYER),
    "model.sizes.*": Range(1, LARGEST_LAYER),
    "model.scale": Range(0, 1000, above=True),
    "model.width": Range(0, 1000, above=True),
    "model.conv2_padding": Range(0, 64),
    "model.conv5_padding": Range(0, 64),
    "model.norm.k": _POSITIVE,
    "model.norm.n": Range(1, 9999),
    "model.norm.alpha": _FACTOR,
    "model.norm.beta": Range(0, 100),
    "model.pool.size": Range(1, LARGEST_SIDE),
    "model.pool.stride": Range(1, LARGEST_SIDE),
    "model.dropout.rate": _RATE,
    "model.init.std.*": _FACTOR,
    "model.init.bias.*": Range(-LARGEST, LARGEST),
    "data.classes": Range(2, 1_000_000),
    "data.jpeg_quality": Range(1, 100),
    "data.image_size": Range(1, LARGEST_SIDE),
    "data.crop": Range(1, LARGEST_SIDE),
    "data.minival": _RATE,
    "augment.color_noise_sigma": _FACTOR,
    "augment.color_noise_divisor": _POSITIVE,
    "augment.color_noise_off_at": _SHARE,
    "augment.share": Range(1, 1_000_000),
    "optimizer.lr": _POSITIVE,
    "optimizer.momentum": _RATE,
    "optimizer.weight_decay": _FACTOR,
    "optimizer.decay_factor.*": _FACTOR,
    "optimizer.bias_lr_factor": _FACTOR,
    "optimizer.clip_norm": _POSITIVE,
    "optimizer.warmup_steps": Range(0, COUNT),
    "schedule.drops": _SHARE,
    "schedule.divisor": Range(1, DIVISOR),
    "schedule.patience": Range(0, COUNT),
    "schedule.max_drops": Range(0, MOST_DROPS),
    "schedule.conv1_lower_at": _SHARE,
    "schedule.conv1_freeze_at": _SHARE,
    "train.epochs": Range(1, 1_000_000),
    "train.stop_at_train_error": Range(0, 100),
    "train.batch_size": Range(1, COUNT),
    "train.micro_batch": Range(1, COUNT),
}
"""By dotted key; `*` stands for every layer, and the range of a list is that of its items."""

_PATHS = ("results_dir", "init_from", "data.root", "data.cache")


def check(config: Config) -> None:
    """Raises UserError for the first value that cannot be."""
    for key, value in _leaves(config):
        if (reason := _wrong(key, value)) is not None:
            raise UserError(f"{key}={_shown(value)}: {reason}")
    for wrong, message in [*_model_rules(config), *_data_rules(config), *_training_rules(config)]:
        if wrong:
            raise UserError(message)


def range_of(key: str) -> Range | None:
    """The range of the numbers of a key; None where it holds none."""
    return RANGES.get(key) or RANGES.get(f"{key.rpartition('.')[0]}.*")


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in fields(node):
        value, key = getattr(node, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def _without_odd_bytes(path: str) -> str:
    """A path less the bytes that are no UTF-8, which file systems allow and what is printed escapes."""
    return "".join(character for character in path if not "\udc80" <= character <= "\udcff")


def _wrong(key: str, value: Any) -> str | None:
    """Says what is wrong with the value of one key; None where nothing is."""
    if key in _PATHS and value is not None:
        if "\0" in value:
            return "no path holds a zero byte"
        if key == "results_dir" and not (value.strip() and _without_odd_bytes(value).isprintable()):
            return "give a folder, with a name that a terminal can show"
        if key == "init_from" and not value.strip():
            return "give a file of weights, or leave it out"
        return None
    limits = range_of(key)
    numbers = value if isinstance(value, list) else [value]
    if limits is not None and any(isinstance(number, list | dict) for number in numbers):
        return "each must be a number"
    if limits is not None and any(number is not None and number not in limits for number in numbers):
        return f"must be {limits}" if not isinstance(value, list) else f"each must be {limits}"
    return None


def _shown(value: Any) -> str:
    text = str(value)
    return repr(text) if not text.isprintable() else text


_Rules = list[tuple[bool, str]]


def _model_rules(config: Config) -> _Rules:
    model, norm, train = config.model, config.model.norm, config.train
    unknown = [name for name in model.linked_layers if name not in LAYER_NAMES]
    largest = max(vars(model.sizes).values()) * model.scale * model.width
    return [
        (
            largest > LARGEST_LAYER,
            f"model.scale={model.scale:g} and model.width={model.width:g} make a layer of {largest:,.0f}:"
            f" {LARGEST_LAYER:,} is the most",
        ),
        (bool(unknown), f"model.linked_layers={unknown}: choose from {', '.join(LAYER_NAMES)}"),
        (norm.n % 2 == 0, f"model.norm.n={norm.n}: must be odd, as many on either side"),
        (
            model.init.keep_gain and model.net is not Net.alexnet,
            f"model.init.keep_gain: model.net={model.net.name} has no full-width net to keep the gain of",
        ),
        (
            norm.kind is Normalization.batch_norm and (train.micro_batch is not None or train.checkpoint_activations),
            "batch normalisation sees the parts of a batch, or sees it twice: leave train.micro_batch and"
            " train.checkpoint_activations out",
        ),
    ]


def _data_rules(config: Config) -> _Rules:
    data = config.data
    return [
        (
            config.crop > data.image_size,
            f"data.crop={data.crop}: an input of {config.crop} pixels does not fit images of {data.image_size}",
        ),
        (
            data.format is Format.raw and data.jpeg_quality != JPEG_QUALITY,
            f"data.jpeg_quality={data.jpeg_quality} changes nothing without data.format=jpeg",
        ),
    ]


def _training_rules(config: Config) -> _Rules:
    train, schedule, micro = config.train, config.schedule, config.train.micro_batch
    return [
        (
            micro is not None and train.batch_size % micro != 0,
            f"train.micro_batch={micro}: must divide train.batch_size={train.batch_size}",
        ),
        (
            bool(train.cuda_graph) and (micro is not None or train.checkpoint_activations),
            "train.cuda_graph=true records whole batches with all they keep: leave train.micro_batch and"
            " train.checkpoint_activations out",
        ),
        (
            len(schedule.drops) > MOST_DROPS,
            f"schedule.drops has {len(schedule.drops)} drops: {MOST_DROPS} are the most",
        ),
        (
            schedule.kind is ScheduleKind.cosine and not schedule.drop_biases,
            "schedule.drop_biases=false changes nothing under schedule.kind=cosine, which has no drops",
        ),
        (
            schedule.kind is ScheduleKind.plateau and config.data.minival == 0,
            "schedule.kind=plateau decides on held-out training images: set data.minival, for example to 0.05",
        ),
    ]
