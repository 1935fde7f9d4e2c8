"""The smallest kernel, to see whether Triton can make one."""

# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl


@triton.jit
def _write(out):
    tl.store(out, 1)


def run() -> None:
    """Compiles and launches it on the current GPU. Raises whatever Triton raises where it cannot."""
    _write[(1,)](torch.zeros(1, device="cuda"))
