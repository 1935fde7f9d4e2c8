"""The machine, software, version of this package and command of a run. Nothing here names a host or a user."""

import os
import platform
import re
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from repro import __version__

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Machine:
    """`device` is the model of the processor that computed; `cores` are the host's, `threads` those torch used.

    `processes` shared the run, with a device or as many threads each.
    """

    device: str
    device_type: str
    cores: int
    threads: int
    driver: str | None
    torch: str
    cuda: str | None
    python: str
    processes: int = 1


@dataclass(frozen=True)
class Code:
    """The version of this package; `commit` and `dirty` are None where it does not run from its git checkout."""

    commit: str | None
    dirty: bool | None
    version: str | None


@dataclass(frozen=True)
class Load:
    """The load of the machine by other work during a run; None where the system does not tell."""

    start: float | None
    """Load average of one minute over the number of cores, this run's own work included, at the start."""
    end: float | None
    """The same at the end."""
    steal: float | None = None
    """Share of all cores' time, 0 to 1, that the host of a virtual machine gave to others."""
    others: float | None = None
    """Share of all cores' time, 0 to 1, that other processes on this machine took."""


class LoadMeter:
    """Watches how busy the machine is, from when it is made."""

    def __init__(self) -> None:
        """Reads the counters for the first time."""
        self.start, self.ticks, self.own = _load_average(), _ticks(), time.process_time()

    def read(self, processes: int = 1) -> Load:
        """The load since then, where as many processes like this one share the work."""
        end, ticks, own = _load_average(), _ticks(), (time.process_time() - self.own) * processes
        if not self.ticks or not ticks:
            return Load(self.start, end)
        passed = {name: max(0, ticks[name] - before) for name, before in self.ticks.items()}
        whole = sum(passed.values())
        if not whole:
            return Load(self.start, end)
        busy = whole - passed["idle"] - passed["iowait"] - passed["steal"]
        others = max(0.0, busy - own * os.sysconf("SC_CLK_TCK"))
        return Load(self.start, end, passed["steal"] / whole, others / whole)


def device_name(device: str) -> str:
    """Model of the processor behind `cpu`, `cuda` or `cuda:N`."""
    import torch

    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else _cpu_model()


def capture_machine(device: str, processes: int = 1) -> Machine:
    """Describes the `device` (`cpu`, `cuda`, `cuda:N`) of each of the processes, and the software under it."""
    import torch

    kind = torch.device(device).type
    return Machine(
        device=device_name(device),
        device_type=kind,
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        driver=_output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") if kind == "cuda" else None,
        torch=torch.__version__,
        cuda=torch.version.cuda if kind == "cuda" else None,
        python=platform.python_version(),
        processes=processes,
    )


def capture_code() -> Code:
    """Commit of the checkout that the package runs from, and whether code or experiments differ from it."""
    commit, dirty = None, None
    # Git refuses another user's checkout, for its hooks and filters could run code; these commands only read.
    git = ("git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-C", str(PACKAGE))
    # An installed package may lie inside the checkout of something else: only one that tracks this file counts.
    if _output(*git, "ls-files", "--error-unmatch", Path(__file__).name):
        commit = _output(*git, "rev-parse", "HEAD")
        dirty = bool(_output(*git, "status", "--porcelain", "--", ".", "../experiments"))
    return Code(commit=commit, dirty=dirty, version=__version__)


def command_line(argv: Sequence[str]) -> str:
    """The command as one would type it again; absolute paths are cut to their last part."""
    program = PurePath(argv[0])
    start = ["python", "-m", f"repro.{program.stem}"] if program.suffix == ".py" else [program.name]
    return shlex.join([*start, *(without_paths(argument) for argument in argv[1:])])


def slug(text: str) -> str:
    """Turns a text into the name of a file: lower-case letters, digits and single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def without_paths(text: str) -> str:
    """The text with each absolute path cut to its last part."""
    pattern = r"""(?:^|(?<=[=,:\[{"']))(?:[A-Za-z]:\\|[/~])[^,\]}"']*"""
    return re.sub(pattern, lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], text)


_STAT = Path("/proc/stat")
_STAT_COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")  # proc(5); guests are in user


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):  # Windows has none
        return None


def _ticks() -> dict[str, int]:
    """Processor time of all cores since the start, in clock ticks; empty where there is no such file."""
    try:
        numbers = _STAT.read_text(encoding="ascii").splitlines()[0].split()[1:]
    except (OSError, IndexError):
        return {}
    return dict(zip(_STAT_COLUMNS, map(int, numbers), strict=False)) if len(numbers) >= len(_STAT_COLUMNS) else {}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _output(*command: str) -> str | None:
    """First line a command prints; None where it prints nothing, fails, or is not installed."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None
