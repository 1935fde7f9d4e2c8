from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repro.benchmarks import jpeg_files


def test_noise_falls_off_as_photographs_do() -> None:
    pixels = np.asarray(jpeg_files.noise(0)).astype(float)
    assert pixels.shape == (375, 500, 3)
    assert pixels.mean() == pytest.approx(128, abs=10)
    spectrum = np.abs(np.fft.rfft2(pixels[:, :, 0]))
    assert spectrum[4:8, 4:8].mean() > 5 * spectrum[64:68, 64:68].mean()
    assert not np.array_equal(pixels, np.asarray(jpeg_files.noise(1)))


def test_files_lie_as_an_image_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPRO_DATA", raising=False)
    assert "noise" in jpeg_files.write(tmp_path, train=2, val=2)
    paths = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg"))
    assert paths == ["train/one/00000.jpg", "train/two/00001.jpg", "val/one/00002.jpg", "val/two/00003.jpg"]
    with Image.open(tmp_path / paths[0]) as image:
        assert (image.format, image.size) == ("JPEG", jpeg_files.SIZE)


def test_photographs_are_used_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "data" / "imagenette" / "train" / "n1"
    source.mkdir(parents=True)
    for number, colour in enumerate(("red", "blue")):
        Image.new("RGB", (30, 50), colour).save(source / f"{number}.JPEG")
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "data"))
    assert "Imagenette" in jpeg_files.write(tmp_path, train=1, val=1)
    with Image.open(tmp_path / "val" / "two" / "00001.jpg") as image:
        assert image.size == jpeg_files.SIZE
        assert image.getpixel((250, 180))[2] > 200  # type: ignore[index]
