"""`python -m repro.evaluate weights=FILE setup=ilsvrc2012 recipe=caffe format=json`: errors of given weights.

Takes what a run leaves (weights.safetensors), a state dict of torchvision's alexnet, a .caffemodel, or a checkpoint of
cuda-convnet, and measures both crop modes on the validation set of the setup. Any key of `repro.run` can follow. What a
run left says itself how it was made: without setup, recipe and ablation its own are taken, and its mean image. For
other weights that is the training set's, or Caffe's own with mean=FILE.binaryproto. Of a checkpoint's model and its
moving average (EMA) the average is measured. The classes are those of the data set's folders, in order.
"""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.command import exit_code, expanded, helped, own_words, warn
from repro.config import Config
from repro.errors import UserError
from repro.text import counted

if TYPE_CHECKING:
    from repro.data.store import ImageData

FORMATS = ("table", "json")


def measure(config: Config, weights: Path, mean: Path | None = None) -> dict[str, Any]:
    """Errors in % and loss in nats of weights on the validation set, by crop mode, and what they were measured on.

    The top-5 error is None with fewer than six classes.

    Raises UserError where weights, network, images and mean image do not fit together.
    """
    import torch

    from repro import threads
    from repro.data.on_gpu import resident
    from repro.data.preprocess import Pixels
    from repro.data.sources import class_count
    from repro.data.store import open_data
    from repro.model import build
    from repro.record import CENTRE, TEN_CROPS
    from repro.train.device import choose_device
    from repro.train.evaluation import evaluate
    from repro.train.memory import keep_freed
    from repro.train.precision import resolved, set_precision
    from repro.weights import check, load_into

    device = choose_device(config.train.device)
    config = resolved(config, device, warn)
    set_precision(config.train.precision)
    threads.take()
    keep_freed(device)
    check(weights, config, lambda: class_count(config.data))
    data = _as_trained(open_data(config.data), weights)
    if mean is not None:
        data = _with_mean(data, mean)
    data = resident(data, device)
    network = build(config, len(data.classes))
    load_into(weights, network)
    network.to(device).to(memory_format=torch.channels_last)
    pixels, result = Pixels(config, data, device), _subject(config, weights, data, str(device))
    for mode in (CENTRE, TEN_CROPS):
        found = evaluate(network, data.val, pixels, config.train, ten_crops=mode == TEN_CROPS)
        result[mode] = {key: getattr(found, key) for key in ("top1", "top5", "loss")}
    return result


def _subject(config: Config, weights: Path, data: "ImageData", device: str) -> dict[str, Any]:
    from repro.environment import capture_machine
    from repro.weights import fingerprint

    return {
        "weights": fingerprint(weights),
        "setup": config.setup,
        "recipe": config.recipe,
        "data": {
            "source": config.data.source.value,
            "content_hash": data.content_hash,
            "classes": len(data.classes),
            "val_images": len(data.val.labels),
        },
        "device": capture_machine(device).device,
        "precision": config.train.precision.name,
    }


def _as_trained(data: "ImageData", weights: Path) -> "ImageData":
    """The images with the statistics that our own file of weights keeps, where they are of images of this size."""
    from repro.weights.names import listed
    from repro.weights.own import read_origin

    origin = read_origin(weights)
    if origin is None:
        return data
    if origin.classes != data.classes:
        known, found = listed(origin.classes), listed(data.classes)
        warn(f"{weights.name} knows the classes {known}, the images are of {found}")
    kept: dict[str, Any] = dict(origin.statistics)
    fitting = all(values.shape == getattr(data, name).shape for name, values in kept.items())
    return replace(data, **kept) if fitting else data


def _with_mean(data: "ImageData", path: Path) -> "ImageData":
    from repro.weights.caffe import read_mean

    mean = read_mean(path)
    if mean.shape != data.mean.shape:
        sizes = (" x ".join(map(str, image.shape)) for image in (mean, data.mean))
        raise UserError(f"mean={path}: {next(sizes)} numbers, but the images have {next(sizes)}: set data.image_size")
    return replace(data, mean=mean)


def _finite(value: Any) -> Any:
    """The same with null for what JSON has no number for: the loss of weights that overflow."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_table(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from repro.record import CROP_MODES

    data = result["data"]
    table = Table(title=escape(f"{result['weights']}: {result['setup']}, recipe {result['recipe']}"))
    for column in ("crops", "top-1 error, %", "top-5 error, %", "loss"):
        table.add_column(column, justify="left" if column == "crops" else "right")
    for mode in CROP_MODES:
        top1, top5, loss = result[mode].values()
        table.add_row(
            mode.replace("_", " "), f"{top1:.2f}", "not measured" if top5 is None else f"{top5:.2f}", f"{loss:.4f}"
        )
    console = Console(highlight=False)
    console.print(table)
    where = f"{result['device']}, {result['precision']}"
    images = f"{counted(data['val_images'], 'validation image')} of {data['source']}"
    console.print(f"{images}, {where}", markup=False, soft_wrap=True)


def _file(given: str, key: str) -> Path:
    """The path after `key=`. UserError where it is a pipe or a device, which may never end."""
    path = expanded(given, key)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{key}={given}: is no file: give the path of one")
    return path


def main() -> None:
    """Reads `key=value` arguments: those of `repro.run`, `weights=FILE`, `mean=FILE` and `format=table|json`."""
    from repro.experiments.compose import compose

    if helped(sys.argv[1:], __doc__):
        return
    own, words = own_words(sys.argv[1:], {"weights": "", "mean": "", "format": "table"})
    if own["format"] not in FORMATS:
        raise UserError(f"format={own['format']}: choose one of {', '.join(FORMATS)}")
    if not own["weights"]:
        raise UserError("weights=FILE is missing: the weights to measure")
    weights, mean = (_file(own[key], key) if own[key] else None for key in ("weights", "mean"))
    assert weights is not None
    from repro.weights.own import configuration_words

    result = measure(compose([*configuration_words(weights, words), *words]), weights, mean)
    if own["format"] == "json":
        print(json.dumps(_finite(result), indent=2, allow_nan=False))
    else:
        _print_table(result)


if __name__ == "__main__":
    sys.exit(exit_code(main))
