"""What is found wrong with a run before it trains, or before an image is packed for it."""

import torch

from repro.config import Config, Normalization
from repro.data.batches import held_out_count
from repro.data.sources import Listing, class_count
from repro.data.store import ImageData
from repro.distributed import World
from repro.errors import UserError
from repro.listening import Listener
from repro.model.summary import layer_table, total
from repro.request import Run
from repro.text import counted
from repro.train import memory
from repro.weights import check


def check_weights(wanted: Run, listener: Listener, world: World) -> None:
    """Raises UserError where the file of weights does not fit the network, before any image is packed."""
    if wanted.init_from is None:
        return
    data = wanted.config.data
    left_out = check(wanted.init_from, wanted.config, lambda: class_count(data), new_classes=True)
    if left_out and world.is_main:
        listener.warning(left_out)


def check_listed(config: Config, listing: Listing, device: torch.device) -> None:
    """Raises UserError where packing would be in vain: a network that cannot be built, too few images."""
    check_data(config, len(listing.train.names), len(listing.classes))
    check_size(config, len(listing.classes), device)


def check_size(config: Config, classes: int, device: torch.device) -> None:
    """UserError where the parameters, their gradients and their velocities, 4 bytes each, cannot all be in memory."""
    parameters = total(layer_table(config, classes))["parameters"]
    needed, there = 3 * 4 * parameters, memory.size_of(device)
    if needed > there:
        place = "the GPU" if device.type == "cuda" else "this machine"
        numbers = f"{needed / 2**30:,.0f} GiB, and {place} has {there / 2**30:,.0f}"
        raise UserError(
            f"{parameters:,} parameters, their gradients and velocities take {numbers}: make model.scale,"
            " model.width or model.sizes smaller"
        )


def check_data(config: Config, images: int, found: int) -> None:
    """UserError where so many training images of so many classes do not fit the configuration."""
    batch = config.train.batch_size
    if images < batch:
        few = counted(images, "training image")
        raise UserError(f"{few}, fewer than a batch of {batch}: set train.batch_size={images} or less")
    left = images - held_out_count(config, images)
    if left < batch:
        share = f"data.minival={config.data.minival:g} leaves {counted(left, 'training image')}"
        raise UserError(f"{share}, fewer than a batch of {batch}: set one of the two lower")
    expected = config.data.classes
    if expected is not None and expected != found:
        raise UserError(f"data.classes={expected}, but the training folder has {counted(found, 'class', 'classes')}")


def check_shared(config: Config, data: ImageData, world: World) -> None:
    """Raises UserError where several processes cannot share a run."""
    if world.size > 1 and config.model.norm.kind is Normalization.batch_norm:
        raise UserError("batch normalisation is over the images of one process: run it without torchrun")
    held = held_out_count(config, len(data.train.labels))
    fewest = min(config.train.batch_size, len(data.val.labels), held or len(data.val.labels))
    if fewest < world.size:
        raise UserError(f"{world.size} processes cannot share {fewest} images: start {fewest} or fewer")
