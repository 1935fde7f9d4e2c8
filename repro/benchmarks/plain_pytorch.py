"""Plain PyTorch, with which our speed is compared: the same work by its own layers, optimizer and loaders."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro.config import ModelConfig, NormConfig, OptimizerConfig, Precision
from repro.model.alexnet import size
from repro.model.network import output_shape
from repro.train.precision import arithmetic

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels between 0 and 1
ENDLESS = 2**30  # images; a new pass would start its workers anew


def response_norm(config: NormConfig) -> nn.LocalResponseNorm:
    """PyTorch's layer with our constants: it divides alpha by n, and its window crosses the columns' border."""
    return nn.LocalResponseNorm(config.n, alpha=config.alpha * config.n, beta=config.beta, k=config.k)


def paper_network(config: ModelConfig, crop: int, classes: int) -> nn.Sequential:
    """The paper's net (section 3.5) from PyTorch's layers alone; each layer as large as ours of the same config."""
    c1, c2, c3, c4, c5 = (size(config, f"conv{number}") for number in range(1, 6))
    features = nn.Sequential(
        *(nn.Conv2d(3, c1, 11, stride=4, padding=2), nn.ReLU(), response_norm(config.norm), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(c1, c2, 5, padding=2, groups=2), nn.ReLU(), response_norm(config.norm), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(c3, c4, 3, padding=1, groups=2), nn.ReLU()),
        *(nn.Conv2d(c4, c5, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        nn.Flatten(),
    )
    (inputs,) = output_shape(features, crop)
    fc6, fc7 = size(config, "fc6"), size(config, "fc7")
    hidden = [nn.Linear(inputs, fc6), nn.ReLU(), nn.Dropout(), nn.Linear(fc6, fc7), nn.ReLU(), nn.Dropout()]
    return features.extend([*hidden, nn.Linear(fc7, classes)])


def sgd(network: nn.Module, config: OptimizerConfig, fused: bool | None = None) -> torch.optim.SGD:
    """PyTorch's rule with the configuration's constants. `fused`: None leaves the choice to PyTorch."""
    return torch.optim.SGD(
        network.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay, fused=fused
    )


def training_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, precision: Precision
) -> Callable[[], None]:
    """One update from images (N, 3, H, W) and labels (N,), as PyTorch's tutorials write it."""

    def step() -> None:
        optimizer.zero_grad()
        with arithmetic(images.device, precision):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()

    return step


def loader(folder: Path, image_size: int, crop: int, batch: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of `folder`/<class>/*, without end, as pytorch/examples' imagenet script reads them.

    Its crop is drawn as ours is: shorter side to `image_size`, then a `crop`-pixel window, mirrored or not.
    """
    from torch.utils.data import DataLoader, RandomSampler
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = [
        *(v2.Resize(image_size), v2.RandomCrop(crop), v2.RandomHorizontalFlip()),
        *(v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)),
    ]
    data = ImageFolder(folder, v2.Compose(steps))
    order = RandomSampler(data, replacement=True, num_samples=ENDLESS)
    yield from DataLoader(data, batch, sampler=order, num_workers=workers)
