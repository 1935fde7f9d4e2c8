import io
from pathlib import Path

from PIL import Image

from repro import record
from repro.evidence.image_copies import remark
from repro.report.experiments_page import RESULTS


def test_the_committed_records_of_cifar_and_imagenette_are_of_known_copies() -> None:
    runs = record.find(RESULTS)
    assert runs
    assert all(remark(run.data.content_hash) for run in runs if run.data.source in ("cifar10", "imagenette"))


def test_originals_have_no_remark() -> None:
    assert remark("c0ffee") == ""


def quantization(file: Path | io.BytesIO) -> dict[int, list[int]]:
    with Image.open(file) as image:
        tables: dict[int, list[int]] = image.quantization  # type: ignore[attr-defined]
        return tables


def test_the_copy_of_cifar_is_jpeg_of_quality_75(real_images: Path) -> None:
    blank = io.BytesIO()
    Image.new("RGB", (32, 32)).save(blank, "JPEG", quality=75)
    expected = quantization(blank)
    for path in sorted((real_images / "cifar10").rglob("*.jpg"))[::2000]:
        assert quantization(path) == expected
