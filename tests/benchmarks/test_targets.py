from itertools import groupby

import pytest

from repro import bench
from repro.benchmarks import cells
from repro.benchmarks.targets import CPU, CUDA, NOT_MEASURED, TARGETS, Target, judge, not_measured, targets

FASTER = Target(CPU, "step", "step", "images/s", 2.0, "ours", "peer")
AT_MOST = Target(CPU, "start", "start", "s", 1.5, "ours")


def test_a_ratio_is_taken_within_each_round() -> None:
    # the machine is ten times slower in the second round, for both
    row = judge(FASTER, {"ours": [30.0, 3.0, 33.0], "peer": [10.0, 1.0, 10.0]})
    assert (row.ours, row.peer, row.peer_name) == (30.0, 10.0, "peer")
    assert row.ratio == pytest.approx(3.0)
    assert (row.low, row.high) == pytest.approx((3.0, 3.15))
    assert row.met is True


@pytest.mark.parametrize(("peer", "met"), [(15.0, True), (15.1, False)])
def test_with_a_peer_the_ratio_must_reach_the_bound(peer: float, met: bool) -> None:
    assert judge(FASTER, {"ours": [30.0], "peer": [peer]}).met is met


@pytest.mark.parametrize(("value", "met"), [(1.5, True), (1.6, False)])
def test_without_one_the_value_must_stay_within_it(value: float, met: bool) -> None:
    row = judge(AT_MOST, {"ours": [9.0, value, 0.1]})
    assert (row.ours, row.ratio, row.met) == (value, None, met)


def test_a_figure_without_a_bound_is_neither_met_nor_missed() -> None:
    plain = Target(CPU, "lrn", "distance", "images/s", None, "ours", "copy")
    assert judge(plain, {"ours": [1.0], "copy": [2.0]}).met is None


def test_what_was_not_measured_has_no_figures() -> None:
    row = not_measured(FASTER)
    assert (row.ours, row.peer, row.ratio, row.target, row.met) == (None, None, None, 2.0, NOT_MEASURED)


def test_every_target_belongs_to_a_part_and_has_a_name_of_its_own() -> None:
    assert {target.device for target in TARGETS} == {CPU, CUDA}
    for kind, parts in bench.PARTS.items():
        assert {target.part for target in targets(kind)} <= set(parts)
        names = [target.name for target in targets(kind)]
        assert len(names) == len(set(names))
        in_order = [part for part, _ in groupby(target.part for target in targets(kind))]
        assert in_order == [part for part in parts if part in in_order]


def test_a_small_ratio_keeps_two_digits() -> None:
    row = judge(FASTER, {"ours": [0.123456], "peer": [10.0]})
    assert cells.cells(row)[3] == "0.012 [0.012, 0.012]"
