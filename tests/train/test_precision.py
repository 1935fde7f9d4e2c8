from collections.abc import Iterator

import pytest
import torch

from repro.config import Precision
from repro.train.precision import arithmetic, set_precision


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
