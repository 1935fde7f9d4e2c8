"""The figures: their numbers, and the files that show them."""

import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from paper_figures import __main__ as command
from paper_figures import ablations, claims, curves, drawing, fig2_architecture, fig3_conv1_kernels
from paper_figures.drawing import Drawn, Missing
from repro import record
from repro.command import exit_code
from repro.evidence import simultaneous
from repro.experiments.folder import EXPERIMENTS
from repro.record import Record
from tests.report.arms import arm, filed
from tests.synthetic import answers, make_curve, make_record, place

RESULTS = EXPERIMENTS.parent / "results"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Three seeds of a baseline and two arms."""
    folder = tmp_path_factory.mktemp("results")
    arms = {"baseline": [25.0, 26.0, 24.0], "no_lrn": [28.2, 29.4, 27.6], "no_dropout": [45.0, 46.2, 44.1]}
    return filed(folder, *(run for name, errors in arms.items() for run in arm(name, errors)))


def with_kernels(folder: Path, *kernels: np.ndarray) -> list[Record]:
    for seed, own in enumerate(kernels):
        run = make_record("baseline", seed, 25.0, setup="imagenette")
        record.write(place(folder, run), run, make_curve(), answers(run), own)
    return record.find(folder)


def run_command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["paper_figures", *words])
    return exit_code(command.main)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_kernels_lie_sixteen_a_row_on_one_scale() -> None:
    kernels = np.zeros((17, 3, 2, 2))
    kernels[0], kernels[16, 0] = -1.0, 3.0
    image = fig3_conv1_kernels.sheet(kernels)
    assert image.shape == (2 * 3 - 1, 16 * 3 - 1, 3)
    assert np.array_equal(image[0, 0], [0, 0, 0])
    assert np.array_equal(image[3, 0], [1, 0.25, 0.25])
    assert np.array_equal(image[2], np.ones((47, 3)))  # the gap


def test_figure_3_measures_every_kernel_of_every_seed(tmp_path: Path) -> None:
    kernels = np.random.default_rng(0).normal(size=(2, 32, 3, 11, 11))
    kernels[:, :16] = kernels[:, :16].mean(axis=2, keepdims=True)  # a first column without colour
    drawn = fig3_conv1_kernels.draw(with_kernels(tmp_path, *kernels))
    assert len(drawn.numbers) == 2 * 32
    assert drawn.numbers.groupby("column")["chroma"].max()[1] < 1e-3
    assert (drawn.numbers["p"] < 0.001).all()
    assert "n=2 seeds" in drawn.caption


def test_figure_3_without_kernels_names_the_command(runs: list[Record]) -> None:
    with pytest.raises(Missing, match=r"python -m repro\.run setup=imagenette ablation=baseline"):
        fig3_conv1_kernels.draw(runs)


def test_the_forest_plot_has_each_mean_with_its_interval_and_every_seed(runs: list[Record]) -> None:
    numbers = ablations.draw(runs).numbers
    means = numbers[numbers["what"] == "mean"].set_index("ablation")
    assert means.loc["no_lrn", "points"] == pytest.approx(3.4)
    assert means.loc["no_lrn", "method"] == "Dunnett"
    control, arm = {0: 25.0, 1: 26.0, 2: 24.0}, {0: 28.2, 1: 29.4, 2: 27.6}
    whole = simultaneous.compare(control, {"no_lrn": arm, "no_dropout": {0: 45.0, 1: 46.2, 2: 44.1}})["no_lrn"]
    assert means.loc["no_lrn", "low"] == pytest.approx(whole.low)
    assert means.loc["no_lrn", "verdict"] == "worse at n=3"
    seeds = numbers[(numbers["what"] == "seed") & (numbers["ablation"] == "no_lrn")]
    assert seeds["points"].tolist() == pytest.approx([3.2, 3.4, 3.6])
    assert numbers[numbers["what"] == "published"].set_index("ablation").loc["no_lrn", "points"] == 1.37


def test_the_forest_plot_without_three_seeds_names_the_command() -> None:
    with pytest.raises(Missing, match="suite=headline_small"):
        ablations.draw([])


def test_every_claim_has_a_square(runs: list[Record]) -> None:
    numbers = claims.draw(runs).numbers
    assert list(dict.fromkeys(numbers["claim"])) == [f"C{number}" for number in range(1, 28)]
    assert set(numbers["verdict"]) >= {"holds", "does not hold", "not run here"}


def test_the_architecture_is_that_of_the_model() -> None:
    drawn = fig2_architecture.draw([])
    numbers = drawn.numbers.set_index("layer")
    assert numbers.loc["conv1", ["maps", "height", "neurons", "in_caption"]].tolist() == [96, 55, 290_400, 253_440]
    assert numbers.loc["conv2", "kernel"] == "5x5"
    assert "conv1 290,400 (the caption: 253,440)" in drawn.caption
    changed = fig2_architecture.draw([], (*fig2_architecture.WORDS, "ablation=one_gpu_half"))
    assert changed.numbers.set_index("layer").loc["conv1", "maps"] == 48


def test_the_curves_have_mean_and_range_of_the_seeds_at_every_epoch(runs: list[Record]) -> None:
    drawn = curves.draw(runs)
    numbers = drawn.numbers
    assert numbers.groupby("ablation", sort=False)["epoch"].max().to_dict() == {
        "baseline": 3,
        "no_lrn": 3,
        "no_dropout": 3,
    }
    assert (numbers["mean"] == 1.5).all()  # as in every synthetic curve
    assert set(numbers["n"]) == {3}
    assert len(drawn.figure.axes) == 2  # the synthetic machine was quiet
    assert "(n: baseline 3, no_lrn 3, no_dropout 3)" in drawn.caption


def test_curves_of_busy_machines_have_no_minutes(tmp_path: Path) -> None:
    busy = [run for name in ("baseline", "no_lrn") for run in arm(name, [25.0, 26.0, 24.0], others=0.5)]
    drawn = curves.draw(filed(tmp_path, *busy))
    assert drawn.numbers["minutes"].isna().all()
    assert len(drawn.figure.axes) == 1
    assert "minutes are not measured" in drawn.caption


# ---- files -----------------------------------------------------------------------------------------------------------


def one_point(value: float) -> Drawn:
    figure = drawing.new_figure(1, 1)
    figure.subplots().plot([0, 1], [0, value])
    return Drawn(figure, pd.DataFrame({"value": [value]}), "A point.")


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        drawing.save("x", one_point(0.5), tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_a_picture_of_other_numbers_is_stale(tmp_path: Path) -> None:
    drawing.save("x", one_point(0.5), tmp_path)
    assert drawing.is_fresh("x", one_point(0.5), tmp_path)
    assert not drawing.is_fresh("x", one_point(0.6), tmp_path)
    (tmp_path / "x.csv").write_bytes(one_point(0.6).csv())  # the numbers are new, the picture is not
    assert not drawing.is_fresh("x", one_point(0.6), tmp_path)
    (tmp_path / "x.png").unlink()
    assert not drawing.is_fresh("x", one_point(0.5), tmp_path)


def test_numbers_are_read_back() -> None:
    assert pd.read_csv(io.BytesIO(one_point(0.123456789).csv()))["value"].tolist() == [0.12346]


def test_the_committed_pictures_show_the_committed_records(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_command(monkeypatch, f"results_dir={RESULTS}", "--check") == 0


def test_a_figure_that_there_is_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(monkeypatch, "fig9") == 2
    assert "fig9: there are fig1_relu_vs_tanh, fig2_architecture, fig3_conv1_kernels," in capsys.readouterr().err


def test_one_figure_alone_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drawing.save, "__defaults__", (tmp_path,))
    monkeypatch.setattr(drawing.is_fresh, "__defaults__", (tmp_path,))
    assert run_command(monkeypatch, "fig2", f"results_dir={tmp_path}") == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        f"fig2_architecture.{kind}" for kind in ("svg", "png", "pdf", "csv")
    }
    assert run_command(monkeypatch, "ablations", f"results_dir={tmp_path}") == 0
    assert "warning: ablations: no comparison has three seeds" in capsys.readouterr().err
