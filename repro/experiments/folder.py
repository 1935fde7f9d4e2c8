"""The folder of the YAML files, `experiments/`, and what there is to choose."""

from pathlib import Path

_SHIPPED = Path(__file__).parents[1] / "_experiments"  # where a wheel puts the YAML files
EXPERIMENTS = _SHIPPED if _SHIPPED.is_dir() else Path(__file__).parents[2] / "experiments"
GROUPS = ("recipe", "setup", "ablation")
DEFAULTS = {"recipe": "paper", "setup": "embedded"}
"""What `experiments/config.yaml` takes where a command names none."""
BASELINE = "baseline"


def choices(group: str) -> list[str]:
    """Names of the files in `recipe`, `setup`, `ablation` or `suite`."""
    return sorted(path.stem for path in (EXPERIMENTS / group).glob("[!.]*.yaml"))
