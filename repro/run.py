"""`python -m repro.run ablation=no_lrn`: train and evaluate one configuration, and file its record.

With `-m` in front and lists (`-m ablation=baseline,no_lrn seed=0,1,2`) it runs every combination; runs that are
done are skipped, a failed one does not hold up the others. `suite=cousins` stands for such lists.
"""

import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from repro import experiments, naming, suites
from repro.command import exit_code
from repro.errors import UserError
from repro.ranks import from_environment, leave

if TYPE_CHECKING:
    from collections.abc import Callable

    from omegaconf import DictConfig

    from repro.config import Config, Precision

_HELP = """\
Train and evaluate one configuration of the 2012 network, and file its record.

  python -m repro.run ablation=no_lrn                        one ingredient changed
  python -m repro.run setup=cifar10 recipe=source seed=1     other data, the authors' code
  python -m repro.run ablation=[no_lrn,no_dropout]           both changes in one run
  python -m repro.run train.epochs=3 optimizer.lr=0.02       any key of the schema
  python -m repro.run -m ablation=baseline,no_lrn seed=0,1   a sweep: every combination
  python -m repro.run suite=cousins seed=0                   a sweep that answers one question

The choices, explained in experiments/README.md:

{choices}

All keys and their values: python -m repro.run --cfg job"""

_codes: list[int] = []
"""Exit code of each job: Hydra runs all jobs of a sweep in this process and keeps no code of them."""


def main() -> None:
    """Composes the configuration with Hydra and runs the job, or each job of a sweep."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(_HELP.format(choices="\n".join(map(_choices, (*experiments.GROUPS, "suite")))))
        return

    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `exit_code`; Hydra would print its own pages
    sys.argv[1:] = experiments.normalise_arguments(suites.expand(sys.argv[1:]))
    start = hydra.main(config_path=str(experiments.EXPERIMENTS), config_name="config", version_base="1.3")
    try:
        start(_job)()
        leave()
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(experiments.explain(error)) from error
    except OSError as error:
        if _codes:  # a job's, not of the folder that Hydra makes for a sweep
            raise
        remedy = "choose another results_dir"
        raise UserError(f"{error.filename}: cannot be written ({error.strerror}): {remedy}") from error


def _choices(group: str) -> str:
    return textwrap.fill(
        ", ".join(experiments.choices(group)), 100, initial_indent=f"{group}: ", subsequent_indent="  "
    )


def _job(node: "DictConfig") -> None:
    """One run; its failure is told and remembered, and the next job of a sweep goes on."""
    _codes.append(1)  # for what is not caught below
    _codes[-1] = exit_code(lambda: _run(node))
    # Ctrl-C ends a sweep too; and of processes that share a run none may go on alone
    if _codes[-1] == 130 or (_codes[-1] and from_environment().count > 1):
        sys.exit(_codes[-1])


def _run(node: "DictConfig") -> None:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    words = HydraConfig.get().overrides.task
    config, init_from = _started(experiments.to_config(node), words)

    from repro import runner
    from repro.record import config_hash
    from repro.report.tables import against_baseline
    from repro.report.terminal import Screen

    with Screen() as screen:
        config, auto = _resolved(config, screen.warning)
        label, difference = naming.identify(config, experiments.chosen_ablations(words), auto)
        plain = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True))
        identity = config_hash(naming.settings(config))
        wanted = runner.Run(config, label, difference, plain, identity, sys.argv, init_from)
        record = runner.run(wanted, screen)
        if record is not None:
            screen.console.print(against_baseline(record, config.results_dir, words))


def _started(config: "Config", words: Sequence[str]) -> "tuple[Config, Path | None]":
    """The configuration at the size of the weights of `init_from`, with their fingerprint for their path; the path."""
    if config.init_from is None:
        return config, None
    from repro.weights import fingerprint
    from repro.weights.geometry import at_their_size

    path = Path(config.init_from).expanduser()
    config, change = at_their_size(path, config, {word.partition("=")[0] for word in words})
    if change:
        print(change, file=sys.stderr)
    return replace(config, init_from=fingerprint(path)), path


def _resolved(config: "Config", warn: "Callable[[str], object]") -> "tuple[Config, Precision]":
    """The configuration with its precision as it is on the run's device, and what `auto` is there."""
    from repro.config import Precision
    from repro.train.device import choose_device
    from repro.train.precision import resolve, resolved

    ranks = from_environment()
    device = choose_device(config.train.device, ranks)
    return resolved(config, device, warn if ranks.first else lambda text: None), resolve(Precision.auto, device)


if __name__ == "__main__":
    sys.exit(exit_code(main) or max(_codes, default=0))
