"""The first convolution, section 3.5: 11x11 kernels over three colours, four pixels apart.

Three maps leave most of a matrix unit idle, a CPU's or a GPU's. Blocks of 4x4 pixels taken for 48 maps make of it a
convolution with 3x3 kernels one block apart, filled up with weights of zero: the same sums in another order. Where such
a unit does the work (bf16, and tf32 on a GPU) that is faster, most of all for the weights' gradient; in fp32 the added
products cost more than it saves.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from repro import triton_kernels
from repro.model.layers import Conv1


class SpaceToDepthConv1(Conv1):
    """`Conv1` over blocks of pixels where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, maps_in, H, W) to (N, maps, H', W')."""
        kind = None if torch.compiler.is_compiling() else _matrix_unit(x)
        return super().forward(x) if kind is None else self._over_blocks(x, kind)

    def _over_blocks(self, x: Tensor, kind: torch.dtype) -> Tensor:
        """Computes what `forward` gives, in that type."""
        kernel, side = self.kernel_size[0], self.stride[0]
        touched = -(-kernel // side)  # blocks that a kernel meets along each side
        steps = [(length + 2 * self.zeros + self.right_bottom - kernel) // side for length in x.shape[2:]]
        height, width = (side * (count + touched) for count in steps)
        fast = x.is_cuda and not x.requires_grad  # the kernel has no backward pass
        kernels = triton_kernels.load("repro.model.fast.conv1_triton") if fast else None
        space = space_to_depth if kernels is None else kernels.space_to_depth
        images = space(x, self.zeros, height, width, side, kind)
        weight = space_to_depth(self.weight, 0, side * touched, side * touched, side, kind)
        return F.conv2d(images, weight, self.bias)


def _matrix_unit(x: Tensor) -> torch.dtype | None:
    """The type in which a matrix unit takes a convolution's input (N, C, H, W); None where none does."""
    device = x.device.type
    if device not in ("cpu", "cuda"):
        return None
    if torch.is_autocast_enabled(device):
        return torch.bfloat16 if torch.get_autocast_dtype(device) is torch.bfloat16 else None
    return torch.float32 if x.is_cuda and x.dtype == torch.float32 and torch.backends.cudnn.allow_tf32 else None


def space_to_depth(x: Tensor, before: int, height: int, width: int, side: int, kind: torch.dtype) -> Tensor:
    """(N, C, H, W) behind `before` zeros at left and top, filled with zeros or cut to (height, width), in blocks:
    (N, side * side * C, height / side, width / side), channels last in memory, of that type."""
    x = F.pad(x.to(kind), (before, width - x.shape[3] - before, before, height - x.shape[2] - before))
    pixels = x.permute(0, 2, 3, 1).unflatten(2, (-1, side)).unflatten(1, (-1, side))
    return pixels.transpose(2, 3).flatten(3).permute(0, 3, 1, 2)
