"""The paper's figures from the records: `python -m paper_figures [NAME ...] [results_dir=results] [--check]`.

Draws all figures, or those that are named (`fig1 fig3`), into `paper_figures/pictures/`: SVG, PNG and PDF, and beside
them every number that is drawn as CSV; and writes `paper_figures/README.md`. A figure without records names the command
that makes them. With `--check` it writes nothing and fails where a picture does not show what the records say now.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from paper_figures import ablations, claims, curves, fig1_relu_vs_tanh, fig2_architecture, fig3_conv1_kernels
from paper_figures.drawing import PICTURES, Drawn, Missing, is_fresh, save
from repro import record
from repro.command import exit_code, helped, own_words, warn
from repro.errors import RunFailure, UserError
from repro.experiments.words import at_home
from repro.files import replace_file
from repro.record import Record

FIGURES: dict[str, Callable[[Sequence[Record]], Drawn]] = {
    "fig1_relu_vs_tanh": fig1_relu_vs_tanh.draw,
    "fig2_architecture": fig2_architecture.draw,
    "fig3_conv1_kernels": fig3_conv1_kernels.draw,
    "ablations": ablations.draw,
    "claims": claims.draw,
    "curves": curves.draw,
}
README = PICTURES.parent / "README.md"
HEAD = """\
<!-- Written by `python -m paper_figures`; do not edit. -->

# The paper's figures, and what they leave out

Each is drawn by the script of its name from the records in `../results`, by `python -m paper_figures NAME`; beside
each picture lie the same in SVG and PDF, and every number that it shows as CSV. `python -m paper_figures --check` fails
where a picture does not show what the records say.
"""


def main() -> None:
    """Draws or checks the figures."""
    if helped(sys.argv[1:], __doc__):
        return
    own, words = own_words(sys.argv[1:], {"results_dir": "results"})
    names = [_named(word) for word in words if word != "--check"]
    records = record.find(Path(at_home(own["results_dir"])))
    drawn = _drawn(records, names or list(FIGURES))
    stale = [name for name, figure in drawn.items() if not is_fresh(name, figure)]
    page = _page(drawn) if not names else None
    if page is not None and (not README.is_file() or README.read_text(encoding="utf-8") != page):
        stale.append(README.name)
    if "--check" in words:
        if stale:
            raise RunFailure(f"stale: {', '.join(stale)}: run python -m paper_figures")
    else:
        _write(drawn, page)
    print(f"{len(drawn)} figures, {'none stale' if '--check' in words else f'{len(stale)} changed'}")


def _named(word: str) -> str:
    """A figure by its name or the beginning of it, such as `fig1`. Raises UserError where there is none."""
    for name in FIGURES:
        if word == name or name.startswith(f"{word}_"):
            return name
    raise UserError(f"{word}: there are {', '.join(FIGURES)}, results_dir=FOLDER and --check")


def _drawn(records: Sequence[Record], names: Sequence[str]) -> dict[str, Drawn]:
    """Draws the figures that have records, and warns of the others."""
    found = {}
    for name in names:
        try:
            found[name] = FIGURES[name](records)
        except Missing as error:
            warn(f"{name}: {error}")
    return found


def _page(drawn: dict[str, Drawn]) -> str:
    parts = [f"## {name}\n\n![{name}](pictures/{name}.png)\n\n{figure.caption}\n" for name, figure in drawn.items()]
    return "\n".join([HEAD, *parts])


def _write(drawn: dict[str, Drawn], page: str | None) -> None:
    try:
        for name, figure in drawn.items():
            if not is_fresh(name, figure):
                save(name, figure)
        if page is not None:
            replace_file(README, page.encode())
    except OSError as error:
        raise RunFailure(
            f"{error.filename}: cannot be written ({error.strerror}): make room, or make it writable"
        ) from error


if __name__ == "__main__":
    sys.exit(exit_code(main))
