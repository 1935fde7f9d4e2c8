"""Published results: `results/paper.csv`, the only ones that were typed by hand."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_SHIPPED = Path(__file__).parents[1] / "_results" / "paper.csv"  # where a wheel puts it
PAPER = _SHIPPED if _SHIPPED.exists() else Path(__file__).parents[2] / "results" / "paper.csv"


@dataclass(frozen=True)
class Published:
    """One row of paper.csv: effects in percentage points as text, and what they were measured on."""

    ablation: str
    top1_effect: str
    top5_effect: str
    data: str
    crops: str
    n: str
    source: str

    def __str__(self) -> str:
        effect = " / ".join(filter(None, (self.top1_effect, self.top5_effect)))
        crops = "" if self.crops == "not stated" else f", {self.crops}"
        return f"{effect} ({self.data}{crops}{f', n={self.n}' if self.n else ''})"


@cache
def published() -> list[Published]:
    """The rows of paper.csv, in order."""
    with PAPER.open(newline="", encoding="utf-8") as file:
        return [Published(**row) for row in csv.DictReader(file)]


def of_ablation(name: str) -> list[Published]:
    """The effects of an ablation that were published."""
    return [row for row in published() if row.ablation == name]
