"""ImageArray kept as JPEG files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from repro.config import Config as RunConfig
from repro.config import DataConfig, Format
from repro.config_checks import check
from repro.data import pack
from repro.data.augmentation import random_windows
from repro.data.image_arrays import JpegSquares, encode
from repro.data.store import ImageData, open_data
from repro.errors import RunFailure, UserError
from tests.crops import cut
from tests.data.made import SIZE, save_image
from tests.data.test_store import files, interrupt

Config = Callable[..., DataConfig]


@pytest.fixture
def jpeg_config(data_config: Config) -> Config:
    return lambda **changes: data_config(**({"format": Format.jpeg} | changes))


@pytest.fixture
def jpeg_store(root: Path) -> Path:
    return root / f".repro-cache/imagefolder-{SIZE}px-jpeg95"


def everything(data: ImageData) -> np.ndarray:
    return np.concatenate([data.train.images[:], data.val.images[:]]).astype(np.int64)


def test_the_pixels_are_nearly_those_of_the_raw_store(data_config: Config, jpeg_config: Config) -> None:
    raw, coded = open_data(data_config()), open_data(jpeg_config())
    assert coded.train.images.shape == raw.train.images.shape
    np.testing.assert_array_equal(coded.train.labels, raw.train.labels)
    off = np.abs(everything(coded) - everything(raw))
    assert 0 < off.mean() < 8  # these colours change faster than a photograph's
    worse = np.abs(everything(open_data(jpeg_config(jpeg_quality=30))) - everything(raw))
    assert worse.mean() > off.mean()


def test_content_hash_and_folder_tell_coding_and_quality(data_config: Config, jpeg_config: Config, root: Path) -> None:
    configs = data_config(), jpeg_config(), jpeg_config(jpeg_quality=90)
    assert len({open_data(config).content_hash for config in configs}) == 3
    names = {path.name for path in (root / ".repro-cache").iterdir()}
    assert names == {f"imagefolder-{SIZE}px{end}" for end in ("", "-jpeg95", "-jpeg90")}


def test_statistics_are_of_the_decoded_pixels(jpeg_config: Config) -> None:
    data = open_data(jpeg_config())
    np.testing.assert_array_equal(data.mean, data.train.images[:].astype(np.float64).mean(axis=0).astype(np.float32))
    pixels = data.train.images[:].reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(data.channel_std, pixels.std(axis=0), rtol=1e-12)


def test_it_is_read_as_an_array_is(jpeg_config: Config) -> None:
    images = open_data(jpeg_config()).train.images
    whole = images[:]
    np.testing.assert_array_equal(images[7], whole[7])
    np.testing.assert_array_equal(images[7, 2:9, 3:10], whole[7, 2:9, 3:10])
    np.testing.assert_array_equal(images[3:5, 1:4], whole[3:5, 1:4])


def test_crops_are_those_of_the_decoded_pixels(jpeg_config: Config) -> None:
    import torch

    images = open_data(jpeg_config()).train.images
    windows = random_windows(RunConfig().augment, 15, 4, torch.Generator().manual_seed(0))
    indices = np.arange(15)[::-1].copy()
    assert isinstance(images, JpegSquares)
    assert torch.equal(cut(images, indices, windows, SIZE - 4), cut(images[:], indices, windows, SIZE - 4))


@pytest.mark.parametrize("images", [0, 7, 17, 20])
def test_goes_on_where_it_was(
    jpeg_config: Config,
    jpeg_store: Path,
    images: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pack, "BLOCK_BYTES", 4 * SIZE * SIZE * 3)
    monkeypatch.setattr(pack, "SAMPLE", 1)
    whole = jpeg_config(cache=str(jpeg_store.parent / "whole"))
    expected = open_data(whole).content_hash
    monkeypatch.setattr(pack._Part, "missing_bytes", lambda part: part.missing)  # reads images too
    interrupt(jpeg_config(), after=images)
    assert not (jpeg_store / "meta.json").exists()
    capsys.readouterr()
    assert open_data(jpeg_config()).content_hash == expected
    assert ("going on after" in capsys.readouterr().err) == (images > 4)
    assert files(jpeg_store) == files(jpeg_store.parent / "whole" / jpeg_store.name)


def test_bad_images_are_left_out(jpeg_config: Config, folder: Path) -> None:
    (folder / "train/cat/1.png").write_text("a text")
    with pytest.raises(UserError, match="1 image cannot be read"):
        open_data(jpeg_config())
    skipped = open_data(jpeg_config(skip_bad=True))
    assert (skipped.skipped, skipped.train.images.shape[0]) == (("train/cat/1.png",), 14)


def test_a_damaged_file_is_found(jpeg_config: Config, jpeg_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = open_data(jpeg_config()).content_hash
    content = bytearray((jpeg_store / "train_ends.npy").read_bytes())
    content[-8] ^= 1
    (jpeg_store / "train_ends.npy").write_bytes(content)
    assert open_data(jpeg_config()).content_hash == before
    assert "train_ends.npy is damaged (its hash has changed)" in capsys.readouterr().err


def test_an_image_that_cannot_be_decoded() -> None:
    file = np.frombuffer(encode(np.zeros((8, 8, 3), np.uint8), 95), np.uint8)
    images = JpegSquares(np.concatenate([file, file[:20]]), np.array([len(file), len(file) + 20]), 8)
    assert not images[0].any()
    with pytest.raises(RunFailure, match="packed image 1 cannot be decoded"):
        images[1]


def test_a_disk_too_small_for_squares_is_told_of_jpeg(
    data_config: Config, jpeg_config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    for index in range(3):
        save_image(folder / f"train/cat/big{index}.png", index, size=(200, 200))
    monkeypatch.setattr("repro.data.pack.shutil.disk_usage", lambda _: SimpleNamespace(free=100_000))
    with pytest.raises(RunFailure, match=r"set data\.format=jpeg"):
        open_data(data_config(image_size=128))
    assert open_data(jpeg_config(image_size=128)).train.images.shape == (18, 128, 128, 3)


def test_an_old_preparation_cannot_be_checked_and_starts_again(
    data_config: Config, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pack, "BLOCK_BYTES", 4 * SIZE * SIZE * 3)
    interrupt(data_config(), after=9)
    saved = json.loads((store / "progress.json").read_text())
    old = {name: {"seen": 8, "bad": {}, "rows": 8} for name in ("train", "val")}
    (store / "progress.json").write_text(json.dumps({"format": 1, "fingerprint": saved["fingerprint"], **old}))
    capsys.readouterr()
    assert len(open_data(data_config()).train.labels) == 15
    assert "going on" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "match"),
    [({"jpeg_quality": 90}, "changes nothing"), ({"jpeg_quality": 0}, "at least 1 and at most 100")],
)
def test_settings_that_cannot_be(changes: dict[str, int], match: str) -> None:
    config = RunConfig()
    config.data.jpeg_quality = changes["jpeg_quality"]
    with pytest.raises(UserError, match=match):
        check(config)
