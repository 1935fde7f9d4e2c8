"""`python -m repro.bench [only=lrn,step] [device=cpu|cuda] [results_dir=results]`: our speed beside others'.

Each part measures its candidates in turn, so that a busy machine slows all of them alike, and takes ratios; on a GPU
they follow each other, and each has its whole memory:
  lrn         response normalisation beside nn.LocalResponseNorm, and beside a copy of the tensor
  step        the training step beside plain PyTorch, torchvision's alexnet, and itself with one thing changed
  neighbour   the training step beside other work on the machine, which ours takes its threads by (cpu)
  input       the packed stores beside ImageFolder, v2 transforms and DataLoader (cpu); a run's batches beside a copy
              (cuda)
  memory      growth of the process over 20 epochs of reading (cpu)
  start       seconds to the help, and to the first step of setup=embedded (cpu)
  run         a run from its images to the update, evaluations, and the hours of the paper's training (cuda)
  throughput  images/s by batch beside the device's ceilings
Tells each line on stderr as it is measured, then prints every target. What a part found is written when it ends to
<results_dir>/benchmarks/<device>.json, where parts that are not measured stay as they are. A part that fails says why
in one line, and the others are measured. Ends within ten minutes. Exit code 1 where something failed, or a target of
the CPU is missed.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from repro.benchmarks import benchfile
from repro.benchmarks.benchfile import Part
from repro.benchmarks.cells import HEADER, THROUGHPUT_HEADER, cells, tell, throughput_cells
from repro.benchmarks.own_process import within
from repro.benchmarks.targets import CPU, CUDA, judge, not_measured, targets
from repro.command import exit_code, helped, own_words
from repro.environment import capture_code, capture_machine
from repro.errors import RunFailure, UserError
from repro.experiments.words import at_home
from repro.text import console_for_tables, counted

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from repro.benchmarks.alternating import Measured

PARTS = {
    CPU: ("lrn", "step", "neighbour", "input", "memory", "start", "throughput"),
    CUDA: ("lrn", "step", "run", "input", "throughput"),
}
SECONDS = 570.0
"""Of all parts; the last one is stopped."""
WIDTH = 140  # columns that the tables take
DEFAULTS = {"only": "", "device": CPU, "results_dir": "results"}


def main() -> None:
    """Reads `key=value` arguments, measures, prints, writes. RunFailure where the CPU misses a target."""
    if helped(sys.argv[1:], __doc__):
        return
    own, rest = own_words(sys.argv[1:], DEFAULTS)
    if rest:
        raise UserError(f"{rest[0]}: not known here; write only=..., device=... or results_dir=...")
    if not own["results_dir"]:
        raise UserError("results_dir=: give a folder")
    kind, chosen = _device(own["device"]), _parts(own["only"], own["device"])
    name = capture_machine(kind).device
    path = benchfile.path_of(Path(at_home(own["results_dir"])), name)
    known, failed, missed = benchfile.read(path), dict[str, str](), list[str]()
    until = time.monotonic() + SECONDS
    for number, part in enumerate(chosen, 1):
        print(f"measuring {part} ({number} of {len(chosen)})", file=sys.stderr, flush=True)
        try:
            found, reasons = _apart(until - time.monotonic(), measure, part, kind)
        except RunFailure as error:
            failed[part] = str(error)
            print(f"{part} failed: {error}", file=sys.stderr, flush=True)
            continue
        known = benchfile.merge(path, {part: found})
        failed |= {f"{part}, {candidate}": reason for candidate, reason in reasons.items()}
        missed += [row.name for row in found.rows if row.met is False]
        for row in found.rows:
            tell(row.name, "  ".join(filter(None, cells(row)[1:])))
    _print_tables(kind, name, known, failed)
    _judge(kind, name, failed, missed)


_apart = within


def _judge(kind: str, name: str, failed: Mapping[str, str], missed: Sequence[str]) -> None:
    """RunFailure where something failed, or the CPU misses a target."""
    if failed:
        raise RunFailure("; ".join(f"{what} failed: {reason}" for what, reason in failed.items()))
    if missed:
        message = f"{counted(len(missed), 'target')} missed on {name}: {', '.join(missed)}"
        if kind == CPU:
            raise RunFailure(f"{message}; other work on this machine disturbs: try again when it is quiet")
        print(message, file=sys.stderr)


def measure(part: str, kind: str) -> tuple[Part, Mapping[str, str]]:
    """Runs one part on a kind of device and judges it; and which candidates failed, and why."""
    import torch

    from repro.train.memory import keep_freed

    device = torch.device(kind)
    keep_freed(device)  # as a run does
    found = _race(part, kind)(device)
    reasons = {**found.left_out, **found.failed}
    done = Part(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=capture_machine(kind),
        code=capture_code(),
        note=found.note,
        rows=[judge(target, found.rounds, reasons) for target in targets(kind, part)],
        table=found.table,
    )
    return done, found.failed


def _race(part: str, kind: str) -> "Callable[[torch.device], Measured]":
    from repro.benchmarks import (
        busy_machine,
        gpu_inputs,
        inputs,
        lrn,
        startup,
        throughput,
        training_steps,
        whole_runs,
    )

    races = {
        "lrn": lrn.race,
        "step": training_steps.race,
        "neighbour": busy_machine.race,
        "input": gpu_inputs.race if kind == CUDA else inputs.race,
        "memory": inputs.memory,
        "start": startup.race,
        "run": whole_runs.race,
        "throughput": throughput.race,
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


def _folding(header: Sequence[str], title: str) -> "Table":
    """A table whose cells break anywhere rather than lose their ends on a narrow terminal."""
    from rich.table import Table

    table = Table(title=title)
    for name in header:
        table.add_column(name, overflow="fold")
    return table


def _print_tables(kind: str, device: str, parts: Mapping[str, Part], failed: Mapping[str, str]) -> None:
    """Every target of this kind of device and of the other; and the throughput where it is known."""
    console = console_for_tables(WIDTH)
    table = _folding(HEADER, device)
    for part in PARTS[kind]:
        rows = [not_measured(target, failed.get(part, "")) for target in targets(kind, part)]
        if part in parts and part not in failed:
            rows = parts[part].rows
        for row in rows:
            table.add_row(*cells(row))
        table.add_section()
    for target in targets(CPU if kind == CUDA else CUDA):
        name, *rest = cells(not_measured(target))
        table.add_row(f"{target.device}: {name}", *rest)
    console.print(table)
    if "throughput" in parts:
        by_batch = _folding(THROUGHPUT_HEADER, parts["throughput"].note)
        for line in parts["throughput"].table:
            by_batch.add_row(*throughput_cells(line))
        console.print(by_batch)


if __name__ == "__main__":
    sys.exit(exit_code(main))
