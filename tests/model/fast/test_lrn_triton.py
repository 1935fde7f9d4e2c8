"""The Triton kernels of LRN: run by Triton's interpreter on the CPU, and compiled where there is a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from repro.model.fast.lrn import FusedLRN

triton = pytest.importorskip("triton", reason="no Triton on this system")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from repro.model.fast import lrn_triton  # noqa: E402

# The interpreter is chosen when a kernel is defined, so it has a process of its own.
CHECK = """
import itertools
import torch
from repro.model.fast import lrn_triton
from repro.model.fast.lrn import FusedLRN

def random(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 50

worst = {}
cases = [(2, 16, 3, 5), 5, 2], [(1, 12, 7, 3), 5, 1], [(3, 24, 2, 2), 3, 2], [(1, 40, 2, 3), 9, 1], [(1, 4, 1, 1), 1, 1]
cases += [(3, 48, 7, 11), 5, 1], [(3, 96, 5, 5), 5, 2],  # several programs; places end within one
for (shape, n, columns), dtype, after_relu in itertools.product(cases, lrn_triton.TYPES, (False, True)):
    x, g = (random(shape, seed).to(dtype).contiguous(memory_format=torch.channels_last) for seed in (1, 2))
    layer = FusedLRN(n, 1e-3, 0.75, 2.0, columns)
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
@pytest.mark.parametrize(("kind", "vector", "of_column"), [("fp32", 4, 12), ("bf16", 8, 6), ("fp16", 8, 16)])
def test_the_kernels_compile_for_gpus_that_are_not_here(
    kind: str, vector: int, of_column: int, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an A100 and an H100, to the machine's code; threads exchange nothing, and each number is loaded thrice."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    fixed = {"half": 2, "of_column": of_column, "rows": lrn_triton.ROWS, "vector": vector}
    types = dict.fromkeys(("x", "y", "gradient", "out"), f"*{kind}") | {"vectors": "i32"}
    for kernel, more, loads in ((lrn_triton._forward, {}, 3), (lrn_triton._backward, {"after_relu": True}, 6)):
        constants = fixed | more
        signature = {name: "constexpr" if name in constants else types.get(name, "fp32") for name in kernel.arg_names}
        aligned = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(signature) if signature[name][0] == "*"}
        source = ASTSource(kernel, signature, constants, aligned)
        compiled = triton.compile(source, GPUTarget("cuda", capability, 32), lrn_triton.OPTIONS)
        assert compiled.asm["cubin"]
        assert compiled.metadata.shared == 0
        assert compiled.asm["ttgir"].count("tt.load") == loads
        assert compiled.asm["ttgir"].count("tt.store") == 1
        assert compiled.asm["ptx"].count("st.global") == 1


@pytest.mark.parametrize(("shape", "n", "columns", "dtype", "vector"), [
    ((2, 96, 3, 3), 5, 2, torch.bfloat16, 8),
    ((2, 96, 3, 3), 5, 2, torch.float32, 4),
    ((2, 24, 3, 3), 5, 2, torch.bfloat16, 4),  # 12 maps of a column
    ((2, 32, 3, 3), 9, 1, torch.float32, 8),  # windows that reach beyond 4 neighbours
    ((2, 12, 3, 3), 5, 2, torch.float32, None),
    ((2, 32, 3, 3), 11, 1, torch.float32, None),
])  # fmt: skip
def test_a_thread_takes_maps_that_divide_a_column(
    shape: tuple[int, ...], n: int, columns: int, dtype: torch.dtype, vector: int | None
) -> None:
    layer = FusedLRN(n, 1e-3, 0.75, 2.0, columns)
    assert lrn_triton._vector(layer, torch.zeros(shape, dtype=dtype)) == vector


def exact(layer: FusedLRN, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Output and gradient of a plain layer in float64 on the CPU."""
    plain = FusedLRN(layer.n, layer.alpha, layer.beta, layer.k, layer.columns)
    plain.after_relu = layer.after_relu
    leaf = x.cpu().double().requires_grad_()
    out = plain(leaf)
    return out.detach(), torch.autograd.grad(out, leaf, g.cpu().double())[0]


def assert_near(found: Tensor, wanted: Tensor, rounding: float) -> None:
    """Relative to the largest number, for differences of large numbers cancel."""
    error = (found.cpu().double() - wanted).abs().max() / wanted.abs().max()
    assert error < rounding


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels last"])
@pytest.mark.parametrize(("maps", "columns"), [(96, 1), (96, 2), (256, 2), (24, 2), (12, 2)])
@pytest.mark.parametrize("after_relu", [True, False])
def test_on_a_gpu_too(
    dtype: torch.dtype,
    layout: torch.memory_format,
    maps: int,
    columns: int,
    after_relu: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # as `set_precision` has it
    generator = torch.Generator().manual_seed(1)
    x, g = (torch.randn(3, maps, 13, 11, generator=generator, dtype=torch.float64) * 50 for _ in range(2))
    x, g = (tensor.to("cuda", dtype).contiguous(memory_format=layout) for tensor in (x.relu() if after_relu else x, g))
    layer = FusedLRN(5, 1e-3, 0.75, 2.0, columns)
    layer.after_relu = after_relu
    served = layout is torch.channels_last and maps != 12
    assert (layer.kernels(x) is lrn_triton) == served
    out = layer(x.requires_grad_())
    found = out.detach(), torch.autograd.grad(out, x, g)[0]
    for ours, wanted in zip(found, exact(layer, x.detach(), g), strict=True):
        assert_near(ours, wanted, 8 * torch.finfo(dtype).eps)
        assert ours.is_contiguous(memory_format=layout)
