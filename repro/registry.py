"""Index of recipes, setups, ablations and the fidelity ledger: `python -m repro.registry [--check]`.

Writes `experiments/README.md` from the YAML files beside it and from the records in `results/`. With `--check` it
writes nothing and fails where the file there is not what they give.
"""

import sys
from collections.abc import Sequence

from repro.command import exit_code
from repro.errors import RunFailure, UserError
from repro.evidence.comparison import comparisons
from repro.experiments import suites
from repro.experiments.folder import choices
from repro.experiments.registry import check_files
from repro.files import replace_file
from repro.record import find
from repro.report.experiments_page import README, RESULTS, render


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return exit_code(lambda: _index(sys.argv[1:] if argv is None else argv))


def _index(arguments: Sequence[str]) -> None:
    if set(arguments) & {"--help", "-h"}:
        print(__doc__, end="")
        return
    if unknown := set(arguments) - {"--check"}:
        raise UserError(f"{unknown.pop()}: not known here; write python -m repro.registry [--check]")
    check_files()
    for name in choices("suite"):
        suites.read(name)
    content = render(comparisons(find(RESULTS)))
    fresh = README.is_file() and README.read_text(encoding="utf-8") == content
    if arguments and not fresh:
        raise RunFailure(f"{README} is not what the files give: run python -m repro.registry")
    if not fresh:
        replace_file(README, content.encode())
    print(f"{README}: {'up to date' if fresh else 'written'}")


if __name__ == "__main__":
    sys.exit(main())
