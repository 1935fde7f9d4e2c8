"""Image files for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 16  # pixels of the packed images
CLASSES = ("cat", "dog", "owl")


def save_image(path: Path, seed: int, size: tuple[int, int] = (24, 20), mode: str = "RGB") -> None:
    """A file of smooth random colours, `size` as (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)


def save_image_folder(folder: Path) -> None:
    """Three classes, 5 training and 2 validation images each."""
    seed = 0
    for split, count in (("train", 5), ("val", 2)):
        for name in CLASSES:
            for index in range(count):
                seed += 1
                save_image(folder / split / name / f"{index}.png", seed)
