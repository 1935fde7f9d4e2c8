"""Whole runs that learn: on real images, and on those that the package makes itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from repro import record

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def subset(real: Path, folder: Path, splits: dict[str, int]) -> None:
    """The first images of each class, as links."""
    for split, count in splits.items():
        for place in sorted((real / folder.name / split).iterdir()):
            (folder / split / place.name).mkdir(parents=True)
            for image in sorted(place.iterdir())[:count]:
                (folder / split / place.name / image.name).symlink_to(image)


def run(folder: Path, *words: str) -> record.Record:
    command = [sys.executable, "-m", "repro.run", "wandb.mode=disabled", f"results_dir={folder / 'results'}", *words]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=one_thread, timeout=600)
    (done,) = record.find(folder / "results")
    return done


SMALL = ("train.batch_size=32",)


def test_the_cifar_net_learns_from_real_images(real_images: Path, tmp_path: Path) -> None:
    subset(real_images, tmp_path / "cifar10", {"train": 300, "test": 50})
    done = run(tmp_path, "setup=cifar10", f"data.root={tmp_path}", "train.epochs=4", *SMALL)
    curve = done.curve()
    assert done.status == record.COMPLETE
    assert done.data.val_images == 500
    assert curve[-1]["train_loss"] < curve[0]["train_loss"]
    assert done.metrics.ten_crops.top1 is not None
    assert done.metrics.ten_crops.top1 < 80  # guessing is 90


def test_the_two_column_net_learns_from_real_images(real_images: Path, tmp_path: Path) -> None:
    subset(real_images, tmp_path / "imagenette", {"train": 80, "val": 20})
    small = ("train.epochs=6", "optimizer.lr=0.04", *SMALL)
    done = run(tmp_path, "setup=imagenette_small", f"data.root={tmp_path}", *small)
    curve = done.curve()
    assert done.status == record.COMPLETE
    assert curve[-1]["train_loss"] < curve[0]["train_loss"]
    assert done.metrics.ten_crops.top1 is not None
    assert done.metrics.ten_crops.top1 < 85  # guessing is 90
