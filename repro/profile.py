"""`python -m repro.profile setup=imagenette_small ablation=baseline,no_lrn steps=10`: where the time of a step goes.

Runs warm training steps under torch.profiler and prints them by layer and phase and by kernel: time, operations,
bytes, and how near they come to what the device can do, which is measured first. With several ablations it prints
what each costs over the first; they take turns, so that a busy machine slows all alike. The images are random pixels,
so none are needed; they lie where a run's lie. A GPU's kernels are started one by one, for a step that is replayed as
one graph has no layers; its time is told beside. Any key of `repro.run` can follow.

Tables and a roofline picture go to results/profiles/; traces, for Perfetto (ui.perfetto.dev) and for
`tensorboard --logdir` with torch-tb-profiler (pip install 'alexnet-repro[profile]'), to results/raw/profiles/.
"""

import json
import os
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from repro.command import exit_code, helped, own_words, warn
from repro.config import Config
from repro.errors import UserError
from repro.text import console_for_tables

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from rich.console import Console

    from repro.environment import Machine
    from repro.profiling.recorded_steps import Profiled
    from repro.profiling.roofline import Ceilings

_COMMA = re.compile(r",(?![^\[]*\])")  # not within brackets


@dataclass(frozen=True)
class Subject:
    """A configuration, the ablation that makes it, and the name of all that it changes."""

    config: Config
    ablation: str
    label: str

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.config.setup}-{self.config.recipe}-{self.label}"


@dataclass(frozen=True)
class Stand:
    """The device that all arms run on, what it can do, and where its tables and its traces go."""

    device: "torch.device"
    machine: "Machine"
    ceilings: "Ceilings"
    tables: Path
    traces: Path


Tables = dict[str, "pd.DataFrame"]
"""`layers` and `kernels`."""


def arms(words: list[str]) -> list[Subject]:
    """One for each name of `ablation=a,b` or `ablation=a,[b,c]`. UserError for what does not compose."""
    from repro.config import Precision
    from repro.experiments.compose import compose
    from repro.experiments.folder import BASELINE
    from repro.experiments.naming import identify
    from repro.experiments.words import chosen_ablations
    from repro.train.device import choose_device
    from repro.train.precision import resolve, resolved

    names = [word.partition("=")[2] for word in words if word.startswith("ablation=")] or [BASELINE]
    if len(names) > 1:
        raise UserError(f"ablation= is given twice: write ablation={','.join(names)}")
    rest = [word for word in words if not word.startswith("ablation=")]
    found = []
    for name in _COMMA.split(names[0]):
        own = [*rest, f"ablation={name}"]
        config, chosen = compose(own), chosen_ablations(own)
        device = choose_device(config.train.device)
        config = resolved(config, device, warn)
        label, _ = identify(config, chosen, resolve(Precision.auto, device))
        found.append(Subject(config, "+".join(chosen), label))
    return found


def profile(arms: list[Subject], steps: int) -> None:
    """Profiles the arms in turn, prints and files their tables, and those of each one's difference from the first.

    Raises UserError or RunFailure where the results cannot be written.
    """
    from repro.profiling.printed import WIDTH
    from repro.profiling.recorded_steps import profile_steps

    stand, console = _stand(arms[0].config), console_for_tables(WIDTH)
    subjects = [(arm.config, _trace(arm, stand)) for arm in arms]
    found = profile_steps(subjects, stand.device, steps)
    tables = [_report(arm, profiled, stand, console) for arm, profiled in zip(arms, found, strict=True)]
    for arm, other in zip(arms[1:], tables[1:], strict=True):
        _compare(arm, other, arms[0], tables[0], stand, console)


def _trace(arm: Subject, stand: Stand) -> Path:
    return stand.traces / arm.name / f"{arm.ablation}.pt.trace.json.gz"


def _stand(config: Config) -> Stand:
    from repro.environment import capture_machine, slug
    from repro.profiling.ceilings import copy_bandwidth, matmul_rate
    from repro.profiling.roofline import Ceilings
    from repro.record import prepare_results
    from repro.train.device import choose_device

    device, precision = choose_device(config.train.device), config.train.precision
    prepare_results(config.results_dir)
    machine = capture_machine(str(device))
    name = f"{slug(machine.device)}-torch{machine.torch.partition('+')[0]}-{precision.name}"
    ceilings = Ceilings(matmul_rate(device, precision), copy_bandwidth(device))
    results = Path(config.results_dir)
    return Stand(device, machine, ceilings, results / "profiles" / name, results / "raw" / "profiles" / name)


