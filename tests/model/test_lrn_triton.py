"""The Triton kernels of LRN: run by Triton's interpreter on the CPU, and compiled where there is a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from repro.model.lrn import LocalResponseNorm

triton = pytest.importorskip("triton", reason="no Triton on this system")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from repro.model import lrn_triton  # noqa: E402

# The interpreter is chosen when a kernel is defined, so it has a process of its own.
CHECK = """
import itertools
import torch
from repro.model import lrn_triton
from repro.model.lrn import LocalResponseNorm

def random(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 50

worst = {}
layouts = (torch.contiguous_format, torch.channels_last)
cases = [(2, 12, 3, 5), 5, 2], [(1, 6, 7, 3), 5, 1], [(3, 24, 2, 2), 3, 2], [(1, 20, 2, 3), 9, 1], [(1, 4, 1, 1), 1, 2]
for layout, (shape, n, columns), dtype in itertools.product(layouts, cases, lrn_triton.TYPES):
    after_relu = layout is torch.channels_last
    x, g = (random(shape, seed).to(dtype).contiguous(memory_format=layout) for seed in (1, 2))
    layer = LocalResponseNorm(n, 1e-3, 0.75, 2.0, columns)
    layer.after_relu = after_relu
    if after_relu:
        x.relu_()
    leaf = x.double().requires_grad_()
    exact = layer(leaf)
    exact_gradient, = torch.autograd.grad(exact, leaf, g.double())
    found = lrn_triton.forward(layer, x), lrn_triton.backward(layer, x, g)
    for ours, wanted in zip(found, (exact.detach(), exact_gradient)):
        assert ours.dtype == dtype and ours.stride() == x.stride()
        error = ((ours.double() - wanted).abs().max() / wanted.abs().max()).item()
        worst[dtype] = max(worst.get(dtype, 0), error / torch.finfo(dtype).eps)
print(worst)
assert max(worst.values()) < 4, worst
"""


@pytest.mark.slow
def test_the_interpreter_gives_the_float64_formula_to_rounding() -> None:
    program = f"import os; os.environ['TRITON_INTERPRET'] = '1'\n{CHECK}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp16"])
def test_the_kernels_compile_for_gpus_that_are_not_here(
    kind: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an A100 and an H100, to the machine's code; what several windows need is loaded once."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    n, fixed = 5, {"positions": 1, "half": 2, "block_places": 16, "block_maps": 128}
    types = dict.fromkeys(("x", "y", "gradient", "out"), f"*{kind}") | dict.fromkeys(("places", "maps"), "i32")
    for kernel, more, loads in (
        (lrn_triton._forward, {}, n),
        (lrn_triton._backward, {"after_relu": True}, 3 * n - 1),
    ):
        constants = fixed | more
        signature = {name: "constexpr" if name in constants else types.get(name, "fp32") for name in kernel.arg_names}
        source = ASTSource(kernel, signature, constants)
        compiled = triton.compile(source, GPUTarget("cuda", capability, 32), lrn_triton.OPTIONS)
        assert compiled.asm["cubin"]
        assert compiled.asm["ttgir"].count("tt.load") == loads
        assert compiled.asm["ttgir"].count("tt.store") == 1


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels last"])
@pytest.mark.parametrize("columns", [1, 2])
def test_on_a_gpu_too(dtype: torch.dtype, layout: torch.memory_format, columns: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x, g = (torch.randn(3, 96, 13, 11, generator=generator, dtype=torch.float64) * 50 for _ in range(2))
    results = []
    for device, kind, compiled in (("cpu", torch.float64, False), ("cuda", dtype, True)):
        layer = LocalResponseNorm(5, 1e-3, 0.75, 2.0, columns)
        layer.compiled = compiled
        rounded = x.to(dtype).to(device, kind).contiguous(memory_format=layout).requires_grad_()
        out = layer(rounded)
        results.append((out.detach(), torch.autograd.grad(out, rounded, g.to(dtype).to(device, kind))[0]))
    eps = torch.finfo(dtype).eps
    for ours, exact in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(ours.cpu().double(), exact, rtol=4 * eps, atol=4 * eps)
