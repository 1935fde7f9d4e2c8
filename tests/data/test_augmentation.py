from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from repro.config import AugmentConfig, ColorNoise, Config, Mean
from repro.data.augmentation import Windows, color_draws, random_windows
from repro.data.preprocess import Pixels, on_device
from repro.data.store import ImageData
from tests.crops import cut
from tests.tiny import tiny_data

SIDE, CROP = 6, 4  # pixels: a border of 2, nine places
BORDER = SIDE - CROP
DRAWS = 50_000
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> ImageData:
    return tiny_data(train=200, size=SIDE)


@pytest.fixture
def config() -> Config:
    config = Config()
    config.data.image_size, config.data.crop = SIDE, CROP
    return config


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def windows(top: int = 0, left: int = 0, flip: bool = False, count: int = 1) -> Windows:
    return Windows(torch.full((count,), top), torch.full((count,), left), torch.full((count,), flip))


class OnGpu(Tensor):
    """A tensor that says it lies on a GPU, where only host memory can be pinned."""

    is_cuda = True

    def pin_memory(self, device: object = None) -> Tensor:
        raise RuntimeError("only dense CPU tensors can be pinned")


def test_a_tensor_on_the_device_is_not_sent_there_again() -> None:
    there = torch.zeros(3).as_subclass(OnGpu)
    assert on_device(there, torch.device("cuda")) is there


# ---- places and mirror images ----------------------------------------------------------------------------------------


def test_every_place_and_both_mirror_images_are_equally_likely() -> None:
    drawn = random_windows(AugmentConfig(), DRAWS, BORDER, seeded())
    views = (drawn.tops * (BORDER + 1) + drawn.lefts) * 2 + drawn.flips
    counts = torch.bincount(views, minlength=18)
    assert len(counts) == 18
    assert stats.chisquare(counts.numpy()).pvalue > 0.001


def test_a_256_pixel_image_has_33_places_a_side() -> None:
    drawn = random_windows(AugmentConfig(), 2000, 32, seeded())
    assert sorted(set(drawn.tops.tolist())) == sorted(set(drawn.lefts.tolist())) == list(range(33))


@pytest.mark.parametrize(("border", "middle"), [(0, 0), (2, 1), (5, 2), (32, 16)])
def test_without_random_crops_every_crop_is_the_centre(border: int, middle: int) -> None:
    drawn = random_windows(AugmentConfig(random_crop=False), 100, border, seeded())
    assert set(drawn.tops.tolist()) == set(drawn.lefts.tolist()) == {middle}
    assert 20 < drawn.flips.sum() < 80


def test_without_flips_no_image_is_mirrored() -> None:
    drawn = random_windows(AugmentConfig(flip=False), 100, BORDER, seeded())
    assert not drawn.flips.any()
    assert len(set(drawn.tops.tolist())) == 3


def test_32_consecutive_images_share_place_and_mirror_image() -> None:
    drawn = random_windows(AugmentConfig(share=32), 120, 32, seeded())  # the last group is of 24
    views = torch.stack([drawn.tops, drawn.lefts, drawn.flips.long()], dim=1)
    assert views.shape == (120, 3)
    groups = [set(map(tuple, group.tolist())) for group in views.split(32)]
    assert [len(group) for group in groups] == [1, 1, 1, 1]
    assert len(set.union(*groups)) == 4


def test_images_do_not_share_by_default() -> None:
    drawn = random_windows(AugmentConfig(), 64, 32, seeded())
    assert len(set(zip(drawn.tops.tolist(), drawn.lefts.tolist(), strict=True))) > 50


def test_a_crop_is_a_slice_of_its_image(data: ImageData) -> None:
    places = Windows(torch.tensor([0, 2, 1]), torch.tensor([2, 0, 1]), torch.tensor([False, True, False]))
    crops = cut(data.train.images, np.array([5, 0, 7]), places, CROP)
    assert crops.dtype is torch.uint8
    for crop, image, top, left in zip(crops, (5, 0, 7), (0, 2, 1), (2, 0, 1), strict=True):
        expected = data.train.images[image, top : top + CROP, left : left + CROP].transpose(2, 0, 1)
        np.testing.assert_array_equal(crop.numpy(), expected)


