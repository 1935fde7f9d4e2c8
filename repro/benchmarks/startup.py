"""Seconds from the start of a process to what its user waits for."""

import subprocess
import sys
import tempfile
import time

import torch

from repro.benchmarks.alternating import Measured, in_turn
from repro.errors import RunFailure

ROUNDS = 3
HELP = [sys.executable, "-m", "repro.run", "--help"]
_STEP_DONE = "the first step is done"
_UNTIL_FIRST_STEP = f"""
import sys
from repro.run import main
from repro.train.step import TrainingStep

step = TrainingStep.__call__

def first(*arguments):
    step(*arguments)
    print({_STEP_DONE!r}, flush=True)
    raise KeyboardInterrupt

TrainingStep.__call__ = first
sys.exit(main())
"""


def race(device: torch.device) -> Measured:
    """Seconds until `repro.run --help` has ended, and until the default run has made its first update.

    What is made once a machine (packed images, compiled kernels) is there before the first round.
    """
    for measure in (to_help, to_first_step):
        measure()
    rounds = in_turn({"help": to_help, "first step": to_first_step}, ROUNDS)
    return Measured(rounds, "seconds from the start of the process, caches warm")


def to_help() -> float:
    """Seconds until the help is shown."""
    start = time.perf_counter()
    subprocess.run(HELP, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def to_first_step() -> float:
    """Seconds until the first update of `setup=embedded`. RunFailure where there is none."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            f"results_dir='{folder}'",
            "setup=embedded",
            "train.epochs=1",
            "train.device=cpu",
            "wandb.mode=offline",
        ]
        start = time.perf_counter()
        command = [sys.executable, "-c", _UNTIL_FIRST_STEP, *words]
        line = "it said nothing"
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if _STEP_DONE in line:
                    elapsed = time.perf_counter() - start
                    process.communicate()
                    return elapsed
    raise RunFailure(f"setup=embedded made no step ({line.strip()}): try python -m repro.run")
