"""The data set that the package makes itself."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repro.config import DataConfig
from repro.data import embedded
from repro.data.decode import to_square
from repro.data.store import open_data

EVERY = 40  # of the images that are made for the quick tests


def some(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Every 40th image (N, 128, 128, 3) and its label."""
    labels = embedded.labels(split)
    indices = range(0, len(labels), EVERY)
    return np.stack([embedded.make_image(split, index) for index in indices]), np.array(labels)[indices]


def test_size() -> None:
    train, val = (np.bincount(embedded.labels(split)) for split in ("train", "val"))
    assert len(embedded.CLASSES) == len(train) == len(val) == 10
    assert set(train) == {500}
    assert set(val) == {120}
    image = embedded.make_image("train", 0)
    assert (image.shape, image.dtype) == ((128, 128, 3), np.uint8)


def test_same_bytes_on_every_machine() -> None:
    digest = hashlib.sha256()
    for split in ("train", "val"):
        digest.update(some(split)[0])
    assert digest.hexdigest() == "81ed9df22e1b03b1a220a355e1fcfb2a46373eb1a6051a94898124eea161d503"


def test_an_image_does_not_depend_on_the_others() -> None:
    indices = [7, 3, 1199, 3]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda index: embedded.make_image("val", index), indices))
    for index, image in zip(indices, made, strict=True):
        np.testing.assert_array_equal(image, embedded.make_image("val", index))


def test_no_two_images_are_equal() -> None:
    images = np.concatenate([some("train")[0], some("val")[0]])
    assert len({image.tobytes() for image in images}) == len(images)


def test_colour_does_not_tell_the_class() -> None:
    """The nearest class mean, by mean and spread of each colour, errs nearly as often as a guess (90 %)."""

    def describe(images: np.ndarray) -> np.ndarray:
        return np.concatenate([images.mean(axis=(1, 2)), images.std(axis=(1, 2))], axis=1)

    (train, train_labels), (val, val_labels) = some("train"), some("val")
    features, queries = describe(train), describe(val)
    centres = np.stack([features[train_labels == label].mean(axis=0) for label in range(10)])
    distances = (((queries[:, None] - centres) / features.std(axis=0)) ** 2).sum(axis=-1)
    assert (distances.argmin(axis=1) != val_labels).mean() > 0.7


def test_classes_are_contractions_and_differ() -> None:
    codes = embedded.class_codes()
    assert codes.shape == (10, 3, 6)
    assert (np.linalg.norm(codes[:, :, :4], axis=-1) < 1).all()
    assert len({code.tobytes() for code in codes}) == 10


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three images a class instead of 500."""
    monkeypatch.setattr(embedded, "PER_CLASS", {"train": 3, "val": 2})


@pytest.mark.usefixtures("few")
def test_opens_as_any_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = open_data(DataConfig(image_size=40, crop=32))
    assert (tmp_path / "repro/embedded-40px/meta.json").exists()
    assert data.classes == embedded.CLASSES
    assert data.train.images.shape == (30, 40, 40, 3)
    assert data.val.labels.tolist() == [label for label in range(10) for _ in range(2)]
    expected = to_square(Image.fromarray(embedded.make_image("train", 4)), 40)
    np.testing.assert_array_equal(data.train.images[4], expected)


@pytest.mark.usefixtures("few")
def test_a_change_of_its_file_makes_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = DataConfig(image_size=40, crop=32, cache=str(tmp_path))
    open_data(config)
    monkeypatch.setattr(embedded, "fingerprint", lambda: "another")
    open_data(config)
    assert "the images have changed since it was made" in capsys.readouterr().err


@pytest.mark.slow
def test_whole_content_hash(tmp_path: Path) -> None:
    config = DataConfig(image_size=128, crop=112, cache=str(tmp_path))
    assert open_data(config).content_hash == "ad49f0cddbb44a383fe02cadc3b213e572ad65ea59ff1595b9fa9fe1ee308c84"
