"""What a run ran on: machine, software, version of this package, command. Nothing that names a host or a user."""

import os
import platform
import re
import shlex
import subprocess
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


def capture_machine(device: str, processes: int = 1) -> Machine:
    """What `device` (`cpu`, `cuda`, `cuda:N`) of each of the processes is, and the software under it."""
    import torch

    kind = torch.device(device).type
    return Machine(
        device=torch.cuda.get_device_name(device) if kind == "cuda" else _cpu_model(),
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
    git = ("git", "-C", str(PACKAGE))
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
    """As a name of a file: lower-case letters, digits and single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def without_paths(text: str) -> str:
    """The text with each absolute path cut to its last part."""
    pattern = r"""(?:^|(?<=[=,:\[{"']))(?:[A-Za-z]:\\|[/~])[^,\]}"']*"""
    return re.sub(pattern, lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], text)


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
