"""Reading ahead: the same batches, no thread and no memory left behind."""

import gc
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from repro.config import ColorNoise, Config, Mean
from repro.data import prefetch
from repro.data.augmentation import Windows, color_draws, random_windows
from repro.data.batches import epoch_seed, training_batches
from repro.data.on_gpu import on_gpu, resident
from repro.data.preprocess import Pixels, places_of
from repro.data.store import ImageData
from tests.crops import cut
from tests.tiny import cut_config, tiny_data

IMAGES, SIDE, CROP = 150, 20, 16
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> ImageData:
    return tiny_data(IMAGES, size=SIDE)


@pytest.fixture
def config() -> Config:
    return cut_config(SIDE, CROP, batch=40)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "PART", 7)


def plainly(config: Config, data: ImageData, crops: Tensor, windows: Windows, noise: Tensor | None) -> Tensor:
    """What `Pixels.prepare` must give, bit for bit, in the plainest way: one image after another, NumPy only."""
    mean, border = data.mean, SIDE - CROP
    if config.data.mean is Mean.channel:
        mean = np.broadcast_to(mean.mean(axis=(0, 1)), mean.shape)
    scale = data.pca_vectors * data.pca_deviations
    done = []
    for number, crop in enumerate(crops.permute(0, 2, 3, 1).numpy()):
        top, left, flip = (int(value[number]) for value in (windows.tops, windows.lefts, windows.flips))
        image = crop.astype(np.float32)
        if config.data.mean is Mean.image_centre:
            image, top, left = (image[:, ::-1] if flip else image), border // 2, border // 2
        image = image - mean[top : top + CROP, left : left + CROP]
        if flip and config.data.mean is not Mean.image_centre:
            image = image[:, ::-1]
        if noise is not None:
            shift = (noise[number : number + 1].double() * config.augment.color_noise_sigma) @ torch.from_numpy(scale).T
            image = (image + shift.float().numpy()) / np.float32(config.augment.color_noise_divisor)
        if config.data.unit_variance:
            image = image / data.channel_std.astype(np.float32)
        done.append(image.transpose(2, 0, 1).copy())
    return torch.from_numpy(np.stack(done))


def batch_by_batch(config: Config, data: ImageData, epoch: int) -> list[tuple[Tensor, Tensor]]:
    """The epoch without reading ahead, its draws written out."""
    generator = torch.Generator().manual_seed(epoch_seed(config.seed, epoch, "order"))
    order = torch.randperm(IMAGES, generator=generator).numpy()
    generator.manual_seed(epoch_seed(config.seed, epoch, "augmentation"))
    batches = []
    for indices in np.split(order, range(40, IMAGES, 40)):
        windows = random_windows(config.augment, len(indices), SIDE - CROP, generator)
        noise = color_draws(config.augment, len(indices), generator)
        crops = cut(data.train.images, indices, windows, CROP)
        batches.append((plainly(config, data, crops, windows, noise), torch.from_numpy(data.train.labels[indices])))
    return batches


def assert_same(found: list[tuple[Tensor, Tensor]], expected: list[tuple[Tensor, Tensor]]) -> None:
    for (images, labels), (other_images, other_labels) in zip(found, expected, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


@pytest.mark.parametrize("mean", list(Mean))
@pytest.mark.parametrize("extras", [False, True])
def test_every_batch_is_what_it_was_to_the_bit(mean: Mean, extras: bool, config: Config, data: ImageData) -> None:
    config.data.mean, config.data.unit_variance = mean, extras
    if extras:
        config.augment.color_noise_divisor = 1.1
        config.augment.share = 3
    found = list(training_batches(config, data.train, Pixels(config, data, CPU), 1))
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in found)
    assert_same(found, batch_by_batch(config, data, 1))


@pytest.mark.parametrize("mean", list(Mean))
@pytest.mark.parametrize("noise", [ColorNoise.none, ColorNoise.deviation])
@pytest.mark.parametrize("extras", [False, True])
def test_the_whole_batch_at_once_is_the_same(
    mean: Mean, noise: ColorNoise, extras: bool, config: Config, data: ImageData
) -> None:
    """The way of a GPU, here on the CPU: of whole images, and of crops."""
    config.data.mean, config.augment.color_noise, config.data.unit_variance = mean, noise, extras
    config.augment.color_noise_divisor = 1.1 if extras else 1.0
    pixels, indices = Pixels(config, data, CPU), np.arange(IMAGES)[::-1].copy()
    windows = random_windows(config.augment, IMAGES, pixels.border, torch.Generator().manual_seed(0))
    crops = cut(data.train.images, indices, windows, CROP)
    draws = color_draws(config.augment, IMAGES, torch.Generator().manual_seed(1))
    expected, shifts = pixels.prepare(crops, windows, draws), pixels.shifts(draws)
    whole = torch.from_numpy(np.array(data.train.images))
    found = pixels.prepare_on_device(whole, places_of(indices, windows), shifts)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, expected)
    there = places_of(np.arange(IMAGES), windows)
    assert torch.equal(pixels.prepare_on_device(crops.permute(0, 2, 3, 1), there, shifts), expected)


