"""A small data set on disk."""

from collections.abc import Callable
from pathlib import Path

import pytest

from repro.config import DataConfig, Source
from tests.data.made import SIZE, save_image_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What data.root names: a folder that holds `imagefolder`."""
    save_image_folder(tmp_path / "imagefolder")
    return tmp_path


@pytest.fixture
def folder(root: Path) -> Path:
    """The data set itself."""
    return root / "imagefolder"


@pytest.fixture
def store(root: Path) -> Path:
    """Where its packed images lie."""
    return root / ".repro-cache" / f"imagefolder-{SIZE}px"


@pytest.fixture
def data_config(root: Path) -> Callable[..., DataConfig]:
    """The settings that read it, with changes."""

    def make(**changes: object) -> DataConfig:
        plain = {"source": Source.imagefolder, "root": str(root), "image_size": SIZE, "crop": SIZE}
        return DataConfig(**(plain | changes))  # type: ignore[arg-type]

    return make
