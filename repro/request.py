"""The step from a checked configuration to the run that the runner makes."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repro import record as records
from repro.command import expanded
from repro.config import Config, Precision
from repro.distributed import from_environment
from repro.experiments import naming
from repro.experiments.keys import plain
from repro.experiments.naming import PRECISION, leaves_precision_open
from repro.experiments.words import chosen_ablations
from repro.record import config_hash
from repro.train.device import choose_device
from repro.train.precision import resolve, resolved


@dataclass(frozen=True)
class Run:
    """A configuration, what it is filed under, and the command that asked for it."""

    config: Config
    label: str
    """Name of the ablation, from the difference against the plain recipe and setup."""
    difference: dict[str, Any]
    """Changed key -> (plain value, value here)."""
    plain: dict[str, Any]
    """The whole configuration as nested plain values."""
    config_hash: str
    """Of everything that makes the run the experiment that it is."""
    command: Sequence[str]
    init_from: Path | None = None
    """File of weights to start from, which the configuration knows by its fingerprint."""
    chosen: Sequence[str] = ()
    """Ablations asked for by name, `baseline` included."""

    @property
    def folder(self) -> Path:
        """The folder of the record."""
        return records.run_folder(*self._place)

    @property
    def raw(self) -> Path:
        """The folder of checkpoint and weights."""
        return records.raw_folder(*self._place)

    def is_of(self, record: records.Record) -> bool:
        """Tells whether a record is of these settings; one of the same name may be of an older configuration."""
        return config_hash(naming.recorded_settings(record.config)) == self.config_hash

    @property
    def _place(self) -> tuple[str, str, str, str, str]:
        config, device = self.config, choose_device(self.config.train.device, from_environment())
        automatic = PRECISION not in self.difference and leaves_precision_open(config.recipe, config.setup)
        leaf = records.leaf(config.seed, device.type, config.train.precision.name if automatic else None)
        return config.results_dir, config.setup, config.recipe, self.label, leaf


def request(config: Config, words: Sequence[str], command: Sequence[str], warn: Callable[[str], object]) -> Run:
    """The run of a configuration that these words of a command line made, under the name that follows from it.

    It has the size of the weights that it starts from, and its precision is what the device has. `command` is what
    would make the run again, as in `sys.argv`. Raises UserError where an ablation does not apply, where the file of
    `init_from` cannot be read, and where the device is not there.
    """
    config, path = _at_size_of_weights(config, words)
    world = from_environment()
    device = choose_device(config.train.device, world)
    config = resolved(config, device, warn if world.is_main else lambda text: None)
    auto = resolve(Precision.auto, device)
    chosen = chosen_ablations(words)
    label, difference = naming.identify(config, chosen, auto)
    return Run(config, label, difference, plain(config), config_hash(naming.settings(config)), command, path, chosen)


def _at_size_of_weights(config: Config, words: Sequence[str]) -> tuple[Config, Path | None]:
    """The configuration at the size of the weights of `init_from`, with their fingerprint for their path; the path."""
    if config.init_from is None:
        return config, None
    from repro.weights import fingerprint
    from repro.weights.geometry import at_their_size

    path = expanded(config.init_from, "init_from")
    config, change = at_their_size(path, config, {word.partition("=")[0] for word in words})
    if change and from_environment().is_main:
        print(change, file=sys.stderr)
    return replace(config, init_from=fingerprint(path)), path
