from dataclasses import replace

import pytest

from repro.evidence.quiet import is_quiet
from tests.synthetic import make_record


@pytest.mark.parametrize(
    ("load", "quiet"),
    [
        ({}, True),
        ({"others": 0.06}, False),
        ({"steal": 0.03}, False),
        ({"load_end": 2.0}, True),  # the share that others took tells more than the load
        ({"others": None, "steal": None, "load_start": 0.2, "load_end": 1.2}, True),
        ({"others": None, "steal": None, "load_start": 1.5, "load_end": 1.0}, False),
        ({"others": None, "steal": None, "load_start": None, "load_end": None}, False),
    ],
)
def test_a_machine_is_quiet_where_others_took_little(load: dict[str, float | None], quiet: bool) -> None:
    run = make_record()  # two threads on two cores
    assert is_quiet(replace(run, cost=replace(run.cost, **load))) == quiet


@pytest.mark.parametrize(("others", "quiet"), [(0.01, True), (0.03, False)])
def test_beside_a_gpu_the_host_of_another_run_is_noticed(others: float, quiet: bool) -> None:
    run = make_record(device_type="cuda", others=others)
    assert is_quiet(replace(run, machine=replace(run.machine, cores=16))) == quiet
