"""Errors of a network on images it is not trained on: the centre crop, and ten crops (section 4.1)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from repro.config import TrainConfig
from repro.data.augmentation import ten_windows
from repro.data.batches import fixed_batches
from repro.data.preprocess import Pixels
from repro.data.store import Split
from repro.distributed import SINGLE, World
from repro.model import Network
from repro.train.precision import arithmetic

GUESSES = 5
"""Of an image, for the top-5 error."""


@dataclass(frozen=True)
class Evaluation:
    """Errors in %, mean cross-entropy in nats, and for each image whether the first guess was right, (N,) bool.

    `answers` is how many classes are the first guess of any image: one where a network has collapsed.
    `top5` is None with five classes or fewer: five guesses cannot miss there, so that nothing is measured.
    """

    top1: float
    top5: float | None
    loss: float
    correct: np.ndarray
    answers: int


@torch.no_grad()
def probabilities(
    network: Network,
    split: Split,
    pixels: Pixels,
    train: TrainConfig,
    ten_crops: bool,
    indices: np.ndarray,
    on_crops: Callable[[int, int], object] = lambda done, total: None,
) -> Tensor:
    """Softmax outputs (N, classes) on the device; for ten crops the mean of the ten softmax outputs, not of the logits.

    Takes twice as many images at once as a training step, which keeps activations and gradients too. `on_crops` is told
    how many crops are done, and of how many.
    """
    network.eval()
    at_once = images_at_once(train)
    places = ten_windows(pixels.border) if ten_crops else [ten_windows(pixels.border)[2]]
    total = torch.zeros((), device=pixels.device)
    whole, done = len(places) * len(indices), 0
    for place in places:
        outputs = []
        for images, _ in fixed_batches(split, pixels, place, indices, at_once):
            with arithmetic(pixels.device, train.precision):
                logits = network(images)
            outputs.append(F.softmax(logits.float(), dim=1))
            done += len(images)
            on_crops(done, whole)
        total = total + torch.cat(outputs) / len(places)
    return total


def images_at_once(train: TrainConfig) -> int:
    """Counts the images that `probabilities` works on at a time."""
    return 2 * (train.micro_batch or train.batch_size)


def evaluate(
    network: Network,
    split: Split,
    pixels: Pixels,
    train: TrainConfig,
    ten_crops: bool = False,
    at_most: int | None = None,
    world: World = SINGLE,
    on_crops: Callable[[int, int], object] = lambda done, total: None,
) -> Evaluation:
    """Top-1 and top-5 errors on a split, or on `at_most` evenly spaced images of it; shared by several processes.

    `on_crops` is as in `probabilities`. A GPU is waited for once, when it has done all images.
    """
    count = len(split.labels)
    indices = np.linspace(0, count - 1, min(count, at_most or count)).round().astype(np.int64)
    whole, indices = len(indices), indices[world.shard(len(indices))]
    outputs = probabilities(network, split, pixels, train, ten_crops, indices, on_crops).cpu()
    labels = torch.from_numpy(split.labels[indices])
    guesses = outputs.topk(min(GUESSES, outputs.shape[1]), dim=1).indices
    hits = guesses == labels[:, None]
    # the smallest float stands in for a probability that underflowed
    chosen = outputs[torch.arange(len(labels)), labels].clamp_min(torch.finfo(outputs.dtype).tiny)
    found = torch.stack((hits[:, 0], hits.any(1), chosen.log(), guesses[:, 0]), dim=1)
    if world.size > 1:  # they add up what lies on their devices
        found = world.all_gather(found.to(pixels.device), whole).cpu()
    first, five, logs, answers = found.T.contiguous()  # sums of rows that lie apart round otherwise
    return Evaluation(
        top1=100 - 100 * first.double().mean().item(),
        top5=100 - 100 * five.double().mean().item() if outputs.shape[1] > GUESSES else None,
        loss=-logs.mean().item(),
        correct=first.bool().numpy(),
        answers=len(answers.unique()),
    )


def loss_of_guessing(train: np.ndarray, val: np.ndarray, classes: int) -> float:
    """Cross-entropy, nats, of a network that knows nothing but how often each class is among the training labels.

    On the validation labels; ln(classes) where the classes are equally frequent, infinite where training lacks one.
    """
    with np.errstate(divide="ignore"):
        logs = np.log(np.bincount(train, minlength=classes) / len(train))
    return float(-logs[val].mean())