# ---- mean, mirror, scale ---------------------------------------------------------------------------------------------

PLACES = [(0, 0), (0, 2), (1, 1), (2, 1)]


def prepared(config: Config, data: ImageData, image: np.ndarray, top: int, left: int, flip: bool = False) -> np.ndarray:
    """What the network sees of an image (6, 6, 3): (3, 4, 4)."""
    place = windows(top, left, flip)
    crops = cut(image[None].round().astype(np.uint8), np.array([0]), place, CROP)
    return Pixels(config, data, CPU).prepare(crops, place)[0].numpy()


def window(image: np.ndarray, top: int, left: int) -> np.ndarray:
    return image[top : top + CROP, left : left + CROP].transpose(2, 0, 1)


@pytest.mark.parametrize(("top", "left"), PLACES)
@pytest.mark.parametrize(
    "kind", [(Mean.image, None), (Mean.image_centre, (1, 1)), (Mean.channel, None)], ids=lambda kind: kind[0].name
)
def test_each_kind_of_mean_is_subtracted(
    kind: tuple[Mean, tuple[int, int] | None], top: int, left: int, config: Config, data: ImageData
) -> None:
    config.data.mean, place = kind
    mean = window(data.mean, *(place or (top, left)))
    if config.data.mean is Mean.channel:
        mean = data.mean.mean(axis=(0, 1))[:, None, None]
    image = data.train.images[3]
    expected = window(image, top, left) - mean
    np.testing.assert_allclose(prepared(config, data, image, top, left), expected, atol=1e-4)


def test_a_batch_subtracts_the_mean_under_each_crop(config: Config, data: ImageData) -> None:
    whole = replace(data, mean=data.mean.round())
    places = random_windows(config.augment, 30, BORDER, seeded())
    crops = cut(np.repeat(whole.mean[None].astype(np.uint8), 30, 0), np.arange(30), places, CROP)
    assert not Pixels(config, whole, CPU).prepare(crops, places).any()


@pytest.mark.parametrize("kind", [Mean.image, Mean.channel])
def test_a_mirrored_image_has_a_mirrored_mean(kind: Mean, config: Config, data: ImageData) -> None:
    config.data.mean = kind
    plain, mirrored = (prepared(config, data, data.train.images[3], 2, 0, flip) for flip in (False, True))
    np.testing.assert_array_equal(mirrored, plain[:, :, ::-1])


def test_the_authors_mirror_the_image_but_not_the_mean(config: Config, data: ImageData) -> None:
    config.data.mean = Mean.image_centre
    image, start = data.train.images[3], BORDER // 2
    mirrored = prepared(config, data, image, 2, 0, True)
    mean = data.mean[start : start + CROP, start : start + CROP]
    expected = image[2 : 2 + CROP, :CROP][:, ::-1] - mean
    np.testing.assert_allclose(mirrored, expected.transpose(2, 0, 1), rtol=1e-5, atol=1e-4)


def test_only_the_chosen_images_are_mirrored(config: Config, data: ImageData) -> None:
    flips = torch.tensor([True, False, True])
    plain, mirrored = windows(count=3), replace(windows(count=3), flips=flips)
    pixels = Pixels(config, data, CPU)
    crops = cut(data.train.images, np.arange(3), plain, CROP)
    before, after = pixels.prepare(crops, plain), pixels.prepare(crops, mirrored)
    for image in range(3):
        assert torch.equal(after[image], before[image].flip(2) if flips[image] else before[image])


def test_unit_variance_divides_each_colour(config: Config, data: ImageData) -> None:
    image = data.train.images[3]
    plain = prepared(config, data, image, 0, 0)
    config.data.unit_variance = True
    scaled = prepared(config, data, image, 0, 0)
    np.testing.assert_allclose(scaled, plain / data.channel_std[:, None, None], rtol=1e-5)


