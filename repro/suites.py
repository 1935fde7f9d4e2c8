"""Suites: recipes, ablations and seeds that answer one question together, `experiments/suite/*.yaml`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from omegaconf import OmegaConf

from repro.errors import UserError
from repro.experiments import EXPERIMENTS, choices


@dataclass(frozen=True)
class Suite:
    """Every recipe with every ablation and seed, in one setup."""

    name: str
    question: str
    setup: str
    recipe: tuple[str, ...]
    ablation: tuple[str, ...]
    seed: tuple[int, ...]

    def words(self) -> list[str]:
        """The sweep as words of a command line."""
        lists = {"recipe": self.recipe, "ablation": self.ablation, "seed": self.seed}
        return [f"setup={self.setup}", *(f"{key}={','.join(map(str, values))}" for key, values in lists.items())]


def read(name: str) -> Suite:
    """A suite by its name. Raises UserError for an unknown one."""
    if name not in choices("suite"):
        raise UserError(f"unknown suite={name}: there are {', '.join(choices('suite'))}")
    plain = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(EXPERIMENTS / "suite" / f"{name}.yaml")))
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}
    return Suite(name, **fields)


def expand(words: Sequence[str]) -> list[str]:
    """The words of a command line with `suite=NAME` replaced by its sweep; what else is given goes before it.

    So `suite=cousins seed=0 setup=embedded` is the suite at one seed and in another setup. Raises UserError for an
    unknown suite.
    """
    chosen = [word.removeprefix("suite=") for word in words if word.startswith("suite=")]
    rest = [word for word in words if not word.startswith("suite=")]
    if not chosen:
        return list(words)
    if len(chosen) > 1:
        raise UserError("suite= is given twice: give one command for each")
    given = {word.partition("=")[0] for word in rest}
    return ["-m", *(word for word in read(chosen[0]).words() if word.partition("=")[0] not in given), *rest]
