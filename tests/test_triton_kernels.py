"""What happens where Triton cannot make kernels: one warning, and PyTorch's operations."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from repro import triton_kernels
from repro.model.fast.lrn import FusedLRN
from repro.model.lrn import LocalResponseNorm
from tests.forbidden import forbid

pytest.importorskip("triton", reason="no Triton on this system")
from repro import triton_trial

FAILURES = [
    RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
    PermissionError(13, "Permission denied", "/home/someone/.triton/cache"),
    subprocess.CalledProcessError(1, ["gcc", "main.c"]),
    AssertionError(),
]


class OnGpu(torch.Tensor):
    """A tensor that says it lies on a GPU."""

    is_cuda = True


@pytest.fixture
def afresh() -> Iterator[None]:
    """Triton is tried again, in the test and after it."""
    functions = (triton_kernels.works, triton_kernels.load)
    for function in functions:
        function.cache_clear()
    yield
    for function in functions:
        function.cache_clear()


def passes(x: Tensor, compiled: bool) -> list[Tensor]:
    layer = (FusedLRN if compiled else LocalResponseNorm)(5, 1e-3, 0.75, 2.0, 2)
    x = x.detach().requires_grad_()
    out = layer(x)
    return [out.detach(), *torch.autograd.grad(out.sum(), x)]


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_it_is_tried_once_and_the_plain_way_gives_the_result(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def run() -> None:
        tries.append(1)
        raise failure

    monkeypatch.setattr(triton_trial, "run", run)
    x = torch.randn(2, 16, 3, 3, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    with pytest.warns(RuntimeWarning, match="Triton makes no kernels here") as seen:
        found = passes(x.as_subclass(OnGpu), True)
    assert passes(x.as_subclass(OnGpu), True)[0].equal(found[0])  # with no second warning, which would be an error
    assert (len(seen), len(tries)) == (1, 1)
    assert "\n" not in str(seen[0].message)
    for ours, plain in zip(found, passes(x, False), strict=True):
        assert torch.equal(ours, plain)


@pytest.mark.usefixtures("afresh")
def test_where_the_trial_succeeds_the_module_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_trial, "run", lambda: None)
    assert triton_kernels.load("repro.model.fast.lrn_triton") is sys.modules["repro.model.fast.lrn_triton"]


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize("readable", [True, False])
def test_an_unreadable_home_costs_a_line_only(
    readable: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "")  # so that the test's end puts back what was
    monkeypatch.delenv("TRITON_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home/.cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(triton_trial, "run", lambda: None)
    if not readable:
        forbid(monkeypatch, tmp_path / "home")
    assert triton_kernels.works()
    own = tmp_path / f"repro-{os.getuid()}/triton"
    told = f"{tmp_path}/home/.triton cannot be written: Triton's kernels are kept in {own}\n"
    assert capsys.readouterr().err == ("" if readable else told)
    assert os.environ.get("TRITON_CACHE_DIR") == (None if readable else str(own))


@pytest.mark.usefixtures("afresh")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_machine_without_a_gpu_makes_none() -> None:
    with pytest.warns(RuntimeWarning, match="makes no kernels"):
        assert not triton_kernels.works()


PROGRAM = """
import os, warnings, torch
from repro.model.fast.lrn import FusedLRN
from repro.model.lrn import LocalResponseNorm
x = torch.randn(2, 16, 3, 3, device="cuda").to(memory_format=torch.channels_last).requires_grad_()
layer, plain = FusedLRN(5, 1e-3, 0.75, 2.0), LocalResponseNorm(5, 1e-3, 0.75, 2.0)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    out = layer(x)
    out.sum().backward()
spared = "CC" in os.environ and not seen  # the newest Triton needs no C compiler
assert spared or [w.category for w in seen] == [RuntimeWarning], [str(w.message) for w in seen]
assert torch.equal(out, plain(x))
"""


@pytest.mark.cuda
@pytest.mark.parametrize("wrong", [{"CC": "false"}, {"TRITON_CACHE_DIR": "/dev/null/cache"}], ids=["compiler", "cache"])
def test_a_gpu_whose_machine_lacks_what_triton_needs(wrong: dict[str, str], tmp_path: Path) -> None:
    places = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)} | wrong
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=places, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
