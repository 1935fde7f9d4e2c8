"""A step with LRN's kernels against one without: the same training, to rounding."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from repro.config import Precision
from repro.model.fast import lrn_cpu
from repro.model.fast.lrn import FusedLRN
from repro.train.loop import Training
from tests.tiny import make_training, tiny_config

TOLERANCE = 1e-4
"""How far the weights of 12 steps in fp32 may lie apart, as a share of how far they have moved."""


def trained(folder: Path, compiled: bool, precision: Precision) -> tuple[Training, dict[str, Tensor]]:
    config = tiny_config()
    config.train.epochs, config.train.fast_kernels, config.train.precision = 4, compiled, precision
    training = make_training(config, folder)
    before = {name: parameter.detach().clone() for name, parameter in training.network.named_parameters()}
    training.run()
    return training, before


@pytest.mark.skipif(
    not lrn_cpu.serves(FusedLRN(5, 1e-4, 0.75, 2.0), torch.zeros(1, 4, 2, 2)),
    reason="the kernels need a C++ compiler",
)
def test_kernels_make_the_same_record_to_rounding(tmp_path: Path) -> None:
    (fast, before), (plain, _) = (trained(tmp_path / str(on), on, Precision.fp32) for on in (True, False))
    for (name, ours), theirs in zip(fast.network.named_parameters(), plain.network.parameters(), strict=True):
        moved = (theirs - before[name]).abs().max()
        assert moved > 0
        assert (ours - theirs).abs().max() < TOLERANCE * moved, name
    for ours, theirs in zip(fast.curve, plain.curve, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=TOLERANCE)
        assert ours["val_top1"] == theirs["val_top1"]


@pytest.mark.skipif(
    not lrn_cpu.serves(FusedLRN(5, 1e-4, 0.75, 2.0), torch.zeros(1, 4, 2, 2)),
    reason="the kernels need a C++ compiler",
)
def test_and_to_the_rounding_of_bf16(tmp_path: Path) -> None:
    (fast, _), (plain, _) = (trained(tmp_path / str(on), on, Precision.bf16) for on in (True, False))
    losses = [[row["train_loss"] for row in training.curve] for training in (fast, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
