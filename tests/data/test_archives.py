"""The official archives of ILSVRC-2012, made tiny."""

import io
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from repro.config import DataConfig, Source
from repro.data import archives
from repro.data.sources import list_images
from repro.data.store import open_data
from repro.errors import UserError
from tests.data.made import SIZE
from tests.forbidden import forbid

WNIDS = ("n02", "n01", "n03")  # in the order of their ILSVRC2012_ID, which is not that of their names
TRAIN, VAL, DEVKIT = archives.NAMES
Config = Callable[..., DataConfig]


def picture(seed: int) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((24, 20)).save(content, "JPEG")
    return content.getvalue()


def tar(files: Mapping[str, bytes], mode: str = "w:") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def devkit(truth: list[int]) -> bytes:
    synsets = np.zeros(4, [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)])
    for row, wnid in enumerate((*WNIDS, "n99")):  # the last is an inner node of WordNet, which has no images
        synsets[row] = (row + 1, wnid, "a thing, a stuff")
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets[:, None]})  # type: ignore[arg-type]
    lines = "".join(f"{number}\n" for number in truth).encode()
    top = "ILSVRC2012_devkit_t12"
    return tar({f"{top}/{archives.META}": meta.getvalue(), f"{top}/{archives.GROUND_TRUTH}": lines}, "w:gz")


@pytest.fixture
def train() -> dict[str, dict[str, bytes]]:
    """Images by class; neither classes nor names come in order."""
    return {
        wnid: {f"{wnid}_{number}.JPEG": picture(10 * place + number) for number in (12, 2, 1)}
        for place, wnid in enumerate(WNIDS)
    }


@pytest.fixture
def val() -> dict[str, bytes]:
    return {f"ILSVRC2012_val_{number:08}.JPEG": picture(100 + number) for number in (2, 1, 3, 4, 5, 6)}


TRUTH = [3, 1, 2, 1, 3, 2]


@pytest.fixture
def place(tmp_path: Path, train: dict[str, dict[str, bytes]], val: dict[str, bytes]) -> Path:
    """A folder with the three archives."""
    folder = tmp_path / "tars/ilsvrc2012"
    folder.mkdir(parents=True)
    (folder / TRAIN).write_bytes(tar({f"{wnid}.tar": tar(images) for wnid, images in train.items()}))
    (folder / VAL).write_bytes(tar(val))
    (folder / DEVKIT).write_bytes(devkit(TRUTH))
    return folder


@pytest.fixture
def unpacked(tmp_path: Path, train: dict[str, dict[str, bytes]], val: dict[str, bytes]) -> Path:
    """The same images in class folders."""
    folder = tmp_path / "folders/ilsvrc2012"
    images = {f"train/{wnid}/{name}": content for wnid, files in train.items() for name, content in files.items()}
    for number, name in zip(TRUTH, sorted(val), strict=True):
        images[f"val/{WNIDS[number - 1]}/{name}"] = val[name]
    for name, content in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def config(folder: Path) -> DataConfig:
    return DataConfig(source=Source.ilsvrc2012, root=str(folder.parent), image_size=SIZE, crop=SIZE)


def test_archives_and_class_folders_are_the_same_data_set(place: Path, unpacked: Path) -> None:
    packed, loose = list_images(config(place)), list_images(config(unpacked))
    assert packed.classes == ("n01", "n02", "n03")
    assert (packed.classes, packed.fingerprint) == (loose.classes, loose.fingerprint)
    for ours, theirs in ((packed.train, loose.train), (packed.val, loose.val)):
        assert (ours.names, ours.labels) == (theirs.names, theirs.labels)
    here, there = open_data(config(place)), open_data(config(unpacked))
    assert here.content_hash == there.content_hash
    np.testing.assert_array_equal(here.val.images[:], there.val.images[:])


