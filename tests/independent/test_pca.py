"""Principal components of a store by numpy and SciPy, over all training pixels at once, and the noise made of them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import linalg

from repro.config import ColorNoise, Config, DataConfig, Source
from repro.data.augmentation import Windows, color_draws
from repro.data.preprocess import Pixels
from repro.data.store import ImageData, open_data

SIDE = 12  # pixels
IMAGES = {"train": 40, "val": 10}
DRAWS = 100_000


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    """Images (N, 12, 12, 3) of correlated colours; those of `val` have other colours."""
    rng = np.random.default_rng(0)
    made = {}
    for split, spread in (("train", [25, 5, 10]), ("val", [5, 40, 5])):
        brightness = rng.normal(rng.uniform(80, 160, (IMAGES[split], 1, 1, 1)), 30, (IMAGES[split], SIDE, SIDE, 1))
        made[split] = (brightness + rng.normal(0, spread, (*brightness.shape[:3], 3))).clip(0, 255).astype(np.uint8)
    return made


@pytest.fixture(scope="module")
def data(images: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """The store of these images, in two classes."""
    root = tmp_path_factory.mktemp("pca")
    for split, pixels in images.items():
        for index, image in enumerate(pixels):
            path = root / "imagefolder" / split / ("cat", "dog")[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return open_data(DataConfig(source=Source.imagefolder, root=str(root), image_size=SIDE))


@pytest.fixture(scope="module")
def covariance(images: dict[str, np.ndarray]) -> np.ndarray:
    """Of the training pixels' colours (3, 3), grey levels squared."""
    return np.cov(images["train"].reshape(-1, 3).astype(np.float64), rowvar=False, bias=True)


@pytest.mark.parametrize("eigh", [np.linalg.eigh, linalg.eigh], ids=["numpy", "scipy"])
def test_the_components_of_a_store(
    eigh: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], data: ImageData, covariance: np.ndarray
) -> None:
    values, vectors = (result[..., ::-1] for result in eigh(covariance))  # the largest comes last
    np.testing.assert_allclose(data.pca_deviations, np.sqrt(values), rtol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(data.pca_vectors * vectors, axis=0)), 1, rtol=1e-9)
    np.testing.assert_allclose(data.channel_std, np.sqrt(np.diagonal(covariance)), rtol=1e-9)


@pytest.mark.parametrize("kind", [ColorNoise.deviation, ColorNoise.eigenvalue])
def test_the_colour_noise_of_many_images(kind: ColorNoise, data: ImageData, covariance: np.ndarray) -> None:
    """With covariance S = V diag(lambda) V^T of the pixels, deviations as lengths give the noise S again, eigenvalues
    give S^2; those are of pixels between 0 and 1, which divides by 255^2 in grey levels."""
    config = Config()
    config.data.image_size, config.data.crop = SIDE, 1
    config.augment.color_noise = kind
    pixels = Pixels(config, data, torch.device("cpu"))
    corner = torch.zeros(DRAWS, dtype=torch.int64)
    windows = Windows(tops=corner, lefts=corner, flips=corner.bool())
    crops = torch.zeros(DRAWS, 3, 1, 1, dtype=torch.uint8)
    draws = color_draws(config.augment, DRAWS, torch.Generator().manual_seed(0))
    noise = (pixels.prepare(crops, windows, draws) - pixels.prepare(crops, windows))[:, :, 0, 0].double().numpy()
    expected = covariance if kind is ColorNoise.deviation else covariance @ covariance / 255**2
    expected = config.augment.color_noise_sigma**2 * expected
    np.testing.assert_allclose(np.cov(noise, rowvar=False), expected, atol=5 * np.sqrt(2 / DRAWS) * expected.max())
    assert (np.abs(noise.mean(axis=0)) < 5 * np.sqrt(np.diagonal(expected) / DRAWS)).all()
