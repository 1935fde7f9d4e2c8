"""Random pixels in the shape of a data set, so that no images are needed to see where the time goes."""

import numpy as np

from repro.config import Config, Source
from repro.data.embedded import CLASSES
from repro.data.store import ImageData, Split, in_memory

_CLASSES = {Source.embedded: len(CLASSES), Source.cifar10: 10, Source.imagenette: 10}
_OF_ILSVRC = 1000


def classes(config: Config) -> int:
    """Number of classes of the configured data set; 1,000 where only its folders would tell."""
    return config.data.classes or _CLASSES.get(config.data.source, _OF_ILSVRC)


def random_store(config: Config, batches: int, images: int) -> ImageData:
    """A packed store in memory that is good for so many batches of so many images, met again and again."""
    generator, side = np.random.default_rng(config.seed), config.data.image_size
    pixels = generator.integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    labels = generator.integers(0, classes(config), batches * config.train.batch_size)
    split = Split(pixels, labels, np.arange(len(labels)) % images)
    return in_memory(split, split, classes(config), content_hash="")
