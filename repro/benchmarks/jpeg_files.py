"""JPEG files as large as ILSVRC's are on average, to measure input pipelines on."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SIZE = (500, 375)
"""Width and height in pixels of a typical ILSVRC photograph."""
QUALITY = 92
CLASSES = ("one", "two")
CONTRAST, COLOR = 50, 0.2
"""Of the noise: standard deviation in grey levels, and the share in which the colours differ."""


def write(folder: Path, train: int, val: int) -> str:
    """`folder`/train/<class>/*.jpg and val/<class>/*.jpg; returns what the images are.

    Photographs are Imagenette's, brought to that size, where REPRO_DATA has them; else noise with a photograph's
    spectrum.
    """
    root = os.environ.get("REPRO_DATA")
    files = sorted(Path(root, "imagenette", "train").glob("*/*.[Jj]*")) if root else []
    make: Callable[[int], Image.Image] = _photograph(files, train + val) if files else noise
    for split, indices in (("train", range(train)), ("val", range(train, train + val))):
        for index in indices:
            path = folder / split / CLASSES[index % 2] / f"{index:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            make(index).save(path, quality=QUALITY)
    kind = "Imagenette's photographs" if files else "noise with a photograph's spectrum"
    return f"{kind} as JPEG files of {SIZE[0]} x {SIZE[1]} pixels"


def _photograph(files: list[Path], count: int) -> Callable[[int], Image.Image]:
    """Evenly spaced ones, so that every class is met."""

    def make(index: int) -> Image.Image:
        with Image.open(files[index * len(files) // count]) as image:
            return ImageOps.fit(image.convert("RGB"), SIZE)

    return make


def noise(index: int) -> Image.Image:
    """Noise whose amplitude falls with the frequency as in photographs, 1/f; mostly grey."""
    width, height = SIZE
    white = np.fft.rfft2(np.random.default_rng(index).normal(size=(3, height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf  # the mean is set below
    fields = np.fft.irfft2(white / frequency, (height, width))
    fields *= CONTRAST / fields.std(axis=(1, 2), keepdims=True)
    pixels = 128 + fields[0] + COLOR * fields
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0))