def test_images_on_the_device_give_the_same_batches(config: Config, data: ImageData) -> None:
    held = on_gpu(data, CPU)
    assert isinstance(held.train.images, Tensor)
    pixels = Pixels(config, held, CPU)
    assert_same(list(training_batches(config, held.train, pixels, 0)), batch_by_batch(config, data, 0))


def test_a_cpu_keeps_the_images_where_they_are(data: ImageData) -> None:
    assert resident(data, CPU) is data


@pytest.mark.parametrize(("free", "moved"), [(4, True), (3, False)])
def test_a_gpu_takes_small_data_sets(free: int, moved: bool, data: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (len(data.train.labels) + len(data.val.labels)) * SIDE * SIDE * 3
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * size, 100 * size))
    monkeypatch.setattr("repro.data.on_gpu.on_gpu", lambda data, device: replace(data, content_hash="moved"))
    assert (resident(data, torch.device("cuda")).content_hash == "moved") == moved


# ---- threads and memory ----------------------------------------------------------------------------------------------


def ahead_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_items_prefetched_are_the_same_and_come_before_their_turn() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number

    found = prefetch.prefetched(items(), 2)
    assert next(found) == 0
    while len(made) < 2:  # the second is made without being asked for
        time.sleep(0.001)
    assert list(found) == [1, 2, 3, 4]
    assert ahead_threads() == []


def test_an_error_of_what_is_prefetched_comes_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise ValueError("no more")

    found = prefetch.prefetched(items(), 3)
    assert next(found) == 0
    with pytest.raises(ValueError, match="no more"):
        next(found)
    assert ahead_threads() == []


def test_what_is_prefetched_ends_with_who_asks() -> None:
    found = prefetch.prefetched(iter(range(100)), 3)
    assert next(found) == 0
    assert ahead_threads() != []
    found.close()  # type: ignore[attr-defined]
    assert ahead_threads() == []


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("crops")]


def test_the_threads_end_with_the_epoch(config: Config, data: ImageData) -> None:
    batches = training_batches(config, data.train, Pixels(config, data, CPU), 0)
    next(batches)
    assert threads()
    assert len(list(batches)) == 3
    assert not threads()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_threads_end_when_the_loop_breaks(error: type[BaseException], config: Config, data: ImageData) -> None:
    def train() -> None:
        for number, _ in enumerate(training_batches(config, data.train, Pixels(config, data, CPU), 0)):
            if number == 1:
                raise error

    with pytest.raises(error):
        train()
    gc.collect()
    assert not threads()


class Broken:
    """A store of which one image cannot be read."""

    shape = (IMAGES, SIDE, SIDE, 3)

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, where: Any) -> np.ndarray:
        if where[0] == 60:
            raise OSError(5, "Input/output error")
        return np.zeros((CROP, CROP, 3), np.uint8)


def test_an_error_in_a_thread_reaches_the_loop(config: Config, data: ImageData) -> None:
    split = replace(data.train, images=Broken())
    with pytest.raises(OSError, match="Input/output error"):
        list(training_batches(config, split, Pixels(config, data, CPU), 0))
    assert not threads()


def test_only_a_few_batches_are_ahead(config: Config, data: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    start = prefetch._start

    def counted(*arguments: Any) -> Any:
        started.append(1)
        return start(*arguments)

    monkeypatch.setattr(prefetch, "_start", counted)
    config.train.batch_size = 10
    batches = training_batches(config, data.train, Pixels(config, data, CPU), 0)
    for taken in range(1, 6):
        next(batches)
        assert len(started) == taken + prefetch.AHEAD


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_is_flat_over_twenty_epochs(config: Config) -> None:
    data = tiny_data(96, size=48)
    config.data.image_size, config.data.crop, config.train.batch_size = 48, 44, 48
    pixels = Pixels(config, data, CPU)

    def epoch(number: int) -> None:
        for _ in training_batches(config, data.train, pixels, number):
            pass

    for number in range(4):
        epoch(number)
    before = resident_bytes()
    for number in range(20):
        epoch(number)
    batch = 48 * 44 * 44 * 3 * 4
    assert resident_bytes() - before < 4 * batch  # twenty epochs made forty
