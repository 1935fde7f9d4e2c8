"""Threads beside neighbours, on a machine whose load a test makes up; and that the real OpenMP does as is hoped."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from repro import threads
from repro.threads import Crowd, Look
from repro.train import memory

needs_gomp = pytest.mark.skipif(threads.loaded_gomp() is None, reason="torch computes with another OpenMP")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (*threads.NUMBER_SET_BY, *threads.WAITING_SET_BY):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each time that a watcher was asked for; there is none."""
    calls: list[None] = []
    monkeypatch.setattr(threads, "_watch", lambda: calls.append(None))
    return calls


def machine(monkeypatch: pytest.MonkeyPatch, cores: int, others: float) -> None:
    monkeypatch.setattr(threads, "cores", lambda: cores)
    monkeypatch.setattr(threads, "_others_now", lambda: others)


@pytest.mark.parametrize(
    ("cores", "others", "taken"),
    [(2, 0.0, 2), (2, 0.4, 2), (2, 0.6, 1), (2, 1.0, 1), (2, 2.0, 1), (16, 3.9, 12), (16, 15.8, 1), (1, 0.0, 1)],
)
@pytest.mark.usefixtures("watched")
def test_a_run_takes_the_cores_that_are_free(
    monkeypatch: pytest.MonkeyPatch, cores: int, others: float, taken: int
) -> None:
    machine(monkeypatch, cores, others)
    threads.take()
    assert torch.get_num_threads() == taken


@pytest.mark.parametrize(("before", "taken"), [(1, 1), (2, 2), (64, 4)])
def test_a_run_that_goes_on_keeps_its_number(
    monkeypatch: pytest.MonkeyPatch, before: int, taken: int, watched: list[None]
) -> None:
    machine(monkeypatch, 4, others=3.0)
    threads.take(before)
    assert torch.get_num_threads() == taken
    assert watched


@pytest.mark.parametrize("name", threads.NUMBER_SET_BY)
def test_the_users_own_number_wins(monkeypatch: pytest.MonkeyPatch, name: str, watched: list[None]) -> None:
    machine(monkeypatch, 16, others=0.0)
    monkeypatch.setenv(name, "3")
    torch.set_num_threads(3)
    for count in (None, 5):
        threads.take(count)
        assert torch.get_num_threads() == 3
    assert watched


@pytest.mark.parametrize("name", threads.WAITING_SET_BY)
def test_the_users_own_way_of_waiting_wins(monkeypatch: pytest.MonkeyPatch, name: str, watched: list[None]) -> None:
    machine(monkeypatch, 2, others=0.0)
    monkeypatch.setenv(name, "1")
    threads.take()
    assert not watched


# ---- cores and load --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
def test_cores_are_those_that_the_process_may_use() -> None:
    show = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
    show += "from repro.threads import cores; print(cores())"
    assert subprocess.run([sys.executable, "-c", show], capture_output=True, check=True).stdout == b"1\n"


@pytest.mark.parametrize(
    ("limits", "quota"),
    [
        ({}, float("inf")),
        ({"a/b": "max 100000"}, float("inf")),
        ({"a/b": "150000 100000"}, 1.5),
        ({"a/b": "max 100000", "a": "400000 100000", ".": "800000 100000"}, 4.0),
    ],
)
def test_the_narrowest_control_group_limits(
    limits: dict[str, str], quota: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fs/a/b").mkdir(parents=True)
    (tmp_path / "own").write_text("1:cpu:/old\n0::/a/b\n")
    monkeypatch.setattr(threads, "_CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(threads, "_OWN_CGROUP", tmp_path / "own")
    for place, text in limits.items():
        (tmp_path / "fs" / place / "cpu.max").write_text(f"{text}\n")
    assert threads._quota() == quota
    assert threads.cores() >= 1


def test_a_control_group_limits_the_memory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(memory, "limits", lambda name: [])
    machine = memory.size_of(cpu)
    assert machine > 2**30
    monkeypatch.setattr(memory, "limits", lambda name: ["max", str(2**20), str(2**40)])
    assert memory.size_of(cpu) == 2**20


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
def test_the_load_is_that_of_the_own_cores_without_waiting_and_without_what_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "STAT", tmp_path / "stat")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2})
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    core = "{} 100 4000 20 9000 8000 30 40 10 500 600"
    (tmp_path / "stat").write_text("\n".join(["cpu  9 9 9 9", *(core.format(f"cpu{n}") for n in range(3)), "intr 5"]))
    assert threads._seconds_of_all() == 2 * (100 + 20 + 30 + 40 + 10) / 100


