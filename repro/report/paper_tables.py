"""The effects of a comparison as a table for a paper, in LaTeX (booktabs), and in HTML: from one data frame.

Columns that say nothing in a table are left out; what a reader must know about a row stands below it, by a letter.
"""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from string import ascii_lowercase

import pandas as pd

from repro.evidence import stats
from repro.evidence.comparison import MAIN, Arm, Comparison
from repro.evidence.image_copies import remark
from repro.evidence.selection import is_shown
from repro.report.markdown import effect_interval, interval, p_value, simultaneous_words, stem
from repro.report.tables import processor

LATEX_START = "% Written by `python -m repro.compare` from the records in ../runs; do not edit. Needs booktabs.\n"
HTML_START = "<!-- Written by `python -m repro.compare` from the records in ../runs; do not edit. -->\n"
NOTES, DIFFERENCE = "notes", "difference, points"


def render(parts: Iterable[Comparison]) -> dict[str, str]:
    """File name -> content, LaTeX and HTML, for every table that holds a comparison with enough seeds."""
    files = {}
    for name, group in groupby(parts, key=stem):
        same = [part for part in group if is_shown(part)]
        if same:
            files[f"{name}.tex"] = LATEX_START + "\n".join(map(_latex, same))
            files[f"{name}.html"] = HTML_START + "\n".join(map(_html, same))
    return files


def frame(part: Comparison) -> tuple[pd.DataFrame, list[str]]:
    """A row an arm, baseline first, with the letters of its notes; and the notes, in the order of their letters."""
    notes = list(dict.fromkeys(note for arm in part.arms for note in part.notes(arm)))
    rows = [_row(part, arm, [_letter(notes.index(note)) for note in part.notes(arm)]) for arm in part.arms]
    table = pd.DataFrame(rows)
    return table.loc[:, [column for column in table if (table[column] != "").any()]], notes


def _row(part: Comparison, arm: Arm, letters: Sequence[str]) -> dict[str, str]:
    effect = part.effects.get(arm.name)
    whole = effect.simultaneous if effect else None
    return {
        "change": arm.name,
        "top-1 error, %": interval(stats.mean(arm.values(MAIN))),
        DIFFERENCE: effect_interval(effect) if effect else "",
        "method": simultaneous_words(whole).rpartition(" ")[2],
        "n": str(whole.n if whole else len(arm.learned)),
        "p, paired t": p_value(effect.differences[MAIN].p) if effect else "",
        "verdict": effect.verdict if effect else "",
        NOTES: ", ".join(letters),
    }


def _letter(number: int) -> str:
    """`a` to `z`, then `aa`, `ab` and so on."""
    before, last = divmod(number, len(ascii_lowercase))
    return (_letter(before - 1) if before else "") + ascii_lowercase[last]


def _caption(part: Comparison) -> str:
    words = remark(part.data.content_hash)
    return (
        f"setup={part.setup} recipe={part.recipe}: ten crops of {part.data.val_images} validation images of"
        f" {part.data.source}{f' ({words})' if words else ''}, {processor(part)}, {part.precision}. Brackets are 95 %"
        " intervals over seeds; those of the differences hold for all rows at once."
    )


def _latex(part: Comparison) -> str:
    table, notes = frame(part)
    escaped = pd.DataFrame({"text": [_caption(part), *notes]}).to_latex(index=False, header=False, escape=True)
    caption, *below = [line.removesuffix(r" \\") for line in escaped.splitlines() if line.endswith(r" \\")]
    body = table.to_latex(index=False, escape=True, caption=caption, position="t")
    lines = "".join(f"\n\n\\textsuperscript{{{_letter(place)}}} {note}" for place, note in enumerate(below))
    return body.replace(r"\end{table}", f"\\footnotesize{lines}\n\\end{{table}}") if below else body


def _html(part: Comparison) -> str:
    table, notes = frame(part)
    rows = table.to_html(index=False, border=0, classes="effects", justify="left")
    escaped = [escape(text) for text in (_caption(part), *notes)]
    below = "".join(f"<li>{note}</li>" for note in escaped[1:])
    rows = rows.replace("<thead>", f"<caption>{escaped[0]}</caption>\n  <thead>", 1)
    rows = rows.replace("<th>", '<th scope="col">')
    return rows + (f'\n<ol type="a">{below}</ol>\n' if below else "\n")
