"""`python -m repro.bench [only=lrn,step] [device=cpu|cuda] [results_dir=results]`: our speed beside others'.

Each part measures its candidates in turn, so that a busy machine slows all of them alike, and takes ratios:
  lrn         response normalisation beside nn.LocalResponseNorm, and beside a copy of the tensor
  step        the training step beside plain PyTorch, torchvision's alexnet, and itself without LRN
  input       the packed stores beside ImageFolder, v2 transforms and DataLoader (cpu)
  memory      growth of the process over 20 epochs of reading (cpu)
  start       seconds to the help, and to the first step of setup=embedded (cpu)
  throughput  images/s by batch beside the device's ceilings, and the hours of the paper's training
  graph       the training step with train.cuda_graph=true beside that without (cuda)
Prints every target, and writes what it found to <results_dir>/benchmarks/<device>.json; parts that are not measured
stay there as they are. Exit code 1 where a target of the CPU is missed.
"""

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from repro.command import exit_code, own_words
from repro.environment import capture_code, capture_machine
from repro.errors import RunFailure, UserError
from repro.speed import benchfile
from repro.speed.benchfile import Part
from repro.speed.targets import CPU, CUDA, judge, not_measured, targets
from repro.speed.wording import HEADER, THROUGHPUT_HEADER, cells, throughput_cells

if TYPE_CHECKING:
    import torch

    from repro.speed.sidebyside import Measured

PARTS = {
    CPU: ("lrn", "step", "input", "memory", "start", "throughput"),
    CUDA: ("lrn", "step", "throughput", "graph"),
}
WIDTH = 140  # columns that the tables take
DEFAULTS = {"only": "", "device": CPU, "results_dir": "results"}


def main() -> None:
    """Reads `key=value` arguments, measures, prints, writes. RunFailure where the CPU misses a target."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__, end="")
        return
    own, rest = own_words(sys.argv[1:], DEFAULTS)
    if rest:
        raise UserError(f"{rest[0]}: not known here; write only=..., device=... or results_dir=...")
    kind, chosen = _device(own["device"]), _parts(own["only"], own["device"])
    name = capture_machine(kind).device
    path = benchfile.path_of(Path(own["results_dir"]), name)
    known = benchfile.read(path)
    measured = []
    for part in chosen:
        print(f"measuring {part} ({chosen.index(part) + 1} of {len(chosen)})", file=sys.stderr)
        known = benchfile.merge(path, {part: measure(part, kind)})
        measured += known[part].rows
    _print_tables(kind, name, known)
    missed = [row.name for row in measured if row.met is False]
    if missed:
        message = f"{len(missed)} targets missed on {name}: {', '.join(missed)}"
        if kind == CPU:
            raise RunFailure(f"{message}; other work on this machine disturbs: try again when it is quiet")
        print(message, file=sys.stderr)


def measure(part: str, kind: str) -> Part:
    """Runs one part on a kind of device and judges it."""
    import torch

    from repro.train.memory import keep_freed

    keep_freed(torch.device(kind))  # as a run does
    found = _race(part)(torch.device(kind))
    return Part(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=capture_machine(kind),
        code=capture_code(),
        note=found.note,
        rows=[judge(target, found.rounds) for target in targets(kind, part)],
        table=found.table,
    )


def _race(part: str) -> "Callable[[torch.device], Measured]":
    from repro.speed import inputs, lrn, startup, steps, throughput

    races = {
        "lrn": lrn.race,
        "step": steps.race,
        "input": inputs.race,
        "memory": inputs.memory,
        "start": startup.race,
        "throughput": throughput.race,
        "graph": steps.race_graph,
    }
    return races[part]


def _device(kind: str) -> str:
    if kind not in PARTS:
        raise UserError(f"device={kind}: choose one of {', '.join(PARTS)}")
    if kind == CUDA:
        import torch

        if not torch.cuda.is_available():
            raise UserError("device=cuda: this machine has no CUDA device; its targets stay not measured")
    return kind


def _parts(only: str, kind: str) -> list[str]:
    names = only.split(",") if only else list(PARTS[kind])
    for name in names:
        if name not in PARTS[kind]:
            raise UserError(f"only={only}: {name} is no part on device={kind}: there are {', '.join(PARTS[kind])}")
    return list(dict.fromkeys(names))


def _print_tables(kind: str, device: str, parts: Mapping[str, Part]) -> None:
    """Every target of this kind of device and of the other; and the throughput where it is known."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(WIDTH, Console().width))
    table = Table(*HEADER, title=device)
    for part in PARTS[kind]:
        rows = parts[part].rows if part in parts else list(map(not_measured, targets(kind, part)))
        for row in rows:
            table.add_row(*cells(row))
        table.add_section()
    for target in targets(CPU if kind == CUDA else CUDA):
        name, *rest = cells(not_measured(target))
        table.add_row(f"{target.device}: {name}", *rest)
    console.print(table)
    if "throughput" in parts:
        by_batch = Table(*THROUGHPUT_HEADER, title=parts["throughput"].note)
        for line in parts["throughput"].table:
            by_batch.add_row(*throughput_cells(line))
        console.print(by_batch)


if __name__ == "__main__":
    sys.exit(exit_code(main))
