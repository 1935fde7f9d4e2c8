"""Packing images, opening them again, and what happens when that is interrupted or the files are damaged."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from repro.config import DataConfig, Format, Source
from repro.data import appendable, embedded, pack
from repro.data import store as store_module
from repro.data.cache_folders import possible_places
from repro.data.decode import decode, to_square
from repro.data.store import ImageData, open_data
from repro.errors import RunFailure, UserError
from tests.data.made import CLASSES, SIZE, save_image
from tests.forbidden import forbid, refuse_to_open

Config = Callable[..., DataConfig]


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a store but its lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images a block instead of thousands."""
    monkeypatch.setattr(pack, "BLOCK_BYTES", 4 * SIZE * SIZE * 3)


def interrupt(config: DataConfig, after: int) -> None:
    """Starts a preparation that reads so many images and then ends as Ctrl-C ends it."""
    lock, read = threading.Lock(), []

    def read_or_stop(*arguments: Any) -> Any:
        with lock:
            read.append(1)
            if len(read) > after:
                raise KeyboardInterrupt
        return decode(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "decode", read_or_stop)
        with pytest.raises(KeyboardInterrupt):
            open_data(config)


class TestOpen:
    """What a prepared data set holds."""

    def test_images_and_labels(self, data_config: Config, folder: Path) -> None:
        data = open_data(data_config())
        assert data.classes == CLASSES
        assert isinstance(data.train.images, np.memmap)
        assert (data.train.images.shape, data.train.images.dtype) == ((15, SIZE, SIZE, 3), np.uint8)
        assert (data.val.images.shape, data.skipped) == ((6, SIZE, SIZE, 3), ())
        assert (data.val.labels.tolist(), data.val.labels.dtype) == ([0, 0, 1, 1, 2, 2], np.int64)
        with Image.open(folder / "train/dog/1.png") as image:
            np.testing.assert_array_equal(data.train.images[6], to_square(image, SIZE))

    @pytest.mark.parametrize("encoding", Format)
    def test_images_in_both_splits_are_told_once(
        self, encoding: Format, data_config: Config, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = data_config(format=encoding)
        open_data(config)
        assert "warning" not in capsys.readouterr().err
        with Image.open(folder / "train/dog/1.png") as image:
            image.save(folder / "val/cat/0.bmp")  # other bytes, another name and class, the same pixels
        for _ in range(2):
            assert open_data(config).counts.val_images_in_train == 1
        told = capsys.readouterr().err
        assert told.count("warning: ") == 1
        assert "of 7 validation images the training set holds 1 too, pixel for pixel" in told

    def test_statistics(self, data_config: Config) -> None:
        data = open_data(data_config())
        images = np.array(data.train.images, np.float64)
        assert data.mean.dtype == np.float32
        np.testing.assert_array_equal(data.mean, images.mean(axis=0).astype(np.float32))
        pixels = images.reshape(-1, 3)
        np.testing.assert_allclose(data.channel_std, pixels.std(axis=0), rtol=1e-12)
        rebuilt = data.pca_vectors @ np.diag(data.pca_deviations**2) @ data.pca_vectors.T
        np.testing.assert_allclose(rebuilt, np.cov(pixels.T, bias=True), rtol=1e-9)
        assert (np.diff(data.pca_deviations) < 0).all()
        assert (data.pca_vectors.max(axis=0) == np.abs(data.pca_vectors).max(axis=0)).all()

    def test_is_prepared_once(self, data_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
        first = open_data(data_config())
        assert capsys.readouterr().err.startswith(
            f"Preparing 21 images of imagefolder at {SIZE} pixels (1.5e-05 GiB) in "
        )
        second = open_data(data_config())
        assert capsys.readouterr().err == ""
        assert second.content_hash == first.content_hash
        np.testing.assert_array_equal(second.mean, first.mean)

    def test_content_hash_is_of_the_content(self, data_config: Config, root: Path, tmp_path: Path) -> None:
        here = open_data(data_config()).content_hash
        moved = root.rename(tmp_path.with_name(tmp_path.name + "-moved"))
        config = data_config(root=str(moved))
        assert open_data(data_config(root=str(moved), cache=str(moved / "elsewhere"))).content_hash == here
        (moved / "imagefolder/train/owl").rename(moved / "imagefolder/train/hen")
        (moved / "imagefolder/val/owl").rename(moved / "imagefolder/val/hen")
        renamed = open_data(config).content_hash
        save_image(moved / "imagefolder/val/hen/0.png", seed=99)
        assert len({here, renamed, open_data(config).content_hash}) == 3


class TestPlace:
    """Where the packed images go."""

    def test_next_to_the_data(self, data_config: Config, store: Path) -> None:
        open_data(data_config())
        assert (store / "meta.json").exists()

    def test_data_cache(self, data_config: Config, root: Path) -> None:
        open_data(data_config(cache=str(root / "fast disk")))
        assert (root / "fast disk" / f"imagefolder-{SIZE}px" / "meta.json").exists()
        assert not (root / ".repro-cache").exists()

    def test_user_cache_where_the_data_is_read_only(
        self, data_config: Config, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "user cache"))
        monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(root))
        first = open_data(data_config())
        assert "cannot be written: the packed images go to" in capsys.readouterr().err
        assert open_data(data_config()).content_hash == first.content_hash
        assert capsys.readouterr().err == ""
        assert len(list((root.parent / "user cache/repro").glob(f"imagefolder-{SIZE}px-*"))) == 1

    def test_without_a_home(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", no_home)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr(embedded, "PER_CLASS", {"train": 1, "val": 1})
        open_data(DataConfig(image_size=SIZE, crop=SIZE))
        assert (tmp_path / f"repro-{os.getuid()}/embedded-{SIZE}px/meta.json").exists()

    def test_without_a_home_or_a_temporary_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store_module, "possible_places", lambda *_: possible_places(DataConfig(), None, "name"))
        monkeypatch.setattr("repro.data.cache_folders.user_caches", list)
        with pytest.raises(UserError, match=r"set data\.cache to a folder"):
            open_data(DataConfig(image_size=SIZE, crop=SIZE))

    def test_unreadable_home(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        home = tmp_path / "another's"
        monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr(embedded, "PER_CLASS", {"train": 1, "val": 1})
        forbid(monkeypatch, home)
        config = DataConfig(image_size=SIZE, crop=SIZE)
        first = open_data(config).content_hash
        own = tmp_path / f"repro-{os.getuid()}/embedded-{SIZE}px"
        told = f"{home}/.cache/repro/embedded-{SIZE}px cannot be written: the packed images go to {own}"
        assert capsys.readouterr().err.splitlines()[0] == told
        assert open_data(config).content_hash == first
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("stale", [False, True])
    def test_cache_of_another_user(
        self,
        data_config: Config,
        folder: Path,
        store: Path,
        stale: bool,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent / "my caches"))
        before = open_data(data_config()).content_hash
        if stale:  # it can be read, and nothing else
            save_image(folder / "val/cat/1.png", seed=99)
            monkeypatch.setattr(os, "access", lambda path, mode: store not in (Path(path), *Path(path).parents))
        else:
            forbid(monkeypatch, store)
        capsys.readouterr()
        after = open_data(data_config()).content_hash
        assert capsys.readouterr().err.startswith(f"{store} cannot be written: the packed images go to ")
        assert open_data(data_config()).content_hash == after
        assert capsys.readouterr().err == ""
        assert (after != before) == stale

    @pytest.mark.parametrize("name", ["meta.json", "train_images.npy", "mean.npy"])
    def test_file_that_cannot_be_read(
        self, data_config: Config, store: Path, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = open_data(data_config()).content_hash
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            refuse_to_open(patch, store / name)
            assert open_data(data_config()).content_hash == before
        reason, *_ = capsys.readouterr().err.splitlines()
        assert reason.startswith(f"{store}: {name} cannot be read (")
        assert "Permission denied" in reason

    def test_lock_of_another_user(
        self, data_config: Config, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(store.parent / "my caches"))
        store.mkdir(parents=True)
        (store / ".lock").touch()
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != store / ".lock")
        open_data(data_config())
        assert f"the packed images go to {store.parent}/my caches" in capsys.readouterr().err

    def test_disk_that_does_not_keep_what_is_written(
        self, data_config: Config, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        prepare = store_module.prepare

        def prepare_badly(folder: Path, *arguments: Any) -> int:
            packed = prepare(folder, *arguments)
            os.truncate(folder / "mean.npy", 100)
            return packed

        monkeypatch.setattr(store_module, "prepare", prepare_badly)
        with pytest.raises(RunFailure, match=r"mean.npy has 100 bytes instead of \d+, just after it was made"):
            open_data(data_config())

    @pytest.mark.parametrize("place", [".", "below"])
    def test_cache_that_is_a_file(self, data_config: Config, folder: Path, place: str) -> None:
        file = folder / "val/cat/0.png"
        with pytest.raises(RunFailure) as caught:
            open_data(data_config(cache=str(file / place)))
        assert str(caught.value).endswith(
            f"cannot write the packed images ({file} is a file): set data.cache to another folder"
        )


class TestInterrupted:
    """A preparation that did not come to its end."""

    @pytest.mark.parametrize("images", [0, 7, 17, 20])
    @pytest.mark.usefixtures("small_blocks")
    def test_goes_on_where_it_was(
        self, data_config: Config, store: Path, images: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        expected = open_data(data_config(cache=str(store.parent / "whole"))).content_hash
        interrupt(data_config(), after=images)
        assert not (store / "meta.json").exists()
        capsys.readouterr()
        assert open_data(data_config()).content_hash == expected
        blocks = {0: 0, 7: 4, 17: 15, 20: 19}[images]  # whole blocks of four, of 15 and of 6 images
        assert capsys.readouterr().err.strip().endswith(f"once, going on after {blocks}" if blocks else "once")
        assert files(store) == files(store.parent / "whole" / store.name)

    def test_survives_sigkill(self, data_config: Config, store: Path) -> None:
        expected = open_data(data_config(cache=str(store.parent / "whole"))).content_hash
        script = (
            "import os, signal, sys; from repro.config import DataConfig, Source; from repro.data import pack, store\n"
            f"pack.BLOCK_BYTES = {4 * SIZE * SIZE * 3}; write = pack.replace_file\n"
            "def kill_at_second(path, content):\n"
            "    write(path, content)\n"
            "    if b'\"seen\": 8' in content: os.kill(os.getpid(), signal.SIGKILL)\n"
            "pack.replace_file = kill_at_second\n"
            f"store.open_data(DataConfig(source=Source.imagefolder, root=sys.argv[1], image_size={SIZE}))\n"
        )
        root = data_config().root or ""
        killed = subprocess.run([sys.executable, "-c", script, root], capture_output=True, check=False, timeout=60)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert json.loads((store / "progress.json").read_text())["train"]["seen"] == 8
        assert open_data(data_config()).content_hash == expected

    @pytest.mark.usefixtures("small_blocks")
    def test_other_images_start_afresh(
        self, data_config: Config, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        interrupt(data_config(), after=9)
        save_image(folder / "train/cat/0.png", seed=99)
        data = open_data(data_config())
        assert "going on" not in capsys.readouterr().err
        with Image.open(folder / "train/cat/0.png") as image:
            np.testing.assert_array_equal(data.train.images[0], to_square(image, SIZE))

    @pytest.mark.usefixtures("small_blocks")
    def test_unreadable_progress_starts_afresh(self, data_config: Config, store: Path) -> None:
        interrupt(data_config(), after=9)
        with pytest.MonkeyPatch.context() as patch:
            refuse_to_open(patch, store / "progress.json")
            assert len(open_data(data_config()).train.images) == 15

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1, "fingerprint": "x"}'])
    def test_damaged_progress_starts_afresh(self, data_config: Config, store: Path, content: str) -> None:
        store.mkdir(parents=True)
        (store / "progress.json").write_text(content)
        assert len(open_data(data_config()).train.images) == 15

    @pytest.mark.parametrize("encoding", Format)
    @pytest.mark.usefixtures("small_blocks")
    def test_rows_damaged_meanwhile_start_afresh(
        self, data_config: Config, store: Path, encoding: Format, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = data_config(format=encoding)
        place = store if encoding is Format.raw else store.with_name(f"{store.name}-jpeg95")
        expected = open_data(data_config(format=encoding, cache=str(store.parent / "whole"))).content_hash
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pack._Part, "missing_bytes", lambda part: part.missing)  # reads images too
            interrupt(config, after=18)
        content = bytearray((place / "train_images.npy").read_bytes())
        content[len(content) // 2] ^= 1
        (place / "train_images.npy").write_bytes(content)
        capsys.readouterr()
        assert open_data(config).content_hash == expected
        line, going_on = capsys.readouterr().err.splitlines()
        assert line == f"{place}: train_images.npy was damaged after the preparation was interrupted; starting again"
        assert "going on" not in going_on

    @pytest.mark.parametrize("change", [{"seen": 9}, {"bad": {"0": "not an image"}}])
    @pytest.mark.usefixtures("small_blocks")
    def test_progress_changed_meanwhile_starts_afresh(
        self, data_config: Config, store: Path, change: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        expected = open_data(data_config(cache=str(store.parent / "whole"))).content_hash
        interrupt(data_config(), after=13)
        saved = json.loads((store / "progress.json").read_text())
        (store / "progress.json").write_text(json.dumps(saved | {"train": saved["train"] | change}))
        assert open_data(data_config()).content_hash == expected
        assert "going on" not in capsys.readouterr().err

    @pytest.mark.usefixtures("small_blocks")
    def test_lost_rows_start_afresh(self, data_config: Config, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        interrupt(data_config(), after=13)
        os.truncate(store / "train_images.npy", 1000)
        open_data(data_config())
        assert "going on" not in capsys.readouterr().err

    def test_disk_too_small(self, data_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("repro.data.pack.shutil.disk_usage", lambda _: SimpleNamespace(free=2**30))
        with pytest.raises(RunFailure, match=r"need 3\.76 GiB and 1 GiB are free: .*data\.cache"):
            open_data(data_config(image_size=8000))

    def test_disk_full(self, data_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(appendable, "sync", full)
            with pytest.raises(RunFailure, match=r"\(No space left on device\): free some space.*is kept"):
                open_data(data_config())
        assert len(open_data(data_config()).train.images) == 15

    def test_two_processes_prepare_one_store(self, data_config: Config) -> None:
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            hashes = pool.map(content_hash, [asdict(data_config())] * 2)
        assert hashes == [open_data(data_config()).content_hash] * 2


def content_hash(config: dict[str, Any]) -> str:
    """For a process of its own."""
    return open_data(DataConfig(**config)).content_hash


class TestDamaged:
    """A store that cannot be trusted is made again, and one line says why."""

    def reopened(self, config: DataConfig, store: Path, capsys: pytest.CaptureFixture[str]) -> tuple[ImageData, str]:
        """The data after preparing it again, and the reason given."""
        capsys.readouterr()
        data = open_data(config)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert lines[1].startswith("Preparing 21 images")
        assert lines[0].startswith(f"{store}: ")
        assert lines[0].endswith("; preparing the images again")
        return data, lines[0].removeprefix(f"{store}: ").removesuffix("; preparing the images again")

    def test_other_format(self, data_config: Config, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        open_data(data_config())
        meta = json.loads((store / "meta.json").read_text())
        (store / "meta.json").write_text(json.dumps({"format": 0, "classes": meta["classes"]}))
        _, reason = self.reopened(data_config(), store, capsys)
        assert reason == "made by another version (format 0, this one is 1)"

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("", "meta.json cannot be read"),
            ("[1]", "made by another version (format None"),
            ('{"format": 1}', "meta.json is damaged"),
        ],
    )
    def test_meta(
        self, data_config: Config, store: Path, capsys: pytest.CaptureFixture[str], content: str, reason: str
    ) -> None:
        open_data(data_config())
        (store / "meta.json").write_text(content)
        assert self.reopened(data_config(), store, capsys)[1].startswith(reason)

    def test_changed_statistics(self, data_config: Config, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = open_data(data_config())
        meta = json.loads((store / "meta.json").read_text())
        meta["pca_deviations"][0] += 1
        (store / "meta.json").write_text(json.dumps(meta))
        after, reason = self.reopened(data_config(), store, capsys)
        assert reason == "meta.json is damaged (its checksum is wrong)"
        np.testing.assert_array_equal(after.pca_deviations, before.pca_deviations)

    @pytest.mark.parametrize("name", pack.ARRAYS)
    def test_missing_array(
        self, data_config: Config, store: Path, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        before = open_data(data_config()).content_hash
        (store / f"{name}.npy").unlink()
        after, reason = self.reopened(data_config(), store, capsys)
        assert (after.content_hash, reason) == (before, f"{name}.npy is missing")

    @pytest.mark.parametrize("name", pack.ARRAYS)
    def test_changed_byte(
        self, data_config: Config, store: Path, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        before = open_data(data_config()).content_hash
        content = bytearray((store / f"{name}.npy").read_bytes())
        content[-1] ^= 1
        (store / f"{name}.npy").write_bytes(content)
        after, reason = self.reopened(data_config(), store, capsys)
        assert (after.content_hash, reason) == (before, f"{name}.npy is damaged (its hash has changed)")

    def test_truncated_array(self, data_config: Config, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        open_data(data_config())
        whole = (store / "train_images.npy").stat().st_size
        os.truncate(store / "train_images.npy", whole - 1)
        _, reason = self.reopened(data_config(), store, capsys)
        assert reason == f"train_images.npy has {whole - 1} bytes instead of {whole}"

    def test_damaged_header(self, data_config: Config, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        open_data(data_config())
        with (store / "val_images.npy").open("r+b") as file:
            file.write(b"nothing")
        assert self.reopened(data_config(), store, capsys)[1].startswith("val_images.npy is damaged (")

    def test_changed_images(
        self, data_config: Config, folder: Path, store: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = open_data(data_config())
        mapped = np.array(before.val.images)
        save_image(folder / "val/cat/1.png", seed=99)
        after, reason = self.reopened(data_config(), store, capsys)
        assert reason == "the images have changed since it was made"
        assert after.content_hash != before.content_hash
        np.testing.assert_array_equal(before.val.images, mapped)  # who has the old store open keeps it


@pytest.fixture
def some_real_images(real_images: Path, tmp_path: Path) -> Path:
    """A few files of CIFAR-10 and of Imagenette, linked into a folder of their own."""
    for source, val in (("cifar10", "test"), ("imagenette", "val")):
        for split, count in (("train", 12), (val, 6)):
            for place in sorted((real_images / source / split).iterdir())[:3]:
                target = tmp_path / source / split / place.name
                target.mkdir(parents=True)
                for path in sorted(place.iterdir())[:count]:
                    (target / path.name).symlink_to(path)
    return tmp_path


@pytest.mark.parametrize(("source", "size"), [(Source.cifar10, 32), (Source.imagenette, 146), (Source.imagenette, 256)])
def test_real_images(some_real_images: Path, source: Source, size: int) -> None:
    data = open_data(DataConfig(source=source, root=str(some_real_images), image_size=size))
    assert data.train.images.shape == (36, size, size, 3)
    assert data.val.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    pixels = data.train.images[:].reshape(-1, 3).astype(np.float64)
    covariance = np.cov(pixels.T, bias=True)
    np.testing.assert_allclose(data.pca_deviations**2, np.linalg.eigvalsh(covariance)[::-1], rtol=1e-9)
    np.testing.assert_allclose(data.pca_vectors.T @ data.pca_vectors, np.eye(3), atol=1e-12)
    assert (data.pca_vectors[:, 0] > 0.4).all()  # brightness comes first in photographs
