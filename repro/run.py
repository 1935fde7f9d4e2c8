"""`python -m repro.run ablation=no_lrn`: train and evaluate one configuration, and file its record.

With `-m` in front and lists (`-m ablation=baseline,no_lrn seed=0,1,2`) it runs every combination; runs that are
done are skipped, a failed one does not hold up the others. `suite=cousins` stands for such lists; with `minutes=9` it
begins no run that would not end in that time, and the same command goes on.
"""

import sys

if __name__ == "__main__":  # before the imports below, for they take long enough to be interrupted
    from repro import stopping, streams

    stopping.listen()
    if not {word.partition("=")[0] for word in sys.argv[1:]} & streams.ASKING:
        streams.outlast()

import os
import shutil
import textwrap
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from repro import stopping
from repro.command import exit_code, exit_code_of_run, key_of
from repro.distributed import from_environment, shut_down
from repro.errors import UserError
from repro.experiments import compose, folder, suites
from repro.experiments import words as words_of

if TYPE_CHECKING:
    from omegaconf import DictConfig


_HELP = """\
Train and evaluate one configuration of the 2012 network, and file its record.

  python -m repro.run ablation=no_lrn                        one ingredient changed
  python -m repro.run setup=cifar10 recipe=source seed=1     other data, the authors' code
  python -m repro.run ablation=[no_lrn,no_dropout]           both changes in one run
  python -m repro.run train.epochs=3 optimizer.lr=0.02       any key of the schema
  python -m repro.run -m ablation=baseline,no_lrn seed=0,1   a sweep: every combination
  python -m repro.run suite=cousins seed=0                   a sweep that answers one question
  python -m repro.run suite=gpu minutes=9 at_once=2          as much of it as fits, two runs at a time; goes on

The choices, explained in experiments/README.md:

{choices}

  --help ablations          each with its question; so recipes, setups, suites, claims
  --help ablation=no_lrn    all about one: what it changes, what was published, what the records here show

All keys and their values: python -m repro.run --cfg job"""

_codes: list[int] = []
"""Exit code of each job: Hydra runs all jobs of a sweep in this process and keeps no code of them."""


def main() -> None:
    """Composes the configuration with Hydra and runs the job, or each job of a sweep."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(_help([word for word in sys.argv[1:] if not word.startswith("-")]))
        return

    started = time.monotonic()
    from_environment()  # processes that nothing joins end here, and not once a job
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `exit_code`; Hydra would print its own pages
    try:
        if _sweeps_here(sys.argv[1:]):
            _codes.append(_sweep(words_of.normalise_arguments(["-m", *sys.argv[1:]])[1:], started))
        else:
            _start_hydra(words_of.normalise_arguments(suites.expand(sys.argv[1:])))
        shut_down()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(compose.explain(error)) from error


def _help(words: Sequence[str]) -> str:
    if words:
        from repro.terminal import help as pages

        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        if page := pages.text(words, width):
            return page
    return _HELP.format(choices="\n".join(map(_choices, (*folder.GROUPS, "suite"))))


def _sweeps_here(words: Sequence[str]) -> bool:
    """Tells whether this process makes the runs of a suite or a sweep; Hydra does for its options and patterns.

    Raises UserError where the others are given words that only these have.
    """
    sweeps = {"-m", "--multirun"}
    options = [word for word in words if word.startswith(("-", "hydra")) and word not in sweeps]
    patterns = [word for word in words if words_of.is_pattern(word)]
    suite = suites.chosen(words) is not None
    if not options and (suite or (sweeps & set(words) and not patterns)):
        return True
    for word in words:
        if key_of(word) in suites.OWN_WORDS:
            others = " and ".join([*options, *patterns])
            remedy = f"leave out {others}, for which Hydra makes them" if others else "add suite=NAME, or -m and lists"
            raise UserError(f"{word} is for several runs that this process makes: {remedy}")
    return False


def _sweep(words: Sequence[str], started: float) -> int:
    """A suite or a sweep that this process makes; says what it is before PyTorch is read in."""
    from repro.experiments import sweep
    from repro.terminal.screen import Screen

    if from_environment().is_main:
        screen = Screen()
        for line in sweep.first_words(words):
            screen.say(line, indent=sweep.INDENT)

    from repro import campaign

    return campaign.start(words, started)


def _start_hydra(words: Sequence[str]) -> None:
    import hydra

    sys.argv[1:] = words
    try:
        hydra.main(config_path=str(folder.EXPERIMENTS), config_name="config", version_base="1.3")(_job)()
    except OSError as error:
        if _codes or error.filename is None:  # not of the folder that Hydra makes for a sweep
            raise
        remedy = "choose another results_dir"
        raise UserError(f"{error.filename}: cannot be written ({error.strerror}): {remedy}") from error


def _choices(group: str) -> str:
    return textwrap.fill(", ".join(folder.choices(group)), 100, initial_indent=f"{group}: ", subsequent_indent="  ")


def _job(node: "DictConfig") -> None:
    """One run; its failure is told and remembered, and the next job of a sweep goes on.

    Where a launcher runs the jobs in other processes, what a job raises reaches the command through it.
    """
    from hydra.core.hydra_config import HydraConfig

    if HydraConfig.get().runtime.choices["hydra/launcher"] != "basic":
        _run(node)
        return
    _codes.append(1)  # for what is not caught below
    _codes[-1] = exit_code_of_run(lambda: _run(node))
    # Ctrl-C ends a sweep too; and of processes that share a run none may go on alone
    if stopping.is_stop(_codes[-1]) or (_codes[-1] and from_environment().size > 1):
        sys.exit(stopping.end(_codes[-1]))


def _run(node: "DictConfig") -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from repro.terminal.screen import Screen

    hydra, words = HydraConfig.get(), HydraConfig.get().overrides.task
    with Screen(f"run {hydra.job.num + 1}" if hydra.mode is RunMode.MULTIRUN else "") as screen:
        config = compose.to_config(node)
        screen.first_words(config, words)

        from repro import runner, tracking  # which read in PyTorch
        from repro.request import request

        wanted = request(config, words, sys.argv, screen.warning)
        record = runner.run(wanted, screen, tracking.of_run)
        if record is not None:
            screen.ended(wanted, record)


if __name__ == "__main__":
    sys.exit(stopping.end(exit_code(main) or max(_codes, default=0)))
