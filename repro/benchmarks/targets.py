"""The targets of speed: each as data, and what the measured rounds say to it."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CPU, CUDA = "cpu", "cuda"
NOT_MEASURED = "not measured"
IMAGES, SECONDS, MIB, HOURS = "images/s", "s", "MiB", "h"


@dataclass(frozen=True)
class Target:
    """One line of the table: `ours` and `peer` name what a part of the benchmark measures.

    With a peer, ours over the peer must be at least `bound`; without one, ours must be at most `bound`. A bound of
    None shows a figure and asks for nothing.
    """

    device: str
    """Kind of device that it is for."""
    part: str
    """Part of the benchmark that measures it."""
    name: str
    unit: str
    bound: float | None
    ours: str
    peer: str | None = None


@dataclass(frozen=True)
class Row:
    """A target and what was found: medians over the rounds, None where nothing was measured.

    `ratio` is ours over the peer within a round, `low` to `high` the middle half of its values. `met` is true, false,
    `not measured`, or None where nothing is asked for.
    """

    name: str
    unit: str
    ours: float | None
    peer_name: str | None
    peer: float | None
    ratio: float | None
    low: float | None
    high: float | None
    target: float | None
    met: bool | str | None
    reason: str = ""
    """Why it was not measured."""


_NORM, _PLAIN, _FOLDER = "nn.LocalResponseNorm", "plain PyTorch, fp32", "ImageFolder, v2, DataLoader"
_PEER, _BEGUN, _ONE, _ALL = "plain PyTorch", "ours begun when quiet", "one core taken", "a neighbour on every core"

TARGETS = (
    Target(CPU, "lrn", "LRN, fp32", IMAGES, 6.0, "ours, fp32", f"{_NORM}, fp32"),
    Target(CPU, "lrn", "LRN, bf16", IMAGES, None, "ours, bf16", f"{_NORM}, fp32"),
    Target(CPU, "lrn", "LRN over the copy limit, fp32", IMAGES, None, "ours, fp32", "copy, fp32"),
    Target(CPU, "lrn", "LRN over the copy limit, bf16", IMAGES, None, "ours, bf16", "copy, bf16"),
    Target(CPU, "step", "training step, fp32", IMAGES, 2.0, "ours, fp32", _PLAIN),
    Target(CPU, "step", "training step, bf16", IMAGES, 5.0, "ours, bf16", _PLAIN),
    Target(CPU, "step", "step with LRN over without, fp32", IMAGES, 1 / 1.15, "ours, fp32", "ours without LRN, fp32"),
    Target(CPU, "step", "step with LRN over without, bf16", IMAGES, None, "ours, bf16", "ours without LRN, bf16"),
    Target(CPU, "step", "step over torchvision's, fp32", IMAGES, 0.9, "ours, fp32", "torchvision's alexnet, fp32"),
    Target(CPU, "step", "step over torchvision's, bf16", IMAGES, 0.9, "ours, bf16", "torchvision's alexnet, bf16"),
    Target(
        CPU,
        "neighbour",
        "threads on a quiet machine",
        IMAGES,
        0.97,
        "ours, quiet",
        "torch's threads, quiet",
    ),
    Target(CPU, "neighbour", "one core taken, over quiet", IMAGES, 0.6, f"ours, {_ONE}", "ours, quiet"),
    Target(CPU, "neighbour", "one core taken since, over quiet", IMAGES, None, f"{_BEGUN}, {_ONE}", "ours, quiet"),
    Target(CPU, "neighbour", "one core taken", IMAGES, None, f"ours, {_ONE}", f"{_PEER}, {_ONE}"),
    Target(CPU, "neighbour", "a neighbour on every core", IMAGES, 4.0, f"ours, {_ALL}", f"{_PEER}, {_ALL}"),
    Target(CPU, "neighbour", "a neighbour on every core since", IMAGES, None, f"{_BEGUN}, {_ALL}", f"{_PEER}, {_ALL}"),
    Target(CPU, "input", "packed store", IMAGES, 10.0, "raw store", _FOLDER),
    Target(CPU, "input", "packed store over the step's need", IMAGES, 5.0, "raw store", "training step"),
    Target(CPU, "input", "JPEG store", IMAGES, 1.5, "jpeg store", _FOLDER),
    Target(CPU, "memory", "growth over 20 epochs, packed store", MIB, 32.0, "raw store"),
    Target(CPU, "memory", "growth over 20 epochs, JPEG store", MIB, 32.0, "jpeg store"),
    Target(CPU, "start", "`repro.run --help`", SECONDS, 1.5, "help"),
    Target(CPU, "start", "first step of `setup=embedded`", SECONDS, 8.0, "first step"),
    Target(CUDA, "lrn", "LRN, fp32", IMAGES, 5.0, "ours, fp32", f"{_NORM}, fp32"),
    Target(CUDA, "lrn", "LRN, bf16", IMAGES, None, "ours, bf16", f"{_NORM}, bf16"),
    Target(CUDA, "lrn", "LRN over the copy limit, fp32", IMAGES, 0.8, "ours, fp32", "copy, fp32"),
    Target(CUDA, "lrn", "LRN over the copy limit, bf16", IMAGES, 0.8, "ours, bf16", "copy, bf16"),
    Target(CUDA, "step", "training step, bf16", IMAGES, 4.0, "ours, bf16", _PLAIN),
    Target(CUDA, "step", "training step, bf16, beside bf16", IMAGES, None, "ours, bf16", "plain PyTorch, bf16"),
    Target(CUDA, "step", "training step, tf32", IMAGES, None, "ours, tf32", "plain PyTorch, its defaults"),
    Target(CUDA, "step", "training step, fp32", IMAGES, None, "ours, fp32", _PLAIN),
    Target(CUDA, "step", "step over torchvision's, bf16", IMAGES, None, "ours, bf16", "torchvision's alexnet, bf16"),
    Target(CUDA, "step", "step as one graph, bf16", IMAGES, None, "ours, bf16", "ours kernel by kernel, bf16"),
    Target(CUDA, "step", "step with cuDNN's benchmark mode", IMAGES, None, "ours benchmarked, bf16", "ours, bf16"),
    Target(CUDA, "step", "step reproducible to the bit", IMAGES, None, "ours, bf16", "ours with any algorithm, bf16"),
    Target(CUDA, "step", "step with LRN over without, bf16", IMAGES, None, "ours, bf16", "ours without LRN, bf16"),
    Target(CUDA, "step", "step with dropout over without", IMAGES, None, "ours, bf16", "ours without dropout, bf16"),
    Target(CUDA, "step", "step in two columns over one", IMAGES, None, "ours, bf16", "ours in one column, bf16"),
    Target(CUDA, "step", "step at the end over the beginning", IMAGES, None, "ours at the end, bf16", "ours, bf16"),
    Target(CUDA, "run", "run, images on the GPU", IMAGES, None, "run, images on the GPU", "training step"),
    Target(CUDA, "run", "run, images in the host's memory", IMAGES, None, "run, images on the host", "training step"),
    Target(CUDA, "run", "evaluation, centre crop", IMAGES, None, "centre crop", "training step"),
    Target(CUDA, "run", "evaluation, ten crops", IMAGES, None, "ten crops", "centre crop"),
    Target(CUDA, "run", "90 epochs of ILSVRC-2012, projected", HOURS, 1.0, "hours"),
    Target(CUDA, "input", "batches, images on the GPU", IMAGES, None, "images on the GPU", "copy"),
    Target(CUDA, "input", "batches, images in the host's memory", IMAGES, None, "images on the host", "copy"),
)


def targets(device: str, part: str | None = None) -> list[Target]:
    """Lists the targets of a kind of device, and of one part where it is named."""
    return [target for target in TARGETS if target.device == device and part in (None, target.part)]


def judge(target: Target, rounds: Mapping[str, Sequence[float]], reasons: Mapping[str, str] | None = None) -> Row:
    """Compares what was measured, candidate -> value in each round, with a target.

    `reasons`: candidate -> why it was not measured; a target that needs one of these is not measured either.
    """
    for name in (target.ours, target.peer or ""):
        if reasons and name in reasons:
            return not_measured(target, reasons[name])
    ours, peer = rounds[target.ours], rounds[target.peer] if target.peer else None
    if peer is None:
        value = statistics.median(ours)
        met = None if target.bound is None else value <= target.bound
        return Row(target.name, target.unit, value, None, None, None, None, None, target.bound, met)
    each = [one / other for one, other in zip(ours, peer, strict=True)]
    low, ratio, high = statistics.quantiles(each, n=4, method="inclusive") if len(each) > 1 else each * 3
    return Row(
        name=target.name,
        unit=target.unit,
        ours=statistics.median(ours),
        peer_name=target.peer,
        peer=statistics.median(peer),
        ratio=ratio,
        low=low,
        high=high,
        target=target.bound,
        met=None if target.bound is None else ratio >= target.bound,
    )


def not_measured(target: Target, reason: str = "") -> Row:
    """The row of a target whose device, part or candidate has not run."""
    return Row(target.name, target.unit, None, target.peer, None, None, None, None, target.bound, NOT_MEASURED, reason)