def test_preparing_leaves_the_crops_as_they_are(config: Config, data: ImageData) -> None:
    crops = cut(data.train.images, np.arange(3), windows(count=3), CROP)
    copy = crops.clone()
    Pixels(config, data, CPU).prepare(crops, windows(flip=True, count=3), torch.ones(3, 3))
    assert torch.equal(crops, copy)


# ---- colour noise ----------------------------------------------------------------------------------------------------


def shifts(config: Config, data: ImageData, count: int = DRAWS) -> Tensor:
    """What colour noise adds to each of many images without contrast, (N, 3), grey levels."""
    config.data.crop, flat = 1, replace(data, mean=np.zeros_like(data.mean))
    noise = color_draws(config.augment, count, seeded())
    return Pixels(config, flat, CPU).prepare(torch.zeros(count, 3, 1, 1), windows(count=count), noise)[:, :, 0, 0]


@pytest.mark.parametrize("sigma", [0.1, 0.5])
@pytest.mark.parametrize("kind", [ColorNoise.deviation, ColorNoise.eigenvalue])
def test_colour_noise_has_the_covariance_of_the_pixels_times_sigma_squared(
    kind: ColorNoise, sigma: float, config: Config, data: ImageData
) -> None:
    config.augment.color_noise, config.augment.color_noise_sigma = kind, sigma
    drawn = shifts(config, data).double().numpy()
    # eigenvalues are those of pixels between 0 and 1: (deviation / 255)^2, times 255 grey levels
    lengths = data.pca_deviations if kind is ColorNoise.deviation else data.pca_deviations**2 / 255
    expected = sigma**2 * data.pca_vectors @ np.diag(lengths**2) @ data.pca_vectors.T
    found = np.cov(drawn.T)
    np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(2 / DRAWS) * expected.max())
    assert (np.abs(drawn.mean(axis=0)) < 5 * np.sqrt(np.diag(expected) / DRAWS)).all()


def test_the_noise_along_each_component_is_normal(config: Config, data: ImageData) -> None:
    amounts = shifts(config, data, 5000).double().numpy() @ data.pca_vectors / (0.1 * data.pca_deviations)
    for component in amounts.T:
        assert stats.kstest(component, "norm").pvalue > 0.001


def test_one_image_has_one_shift_and_another_has_its_own(config: Config, data: ImageData) -> None:
    crops = cut(data.train.images, np.arange(3), windows(count=3), CROP)
    pixels = Pixels(config, data, CPU)
    plain = pixels.prepare(crops, windows(count=3))
    noisy = pixels.prepare(crops, windows(count=3), color_draws(config.augment, 3, seeded()))
    shift = noisy - plain
    torch.testing.assert_close(shift, shift[:, :, :1, :1].expand_as(shift), rtol=0, atol=1e-4)
    assert len({tuple(row) for row in shift[:, :, 0, 0].tolist()}) == 3


def test_the_divisor_shrinks_noise_and_pixels_alike(config: Config, data: ImageData) -> None:
    crops = cut(data.train.images, np.arange(3), windows(count=3), CROP)
    noise = color_draws(config.augment, 3, seeded())
    plain = Pixels(config, data, CPU).prepare(crops, windows(count=3), noise)
    config.augment.color_noise_divisor = 1.1
    pixels = Pixels(config, data, CPU)
    torch.testing.assert_close(pixels.prepare(crops, windows(count=3), noise), plain / 1.1)
    without = pixels.prepare(crops, windows(count=3))
    torch.testing.assert_close(without[0].numpy(), window(data.train.images[0] - data.mean, 0, 0))


def test_noise_is_drawn_for_each_image_and_component() -> None:
    draws = color_draws(AugmentConfig(), 4, seeded())
    assert draws is not None
    assert draws.shape == (4, 3)


def test_without_noise_nothing_is_drawn() -> None:
    assert color_draws(AugmentConfig(color_noise=ColorNoise.none), 4, seeded()) is None