def _report(arm: Subject, profiled: "Profiled", stand: Stand, console: "Console") -> Tables:
    from repro.profiling import roofline
    from repro.profiling.breakdown import by_kernel, by_layer
    from repro.profiling.printed import step_table

    folder = stand.tables / arm.name
    tables = {"layers": by_layer(profiled, stand.ceilings), "kernels": by_kernel(profiled, stand.ceilings)}
    summary = _summary(arm, profiled, stand)
    _write_tables(folder, tables)
    roofline.draw(tables["layers"], stand.ceilings, _title(arm, stand), folder / "roofline.png")
    _write_text(folder / "profile.json", json.dumps(summary, indent=2) + "\n")
    for kind, table in tables.items():
        console.print(step_table(table, f"{arm.ablation}: one step by {_ROW[kind]}", console.width))
    console.print(_words(summary), markup=False)
    console.print(f"Tables: {folder}\nTrace: {_trace(arm, stand)}\n", markup=False, soft_wrap=True)
    return tables


_ROW = {"layers": "layer and phase", "kernels": "kernel"}


def _compare(arm: Subject, tables: Tables, first: Subject, reference: Tables, stand: Stand, console: "Console") -> None:
    from repro.profiling.breakdown import difference
    from repro.profiling.printed import difference_table

    for kind, table in tables.items():
        change = difference(table, reference[kind])
        _write_tables(stand.tables / arm.name, {f"{kind}_less_{first.ablation}": change})
        title = f"{arm.ablation} less {first.ablation}, by {_ROW[kind]}"
        console.print(difference_table(change, title, (first.ablation, arm.ablation)))


def _title(arm: Subject, stand: Stand) -> str:
    setup, recipe, batch = arm.config.setup, arm.config.recipe, arm.config.train.batch_size
    return (
        f"{stand.machine.device}, {arm.config.train.precision.name}: {setup}, {recipe}, {arm.ablation}, batch {batch}"
    )


def _summary(arm: Subject, profiled: "Profiled", stand: Stand) -> dict[str, Any]:
    from repro.environment import capture_code, command_line

    train = arm.config.train
    return {
        "setup": arm.config.setup,
        "recipe": arm.config.recipe,
        "ablation": arm.label,
        "precision": train.precision.name,
        "batch": train.batch_size,
        "steps": len(profiled.seconds),
        "step_milliseconds": 1000 * median(profiled.seconds),
        "step_milliseconds_without_profiler": 1000 * median(profiled.bare_seconds),
        "step_milliseconds_as_graph": 1000 * median(profiled.graph_seconds) if profiled.graph_seconds else None,
        "images_per_second": train.batch_size / median(profiled.graph_seconds or profiled.bare_seconds),
        "images": "random pixels, in memory",
        "matmul_flops_per_second": stand.ceilings.flops,
        "copy_bytes_per_second": stand.ceilings.bandwidth,
        "machine": asdict(stand.machine),
        "code": asdict(capture_code()),
        "command": command_line(sys.argv),
    }


def _words(summary: dict[str, Any]) -> str:
    bare, profiled = (summary[f"step_milliseconds{end}"] for end in ("_without_profiler", ""))
    graph = summary["step_milliseconds_as_graph"]
    alone = f"{bare:.4g} ms" if graph is None else f"{graph:.4g} ms as one graph, {bare:.4g} ms kernel by kernel"
    return (
        f"{summary['machine']['device']}, {summary['precision']}: {alone} a step of {summary['batch']} images"
        f" ({summary['images_per_second']:,.0f} images/s), {profiled:.4g} ms under the profiler;"
        f" medians of {summary['steps']} steps.\n"
        f"Ceilings, measured: {summary['matmul_flops_per_second'] / 1e12:.3g} TFLOP/s in a matrix product,"
        f" {summary['copy_bytes_per_second'] / 1e9:.3g} GB/s in a copy; what fits the caches can be faster.\n"
        "The images are random pixels in memory: `input` reads no disk and decodes nothing."
    )


def _write_tables(folder: Path, tables: Tables) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        _write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))


def _write_text(path: Path, text: str) -> None:
    from repro.files import replace_file

    replace_file(path, text.encode())


def main() -> None:
    """Reads `key=value` arguments: those of `repro.run`, `ablation=` with several names, and `steps=10`."""
    if helped(sys.argv[1:], __doc__):
        return
    own, words = own_words(sys.argv[1:], {"steps": "10"})
    if not own["steps"].isdecimal() or int(own["steps"]) < 1:
        raise UserError(f"steps={own['steps']}: give the number of steps to profile, 1 or more")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler tells stderr that it starts and stops
    profile(arms(words), int(own["steps"]))


if __name__ == "__main__":
    sys.exit(exit_code(main))
