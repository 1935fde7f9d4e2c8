import io

import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from repro.profiling import roofline
from repro.profiling.attribution import OVERHEAD, Span
from repro.profiling.breakdown import MEASURES, by_kernel, by_layer, difference
from repro.profiling.printed import WIDTH, difference_table, step_table
from repro.profiling.recorded_steps import Profiled
from repro.profiling.roofline import Ceilings
from repro.profiling.work import Work

CEILINGS = Ceilings(flops=1e9, bandwidth=1e8)


def profiled(*factors: float) -> Profiled:
    """A step that takes 100 ms, and others that take so many times as long."""

    def step(factor: float) -> list[Span]:
        return [
            Span("input", "input", "copy_", 0.01 * factor),
            Span("forward", "conv1", "convolution", 0.03 * factor, 1, Work(15e6, 1e6)),
            Span("forward", "conv1", OVERHEAD, 0.01 * factor, 0),
            Span("forward", "norm1", "lrn", 0.02 * factor, 1, Work(2e6, 2e6)),
            Span("backward", "conv1", "convolution_backward", 0.02 * factor, 2, Work(30e6, 2e6)),
        ]

    factors = (1, *factors)
    work = {
        ("conv1", "forward"): Work(20e6, 1e6),
        ("norm1", "forward"): Work(1e6, 1e6),
        ("conv1", "backward"): Work(40e6, 2e6),
    }
    seconds = [0.1 * factor for factor in factors]
    return Profiled(("conv1", "norm1"), work, [step(factor) for factor in factors], seconds, seconds)


def test_the_layers_and_what_is_left_make_the_step() -> None:
    table = by_layer(profiled(), CEILINGS)
    assert list(table.columns) == ["layer", "phase", *MEASURES]
    places = [("input", "input"), ("conv1", "forward"), ("norm1", "forward"), ("conv1", "backward"), ("other", "other")]
    assert list(zip(table["layer"], table["phase"], strict=True)) == places
    assert table["milliseconds"].tolist() == pytest.approx([10, 40, 20, 20, 10])
    assert table["share_percent"].sum() == pytest.approx(100)
    assert table["calls"].tolist() == [1, 1, 1, 2, 0]


def test_a_layer_is_held_against_the_ceiling_that_binds_it() -> None:
    conv1, norm1 = (by_layer(profiled(), CEILINGS).iloc[row] for row in (1, 2))
    assert (conv1["gflop_per_second"], conv1["bound"]) == (pytest.approx(0.5), "compute")
    assert conv1["of_ceiling_percent"] == pytest.approx(50)  # 20 ms at least, 40 taken
    assert (norm1["gigabytes_per_second"], norm1["bound"]) == (pytest.approx(0.05), "memory")
    assert norm1["of_ceiling_percent"] == pytest.approx(50)


def test_kernels_have_their_own_work_and_come_by_their_time() -> None:
    table = by_kernel(profiled(), CEILINGS)
    assert table["kernel"].iloc[0] == "convolution"
    assert table.set_index("kernel").loc["convolution", "gflop"] == pytest.approx(0.015)
    assert table["milliseconds"].is_monotonic_decreasing
    assert table["milliseconds"].sum() == pytest.approx(100)


def test_a_disturbed_step_does_not_count() -> None:
    pd.testing.assert_frame_equal(by_layer(profiled(1, 50), CEILINGS), by_layer(profiled(), CEILINGS))
    assert by_kernel(profiled(1, 50), CEILINGS)["gflop"].sum() == pytest.approx(0.047)


def test_kernels_that_ran_at_once_leave_no_negative_rest() -> None:
    both = profiled()
    both.spans[0].append(Span("input", "input", "memcpy", 0.05))
    assert by_layer(both, CEILINGS)["milliseconds"].iloc[-1] == 0


def test_a_difference_takes_what_is_missing_for_nothing() -> None:
    reference, other = profiled(), profiled()
    other.spans[0].remove(next(span for span in other.spans[0] if span.layer == "norm1"))
    other.spans[0].append(Span("update", "update", "fused", 0.005))
    change = difference(by_layer(other, CEILINGS), by_layer(reference, CEILINGS))
    rows = change.set_index("layer")["difference_milliseconds"]
    assert rows["norm1"] == pytest.approx(-20)
    assert rows["update"] == pytest.approx(5)
    assert rows["other"] == pytest.approx(15)
    assert change["difference_percent"].sum() == pytest.approx(0)
    assert set(change["layer"].iloc[:2]) == {"norm1", "other"}


def test_the_picture_can_be_opened(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("picture") / "roofline.png"
    roofline.draw(by_layer(profiled(), CEILINGS), CEILINGS, "Xeon, fp32", path)
    with Image.open(path) as picture:
        assert picture.width >= 2 * picture.height > 1000


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_screen_shows_times_alone(width: int) -> None:
    table = by_kernel(profiled(), CEILINGS)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(step_table(table, "by kernel", width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "100.0" in text
    assert "GFLOP" not in text


def test_the_screen_shows_rows_of_some_weight_and_the_sum_of_all() -> None:
    many = profiled()
    many.spans[0].append(Span("forward", "relu1", "tiny", 1e-6))
    table = by_kernel(many, CEILINGS)
    console = Console(width=WIDTH, record=True, file=io.StringIO())
    console.print(step_table(table, "by kernel", WIDTH))
    console.print(difference_table(difference(table, table), "less itself", ("baseline", "no_lrn")))
    text = console.export_text()
    assert "convolution_backward" in text
    assert "tiny" not in text
    assert "…" not in text
    assert "100.000" in text
    assert "+0.000" in text