def test_the_store_serves_after_unpacking(place: Path, unpacked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = open_data(config(place)).content_hash
    for split in ("train", "val"):
        (unpacked / split).rename(place / split)
    capsys.readouterr()
    assert open_data(config(place)).content_hash == before
    assert capsys.readouterr().err == ""


def test_the_index_is_made_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = list_images(config(place))
    assert capsys.readouterr().err.startswith("Reading through the archives")
    second = list_images(config(place))
    assert capsys.readouterr().err == ""
    assert (second.train.names, second.fingerprint) == (first.train.names, first.fingerprint)
    assert second.train.open(4).getpixel((0, 0)) == first.train.open(4).getpixel((0, 0))


def test_a_changed_archive_is_indexed_again(place: Path, val: dict[str, bytes]) -> None:
    before = list_images(config(place)).fingerprint
    changed = {name: content + b"\0" * 600 for name, content in val.items()}
    (place / VAL).write_bytes(tar(changed))
    assert list_images(config(place)).fingerprint != before


def test_a_damaged_index_is_made_again(place: Path) -> None:
    before = list_images(config(place)).fingerprint
    (place.parent / ".repro-cache/ilsvrc2012-archives.npz").write_bytes(b"nothing")
    assert list_images(config(place)).fingerprint == before


@pytest.mark.parametrize("name", archives.NAMES)
def test_a_missing_archive(place: Path, name: str) -> None:
    (place / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing: download it"):
        list_images(config(place))


@pytest.mark.parametrize("name", archives.NAMES)
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_truncated_archive(place: Path, name: str, share: float) -> None:
    os.truncate(place / name, int((place / name).stat().st_size * share))
    with pytest.raises(UserError, match=rf"{name} (is truncated or damaged|holds \d images)") as caught:
        list_images(config(place))
    assert "\n" not in str(caught.value)


def test_fewer_images_than_the_ground_truth_has_lines(place: Path) -> None:
    (place / DEVKIT).write_bytes(devkit([*TRUTH, 1]))
    with pytest.raises(UserError, match=r"holds 6 images, but .* names the classes of 7"):
        list_images(config(place))


def test_a_class_without_training_images(place: Path, train: dict[str, dict[str, bytes]]) -> None:
    del train["n03"]
    (place / TRAIN).write_bytes(tar({f"{wnid}.tar": tar(images) for wnid, images in train.items()}))
    with pytest.raises(UserError, match=r"holds 2 classes and .* images of 3, 2 of them the same"):
        list_images(config(place))


def test_a_development_kit_without_its_files(place: Path) -> None:
    (place / DEVKIT).write_bytes(tar({"kit/readme.txt": b"nothing"}, "w:gz"))
    with pytest.raises(UserError, match=r"there is no data/meta\.mat in it"):
        list_images(config(place))


def test_an_empty_ground_truth(place: Path) -> None:
    (place / DEVKIT).write_bytes(devkit([]))
    with pytest.raises(UserError, match=r"holds 6 images, but .* names the classes of 0"):
        list_images(config(place))


@pytest.mark.parametrize("name", archives.NAMES)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty: download it again"),
        (b"no archive at all", "is truncated or damaged"),
        (tar({}), "in it): down"),
    ],
    ids=["no bytes", "no archive", "no files"],
)
def test_an_archive_without_content(place: Path, name: str, content: bytes, said: str) -> None:
    (place / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        list_images(config(place))
    assert str(caught.value).startswith(f"{place / name} is ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_that_the_development_kit_does_not_know(place: Path) -> None:
    (place / DEVKIT).write_bytes(devkit([*TRUTH[:-1], 77]))
    with pytest.raises(UserError, match=r"names a class 77, which is none of the 4 of data/meta\.mat: download it"):
        list_images(config(place))


def test_files_that_do_not_belong_into_an_archive(
    place: Path, train: dict[str, dict[str, bytes]], val: dict[str, bytes]
) -> None:
    classes = {f"{wnid}.tar": tar(images) for wnid, images in train.items()}
    whole = (place / TRAIN).read_bytes()
    for extra, named in (({"readme.txt": b"hello"}, "readme.txt"), ({"n02.tar": tar({"a.txt": b"hello"})}, "a.txt")):
        (place / TRAIN).write_bytes(tar(classes | extra))
        with pytest.raises(UserError, match=rf"{TRAIN}(/n02.tar)? holds {named}, which the original does not"):
            list_images(config(place))
    (place / TRAIN).write_bytes(whole)
    (place / VAL).write_bytes(tar(val | {"labels.txt": b"hello"}))
    with pytest.raises(UserError, match=rf"{VAL} holds labels.txt, which the original does not"):
        list_images(config(place))


def test_hidden_files_in_archives_are_passed_over(
    place: Path, train: dict[str, dict[str, bytes]], val: dict[str, bytes]
) -> None:
    before = list_images(config(place)).fingerprint
    hidden = {"._a.JPEG": b"of a Mac"}
    classes = {f"{wnid}.tar": tar(hidden | images) for wnid, images in train.items()}
    (place / TRAIN).write_bytes(tar({"._n01.tar": b"of a Mac"} | classes))
    (place / VAL).write_bytes(tar(val | hidden))
    assert list_images(config(place)).fingerprint == before


def test_a_damaged_archive_of_a_class_is_named(place: Path, train: dict[str, dict[str, bytes]]) -> None:
    classes = {f"{wnid}.tar": tar(images) for wnid, images in train.items()}
    (place / TRAIN).write_bytes(tar(classes | {"n03.tar": b"no archive"}))
    with pytest.raises(UserError, match=rf"{TRAIN} is truncated or damaged \(n03\.tar: "):
        list_images(config(place))


def test_an_index_that_cannot_be_read_is_kept_elsewhere(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    forbid(monkeypatch, place.parent / ".repro-cache")
    expected = list_images(config(place)).fingerprint
    assert capsys.readouterr().err.startswith("Reading through")
    assert list_images(config(place)).fingerprint == expected
    assert capsys.readouterr().err == ""
    assert [path.name[:20] for path in (tmp_path / "mine/repro").iterdir()] == ["ilsvrc2012-archives."]
