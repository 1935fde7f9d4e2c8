"""The fields of the layer, `lrn.LocalResponseNorm`, that the kernels of LRN read."""

from typing import Protocol

BETA = 0.75
"""The one power that they have, the paper's: two square roots make it."""


class Window(Protocol):
    """b = a / (k + alpha * sum of a^2 over the window)^beta."""

    n: int
    """Maps, or pixels on a side, of a window."""
    alpha: float
    beta: float
    k: float
    columns: int
    """Windows of maps end at the border of a column."""
    pixels: bool
    """n x n pixels of the same map instead of n maps."""
    after_relu: bool
    """The gradient accounts for a ReLU in front."""
