"""Rescaling and cropping, section 2."""

import numpy as np
import pytest
from PIL import Image

from repro.data.square import to_square


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
