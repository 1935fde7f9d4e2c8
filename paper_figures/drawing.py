"""A figure with the numbers that it shows, and its files: the same numbers give the same bytes."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from repro.errors import UserError
from repro.files import replace_file

PICTURES = Path(__file__).parent / "pictures"
COLUMN = 3.25  # inches: one column of the paper's proceedings
PAGE = 6.75  # inches: both
BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#999999"
"""Colours that colour-blind readers tell apart (Okabe and Ito, 2008)."""
STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "svg.hashsalt": "alexnet",  # else the names within a file are drawn at random
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "figure.constrained_layout.use": True,
}
FORMATS = ("svg", "png", "pdf")


class Missing(UserError):
    """Raised where no record answers a figure; its message names the command that makes one."""


@dataclass(frozen=True)
class Drawn:
    """A figure, every number that it shows, and its caption with n, data, crops and device."""

    figure: Figure
    numbers: pd.DataFrame
    caption: str

    def csv(self) -> bytes:
        """Returns the numbers as a CSV file, rounded so that another library's last digit changes nothing."""
        return self.numbers.to_csv(index=False, float_format="%.5g", lineterminator="\n").encode()


def new_figure(width: float, height: float) -> Figure:
    """Makes an empty figure of so many inches."""
    mpl.use("Agg")
    mpl.rcParams.update(STYLE)
    return Figure(figsize=(width, height))


def save(name: str, drawn: Drawn, folder: Path = PICTURES) -> None:
    """Writes the numbers and the pictures of a figure. Raises OSError."""
    folder.mkdir(exist_ok=True)
    content = drawn.csv()
    for kind in FORMATS:
        file = io.BytesIO()
        drawn.figure.savefig(file, format=kind, dpi=200, metadata=_metadata(kind, content))
        replace_file(folder / f"{name}.{kind}", file.getvalue())
    replace_file(folder / f"{name}.csv", content)


def is_fresh(name: str, drawn: Drawn, folder: Path = PICTURES) -> bool:
    """Tells whether the files of a figure show these numbers."""
    content = drawn.csv()
    paths = [folder / f"{name}.{kind}" for kind in (*FORMATS, "csv")]
    if not all(path.is_file() for path in paths) or paths[-1].read_bytes() != content:
        return False
    return digest(content).encode() in paths[0].read_bytes()


def digest(content: bytes) -> str:
    """Returns the mark that a picture bears of the numbers that it shows."""
    return f"numbers {hashlib.sha256(content).hexdigest()[:16]}"


def _metadata(kind: str, content: bytes) -> dict[str, str | None]:
    """What a picture says of itself: its numbers, and no date."""
    if kind == "svg":
        return {"Date": None, "Description": digest(content)}
    return {"CreationDate": None, "Subject": digest(content)} if kind == "pdf" else {"Description": digest(content)}
