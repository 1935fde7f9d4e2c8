from pathlib import Path

import pytest

from paper_figures import fig1_relu_vs_tanh as fig1
from paper_figures.drawing import Missing
from repro import record as records
from tests.evidence.test_rate_search import RELU, TANH, file_fig1


def test_every_seed_is_drawn_at_the_best_rate_and_the_caption_says_the_ratio(tmp_path: Path) -> None:
    file_fig1(tmp_path, "baseline", RELU)
    file_fig1(tmp_path, "tanh", TANH | {0.003: [21.0, 30.0, None]})
    drawn = fig1.draw(records.find(tmp_path))
    numbers = drawn.numbers
    assert len(drawn.figure.axes[0].lines) == 3 + 3 + 1  # and the level
    seeds = numbers[numbers["what"] == "seed"]
    assert list(seeds["rate"]) == [0.003] * 6
    assert list(seeds[seeds["neuron"] == "ReLU"]["epochs_to_level"]) == [7.0, 7.5, 6.5]
    curves = numbers[numbers["what"] == "curve"].groupby(["neuron", "seed"])["epoch"].max()
    assert curves["tanh"].tolist() == [21, 30, 40]
    assert "1 of them not there yet, at least 4.20 times ReLU's" in drawn.caption
    assert "The paper: six times, one run each." in drawn.caption
    assert numbers[numbers["what"] == "search"].shape[0] == 6


def test_without_both_searches_the_command_is_named(tmp_path: Path) -> None:
    file_fig1(tmp_path, "baseline", RELU)
    with pytest.raises(Missing, match=r"python -m repro\.run suite=fig1"):
        fig1.draw(records.find(tmp_path))
