"""The page of speed, from `results/benchmarks` alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from repro.benchmarks import benchfile
from repro.benchmarks.benchfile import Part
from repro.benchmarks.cells import SUMMARY_HEADER, THROUGHPUT_HEADER, summary, throughput_cells
from repro.benchmarks.targets import CPU, CUDA, Row, not_measured, targets
from repro.report.markdown import table

PAGE = "speed.md"
_WORDS = """\
# Speed

Written by `python -m repro.compare` from `../benchmarks`; do not edit.

Measured by `python -m repro.bench`, each part in one run: medians of the ratio within a round, in brackets the middle
half of the rounds. On a CPU the candidates take turns; on a GPU they follow one another, each with its whole memory,
and the row "step at the end over the beginning" tells how far the device drifted meanwhile.

LRN, with the gradient of the ReLU in front, has kernels of its own: C++ compiled for the processor at first use (needs
`g++` or `clang++`), Triton on a GPU (needs a C compiler); without them PyTorch's operations give the same result. conv1
takes blocks of 4x4 pixels for 48 maps in bf16, and on a GPU in tf32 too. On a GPU max-pooling has kernels of its own,
crop, mirror image, mean and noise are one, and each column has its own convolution. `train.fast_kernels=false` does
without all of this. On a GPU the whole step, update included, is one CUDA graph where a batch is not worked on in parts
(`train.cuda_graph=false` starts its kernels one by one), and a small data set stays in its memory.

`python -m repro.profile` tells where the time of a step goes, and with two ablations what an ingredient costs; they
take turns, but on a busy machine look at the ingredient's own rows, for what the others differ by is the machine's.
"""


def render(results_dir: Path) -> dict[str, str]:
    """The page by its name; nothing where nothing was measured. Raises UserError where a file of figures is damaged."""
    files = [benchfile.read(path) for path in sorted((results_dir / "benchmarks").glob("*.json"))]
    sections = [section for kind in (CPU, CUDA) for section in _sections(kind, files)]
    return {PAGE: "\n".join([_WORDS, *sections])} if files else {}


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
        lines.append(table(THROUGHPUT_HEADER, map(throughput_cells, parts["throughput"].table)))
    return "\n".join(lines)


def _section(title: str, rows: Sequence[Row]) -> str:
    return f"{title}\n{table(SUMMARY_HEADER, map(summary, rows))}"


def _title(parts: Sequence[Part]) -> str:
    machines = [part.machine for part in parts]
    threads = " and ".join(map(str, sorted({machine.threads for machine in machines})))
    software = ", ".join(sorted({machine.torch for machine in machines}))
    days = sorted({part.date[:10] for part in parts})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{machines[0].device}, {threads} thread{'' if threads == '1' else 's'}, torch {software}, {when}:"
