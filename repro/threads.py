"""The number of threads of a process, and how they wait for each other, beside whatever else the machine does.

Threads that spin while they wait are the fastest on a quiet machine, and by far the slowest beside a neighbour: they
burn the time that the late one of them needs. So `take` counts the cores that are free when work begins, and a watcher
lets the threads sleep where they wait for as long as more wants to run than there are cores. The number decides about
rounding, so a run keeps the one that it began with; how threads wait changes no result. What the user's environment
says is left alone.
"""

import ctypes
import math
import os
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

NUMBER_SET_BY = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "MKL_NUM_THREADS")
WAITING_SET_BY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Environment variables with which users say themselves how many threads there are, and how they wait."""
WINDOW = 0.2
"""Seconds over which the load is measured at least: the system counts in hundredths."""
LOOK_EVERY = 0.5
"""Seconds between two looks of the watcher."""
CROWDED = 0.3
"""Cores' worth of others' work, beyond the cores that are free, from which on sleeping is faster than spinning."""

STAT = Path("/proc/stat")
_BUSY = (0, 2, 5, 6, 7)  # of a line of STAT: user, system, irq, softirq, steal (proc(5)); `nice` gives way to us
_CGROUPS, _OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def take(count: int | None = None) -> None:
    """Sets the number of torch's threads to that of the cores that are free, or to `count`; the load is watched on.

    `count` is that of a run that goes on; of more cores than there are none is taken.
    """
    if not _set_by_user(NUMBER_SET_BY):
        import torch

        torch.set_num_threads(min(count or free_cores(), cores()))
    if not _set_by_user(WAITING_SET_BY):
        _watch()


def cores() -> int:
    """Cores that this process may use: all, or those that taskset, a container or a batch system leaves it."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(allowed, _quota())))


def free_cores() -> int:
    """Counts the cores of `cores` that others leave free now, at least one."""
    return max(1, math.floor(cores() - _others_now() + 0.5))


def _set_by_user(names: tuple[str, ...]) -> bool:
    return any(name in os.environ for name in names)


def _quota() -> float:
    """Cores' worth of time that control groups allow; infinite where they set no limit."""
    quotas = [math.inf]
    for limit in limits("cpu.max"):
        quota, period = limit.split()
        quotas.append(math.inf if quota == "max" else int(quota) / int(period))
    return min(quotas)


def limits(name: str) -> list[str]:
    """Reads a file of this process's control group (version 2) and of those around it."""
    try:
        own = next(line[3:] for line in _OWN_CGROUP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    folder = _CGROUPS / own.lstrip("/")
    return [(place / name).read_text().strip() for place in (folder, *folder.parents) if (place / name).is_file()]


# ---- what others do --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """Seconds of work so far on the cores of this process, by all and by itself."""

    time: float
    all: float
    own: float

    @classmethod
    def now(cls) -> "Look":
        """Takes a look now; where the system does not tell of others, there are none."""
        return cls(time.monotonic(), _seconds_of_all(), time.process_time())

    def others_since(self, before: "Look") -> float:
        """Cores' worth of others' work between two looks."""
        return max(0.0, ((self.all - before.all) - (self.own - before.own)) / (self.time - before.time))


def _seconds_of_all() -> float:
    try:
        lines = STAT.read_text(encoding="ascii").splitlines()
        allowed = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    except (OSError, AttributeError):  # not Linux
        return 0.0
    counts = [line.split()[1:] for line in lines if line.partition(" ")[0] in allowed]
    return sum(int(count[place]) for count in counts for place in _BUSY) / os.sysconf("SC_CLK_TCK")


_last = Look.now()


def _others_now() -> float:
    """Measures since the last look, if it is recent: two processes that start at once then see each other start."""
    global _last
    if not WINDOW <= Look.now().time - _last.time <= 10 * LOOK_EVERY:
        _last = Look.now()
        time.sleep(WINDOW)
    before, _last = _last, Look.now()
    return _last.others_since(before)


# ---- how threads wait ------------------------------------------------------------------------------------------------


class Crowd:
    """More OpenMP threads than cores, asleep, for as long as they are wanted.

    GNU's OpenMP has no call that stops its threads from spinning, and reads the environment only once. But where a
    process has more of its threads than cores, each goes to sleep after 100 turns instead of 300,000 (libgomp's manual,
    "GOMP_SPINCOUNT").
    """

    def __init__(self, gomp: ctypes.CDLL) -> None:
        """`gomp`: the library, as torch has loaded it."""
        self._gomp = gomp
        self._holder: threading.Thread | None = None
        self._there, self._unwanted = threading.Event(), threading.Event()

    def want(self, wanted: bool) -> None:
        """Gathers the crowd or dissolves it, and waits until that is done."""
        if wanted and self._holder is None:
            self._there.clear()
            self._unwanted.clear()
            self._holder = threading.Thread(target=self._hold, name="crowd", daemon=True)
            self._holder.start()
            self._there.wait()
        elif not wanted and self._holder is not None:
            self._unwanted.set()
            self._holder.join()
            self._holder = None

    def _hold(self) -> None:
        """A team of OpenMP's belongs to the thread that started it, and ends with it."""
        harmless = ctypes.cast(self._gomp.omp_get_thread_num, ctypes.c_void_p)
        self._gomp.GOMP_parallel(harmless, None, len(os.sched_getaffinity(0)) + 1, 0)
        self._there.set()
        self._unwanted.wait()


def loaded_gomp() -> ctypes.CDLL | None:
    """GNU's OpenMP where this process has loaded it, as torch for Linux does."""
    try:
        return ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD)
    except (OSError, AttributeError):
        return None


@cache
def _watch() -> None:
    """Starts the watcher, once a process."""
    gomp = loaded_gomp()
    if gomp is not None and STAT.exists():
        threading.Thread(target=_follow, args=(Crowd(gomp),), name="neighbours", daemon=True).start()


def _follow(crowd: Crowd) -> None:
    look = Look.now()
    while True:
        time.sleep(LOOK_EVERY)
        before, look = look, Look.now()
        crowd.want(_crowded(look.others_since(before)))


def _crowded(others: float) -> bool:
    """Tells whether torch's threads and others' work together are more than the cores."""
    import torch

    threads = torch.get_num_threads()
    return threads > 1 and threads + others > cores() + CROWDED
