"""Tables from records: `python -m repro.compare [results_dir=results] [--check]`.

Reads `<results_dir>/runs` and writes `<results_dir>/tables`, one Markdown and one CSV file for each setup, recipe and
kind of device, and an index; and the results in the README.md beside that folder, where it has a place for them. With
`--check` it writes nothing and fails where the tables there are not those that the
records give.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from repro import record
from repro.command import exit_code
from repro.errors import RunFailure, UserError
from repro.files import replace_file
from repro.report import readme, tables


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return exit_code(lambda: _compare(sys.argv[1:] if argv is None else argv))


def _compare(arguments: Sequence[str]) -> None:
    if {"--help", "-h"} & set(arguments):
        print(__doc__, end="")
        return
    results_dir, check = _parse(arguments)
    runs = record.find(results_dir)
    if not runs:
        raise UserError(
            f"no records in {results_dir / 'runs'}: make one: python -m repro.run results_dir={results_dir}"
        )
    folder = results_dir / "tables"
    files = {folder / name: text.encode() for name, text in tables.render(runs).items()}
    page = results_dir.resolve().parent / "README.md"
    if (text := readme.updated(page, runs)) is not None:
        files[page] = text.encode()
    stale = _stale(folder, files)
    if check and stale:
        names = ", ".join(path.name for path in stale)
        raise RunFailure(f"{folder}: stale: {names}: run python -m repro.compare results_dir={results_dir}")
    if not check:
        _write(folder, files, stale)
    print(f"{len(runs)} records, {len(files)} files in {folder}, {'none stale' if check else f'{len(stale)} changed'}")


def _parse(arguments: Sequence[str]) -> tuple[Path, bool]:
    results_dir, check = Path("results"), False
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "results_dir" and value:
            results_dir = Path(value)
        elif argument == "--check":
            check = True
        else:
            raise UserError(f"{argument}: not known here; write python -m repro.compare [results_dir=FOLDER] [--check]")
    return results_dir, check


def _stale(folder: Path, files: Mapping[Path, bytes]) -> list[Path]:
    """Files that are missing, different, or no longer made from any record."""
    present = {path for path in folder.glob("*") if path.suffix in (".md", ".csv")}
    return sorted(path for path in files.keys() | present if _content(path) != files.get(path))


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
