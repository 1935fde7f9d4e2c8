"""What Pillow alone makes of image files (sections 2 and 4.1): squares, their mean, crops and mirror images."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from repro.config import Config, DataConfig, Mean, Source
from repro.data.augmentation import random_windows, ten_windows
from repro.data.batches import fixed_batches
from repro.data.preprocess import Pixels
from repro.data.store import ImageData, open_data
from tests.crops import cut

Box = tuple[int, int, int, int]  # left, top, right, bottom
View = Callable[[Image.Image, np.ndarray, Box, bool], np.ndarray]
SIZE, CROP = 256, 224
FILES = {  # in the order of a listing: (width, height), mode
    "cat/0_tall.jpg": ((300, 517), "RGB"),
    "cat/1_wide.jpg": ((641, 333), "RGB"),
    "cat/2_odd.png": ((257, 259), "RGB"),
    "cat/3_small.png": ((40, 61), "RGB"),
    "cat/4_long.png": ((900, 90), "RGB"),
    "dog/5_grey.jpg": ((320, 280), "L"),
    "dog/6_cmyk.jpg": ((280, 321), "CMYK"),
    "dog/7_palette.png": ((301, 300), "P"),
    "dog/8_exact.png": ((256, 256), "RGB"),
}


def save_photograph(path: Path, seed: int, size: tuple[int, int], mode: str) -> None:
    """Smooth colours with noise on them."""
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.blend(smooth, noise, 0.3).convert(mode).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training images of every kind."""
    folder = tmp_path_factory.mktemp("pixels") / "imagefolder"
    for seed, (name, (size, mode)) in enumerate(FILES.items()):
        save_photograph(folder / "train" / name, seed, size, mode)
    for name in ("cat", "dog"):
        save_photograph(folder / "val" / name / "0.png", 99, (20, 20), "RGB")
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> ImageData:
    return open_data(DataConfig(source=Source.imagefolder, root=str(folder.parent), image_size=SIZE))


@pytest.fixture(scope="module")
def squares(folder: Path) -> list[Image.Image]:
    """The training images by Pillow: `cover` makes the shorter side 256, the rest is cut off around the centre."""
    squares = []
    for name in FILES:
        with Image.open(folder / "train" / name) as file:
            covering = ImageOps.cover(file.convert("RGB"), (SIZE, SIZE), Image.Resampling.BILINEAR)
        left, top = (covering.width - SIZE) // 2, (covering.height - SIZE) // 2
        squares.append(covering.crop((left, top, left + SIZE, top + SIZE)))
    return squares


@pytest.fixture(scope="module")
def mean(squares: list[Image.Image]) -> np.ndarray:
    """The mean image (256, 256, 3)."""
    return np.mean([np.asarray(square, np.float64) for square in squares], axis=0)


def paper_view(square: Image.Image, mean: np.ndarray, box: Box, mirrored: bool) -> np.ndarray:
    """Section 2 subtracts the mean from the image; 4.1 cuts patches out of that and mirrors them."""
    left, top, right, bottom = box
    patch = (np.asarray(square, np.float64) - mean)[top:bottom, left:right]
    return np.fliplr(patch) if mirrored else patch


def source_view(square: Image.Image, mean: np.ndarray, box: Box, mirrored: bool) -> np.ndarray:
    """The authors cut, mirror and then subtract the centre of the mean (convdata_jpeg.py:200-246), never mirrored."""
    patch = square.crop(box)
    border = (SIZE - CROP) // 2
    return np.asarray(ImageOps.mirror(patch) if mirrored else patch, np.float64) - mean[border:-border, border:-border]


VIEWS = pytest.mark.parametrize(("kind", "view"), [(Mean.image, paper_view), (Mean.image_centre, source_view)])


def pixels_of(data: ImageData, kind: Mean) -> Pixels:
    config = Config()
    config.data.mean = kind
    return Pixels(config, data, torch.device("cpu"))


def assert_seen(prepared: torch.Tensor, expected: list[np.ndarray]) -> None:
    np.testing.assert_allclose(prepared.permute(0, 2, 3, 1).numpy(), np.stack(expected), atol=1e-3)


@pytest.mark.parametrize("index", range(len(FILES)), ids=list(FILES))
def test_the_square_of_a_file(index: int, data: ImageData, squares: list[Image.Image]) -> None:
    np.testing.assert_array_equal(data.train.images[index], np.asarray(squares[index]))


def test_the_mean_image(data: ImageData, mean: np.ndarray) -> None:
    np.testing.assert_allclose(data.mean, mean, rtol=1e-6)


@VIEWS
def test_the_ten_crops(kind: Mean, view: View, data: ImageData, squares: list[Image.Image], mean: np.ndarray) -> None:
    boxes = [(0, 0, 224, 224), (32, 0, 256, 224), (16, 16, 240, 240), (0, 32, 224, 256), (32, 32, 256, 256)]
    pixels, images = pixels_of(data, kind), np.array([0, 5])
    for place, (mirrored, box) in zip(ten_windows(pixels.border), product((False, True), boxes), strict=True):
        ((prepared, _),) = fixed_batches(data.train, pixels, place, images, batch=2)
        assert_seen(prepared, [view(squares[image], mean, box, mirrored) for image in images])


@VIEWS
def test_training_crops(kind: Mean, view: View, data: ImageData, squares: list[Image.Image], mean: np.ndarray) -> None:
    windows = random_windows(Config().augment, len(FILES), SIZE - CROP, torch.Generator().manual_seed(0))
    crops = cut(data.train.images, np.arange(len(FILES)), windows, CROP)
    places = zip(windows.lefts.tolist(), windows.tops.tolist(), windows.flips.tolist(), strict=True)
    boxes = [((left, top, left + CROP, top + CROP), flip) for left, top, flip in places]
    expected = [view(square, mean, box, flip) for square, (box, flip) in zip(squares, boxes, strict=True)]
    assert_seen(pixels_of(data, kind).prepare(crops, windows), expected)
