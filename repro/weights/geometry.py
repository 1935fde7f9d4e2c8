"""Weights of the full net in a setup that is smaller: which of the two sizes a run takes."""

from dataclasses import replace
from pathlib import Path

from repro.config import Config
from repro.errors import UserError
from repro.weights.formats import check

FULL_SIZE = {"model.scale": 1.0, "data.image_size": 256, "data.crop": 224}
"""The paper's sizes: all maps and units (3.5), crops of 224 out of 256 pixels (2, 4.1)."""


def at_their_size(path: Path, config: Config, given: set[str]) -> tuple[Config, str | None]:
    """The configuration that the weights of a file fit, and a line that says what is not the setup's.

    It is the setup's own; or that at the paper's sizes, where the weights fit these alone and the keys `given` by the
    user leave the sizes open. What is wrong with weights that fit neither is for `check` to say.
    """
    if given & FULL_SIZE.keys() or _fit(path, config):
        return config, None
    model = replace(config.model, scale=FULL_SIZE["model.scale"])
    data = replace(config.data, image_size=int(FULL_SIZE["data.image_size"]), crop=int(FULL_SIZE["data.crop"]))
    full = replace(config, model=model, data=data)
    if not _fit(path, full):
        return config, None
    sizes = " ".join(f"{key}={value:g}" for key, value in FULL_SIZE.items())
    return full, f"{path.name} holds the full net: {sizes} in place of the setup's"


def _fit(path: Path, config: Config) -> bool:
    """Tells whether all but the number of classes agrees."""
    try:
        check(path, config, lambda: 2, new_classes=True)
    except UserError:
        return False
    return True
