"""Tables from records: `python -m repro.compare [results_dir=results] [suite=NAME] [--check]`.

Reads `<results_dir>/runs` and writes `<results_dir>/tables`: one Markdown and one CSV file for each setup, recipe and
kind of device, in LaTeX and HTML too where there are three seeds, the board of the paper's claims, one page for each
suite, and an index; names each file that it changes, and prints what was found, on a terminal with a bar for every arm.
From the project's own `results/` it also writes what README.md and experiments/README.md show of them. With `--check`
it writes nothing and fails where a file is not what the records give. `suite=cousins` prints that suite's page.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from repro import record
from repro.command import exit_code, helped, own_words
from repro.errors import RunFailure, UserError
from repro.evidence.comparison import Comparison, comparisons
from repro.experiments import suites
from repro.experiments.folder import choices
from repro.experiments.registry import check_files
from repro.experiments.words import at_home
from repro.files import replace_file
from repro.report import (
    claims_page,
    effect_bars,
    experiments_page,
    largest_effects,
    pairing,
    paper_tables,
    readme,
    speed_page,
    suite_page,
    surprises,
    tables,
)
from repro.text import console_for_tables, counted

MARK_WITHIN = 2000
"""Characters of a file in which it says who wrote it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return exit_code(lambda: _compare(sys.argv[1:] if argv is None else argv))


def _compare(arguments: Sequence[str]) -> None:
    if helped(arguments, __doc__):
        return
    results_dir, chosen, check = _parse(arguments)
    own = results_dir.resolve() == experiments_page.RESULTS.resolve()
    if own:
        _check_experiments()
    page = suites.read(chosen) if chosen else None
    runs = record.find(results_dir)
    if not runs:
        raise UserError(
            f"no records in {results_dir / 'runs'}: make one: python -m repro.run results_dir={results_dir}"
        )
    for run in runs:
        for part in (run.correct, run.curve, run.kernels):  # a damaged one is told before any file is written
            part()
    if page:
        print(suite_page.render(page, comparisons(runs)), end="")
        return
    folder, parts = results_dir / "tables", comparisons(runs)
    files = _files(results_dir, folder, parts, own)
    stale = _stale(folder, files)
    if check and stale:
        names = ", ".join(map(_shown, stale))
        raise RunFailure(f"stale: {names}: run python -m repro.compare results_dir={results_dir}")
    told = [f"{_verb(path, files)}: {_shown(path)}" for path in stale]
    if not check:
        _write(folder, files, stale)
    _show(parts)
    print("\n".join(told), end="\n" * bool(told))
    made = f"{counted(len(runs), 'record')}, {counted(len(files), 'file')} from them"
    print(f"{made}, {'none stale' if check else f'{len(stale)} changed'}")


def _show(parts: Sequence[Comparison]) -> None:
    """What was found: on a terminal every arm with a bar, elsewhere the largest effects in a line each."""
    console = console_for_tables(0)
    if not console.is_terminal:
        print("\n".join(largest_effects.lines(parts)))
        return
    for one in effect_bars.tables(parts, console.width):
        console.print(one, markup=False)


def _check_experiments() -> None:
    """Raises UserError for the first file of an ablation or a suite that cannot be used: the index has all."""
    check_files()
    for name in choices("suite"):
        suites.read(name)


def _verb(path: Path, files: Mapping[Path, bytes]) -> str:
    """Names what happens to a stale file."""
    if path not in files:
        return "removed"
    return "changed" if path.exists() else "made"


def _shown(path: Path) -> str:
    """A path as one would type it."""
    here = Path.cwd()
    return str(path.resolve().relative_to(here) if path.resolve().is_relative_to(here) else path)


def _files(results_dir: Path, folder: Path, parts: Sequence[Comparison], own: bool) -> dict[Path, bytes]:
    """Every file that the comparisons give; the project's own pages tell of its own results alone."""
    asked = [one for one in suites.usable() if any(part.setup == one.setup for part in parts)]
    names = speed_page.render(results_dir)
    names |= tables.render(parts, asked, [f"[Speed]({name}) beside plain PyTorch.\n" for name in names])
    names["README.md"] += surprises.section(parts)
    names |= paper_tables.render(parts) | claims_page.render(parts)
    names |= {f"suite-{one.name}.md": suite_page.render(one, parts) for one in asked}
    texts = {folder / name: text for name, text in names.items()}
    if own:
        project = experiments_page.RESULTS.parent / "README.md"
        for path, page in ((project, readme), (experiments_page.RESULTS / "README.md", pairing)):
            if (text := page.updated(path, parts)) is not None:
                texts[path] = text
        texts[experiments_page.README] = experiments_page.render(parts)
    return {path: text.encode() for path, text in texts.items()}


def _parse(arguments: Sequence[str]) -> tuple[Path, str, bool]:
    """Results folder, the suite to print (or nothing), and whether to check only."""
    own, rest = own_words(arguments, {"results_dir": "results", "suite": ""})
    empty = [argument for argument in arguments if argument in ("results_dir=", "suite=")]
    for argument in [*empty, *(word for word in rest if word != "--check")]:
        usage = "python -m repro.compare [results_dir=FOLDER] [suite=NAME] [--check]"
        raise UserError(f"{argument}: not known here; write {usage}")
    return Path(at_home(own["results_dir"])), own["suite"], bool(rest)


def _stale(folder: Path, files: Mapping[Path, bytes]) -> list[Path]:
    """Files that are missing, different, or no longer made from any record."""
    present = {path for path in folder.glob("*") if _is_own(path)}
    return sorted(path for path in files.keys() | present if _content(path) != files.get(path))


def _is_own(path: Path) -> bool:
    """Tells whether this command wrote a file: what a user has laid beside the tables is left alone."""
    if path.suffix not in (".md", ".csv", ".tex", ".html") or not path.is_file():
        return False
    start = path.read_text(encoding="utf-8", errors="replace")[:MARK_WITHIN]
    starts = ("# Suite `", claims_page.CSV_START, tables.CSV_START)
    return "Written by `python -m repro.compare`" in start or start.startswith(starts)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _write(folder: Path, files: Mapping[Path, bytes], stale: Sequence[Path]) -> None:
    try:
        folder.mkdir(exist_ok=True)
        for path in stale:
            if path in files:
                replace_file(path, files[path])
            else:
                path.unlink()
    except OSError as error:
        raise RunFailure(
            f"{folder}: the tables could not be written ({error.strerror}): make room, or make it writable"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
