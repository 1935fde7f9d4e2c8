"""Rescaling and cropping, section 2."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from repro.data.decode import to_square


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (20, 20), (10, 14), (21, 20)])
def test_shape(size: tuple[int, int]) -> None:
    square = to_square(Image.new("RGB", size, (1, 2, 3)), 20)
    assert square.shape == (20, 20, 3)
    assert square.dtype == np.uint8
    assert (square == [1, 2, 3]).all()


def test_keeps_the_centre() -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    assert (to_square(Image.fromarray(pixels), 10) == 255).all()


def test_an_image_of_that_size_is_not_changed() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_square(Image.fromarray(pixels), 9), pixels)


def test_shrinks_without_aliasing() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert abs(to_square(Image.fromarray(stripes), 16)[:, 1:-1].astype(int) - 127).max() <= 1


def of_the_whole(image: Image.Image, size: int) -> np.ndarray:
    """The square of the definition: the whole image resized, then cut."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    whole = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(whole.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("size", [(500, 375), (7, 5), (1, 1), (640, 5), (5, 640), (3, 7), (1280, 31)])
@pytest.mark.parametrize("side", [1, 16, 33])
def test_every_pixel_is_that_of_the_whole_image_resized(size: tuple[int, int], side: int) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    np.testing.assert_array_equal(to_square(image, side), of_the_whole(image, side))


@pytest.mark.parametrize("size", [(2000, 1), (1, 2001), (3999, 31), (40, 8000), (50, 6401)])
@pytest.mark.parametrize("side", [1, 16, 33])
def test_an_extreme_one_is_cut_first_and_off_by_a_rounding_at_most(size: tuple[int, int], side: int) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    off = to_square(image, side).astype(int) - of_the_whole(image, side)
    assert np.abs(off).max() <= 1


@pytest.mark.parametrize("size", [(60_000, 1), (1, 30_000)])
def test_an_extreme_one_takes_no_more_memory_than_others(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resize, made = Image.Image.resize, []

    def resize_and_tell(image: Image.Image, to: tuple[int, int], *arguments: Any) -> Image.Image:
        made.append(to)
        return resize(image, to, *arguments)

    monkeypatch.setattr(Image.Image, "resize", resize_and_tell)
    assert (to_square(Image.new("RGB", size, (1, 2, 3)), 256) == [1, 2, 3]).all()
    assert made == [(256, 256)]
