"""The speed that README.md shows: written between two marker lines, from `results/benchmarks` alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from repro.report.tables import markdown
from repro.speed import benchfile
from repro.speed.benchfile import Part
from repro.speed.targets import CPU, CUDA, Row, not_measured, targets
from repro.speed.wording import SUMMARY_HEADER, THROUGHPUT_HEADER, summary, throughput_cells

BEGIN = "<!-- speed: written by `python -m repro.compare` -->\n"
END = "<!-- end of speed -->\n"


def updated(text: str, results_dir: Path) -> str:
    """The text of README.md with the committed figures in it; as it is where it has no place for them.

    Raises UserError where a file of figures is damaged.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return text
    files = [benchfile.read(path) for path in sorted((results_dir / "benchmarks").glob("*.json"))]
    sections = [section for kind in (CPU, CUDA) for section in _sections(kind, files)]
    body = "\n".join(sections)
    return f"{before}{BEGIN}\n{body}\n{END}{after}"


def _sections(kind: str, files: Iterable[dict[str, Part]]) -> list[str]:
    """One for each device of a kind; where none was measured, one that says so."""
    found = [parts for parts in files if any(part.machine.device_type == kind for part in parts.values())]
    if not found:
        return [_section(f"No {kind.upper()} device was measured.\n", list(map(not_measured, targets(kind))))]
    return [_device(kind, parts) for parts in found]


def _device(kind: str, parts: dict[str, Part]) -> str:
    rows = [row for part in parts.values() for row in part.rows]
    known = {row.name for row in rows}
    rows += [not_measured(target) for target in targets(kind) if target.name not in known]
    lines = [_section(f"{_title(list(parts.values()))}\n", rows)]
    if kind == CUDA and "throughput" in parts:  # a processor's absolute figures say little about another's
        lines.append(markdown(THROUGHPUT_HEADER, map(throughput_cells, parts["throughput"].table)))
    return "\n".join(lines)


def _section(title: str, rows: Sequence[Row]) -> str:
    return f"{title}\n{markdown(SUMMARY_HEADER, map(summary, rows))}"


def _title(parts: Sequence[Part]) -> str:
    machines = [part.machine for part in parts]
    threads = " and ".join(map(str, sorted({machine.threads for machine in machines})))
    software = ", ".join(sorted({machine.torch for machine in machines}))
    days = sorted({part.date[:10] for part in parts})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{machines[0].device}, {threads} thread{'' if threads == '1' else 's'}, torch {software}, {when}:"
