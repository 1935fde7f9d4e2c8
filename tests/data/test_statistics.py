"""The mean image and the principal components, against numpy's own."""

import numpy as np
import pytest

from repro.data import statistics
from repro.data.statistics import measure, principal_components


@pytest.fixture
def images() -> np.ndarray:
    """Images (37, 5, 5, 3) uint8 whose colours are correlated."""
    rng = np.random.default_rng(0)
    brightness = rng.normal(120, 40, (37, 5, 5, 1))
    return (brightness + rng.normal(0, [5, 10, 20], (37, 5, 5, 3))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("chunk_pixels", [1, 100, 2**20])
def test_against_numpy(images: np.ndarray, chunk_pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "CHUNK_PIXELS", chunk_pixels)
    measured = measure(images)
    pixels = images.reshape(-1, 3).astype(np.float64)
    covariance = np.cov(pixels.T, bias=True)
    np.testing.assert_array_equal(measured.mean, images.mean(axis=0).astype(np.float32))
    np.testing.assert_allclose(measured.channel_std, pixels.std(axis=0), rtol=1e-12)
    np.testing.assert_allclose(measured.pca_deviations, np.sqrt(np.linalg.eigvalsh(covariance))[::-1], rtol=1e-9)
    projected = (pixels - pixels.mean(axis=0)) @ measured.pca_vectors
    np.testing.assert_allclose(np.cov(projected.T, bias=True), np.diag(measured.pca_deviations**2), atol=1e-8)


def test_sums_of_many_bright_pixels_are_exact() -> None:
    images = np.full((300, 64, 64, 3), 255, np.uint8)
    images[0, 0, 0] = 254
    measured = measure(images)
    share = 1 / (300 * 64 * 64)
    assert measured.mean[0, 0, 0] == np.float32(255 - 1 / 300)
    np.testing.assert_allclose(measured.channel_std, np.sqrt(share * (1 - share)), rtol=1e-4)


def test_signs_are_fixed() -> None:
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    deviations, vectors = principal_components(rotation @ np.diag([1.0, 9.0, 4.0]) @ rotation.T)
    np.testing.assert_allclose(deviations, [3, 2, 1])
    expected = rotation[:, [1, 2, 0]]
    expected *= np.sign(expected[np.abs(expected).argmax(axis=0), range(3)])
    np.testing.assert_allclose(vectors, expected, atol=1e-12)


def test_images_of_one_colour() -> None:
    measured = measure(np.full((4, 3, 3, 3), 7, np.uint8))
    assert (measured.mean == 7).all()
    assert np.isfinite(measured.pca_vectors).all()
    np.testing.assert_array_equal(measured.pca_deviations, 0)