def test_others_work_is_what_this_process_did_not_do() -> None:
    before = Look(time=10.0, all=100.0, own=40.0)
    assert Look(time=12.0, all=103.5, own=41.5).others_since(before) == 1.0
    assert Look(time=12.0, all=101.0, own=41.1).others_since(before) == 0.0


@pytest.mark.parametrize(("age", "slept"), [(0.05, True), (1.0, False), (60.0, True)])
def test_a_window_that_is_too_short_or_too_long_ago_is_measured_anew(
    monkeypatch: pytest.MonkeyPatch, age: float, slept: bool
) -> None:
    clock, naps = [100.0], []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(Look, "now", lambda: Look(clock[0], 1.5 * clock[0], 0.0))
    monkeypatch.setattr(threads, "_last", Look(clock[0] - age, 1.5 * (clock[0] - age), 0.0))
    assert threads._others_now() == pytest.approx(1.5)
    assert bool(naps) is slept


def test_where_the_system_tells_no_load_all_cores_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "STAT", tmp_path / "none")
    assert threads.free_cores() == threads.cores()


# ---- how threads wait ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "others", "crowded"), [(2, 0.1, False), (2, 0.5, True), (1, 5.0, False), (3, 1.0, False), (3, 1.5, True)]
)
def test_it_is_crowded_where_more_would_run_than_there_are_cores(
    monkeypatch: pytest.MonkeyPatch, own: int, others: float, crowded: bool
) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 4 if own == 3 else 2)
    torch.set_num_threads(own)
    assert threads._crowded(others) is crowded


def test_the_watcher_gathers_the_crowd_while_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    loads, wanted = iter([0.0, 1.0, 1.0, 0.0]), []

    class Heard:
        want = wanted.append

    class End(Exception):
        pass

    def others_since(self: Look, before: Look) -> float:
        try:
            return next(loads)
        except StopIteration:
            raise End from None

    monkeypatch.setattr(Look, "others_since", others_since)
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(threads, "LOOK_EVERY", 0.0)
    torch.set_num_threads(2)
    with pytest.raises(End):
        threads._follow(Heard())  # type: ignore[arg-type]
    assert wanted == [False, True, True, False]


@needs_gomp
def test_a_crowd_comes_and_goes() -> None:
    gomp = threads.loaded_gomp()
    assert gomp is not None
    crowd, count = Crowd(gomp), lambda: len(list(Path("/proc/self/task").iterdir()))
    before = count()
    for wanted in (True, True, False, False, True, False):
        crowd.want(wanted)
        assert within_a_second(lambda wanted=wanted: (count() > before) is wanted)


def within_a_second(true: Callable[[], bool]) -> bool:
    """The system ends threads when it comes to it."""
    end = time.monotonic() + 1.0
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


_WORK_WHILE_WAITING = """
import time, torch
from repro import threads

torch.set_num_threads(2)
crowd, x = threads.Crowd(threads.loaded_gomp()), torch.zeros(2**18)
for wanted in (False, True, False):
    crowd.want(wanted)
    before = time.process_time()
    for _ in range(5):  # the system dissolves a crowd when it comes to it
        x.add_(1)
        time.sleep(0.1)
    print(time.process_time() - before)
"""


@needs_gomp
def test_threads_spin_on_their_own_and_sleep_in_a_crowd() -> None:
    """`ACTIVE` makes them spin for minutes, so that the processor's time tells."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "ACTIVE"}
    done = subprocess.run(
        [sys.executable, "-c", _WORK_WHILE_WAITING], env=environment, capture_output=True, text=True, check=True
    )
    alone, crowded, again = map(float, done.stdout.split())
    assert min(alone, again) > 3 * crowded
