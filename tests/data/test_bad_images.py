"""Image files that are damaged, and unusual ones that are not."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repro.config import DataConfig
from repro.data.store import open_data
from repro.errors import UserError
from tests.data.made import SIZE, save_image

Config = Callable[..., DataConfig]


def truncate(path: Path) -> None:
    """A photograph of which the second half is lost."""
    save_image(path, seed=1, size=(200, 100))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.fixture
def bad(folder: Path) -> dict[str, str]:
    """Four bad files in the folder, in the order of the listing, and what is wrong with each."""
    truncate(folder / "train/cat/half.jpg")
    (folder / "train/dog/text.jpg").write_text("a text")
    (folder / "train/owl/empty.png").touch()
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(folder / "val/cat/deep.png")
    return {
        "train/cat/half.jpg": "truncated",
        "train/dog/text.jpg": "not an image",
        "train/owl/empty.png": "not an image",
        "val/cat/deep.png": "pixels of mode I;16, not of 8 bits a channel",
    }


def test_all_bad_files_are_named(data_config: Config, store: Path, bad: dict[str, str]) -> None:
    with pytest.raises(UserError) as caught:
        open_data(data_config())
    summary, *lines = str(caught.value).splitlines()
    listed = store / "bad_files.txt"
    assert summary == f"4 images cannot be read: replace what is bad, or set data.skip_bad=true ({listed})"
    for line, (name, reason) in zip(lines, bad.items(), strict=True):
        assert line.startswith(f"  {name}: ")
        assert reason in line
    assert listed.read_text().splitlines() == [line.strip() for line in lines]
    assert not (store / "meta.json").exists()


def test_twenty_are_shown_and_all_are_filed(data_config: Config, folder: Path, store: Path) -> None:
    for index in range(25):
        (folder / f"train/cat/bad{index:02}.jpg").write_text("a text")
    with pytest.raises(UserError) as caught:
        open_data(data_config())
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  and 5 more"
    assert len((store / "bad_files.txt").read_text().splitlines()) == 25


def test_skip_bad_leaves_them_out(data_config: Config, folder: Path, bad: dict[str, str]) -> None:
    (folder / "val/owl/notes.txt").write_text("not an image by its name")
    data = open_data(data_config(skip_bad=True))
    assert data.skipped == ("val/owl/notes.txt", *bad)
    assert (data.train.images.shape, data.val.images.shape) == ((15, SIZE, SIZE, 3), (6, SIZE, SIZE, 3))
    assert data.train.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert open_data(data_config(skip_bad=True)).skipped == data.skipped
    for name in data.skipped:
        (folder / name).unlink()
    clean = open_data(data_config())
    assert (clean.skipped, clean.content_hash) == ((), data.content_hash)


def test_images_beside_bad_ones_keep_their_labels(data_config: Config, folder: Path) -> None:
    (folder / "train/cat/1.png").write_text("a text")
    skipped = open_data(data_config(skip_bad=True, cache=str(folder / ".skipped")))
    (folder / "train/cat/1.png").unlink()
    clean = open_data(data_config())
    np.testing.assert_array_equal(skipped.train.images, clean.train.images)
    np.testing.assert_array_equal(skipped.train.labels, clean.train.labels)


@pytest.mark.usefixtures("bad")
def test_skip_bad_after_the_error_reads_nothing_again(data_config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError):
        open_data(data_config())
    capsys.readouterr()
    assert len(open_data(data_config(skip_bad=True)).skipped) == 4
    assert "going on after 25" in capsys.readouterr().err


def test_a_store_with_skipped_files_needs_skip_bad(data_config: Config, bad: dict[str, str]) -> None:
    open_data(data_config(skip_bad=True))
    with pytest.raises(UserError, match="leaves out 4 bad files") as caught:
        open_data(data_config())
    assert all(name in str(caught.value) for name in bad)


def test_a_file_repaired_in_place_is_read(data_config: Config, folder: Path) -> None:
    path = folder / "train/cat/0.png"
    whole = path.read_bytes()
    path.write_bytes(b"x" * len(whole))  # the size does not tell
    with pytest.raises(UserError):
        open_data(data_config())
    path.write_bytes(whole)
    assert len(open_data(data_config()).train.images) == 15


def test_a_class_of_bad_files_only(data_config: Config, folder: Path) -> None:
    for path in (folder / "val/dog").iterdir():
        path.write_text("a text")
    with pytest.raises(UserError, match="val: no image of class dog can be read"):
        open_data(data_config(skip_bad=True))


@pytest.mark.parametrize(
    ("mode", "name"),
    [("L", "grey.jpg"), ("CMYK", "cmyk.jpg"), ("P", "palette.png"), ("RGBA", "alpha.png"), ("1", "bits.png")],
)
def test_other_colour_modes_are_converted(data_config: Config, folder: Path, mode: str, name: str) -> None:
    path = folder / "val/owl" / name
    save_image(path, seed=7, size=(SIZE, SIZE), mode=mode)
    with Image.open(path) as image:
        assert image.mode == mode
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(open_data(data_config()).val.images[-1], expected)


def test_png_named_jpg(data_config: Config, folder: Path) -> None:
    (folder / "val/owl/0.png").rename(folder / "val/owl/0.jpg")
    assert len(open_data(data_config()).val.images) == 6


def test_palette_with_transparency(data_config: Config, folder: Path) -> None:
    save_image(folder / "val/owl/9.png", seed=7, mode="P")
    with Image.open(folder / "val/owl/9.png") as image:
        image.save(folder / "val/owl/9.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(open_data(data_config()).val.images) == 7
