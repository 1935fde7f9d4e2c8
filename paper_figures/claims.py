"""The verdicts on the paper's 27 claims at a glance."""

from collections.abc import Sequence

import pandas as pd

from paper_figures.drawing import BLUE, GREEN, GREY, ORANGE, PAGE, RED, Drawn, new_figure
from repro.evidence.board import board, eligible
from repro.evidence.claims import Finding, Verdict, load
from repro.evidence.comparison import comparisons
from repro.record import Record

COLOURS = {
    Verdict.holds: GREEN,
    Verdict.in_direction: BLUE,
    Verdict.does_not_hold: RED,
    Verdict.not_distinguishable: ORANGE,
    Verdict.not_run: GREY,
}
LONGEST = 92  # characters of a statement that fit beside its squares


def draw(records: Sequence[Record]) -> Drawn:
    """Draws a square for each finding of each claim, in the colour of its verdict."""
    claims, answers = load(), board(eligible(comparisons(records)))
    numbers = pd.DataFrame([_row(name, finding) for name, found in answers.items() for finding in found])
    figure = new_figure(PAGE, 0.5 + 0.15 * len(claims))
    axes = figure.subplots()
    most = max(map(len, answers.values()))
    for place, (name, found) in enumerate(answers.items()):
        y = len(claims) - place
        statement = claims[name].statement
        text = statement if len(statement) <= LONGEST else f"{statement[: LONGEST - 1].rsplit(' ', 1)[0]} …"
        axes.text(-0.5, y, f"{name}  {text}", va="center", ha="right", fontsize=5.5)
        axes.scatter(
            [0.6 * spot for spot in range(len(found))],
            [y] * len(found),
            marker="s",
            s=18,
            c=[COLOURS[f.verdict] for f in found],
        )
    for verdict, colour in COLOURS.items():
        axes.scatter([], [], marker="s", s=18, color=colour, label=verdict.value)
    axes.legend(loc="upper center", bbox_to_anchor=(-0.6, 1.05), ncol=5, frameon=False, fontsize=6, handletextpad=0.2)
    axes.set(xlim=(-1, most), ylim=(0, len(claims) + 1))
    axes.set_axis_off()
    caption = (
        "The claims of the paper, C1 to C27, with a square for each measure, setup and kind of device that answers one;"
        " `results/tables/claims.md` has the numbers, n, data, crops and device of each."
    )
    return Drawn(figure, numbers, caption)


def _row(name: str, finding: Finding) -> dict[str, object]:
    part, value = finding.part, finding.value
    return {
        "claim": name,
        "verdict": finding.verdict.value,
        "arm": finding.arm,
        "measure": finding.measure,
        "value": None if value is None else value.mean,
        "n": finding.n,
        "setup": part.setup if part else "",
        "recipe": part.recipe if part else "",
        "device": part.device_type if part else "",
    }
