"""The compiled CPU kernels of LRN against the formulas in float64, and what happens where they cannot be made."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from repro.distributed import warn
from repro.model.fast import lrn_cpu
from repro.model.fast.lrn import FusedLRN
from repro.model.lrn import LocalResponseNorm
from tests.forbidden import forbid

LAYER, X = FusedLRN(5, 1e-3, 0.75, 2.0), torch.zeros(1, 4, 2, 2)
needs_compiler = pytest.mark.skipif(not lrn_cpu.serves(LAYER, X), reason="the kernels need a C++ compiler")
LAYOUTS = pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels last"]
)


def random(*shape: int, scale: float = 50.0, seed: int = 3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def both_passes(
    x: Tensor, gradient: Tensor, compiled: bool, n: int = 5, columns: int = 2, pixels: bool = False
) -> tuple[Tensor, Tensor]:
    layer = (FusedLRN if compiled else LocalResponseNorm)(n, 1e-3, 0.75, 2.0, columns, pixels)
    leaf = x.clone().requires_grad_()
    out = layer(leaf * 1)  # not a leaf, as in a network
    assert out.dtype == x.dtype
    return out.detach(), torch.autograd.grad(out, leaf, gradient)[0]


@needs_compiler
@LAYOUTS
@pytest.mark.parametrize("shape", [
    (3, 12, 5, 7),  # 35 positions: a whole block of 32 and a rest
    (2, 96, 8, 4),
    (5, 34, 1, 1),
    (2, 2, 9, 11),  # one map a column: less than a window
    (0, 12, 5, 5),
])  # fmt: skip
@pytest.mark.parametrize(("n", "columns"), [(5, 2), (5, 1), (3, 2), (9, 2), (1, 1)])
def test_fp32_is_the_float64_formula_to_rounding(
    layout: torch.memory_format, shape: tuple[int, ...], n: int, columns: int
) -> None:
    x, g = (random(*shape, seed=seed).contiguous(memory_format=layout) for seed in (1, 2))
    expected = both_passes(x, g, False, n, columns)
    found = both_passes(x.float(), g.float(), True, n, columns)
    for ours, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=2e-6, atol=2e-6 * 50)


@needs_compiler
@LAYOUTS
@pytest.mark.parametrize("shape", [(3, 12, 5, 7), (2, 70, 9, 4), (4, 3, 1, 1), (1, 33, 2, 3), (0, 4, 5, 5)])
@pytest.mark.parametrize("n", [1, 3, 5, 7])
def test_windows_over_pixels(layout: torch.memory_format, shape: tuple[int, ...], n: int) -> None:
    x, g = (random(*shape, seed=seed).contiguous(memory_format=layout) for seed in (1, 2))
    expected = both_passes(x, g, False, n, pixels=True)
    found = both_passes(x.float(), g.float(), True, n, pixels=True)
    for ours, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=2e-6, atol=2e-6 * 50)


@needs_compiler
@LAYOUTS
def test_bf16_rounds_the_exact_result_once(layout: torch.memory_format) -> None:
    x, g = (random(3, 12, 5, 7, seed=seed).bfloat16().contiguous(memory_format=layout) for seed in (1, 2))
    expected = both_passes(x.double(), g.double(), False)
    for ours, exact in zip(both_passes(x, g, True), expected, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=2**-8, atol=1e-6)
        assert (ours == exact.bfloat16()).double().mean() > 0.99  # fp32 sums seldom fall on the other side of a tie


@needs_compiler
def test_layout_is_kept_and_a_gradient_laid_out_otherwise_is_understood() -> None:
    x = random(2, 8, 3, 5).float().contiguous(memory_format=torch.channels_last)
    g = random(2, 8, 3, 5).float()
    out, gradient = both_passes(x, g, True)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(gradient, both_passes(x, g, False)[1])


@needs_compiler
def test_a_tensor_with_gaps_goes_the_plain_way() -> None:
    layer = FusedLRN(5, 1e-3, 0.75, 2.0)
    x = random(2, 8, 6, 6).float()[:, :, ::2, ::2]
    assert layer.kernels(x) is None
    assert layer.kernels(x.contiguous()) is lrn_cpu
    torch.testing.assert_close(layer(x), layer(x.contiguous()))


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_comes_through(dtype: torch.dtype, value: float) -> None:
    x = torch.ones(1, 8, 2, 2, dtype=dtype)
    x[0, 3, 1, 1] = value
    out = both_passes(x, torch.ones_like(x), True)[0]
    assert not out[0, 3, 1, 1].isfinite()
    assert out[0, 4:, 1, 1].isfinite().all()  # the other column
    assert out[0, :, 0].isfinite().all()  # other places


@needs_compiler
def test_threads_share_the_work_without_a_difference() -> None:
    x, g = random(7, 12, 9, 9, seed=1).float(), random(7, 12, 9, 9, seed=2).float()
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(both_passes(x, g, True))
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


@pytest.fixture
def afresh() -> Iterator[None]:
    """The library is looked for again, in the test and after it."""
    lrn_cpu._library.cache_clear()
    yield
    lrn_cpu._library.cache_clear()


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize(
    ("compilers", "reason"),
    [(("no-such-compiler",), "no C++ compiler: install g++"), (("false",), "false made none that can be loaded")],
    ids=["none", "one that fails"],
)
def test_without_a_compiler_the_plain_way_gives_the_result(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    compilers: tuple[str, ...],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(lrn_cpu, "COMPILERS", compilers)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    warn.cache_clear()
    x = random(2, 8, 3, 3).float()
    for ours, plain in zip(both_passes(x, x, True), both_passes(x, x, False), strict=True):
        assert torch.equal(ours, plain)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the compiled CPU kernels of LRN are off, which takes longer (")
    assert reason in line


@needs_compiler
@pytest.mark.usefixtures("afresh")
def test_kernels_are_kept_for_the_next_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert lrn_cpu.serves(LAYER, X)
    (kept,) = (tmp_path / "repro").iterdir()
    before = kept.stat().st_mtime_ns
    lrn_cpu._library.cache_clear()
    assert lrn_cpu.serves(LAYER, X)
    assert [path.stat().st_mtime_ns for path in (tmp_path / "repro").iterdir()] == [before]


@needs_compiler
@pytest.mark.usefixtures("afresh")
def test_machines_that_share_a_home_keep_kernels_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for count, flags in enumerate(["avx2 fma", "avx2 fma avx512f", "avx2 fma"]):
        (tmp_path / "cpuinfo").write_text(f"model name\t: one\nflags\t\t: {flags}\n\nflags\t\t: {flags}\n")
        monkeypatch.setattr(lrn_cpu, "CPUINFO", tmp_path / "cpuinfo")
        lrn_cpu._library.cache_clear()
        assert lrn_cpu.serves(LAYER, X)
        assert len(list((tmp_path / "repro").iterdir())) == min(count + 1, 2)


def test_the_order_in_which_features_are_listed_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lrn_cpu, "CPUINFO", tmp_path / "cpuinfo")
    assert lrn_cpu._features() == []
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp bf16 asimd\n")
    assert lrn_cpu._features() == ["asimd", "bf16", "fp"]


@needs_compiler
def test_damaged_kernels_are_made_again(tmp_path: Path) -> None:
    """In processes of their own, for loading a library that is cut short ends a process by a bus error."""
    program = (
        "import torch; from repro.model.fast import lrn_cpu; from repro.model.fast.lrn import FusedLRN;"
        "layer = FusedLRN(5, 1e-3, 0.75, 2.0);"
        "x = torch.ones(1, 4, 2, 2); assert layer.kernels(x) is lrn_cpu; print(layer(x).sum().item())"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}

    def run() -> str:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    first = run()
    (kept,) = (tmp_path / "repro").iterdir()
    whole = kept.read_bytes()
    for damaged in (b"", whole[: len(whole) // 8], whole[:4096] + bytes(len(whole) - 4096)):
        kept.write_bytes(damaged)
        assert run() == first
        assert kept.read_bytes() == whole
        assert list((tmp_path / "repro").iterdir()) == [kept]


@needs_compiler
@pytest.mark.usefixtures("afresh")
def test_kernels_are_on_disk_before_they_have_their_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("sync"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda path, to: (steps.append("name"), replace(path, to))[1])
    assert lrn_cpu.serves(LAYER, X)
    assert steps == ["sync", "name", "sync"]


@needs_compiler
@pytest.mark.usefixtures("afresh")
def test_an_unreadable_home_costs_a_line_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "another's"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    forbid(monkeypatch, home)
    own = tmp_path / f"repro-{os.getuid()}"
    for said in (f"{home}/.cache/repro cannot be written: LRN's kernels are kept in {own}\n", ""):
        lrn_cpu._library.cache_clear()
        assert lrn_cpu.serves(LAYER, X)
        assert capsys.readouterr().err == said
    assert len(list(own.iterdir())) == 1
    assert own.stat().st_mode & 0o777 == 0o700


@needs_compiler
@pytest.mark.usefixtures("afresh")
def test_nothing_is_loaded_from_a_folder_that_others_write_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home, own = tmp_path / "another's", tmp_path / f"repro-{os.getuid()}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    forbid(monkeypatch, home)
    own.mkdir()
    own.chmod(0o777)
    assert lrn_cpu.serves(LAYER, X)  # for this process alone
    assert not list(own.iterdir())


@needs_compiler
@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize("place", [".", "below"])
def test_a_cache_that_cannot_be_written_costs_time_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / place))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert lrn_cpu.serves(LAYER, X)
    assert both_passes(X + 1, X + 1, True)[0].isfinite().all()


@needs_compiler
def test_a_process_has_one_openmp_runtime() -> None:
    """Two would each start their threads, and wait for each other's."""
    program = (
        "import torch; from pathlib import Path; from repro.model.fast import lrn_cpu;"
        "from repro.model.fast.lrn import FusedLRN;"
        "lrn_cpu.serves(FusedLRN(5, 1e-3, 0.75, 2.0), torch.zeros(1, 4, 2, 2));"
        "maps = Path('/proc/self/maps').read_text().splitlines();"
        "print(len({line.split()[-1] for line in maps if 'libgomp' in line or 'libomp' in line}))"
    )
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not list a process's libraries")
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "1"
