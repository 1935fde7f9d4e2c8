"""The data set that the package makes itself: ten classes of fractals, the same bytes on every machine.

After FractalDB (Kataoka et al., "Pre-training without Natural Images", 2020): a class is an iterated function
system, three affine maps whose attractor is the shape. Each image has its own jitter of the maps, rotation,
size, place, colours, texture behind and noise, all drawn alike for every class, so that only the shape tells.

Raw words of PCG64 (whose stream numpy promises to keep), element-wise float64 arithmetic and integers: no
function that rounds differently elsewhere (no sine, no float sum, no matrix product).
"""

import functools
import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SEED = 2012
SIZE = 128  # pixels
CLASSES = tuple(f"fractal_{letter}" for letter in "abcdefghij")
PER_CLASS = {"train": 500, "val": 120}

# Difficulty
JITTER = 0.07  # of each coefficient of a map, +-
LENGTH = (0.4, 0.9)  # longer side of a shape over the image's
TURN = 0.4  # largest |tan| of half the rotation
BEHIND = (20, 100)  # mean of the background, grey levels
CONTRAST = (60, 180)  # by which a shape is brighter, grey levels
TEXTURE = 80  # largest difference between the background's two colours, grey levels
NOISE = (10, 50)  # amplitude of independent noise, grey levels

MAPS = 3
DEPTH = 8  # a shape is all 3^8 compositions of its maps
COEFFICIENT = 0.8  # largest of a map
NORM = (0.35, 0.85)  # Frobenius norm of a map; below 1 it contracts
FILL = (0.10, 0.25)  # share of a class's square that its shape touches
OPACITY = 110  # of one point, of 255

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]


class _Random:
    """Uniform numbers from the raw words of PCG64."""

    def __init__(self, *key: int) -> None:
        self.words = np.random.PCG64([SEED, *key])

    def uniform(self, low: float, high: float, *shape: int) -> Floats:
        unit = (self._raw(*shape) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return low + (high - low) * unit

    def levels(self, low: int, high: int, *shape: int) -> Integers:
        """Whole numbers from low to high - 1."""
        return np.floor(self.uniform(low, high, *shape)).astype(np.int32)

    def bytes(self, *shape: int) -> Integers:
        """Whole numbers from 0 to 255; the last axis is a multiple of 8."""
        return self._raw(*shape[:-1], shape[-1] // 8).astype("<u8").view(np.uint8).astype(np.int32)

    def _raw(self, *shape: int) -> NDArray[np.uint64]:
        return np.asarray(self.words.random_raw(int(np.prod(shape)))).reshape(shape)


def fingerprint() -> str:
    """Changes with the images: the hash of this file, which is all that decides them."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def labels(split: str) -> list[int]:
    """Labels of `train` or `val`, sorted."""
    return [label for label in range(len(CLASSES)) for _ in range(PER_CLASS[split])]


def make_image(split: str, index: int) -> NDArray[np.uint8]:
    """One image (128, 128, 3) of `train` or `val`, drawn from a stream of its own."""
    random = _Random(split == "val", index)
    shape = _shape(class_codes()[index // PER_CLASS[split]], random)[..., None]
    step = random.levels(*CONTRAST, 3)
    texture = (_texture(random)[..., None] - 128) * random.levels(-TEXTURE, TEXTURE, 3)
    noise = (random.bytes(SIZE, 3, SIZE).transpose(0, 2, 1) - 128) * random.levels(*NOISE, 1)
    image: Integers = random.levels(*BEHIND, 3) + texture // 256 + noise // 128 + shape * step // 255
    return image.clip(0, 255).astype(np.uint8)


@functools.cache
def class_codes() -> Floats:
    """One iterated function system a class (10, 3, 6): rows of a, b, c, d, e, f in (ax + by + e, cx + dy + f)."""
    random = _Random(2)
    codes: list[Floats] = []
    while len(codes) < len(CLASSES):
        code = random.uniform(-COEFFICIENT, COEFFICIENT, MAPS, 6)
        squares = code[:, :4] ** 2
        norm = np.sqrt(squares[:, 0] + squares[:, 1] + squares[:, 2] + squares[:, 3])
        if NORM[0] <= norm.min() and norm.max() <= NORM[1]:
            touched = np.count_nonzero(_hits(*_boxed(*_attractor(code), SIZE - 1)))
            if FILL[0] <= touched / SIZE**2 <= FILL[1]:
                codes.append(code)
    return np.stack(codes)


def _shape(code: Floats, random: _Random) -> Integers:
    """Opacity (128, 128), 0 to 255, of a class's shape under jitter, rotation, size and place."""
    x, y = _attractor(code + random.uniform(-JITTER, JITTER, MAPS, 6))
    tangent = random.uniform(-TURN, TURN, 1)
    cosine, sine = (1 - tangent**2) / (1 + tangent**2), 2 * tangent / (1 + tangent**2)
    length = random.uniform(*LENGTH, 1) * SIZE
    place = random.uniform(0, 1, 2) * (SIZE - 1 - length)
    x, y = _boxed(cosine * x - sine * y, sine * x + cosine * y, length)
    return np.minimum(_hits(x + place[0], y + place[1]) * OPACITY, 255)


def _attractor(code: Floats) -> tuple[Floats, Floats]:
    """Points x, y (3^8,) of a system (3, 6): every composition of its maps, applied to the origin."""
    a, b, c, d, e, f = code.T[..., None]
    x = y = np.zeros(1)
    for _ in range(DEPTH):
        x, y = (a * x + b * y + e).ravel(), (c * x + d * y + f).ravel()
    return x, y


def _boxed(x: Floats, y: Floats, length: Floats | float) -> tuple[Floats, Floats]:
    """The points moved and scaled so that their box begins at 0 and its longer side is `length`."""
    x, y = x - x.min(), y - y.min()
    scale = length / max(x.max(), y.max())
    return x * scale, y * scale


def _hits(x: Floats, y: Floats) -> Integers:
    """Number of points in each pixel (128, 128)."""
    index = np.floor(y).astype(np.int32) * SIZE + np.floor(x).astype(np.int32)
    return np.bincount(index, minlength=SIZE**2).reshape(SIZE, SIZE).astype(np.int32)


def _texture(random: _Random) -> Integers:
    """Smooth random texture (128, 128), 0 to 255: value noise of three octaves in whole numbers."""
    total = np.zeros((SIZE, SIZE), np.int32)
    for cells, weight in ((4, 4), (8, 2), (16, 2)):
        nodes = random.bytes(cells + 1, 24)[:, : cells + 1]
        total += weight * _stretch(_stretch(nodes).T).T
    return total // 8


def _stretch(nodes: Integers) -> Integers:
    """Linear interpolation of the first axis, g + 1 nodes, to 128 pixels."""
    step = SIZE // (len(nodes) - 1)
    cell, part = np.divmod(np.arange(SIZE, dtype=np.int32)[:, None], step)
    stretched: Integers = (nodes[cell[:, 0]] * (step - part) + nodes[cell[:, 0] + 1] * part) // step
    return stretched
