import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from repro.config import Config, Precision
from repro.train import precision as precisions
from repro.train.precision import arithmetic, bf16_slowdown, has_bf16, resolve, resolved, set_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _switches() -> Iterator[None]:
    yield
    set_precision(Precision.fp32)


@pytest.mark.parametrize(("precision", "dtype"), [(Precision.fp32, torch.float32), (Precision.bf16, torch.bfloat16)])
def test_only_bf16_computes_products_in_bf16(precision: Precision, dtype: torch.dtype) -> None:
    with arithmetic(torch.device("cpu"), precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is dtype


@pytest.mark.parametrize(
    ("precision", "tf32"), [(Precision.tf32, True), (Precision.fp32, False), (Precision.bf16, False)]
)
def test_tf32_is_switched_on_and_off(precision: Precision, tf32: bool) -> None:
    for before in Precision:
        set_precision(before)
        set_precision(precision)
        assert torch.backends.cuda.matmul.allow_tf32 == tf32
        assert torch.backends.cudnn.allow_tf32 == tf32


@pytest.fixture(params=[True, False], ids=["bf16 in hardware", "bf16 emulated"])
def hardware(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(precisions, "has_bf16", lambda device: request.param)
    return bool(request.param)


def test_auto_is_bf16_where_the_hardware_has_it(hardware: bool) -> None:
    expected = Precision.bf16 if hardware else Precision.fp32
    assert resolve(Precision.auto, CPU) is expected
    with arithmetic(CPU, Precision.auto):
        assert torch.is_autocast_enabled("cpu") is hardware


def test_what_is_asked_for_is_what_is_done(hardware: bool) -> None:
    for precision in (Precision.fp32, Precision.tf32, Precision.bf16):
        assert resolve(precision, CPU) is precision


def of(precision: Precision) -> Config:
    config = Config()
    config.train.precision = precision
    return config


def test_emulated_bf16_is_named_with_its_price(hardware: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "bf16_slowdown", lambda device: 11.4)
    warnings: list[str] = []
    for precision in Precision:
        assert resolved(of(precision), CPU, warnings.append).train.precision is resolve(precision, CPU)
    assert len(warnings) == (0 if hardware else 1)
    assert hardware or "11 times slower than fp32" in warnings[0]


def test_a_configuration_is_resolved_as_a_copy() -> None:
    config = of(Precision.auto)
    assert resolved(config, CPU, print).train.precision is not Precision.auto
    assert config.train.precision is Precision.auto


@pytest.mark.parametrize(("capability", "bf16"), [((7, 5), False), ((8, 0), True), ((9, 0), True), ((12, 0), True)])
def test_gpus_have_bf16_from_ampere_on(
    capability: tuple[int, int], bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bf16.__wrapped__(GPU) is bf16


@pytest.mark.parametrize(("avx512", "amx"), [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("onednn", [True, False])
def test_processors_have_bf16_with_either_extension_that_onednn_may_use(
    avx512: bool, amx: bool, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    assert has_bf16.__wrapped__(CPU) is (onednn and (avx512 or amx))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
def test_a_processor_with_avx2_alone_has_none() -> None:
    ask = "import torch; from repro.train.precision import has_bf16; print(has_bf16(torch.device('cpu')))"
    old = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([sys.executable, "-c", ask], env=old, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_price_of_bf16_is_measured() -> None:
    assert 0 < bf16_slowdown.__wrapped__(CPU) < 1000
