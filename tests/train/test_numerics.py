from pathlib import Path

import pytest
import torch

from repro.config import Precision, TrainConfig
from repro.data.preprocess import Pixels
from repro.model.fast import conv1, lrn_cpu
from repro.train import numerics
from repro.train.optimizer import PaperSGD

CPU = torch.device("cpu")


def found(folder: Path, train: TrainConfig | None = None) -> str | None:
    """The fingerprint, computed anew."""
    numerics._known.clear()
    return numerics.fingerprint(train or TrainConfig(), CPU, folder)


@pytest.fixture(scope="module", name="here")
def _here(tmp_path_factory: pytest.TempPathFactory) -> str:
    fingerprint = found(tmp_path_factory.mktemp("here"))
    assert fingerprint is not None
    return fingerprint


def test_the_same_code_has_the_same_fingerprint(here: str, tmp_path: Path) -> None:
    assert len(here) == numerics.DIGITS
    assert set(here) <= set("0123456789abcdef")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert found(tmp_path) == here
    assert torch.equal(torch.get_rng_state(), before)  # a run draws what it would have drawn
    assert list(tmp_path.iterdir()) == []


def test_neither_budget_nor_threads_count(here: str, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert found(tmp_path, TrainConfig(epochs=3, batch_size=64, micro_batch=8)) == here
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_precision_and_fast_paths_count(here: str, tmp_path: Path) -> None:
    kinds = [TrainConfig(precision=Precision.bf16), TrainConfig(precision=Precision.bf16, fast_kernels=False)]
    assert len({here, *(found(tmp_path, kind) for kind in kinds)}) == 3


def test_it_is_computed_once(here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(tmp_path) == here
    monkeypatch.setattr(numerics, "_once", lambda *_: pytest.fail("it is known"))
    assert numerics.fingerprint(TrainConfig(epochs=3), CPU, tmp_path) == here


@pytest.mark.parametrize("part", ["lrn", "conv1", "update", "pixels"])
def test_another_order_of_additions_changes_it(
    part: str, here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bf16 = TrainConfig(precision=Precision.bf16)
    expected = here if part != "conv1" else found(tmp_path, bf16)
    if part == "lrn":
        if lrn_cpu._library() is None:
            pytest.skip("no C++ compiler")
        monkeypatch.setattr(lrn_cpu, "serves", lambda *_: False)  # PyTorch's operations instead of the kernels
    elif part == "conv1":
        monkeypatch.setattr(conv1, "_matrix_unit", lambda x: None)  # a convolution of three maps instead
    elif part == "update":
        monkeypatch.setattr(PaperSGD, "__init__", lambda self, groups, momentum: plain_sgd(self, groups, momentum))
    else:
        prepare = Pixels.prepare
        monkeypatch.setattr(Pixels, "prepare", lambda self, *given: prepare(self, *given) + 1e-6)
    assert found(tmp_path, bf16 if part == "conv1" else None) != expected


def plain_sgd(optimizer: PaperSGD, groups: list[dict[str, object]], momentum: float) -> None:
    """PyTorch's rule, whose velocity does not know of a drop of the rate."""
    torch.optim.SGD.__init__(optimizer, groups, momentum=momentum, fused=True)


def test_a_device_that_varies_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["a" * 64, "b" * 64])
    monkeypatch.setattr(numerics, "_once", lambda *_: next(answers))
    numerics._known.clear()
    assert numerics.fingerprint(TrainConfig(), torch.device("cuda"), tmp_path) is None
    numerics._known.clear()
