import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from repro.config import ColorNoise, Config
from repro.data.batches import epoch_seed, fixed_batches, held_out, training_batches
from repro.data.preprocess import Pixels
from repro.data.store import ImageData, Split
from tests.tiny import cut_config, tiny_data

IMAGES, SIDE, CROP = 42, 6, 4


@pytest.fixture(scope="module")
def data() -> ImageData:
    """Every image has a label of its own, and is as bright as its label; the mean image is 0."""
    data = tiny_data(IMAGES, size=SIDE)
    labels = np.arange(IMAGES)
    images = np.broadcast_to(labels[:, None, None, None], data.train.images.shape).astype(np.uint8)
    return replace(data, train=Split(images, labels), mean=np.zeros_like(data.mean))


@pytest.fixture
def config() -> Config:
    return cut_config(SIDE, CROP, batch=16)


def epoch_of(config: Config, data: ImageData, epoch: int = 0) -> list[tuple[Tensor, Tensor]]:
    pixels = Pixels(config, data, torch.device("cpu"))
    return list(training_batches(config, data.train, pixels, epoch))


def order(config: Config, data: ImageData, epoch: int = 0) -> list[int]:
    return torch.cat([labels for _, labels in epoch_of(config, data, epoch)]).tolist()


def same(a: list[tuple[Tensor, Tensor]], b: list[tuple[Tensor, Tensor]]) -> bool:
    return all(torch.equal(x, y) for left, right in zip(a, b, strict=True) for x, y in zip(left, right, strict=True))


def test_each_image_comes_once_an_epoch_and_the_last_batch_is_smaller(config: Config, data: ImageData) -> None:
    batches = epoch_of(config, data)
    assert [tuple(images.shape) for images, _ in batches] == [(16, 3, 4, 4), (16, 3, 4, 4), (10, 3, 4, 4)]
    assert sorted(order(config, data)) == list(range(IMAGES))


def test_labels_stay_with_their_images(config: Config, data: ImageData) -> None:
    config.augment.color_noise = ColorNoise.none
    for images, labels in epoch_of(config, data):
        assert torch.equal(images[:, 0, 0, 0], labels.float())


def test_each_epoch_has_an_order_of_its_own(config: Config, data: ImageData) -> None:
    orders = [order(config, data, epoch) for epoch in range(3)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert list(range(IMAGES)) not in orders


def test_without_shuffling_one_order_serves_the_run_but_not_one_augmentation(config: Config, data: ImageData) -> None:
    config.data.shuffle = False
    assert order(config, data, 0) == order(config, data, 1) != list(range(IMAGES))
    assert not same(epoch_of(config, data, 0), epoch_of(config, data, 1))


def test_seed_and_epoch_decide_a_batch_and_nothing_else_does(config: Config, data: ImageData) -> None:
    first = epoch_of(config, data)
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(123)
    torch.rand(7)
    assert same(epoch_of(config, data), first)
    assert not same(epoch_of(config, data, 1), first)
    config.seed = 1
    assert not same(epoch_of(config, data), first)


def test_the_global_generators_are_left_alone(config: Config, data: ImageData) -> None:
    def states() -> list[object]:
        numpy = np.random.get_state(legacy=False)["state"]
        return [torch.get_rng_state().tolist(), numpy["key"].tolist(), numpy["pos"], random.getstate()]

    before = states()
    epoch_of(config, data)
    assert states() == before


def test_epoch_seeds_differ() -> None:
    streams = ("order", "augmentation", "dropout")
    seeds = {epoch_seed(seed, epoch, stream) for seed in range(30) for epoch in range(30) for stream in streams}
    assert len(seeds) == 2700


@pytest.mark.parametrize(("share", "count"), [(0.25, 10), (0.001, 1)])
def test_the_minival_is_cut_from_the_training_images(share: float, count: int, config: Config, data: ImageData) -> None:
    config.data.minival = share
    kept, held = held_out(config, data)
    assert held is not None
    assert len(held.labels) == count
    assert sorted([*kept.labels, *held.labels]) == list(range(IMAGES))
    for split in (kept, held):
        rows = split.places(np.arange(len(split.labels)))
        np.testing.assert_array_equal(split.images[rows, 0, 0, 0], split.labels)


def test_the_seed_decides_the_minival(config: Config, data: ImageData) -> None:
    def held(seed: int) -> list[int]:
        config.seed, config.data.minival = seed, 0.25
        split = held_out(config, data)[1]
        assert split is not None
        return [int(label) for label in split.labels]

    assert held(0) == held(0) != held(1)


def test_without_a_minival_all_images_are_trained_on(config: Config, data: ImageData) -> None:
    kept, held = held_out(config, data)
    assert kept is data.train
    assert held is None


def test_fixed_batches_keep_the_order_given(config: Config, data: ImageData) -> None:
    pixels = Pixels(config, data, torch.device("cpu"))
    indices = np.array([7, 3, 3, 40, 0])
    batches = list(fixed_batches(data.train, pixels, (1, 1, True), indices, 2))
    assert [len(labels) for _, labels in batches] == [2, 2, 1]
    assert torch.cat([labels for _, labels in batches]).tolist() == indices.tolist()
    assert torch.cat([images[:, 0, 0, 0] for images, _ in batches]).tolist() == indices.tolist()


@pytest.mark.parametrize(("off_at", "noisy_steps"), [(None, 12), (0.0, 0), (0.5, 6), (7 / 12, 7), (1.0, 12)])
def test_the_colour_noise_ends_at_its_share_of_the_run(
    off_at: float | None, noisy_steps: int, config: Config, data: ImageData
) -> None:
    config.augment.color_noise_off_at = off_at
    batches = [batch for epoch in range(4) for batch in epoch_of(config, data, epoch)]
    assert len(batches) == 12
    noisy = [not torch.equal(images[:, 0, 0, 0], labels.float()) for images, labels in batches]
    assert noisy == [step < noisy_steps for step in range(12)]
