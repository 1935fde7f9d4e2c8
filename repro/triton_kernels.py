"""Modules with kernels in Triton, on machines where it can make them.

Triton compiles a launcher with the machine's C compiler and keeps what it makes in a cache on disk. A bare container
may have neither: then PyTorch's operations do the work.
"""

import os
import sys
import textwrap
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from repro.files import user_caches, writable


@cache
def load(name: str) -> ModuleType | None:
    """The module of that name; None where Triton makes no kernels here."""
    return import_module(name) if works() else None


@cache
def works() -> bool:
    """Tells whether Triton makes kernels for the current GPU: tried once a process, with one warning where it fails."""
    try:
        _choose_cache()
        import_module("repro.triton_trial").run()
    except Exception as error:  # RuntimeError, OSError, CalledProcessError, ImportError: whatever it meets on its way
        reason = textwrap.shorten(str(error) or type(error).__name__, 160)
        warnings.warn(
            f"Triton makes no kernels here ({reason}): PyTorch's slower operations take their place;"
            " a C compiler and a TRITON_CACHE_DIR that can be written mend it",
            RuntimeWarning,
            stacklevel=3,
        )
        return False
    return True


def _choose_cache() -> None:
    """Gives Triton a cache of this user's own where it would not find one: a home that is another's, or none."""
    home = Path(os.environ.get("TRITON_HOME") or os.path.expanduser("~"), ".triton")  # noqa: PTH111  # as Triton does
    places = user_caches()
    if "TRITON_CACHE_DIR" in os.environ or writable(home) or not places:
        return
    os.environ["TRITON_CACHE_DIR"] = str(places[-1] / "triton")
    print(f"{home} cannot be written: Triton's kernels are kept in {places[-1] / 'triton'}", file=sys.stderr)
