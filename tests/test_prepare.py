"""`python -m repro.prepare`."""

import json
import sys
from pathlib import Path

import pytest

from repro import prepare
from repro.command import exit_code

SIZE = 72


@pytest.fixture
def words(images: Path, tmp_path: Path) -> list[str]:
    return [
        "setup=imagefolder",
        f"data.root={images}",
        f"data.cache={tmp_path}",
        f"data.image_size={SIZE}",
        "data.crop=64",
    ]


def run(*words: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [prepare.__file__, *words])
        return exit_code(prepare.main)


def test_it_packs_once_and_says_what_it_made(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("repro.data.store.VERIFY_BELOW", 0)  # as if it were large
    assert run(*words) == 0
    output = capsys.readouterr()
    out, store = output.out.splitlines(), tmp_path / f"imagefolder-{SIZE}px"
    assert "at 72 pixels (0.000753 GiB) in " in output.err
    size = sum(path.stat().st_size for path in store.glob("*.npy"))
    assert out[:3] == [str(store), "  40 training images, 12 validation images", "  2 classes"]
    assert out[3].startswith(f"  {size} bytes (")
    assert out[4] == f"  content hash {json.loads((store / 'meta.json').read_text())['content_hash']}"
    assert out[5].startswith("  packed 52 images now, ")

    whole = (store / "val_images.npy").read_bytes()
    damaged = whole[:-1] + bytes([whole[-1] ^ 1])
    (store / "val_images.npy").write_bytes(damaged)
    assert run(*words) == 0
    assert capsys.readouterr().out.splitlines()[5:] == ["  was there; verify=true checks every byte"]
    assert (store / "val_images.npy").read_bytes() == damaged

    assert run(*words, "verify=true") == 0
    assert "val_images.npy is damaged" in capsys.readouterr().err
    assert (store / "val_images.npy").read_bytes() == whole
    assert run(*words, "verify=true") == 0
    assert capsys.readouterr().out.splitlines()[5:] == ["  was there, whole"]


def test_jpeg(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words, "data.format=jpeg", "data.jpeg_quality=80") == 0
    output = capsys.readouterr()
    assert "as JPEG of quality 80 (" in output.err
    assert output.out.splitlines()[3].endswith(", jpeg")
    assert (tmp_path / f"imagefolder-{SIZE}px-jpeg80/meta.json").exists()


@pytest.mark.parametrize(
    ("word", "code", "message"),
    [
        ("verify=maybe", 2, "verify=maybe: choose one of true, false"),
        ("data.format=png", 2, "data.format"),
        ("data.root=/nowhere", 2, "no such folder"),
        ("model.columns=7", 2, "which 7 columns cannot share"),
    ],
)
def test_mistakes(words: list[str], word: str, code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    key = word.partition("=")[0]
    assert run(*(own for own in words if not own.startswith(key)), word) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_it_refuses_where_the_disk_is_too_small(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("repro.data.pack.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    assert run(*words) == 1
    assert "GiB are free" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "verify=true" in capsys.readouterr().out
