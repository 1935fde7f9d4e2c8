"""Images that a camera was turned for, and transparent ones: kept as they are unless asked, and told."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from repro.config import DataConfig, Exif, Format, Source, Transparency
from repro.data import pack
from repro.data.store import Counts, open_data
from tests.data.made import SIZE, save_image
from tests.data.test_store import interrupt

Config = Callable[..., DataConfig]
RED, GREEN = (200, 0, 0), (0, 200, 0)


def turn(path: Path, orientation: int) -> None:
    """Gives a file that orientation; its pixels stay."""
    with Image.open(path) as image:
        exif = image.getexif()
        exif[ExifTags.Base.Orientation] = orientation
        image.save(path, exif=exif)


@pytest.fixture
def turned(folder: Path) -> Path:
    """The last validation image, and its left half is red."""
    path = folder / "val/owl/9.png"
    image = Image.new("RGB", (SIZE, SIZE), GREEN)
    image.paste(RED, (0, 0, SIZE // 2, SIZE))
    image.save(path)
    turn(path, 6)  # the top of the scene is at the right
    return path


@pytest.fixture
def transparent(folder: Path) -> Path:
    """The last validation image, and its left half is transparent, with red beneath."""
    path = folder / "val/owl/9.png"
    image = Image.new("RGBA", (SIZE, SIZE), (*GREEN, 255))
    image.paste((*RED, 0), (0, 0, SIZE // 2, SIZE))
    image.save(path)
    return path


def warnings_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]


def test_usual_images_are_counted_too(data_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert open_data(data_config()).counts == Counts(0, 0, 0, 0)
    assert warnings_of(capsys) == []


def test_a_turned_image_is_kept_as_it_lies_and_told_once(
    data_config: Config, turned: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        data = open_data(data_config())
    assert data.counts.exif_oriented == 1
    assert (data.val.images[-1][:, : SIZE // 2] == RED).all()
    (line,) = warnings_of(capsys)
    assert line == (
        f"warning: {store}: not upright as the file holds it (EXIF orientation), and taken so: 1 image;"
        " data.exif=rotate turns them"
    )
    with Image.open(turned) as image:
        Image.fromarray(np.asarray(image)).save(turned)
    upright = open_data(data_config())
    assert (upright.content_hash, upright.counts.exif_oriented) == (data.content_hash, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_where_that_is_wanted(
    data_config: Config, turned: Path, orientation: int, capsys: pytest.CaptureFixture[str]
) -> None:
    turn(turned, orientation)
    data = open_data(data_config(exif=Exif.rotate))
    with Image.open(turned) as image:
        np.testing.assert_array_equal(data.val.images[-1], np.asarray(ImageOps.exif_transpose(image)))
    assert warnings_of(capsys) == []
    kept = open_data(data_config()).content_hash
    assert (data.content_hash == kept) == (orientation in (1, 4))  # in 4 its halves lie as before


def test_damaged_exif_leaves_the_pixels(data_config: Config, folder: Path) -> None:
    path = folder / "val/owl/9.jpg"
    save_image(path, seed=1)
    with Image.open(path) as image:
        image.save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff and more")
    data = open_data(data_config())
    assert (len(data.val.images), data.counts.exif_oriented) == (7, 0)


def test_transparent_pixels_keep_what_is_beneath_and_it_is_told_once(
    data_config: Config, transparent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        data = open_data(data_config())
    assert data.counts.transparent == 1
    assert (data.val.images[-1][:, : SIZE // 2] == RED).all()
    (line,) = warnings_of(capsys)
    assert "with transparent pixels, which keep the colour stored beneath: 1 image; data.transparency=white" in line
    with Image.open(transparent) as image:
        image.convert("RGB").save(transparent)
    opaque = open_data(data_config())
    assert (opaque.content_hash, opaque.counts.transparent) == (data.content_hash, 0)


@pytest.mark.parametrize(
    ("behind", "level"), [(Transparency.white, 255), (Transparency.grey, 128), (Transparency.black, 0)]
)
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_a_colour_behind_them(
    data_config: Config,
    transparent: Path,
    behind: Transparency,
    level: int,
    mode: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Image.open(transparent) as image:
        if mode == "P":
            image.quantize(4).save(transparent)
        else:
            image.convert(mode).save(transparent.with_suffix(".tiff" if mode == "PA" else ".png"))
    if mode == "PA":
        transparent.unlink()
    data = open_data(data_config(transparency=behind))
    square = data.val.images[-1]
    assert (square[:, : SIZE // 2] == level).all()
    assert (square[:, SIZE // 2 :] != level).any()
    assert data.counts.transparent == 1
    assert warnings_of(capsys) == []


def test_an_alpha_of_opaque_pixels_is_no_transparency(data_config: Config, folder: Path) -> None:
    save_image(folder / "val/owl/9.png", seed=7, mode="RGBA")
    assert open_data(data_config()).counts.transparent == 0


@pytest.mark.usefixtures("turned")
def test_a_benchmark_is_counted_and_nothing_told(
    data_config: Config, folder: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.rename(root / "ilsvrc2012")
    assert open_data(data_config(source=Source.ilsvrc2012)).counts.exif_oriented == 1
    assert warnings_of(capsys) == []


@pytest.mark.usefixtures("turned")
@pytest.mark.parametrize("encoding", Format)
def test_counts_outlive_an_interruption(
    data_config: Config, folder: Path, encoding: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "BLOCK_BYTES", 4 * SIZE * SIZE * 3)
    monkeypatch.setattr(pack._Part, "missing_bytes", lambda part: part.missing)
    turn(folder / "train/cat/0.png", 3)
    interrupt(data_config(format=encoding), after=9)
    assert open_data(data_config(format=encoding)).counts.exif_oriented == 2


def test_each_way_has_a_store_of_its_own(data_config: Config, turned: Path, root: Path) -> None:
    for changes in ({}, {"exif": Exif.rotate}, {"exif": Exif.rotate, "transparency": Transparency.white}):
        open_data(data_config(**changes))
    names = {path.name.removeprefix(f"imagefolder-{SIZE}px") for path in (root / ".repro-cache").iterdir()}
    assert names == {"", "-upright", "-upright-on-white"}


def test_a_store_of_before_they_were_counted_serves(data_config: Config, turned: Path, store: Path) -> None:
    before = open_data(data_config()).content_hash
    meta = json.loads((store / "meta.json").read_text())
    del meta["oriented"], meta["transparent"]
    (store / "meta.json").write_text(json.dumps(meta | {"checksum": pack.checksum(meta)}))
    made = (store / "train_images.npy").stat().st_mtime_ns
    data = open_data(data_config())
    assert (data.content_hash, data.counts) == (before, Counts(0, 0, None, None))
    assert (store / "train_images.npy").stat().st_mtime_ns == made
