"""Listing data sets, and what is said where they are missing or wrongly laid out."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from repro.config import DataConfig, Source
from repro.data.sources import list_images
from repro.data.store import open_data
from repro.errors import UserError
from tests.data.made import CLASSES, save_image

Config = Callable[..., DataConfig]


def error(config: DataConfig) -> str:
    """The one line that a listing ends in."""
    with pytest.raises(UserError) as caught:
        list_images(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_order_is_by_class_then_name(data_config: Config) -> None:
    listing = list_images(data_config())
    assert listing.classes == CLASSES
    assert listing.train.names[:6] == [*(f"train/cat/{i}.png" for i in range(5)), "train/dog/0.png"]
    assert listing.train.labels == [0] * 5 + [1] * 5 + [2] * 5
    assert listing.val.labels == [0, 0, 1, 1, 2, 2]
    with listing.val.open(2) as image:
        assert image.filename == str(Path(data_config().root or "") / "imagefolder/val/dog/0.png")  # type: ignore[attr-defined]


def test_image_folder_may_be_the_root_itself(data_config: Config, folder: Path) -> None:
    assert list_images(data_config(root=str(folder))).train.names == list_images(data_config()).train.names


def test_root_comes_from_the_environment(data_config: Config, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRO_DATA", str(root))
    assert len(list_images(data_config(root=None)).train.names) == 15


@pytest.mark.parametrize("val", ["test", "val"])
def test_cifar10_folder(data_config: Config, root: Path, folder: Path, val: str) -> None:
    (folder / "val").rename(folder / val)
    folder.rename(root / "cifar10")
    listing = list_images(data_config(source=Source.cifar10))
    assert listing.val.names[0] == f"{val}/cat/0.png"


def test_fingerprint_follows_names_and_sizes(data_config: Config, folder: Path) -> None:
    before = list_images(data_config()).fingerprint
    assert list_images(data_config()).fingerprint == before
    save_image(folder / "train/cat/0.png", seed=99)
    replaced = list_images(data_config()).fingerprint
    (folder / "train/cat/0.png").rename(folder / "train/cat/9.png")
    assert len({before, replaced, list_images(data_config()).fingerprint}) == 3


def test_hidden_files_are_passed_over(data_config: Config, folder: Path) -> None:
    (folder / "train/cat/.DS_Store").touch()
    (folder / "train/.cache").mkdir()
    listing = list_images(data_config(classes=3))
    assert len(listing.train.names) == 15


def test_no_root(data_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPRO_DATA", raising=False)
    message = error(data_config(root=None, source=Source.imagenette))
    assert "data.root" in message
    assert "REPRO_DATA" in message
    assert "imagenette2-320.tgz" in message


def test_root_is_missing(data_config: Config, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"data.root={root}/none: no such folder" in error(data_config(root=f"{root}/none"))
    monkeypatch.setenv("REPRO_DATA", f"{root}/none")
    assert f"REPRO_DATA={root}/none: no such folder" in error(data_config(root=None))


def test_root_is_a_file(data_config: Config, folder: Path) -> None:
    assert "is a file, not a folder" in error(data_config(root=str(folder / "val/cat/0.png")))


def test_root_is_empty(data_config: Config, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = error(data_config(root=str(tmp_path / "empty"), source=Source.ilsvrc2012))
    assert "is empty" in message
    assert "ILSVRC2012_img_train.tar" in message


def test_root_is_unreadable(data_config: Config, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:  # permissions do not stop the superuser, who may run the tests
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert error(data_config()) == f"{root}: cannot be read (Permission denied): change its permissions"


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        (Source.imagenette, "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz"),
        (Source.ilsvrc2012, "register at https://image-net.org"),
        (Source.ilsvrc2010, "ILSVRC-2010"),
    ],
)
def test_data_set_is_missing(data_config: Config, root: Path, source: Source, remedy: str) -> None:
    message = error(data_config(source=source))
    assert message.startswith(f"{source.value} is not in {root}: ")
    assert remedy in message
    assert f"{root}/{source.value}" in message.removeprefix(f"{source.value} is not in {root}")


def test_split_is_missing(data_config: Config, folder: Path) -> None:
    shutil.rmtree(folder / "val")
    assert error(data_config()).startswith(f"{folder}/val is missing: lay your images out as {folder}/train/<class>/*")


def test_class_is_missing_in_val(data_config: Config, folder: Path) -> None:
    shutil.rmtree(folder / "val/dog")
    message = error(data_config())
    assert message.startswith(f"{folder}/val/dog is missing: the class is in train;")
    assert f"remove {folder}/train/dog" in message


def test_class_is_missing_in_train(data_config: Config, folder: Path) -> None:
    shutil.rmtree(folder / "train/owl")
    assert error(data_config()).startswith(f"{folder}/train/owl is missing: the class is in val;")


def test_class_is_empty(data_config: Config, folder: Path) -> None:
    for path in (folder / "val/dog").iterdir():
        path.unlink()
    assert error(data_config()).startswith(f"{folder}/val/dog holds no images")


def test_one_class_only(data_config: Config, folder: Path) -> None:
    for name in ("dog", "owl"):
        shutil.rmtree(folder / "train" / name)
    assert error(data_config()).startswith(f"{folder}/train has 1 class folders: at least two are needed")


def test_number_of_classes_differs(data_config: Config) -> None:
    assert error(data_config(classes=10)) == "data.classes=10: imagefolder has 3 classes"


def test_files_that_cannot_be_used_are_named_with_reasons(data_config: Config, folder: Path) -> None:
    (folder / "val/owl/labels.txt").write_text("owl")
    for name in ("a.jfif", "b.GIF", "c.avif", "d.jp2"):
        save_image(folder / "train/cat/0.png", 1)
        (folder / "train/cat" / name).write_bytes((folder / "train/cat/0.png").read_bytes())
    (folder / "train/dog/broken.png").symlink_to("/nowhere/dog.png")
    (folder / "train/dog/loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "train/dog/pipe.png")
    with pytest.raises(UserError) as caught:
        list_images(data_config())
    assert str(caught.value).splitlines() == [
        f"{folder}: 8 files cannot be used: mend what is bad, or set data.skip_bad=true",
        "  train/cat/a.jfif: .jfif is not read: rename it to .jpg, which it is",
        "  train/cat/b.GIF: .gif images are not read: convert it to .png or .jpg",
        "  train/cat/c.avif: .avif images are not read: convert it to .png or .jpg",
        "  train/cat/d.jp2: .jp2 images are not read: convert it to .png or .jpg",
        "  train/dog/broken.png: a link that leads nowhere",
        "  train/dog/loop.png: a link that leads back to itself",
        "  train/dog/pipe.png: neither a file nor a folder",
        "  val/owl/labels.txt: no image by its name, which would end in one of .jpg .jpeg .png .ppm .bmp .pgm .tif"
        " .tiff .webp",
    ]
    assert list_images(data_config(skip_bad=True)).foreign == (
        *(f"train/cat/{name}" for name in ("a.jfif", "b.GIF", "c.avif", "d.jp2")),
        *(f"train/dog/{name}.png" for name in ("broken", "loop", "pipe")),
        "val/owl/labels.txt",
    )


@pytest.mark.parametrize("splits", [("train",), ("train", "val")])
@pytest.mark.parametrize("target", ["/nowhere/hen", "hen"])
def test_class_that_is_a_broken_link_is_told(
    data_config: Config, folder: Path, splits: tuple[str, ...], target: str
) -> None:
    for split in splits:
        (folder / split / "hen").symlink_to(target)
    assert error(data_config()) == (
        f"{folder}/train/hen is a link that leads nowhere (to {target}): mend it, or remove it"
    )


def test_class_of_broken_links_is_told(data_config: Config, folder: Path) -> None:
    for split in ("train", "val"):
        for path in (folder / split / "dog").iterdir():
            path.unlink()
            path.symlink_to("/nowhere/dog.png")
    for skip_bad in (False, True):
        said = error(data_config(skip_bad=skip_bad))
        assert said.startswith(f"{folder}/train/dog holds no images (0.png: a link that leads nowhere): add some")


def test_folders_within_a_class_are_read_as_torchvision_does(
    data_config: Config, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = list_images(data_config())
    (folder / "train/cat/empty").mkdir()
    assert list_images(data_config()).fingerprint == before.fingerprint
    assert capsys.readouterr().err == ""
    for place in ("more", "more/deep", "more-still", ".hidden"):
        save_image(folder / "train/cat" / place / "x.png", 5)
    (folder / "val/owl/linked").symlink_to(folder / "train/owl")
    listing = list_images(data_config())
    for files, split in ((listing.train, "train"), (listing.val, "val")):
        theirs = ImageFolder(folder / split).samples
        ours = [(str(folder / name), label) for name, label in zip(files.names, files.labels, strict=True)]
        assert ours == [sample for sample in theirs if ".hidden" not in sample[0]]
    (line,) = capsys.readouterr().err.splitlines()
    assert "folders within a class's folder hold 8 images of that class" in line
    assert open_data(data_config()).train.images.shape[0] == 18


def test_images_in_no_class_are_told(data_config: Config, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = list_images(data_config())
    save_image(folder / "train" / "stray.PNG", 5)
    (folder / "val" / "notes.txt").touch()
    assert list_images(data_config()).fingerprint == before.fingerprint
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("/train: in no class's folder, and left out: 1 image (stray.PNG)")


@pytest.mark.parametrize("target", [".", "..", "more"])
def test_folder_linked_into_itself(data_config: Config, folder: Path, target: str) -> None:
    (folder / "train/cat/more").mkdir()
    (folder / "train/cat/more/again").symlink_to(Path("..") / target)
    assert error(data_config()).endswith("is a link to a folder that it lies in: remove it")


def test_cifar10_that_cannot_be_downloaded(data_config: Config, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    offline.base_folder = "cifar-10-batches-py"  # type: ignore[attr-defined]
    monkeypatch.setattr("torchvision.datasets.CIFAR10", offline)
    message = error(data_config(source=Source.cifar10))
    assert "no route to host" in message
    assert "https://www.cs.toronto.edu/~kriz/cifar.html" in message
    assert f"{root}/cifar10/test/<class>/" in message


def test_cifar10_is_downloaded(
    data_config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Downloaded(SimpleNamespace):
        base_folder = "cifar-10-batches-py"

        def __init__(self, root: Path, train: bool, download: bool) -> None:
            assert download
            assert root.name == "cifar10-original"
            count = 4 if train else 2
            super().__init__(data=np.full((count, 32, 32, 3), count, np.uint8), targets=[0, 1] * (count // 2))
            self.classes = ["airplane", "automobile"]

        def __len__(self) -> int:
            return len(self.targets)

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Downloaded)
    listing = list_images(data_config(source=Source.cifar10))
    assert "downloading it (170 MB)" in capsys.readouterr().err
    assert listing.classes == ("airplane", "automobile")
    assert listing.train.labels == [0, 1, 0, 1]
    assert listing.val.names == ["test/0", "test/1"]
    assert listing.val.open(1).getpixel((0, 0)) == (2, 2, 2)


def test_folders_named_by_numbers_are_labelled_by_their_text_and_said_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("0", "1", "2", "10"):
        for split in ("train", "val"):
            save_image(tmp_path / split / name / "0.png", int(name))
    config = DataConfig(source=Source.imagefolder, root=str(tmp_path))
    for _ in range(2):
        assert list_images(config).classes == ("0", "1", "10", "2")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert "in the order of their text, as in torchvision's ImageFolder (0: 0, 1: 1, 10: 2, 2: 3, ...), which" in line
    assert "which is another for 2 of 4: write 00, 01, ..." in line
