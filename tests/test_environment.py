import os
import subprocess
from pathlib import Path

import pytest

from repro import environment
from repro.environment import Code, capture_code, capture_machine, command_line, slug


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("ablation=no_lrn", "ablation=no_lrn"),
        ("data.root=/home/a/data", "data.root=data"),
        ("data.root=/home/a/my data/", "'data.root=my data'"),
        ("data.root=~/data", "data.root=data"),
        ("x=[/a/b,/c/d]", "'x=[b,d]'"),
        (r"data.root=C:\users\a\data", "data.root=data"),
        ("results_dir=out/a", "results_dir=out/a"),
        ("schedule.drops=[0.5,0.9]", "'schedule.drops=[0.5,0.9]'"),
    ],
)
def test_command_line(argument: str, expected: str) -> None:
    assert command_line(["/usr/lib/repro/run.py", argument]) == f"python -m repro.run {expected}"


def test_machine_names_the_processor() -> None:
    machine = capture_machine("cpu")
    assert machine.device
    assert machine.device_type == "cpu"
    assert (machine.cuda, machine.driver) == (None, None)
    assert machine.threads >= 1


@pytest.mark.cuda
def test_machine_names_the_gpu() -> None:
    machine = capture_machine("cuda")
    assert machine.device_type == "cuda"
    assert machine.cuda is not None


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout with the package's folder in it, both files committed."""
    package = tmp_path / "repro"
    package.mkdir()
    (package / "environment.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    monkeypatch.setattr(environment, "PACKAGE", package)
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "--no-verify", "-m", "a")):
        subprocess.run(("git", "-C", str(tmp_path), *command), check=True)
    return tmp_path


def test_code_of_a_checkout(checkout: Path) -> None:
    (checkout / "notes.txt").write_text("neither code nor experiment")
    (checkout / "results").mkdir()
    (checkout / "results" / "new.json").write_text("a run does not make the next one dirty")
    clean = capture_code()
    assert clean.commit is not None
    assert len(clean.commit) == 40
    assert clean.dirty is False
    (checkout / "experiments").mkdir()
    (checkout / "experiments" / "new.yaml").write_text("")
    assert capture_code() == Code(clean.commit, True, clean.version)


def test_package_inside_a_foreign_checkout_has_no_commit(checkout: Path) -> None:
    subprocess.run(("git", "-C", str(checkout), "rm", "-q", "--cached", "repro/environment.py"), check=True)
    assert capture_code().commit is None
    assert capture_code().dirty is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to another user")
def test_another_users_checkout_has_a_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.delenv("SUDO_UID", raising=False)
    clean = capture_code()
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, 65534, 65534)
    refused = subprocess.run(("git", "-C", str(checkout), "status"), check=False, capture_output=True, text=True)
    assert "dubious ownership" in refused.stderr
    assert capture_code() == clean
    assert clean.commit is not None


def test_no_git_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert capture_code().commit is None


def test_a_slug_is_fit_for_a_file() -> None:
    assert slug("Intel(R) Xeon(R) Processor @ 2.00GHz") == "intel-r-xeon-r-processor-2-00ghz"


def ticks(**busy: int) -> str:
    """/proc/stat after 1000 ticks of all cores, as many of them idle as were not `busy`."""
    counts = dict.fromkeys(environment._STAT_COLUMNS, 0) | busy
    counts["idle"] += 1000 - sum(busy.values())
    return f"cpu  {' '.join(map(str, counts.values()))} 0 0\ncpu0 1 2 3\n"


def test_the_load_tells_others_work_from_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat, own = tmp_path / "stat", [5.0]
    monkeypatch.setattr(environment, "_STAT", stat)
    monkeypatch.setattr(environment.time, "process_time", lambda: own[0])
    monkeypatch.setattr(environment.os, "getloadavg", lambda: (3.0, 0.0, 0.0))
    monkeypatch.setattr(environment.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(environment.os, "sysconf", lambda name: 100)
    stat.write_text(f"cpu  {' '.join(['0'] * 10)}\n")
    meter = environment.LoadMeter()
    stat.write_text(ticks(user=500, system=100, steal=50, iowait=20))
    own[0] = 9.0  # 400 of the 600 busy ticks
    assert meter.read() == environment.Load(1.5, 1.5, 0.05, 0.2)
    assert meter.read(processes=2).others == 0  # never below


def test_without_proc_stat_there_is_the_load_average_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_STAT", tmp_path / "none")
    load = environment.LoadMeter().read()
    assert load.start is not None
    assert load.start >= 0
    assert (load.steal, load.others) == (None, None)
