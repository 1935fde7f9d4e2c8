"""The Triton kernel of conv1's blocks: run by Triton's interpreter on the CPU, and compiled where there is a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from repro.model.fast import conv1

triton = pytest.importorskip("triton", reason="no Triton on this system")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from repro.model.fast import conv1_triton  # noqa: E402

ROOT = Path(__file__).parents[3]
# (C, H, W), zeros before, size with them, side
CASES = [
    ((3, 224, 224), 0, (228, 228), 4),
    ((3, 61, 66), 2, (68, 68), 4),
    ((3, 30, 33), 1, (20, 28), 2),
    ((1, 25, 25), 0, (25, 30), 5),
]


def check(device: str) -> None:
    """The kernel and PyTorch's operations give the same, to the bit."""
    for shape, before, size, side in CASES:
        for layout in (torch.channels_last, torch.contiguous_format):
            x = torch.randint(-128, 129, (2, *shape), generator=torch.Generator().manual_seed(0)).float()
            x = x.to(device, memory_format=layout)
            for given, kind in ((x, torch.float32), (x, torch.bfloat16), (x.bfloat16(), torch.bfloat16)):
                found = conv1_triton.space_to_depth(given, before, *size, side, kind)
                expected = conv1.space_to_depth(given, before, *size, side, kind)
                assert found.dtype == kind
                assert found.is_contiguous(memory_format=torch.channels_last)
                assert torch.equal(found, expected)


@pytest.mark.slow
def test_the_interpreter_gives_what_pytorchs_operations_give() -> None:
    """The interpreter is chosen when a kernel is defined, so it has a process of its own."""
    program = (
        "import os; os.environ['TRITON_INTERPRET'] = '1';"
        "from tests.model.fast import test_conv1_triton as own; own.check('cpu')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernel_compiles_for_gpus_that_are_not_here(
    capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    sizes = {"before": 0, "maps": 3, "rows": 224, "columns": 224, "height": 228, "width": 228, "side": 4}
    constants = sizes | {"block": conv1_triton.BLOCK}
    names = conv1_triton._blocks.arg_names
    signature = {name: "constexpr" if name in constants else "*bf16" for name in names}
    source = ASTSource(conv1_triton._blocks, signature, constants)
    compiled = triton.compile(source, GPUTarget("cuda", capability, 32), conv1_triton.OPTIONS)
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared == 0


@pytest.mark.cuda
def test_a_gpu_gives_what_pytorchs_operations_give() -> None:
    check("cuda")


@pytest.mark.cuda
def test_images_with_a_gradient_go_by_pytorchs_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv1_triton, "space_to_depth", lambda *given: pytest.fail("the kernel has no backward pass"))
    layer = conv1.SpaceToDepthConv1(3, 4, kernel=11, stride=4, right_bottom=3).cuda()
    x = torch.ones(2, 3, 64, 64, device="cuda", requires_grad=True)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        layer(x).float().sum().backward()
    assert x.grad is not None
