"""Signals that end a command."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from repro.stopping import SIGNALS, is_stop

ROOT = Path(__file__).parents[1]


def ended(code: str) -> subprocess.CompletedProcess[str]:
    """A process of this code, which starts with the signals as a shell has them."""
    start = "import os, signal, sys, time\nfor number in range(1, 16):\n"
    start += "    number in (9, 13) or signal.signal(number, signal.SIG_DFL)\n"
    start += "signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom repro import stopping\n"
    return subprocess.run(
        [sys.executable, "-c", start + code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


COMMAND = """
from repro.command import exit_code
def command():
    with stopping.raised():
        try:
            os.kill(os.getpid(), {first})
            time.sleep(60)
        except KeyboardInterrupt:
            with stopping.held():
                os.kill(os.getpid(), {second})
                print("filed")
            raise
stopping.listen()
sys.exit(stopping.end(exit_code(command)))
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_command_in_one_line_even_twice(number: signal.Signals) -> None:
    done = ended(COMMAND.format(first=int(number), second=int(number)))
    assert done.returncode == 128 + number
    assert is_stop(done.returncode)
    line = "interrupted" if number is signal.SIGINT else f"stopped by {number.name}"
    assert (done.stdout, done.stderr) == ("filed\n", f"{line}\n")


@pytest.mark.parametrize(("seconds", "times"), [(0.0, 1), (1.2, 2)])
def test_signals_close_together_are_one(seconds: float, times: int) -> None:
    code = f"""
stopping.listen()
with stopping.raised():
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            os.kill(os.getpid(), number)
            time.sleep(0.01)
        except KeyboardInterrupt:
            print("raised")
        time.sleep({seconds})
"""
    assert ended(code).stdout == times * "raised\n"


def test_what_is_held_ends_before_the_signal_does_anything() -> None:
    code = """
stopping.listen()
try:
    with stopping.raised(), stopping.held():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        print("whole")
    print("never")
except KeyboardInterrupt as stop:
    print(stopping.code_of(stop))
"""
    assert ended(code).stdout == "whole\n143\n"


def test_a_signal_that_was_held_is_raised_where_the_block_fails() -> None:
    code = """
stopping.listen()
try:
    with stopping.raised(), stopping.held():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        raise ValueError
except KeyboardInterrupt as stop:
    print(stopping.code_of(stop))
"""
    assert ended(code).stdout == "143\n"


def test_where_nothing_is_to_be_filed_the_process_leaves_at_once() -> None:
    done = ended("stopping.listen()\nos.kill(os.getpid(), signal.SIGHUP)\nprint('never')")
    assert (done.returncode, done.stdout, done.stderr) == (129, "", "stopped by SIGHUP\n")


def test_no_signal_changes_the_exit_code_of_a_command_that_has_ended() -> None:
    """Nor while the interpreter is on its way out, when it has given its handlers back."""
    code = """
import atexit, sys
stopping.listen()
code = stopping.end(3)
print("told")
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGINT)
sys.exit(code)
"""
    done = ended(code)
    assert (done.returncode, done.stdout, done.stderr) == (3, "told\n", "")


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    code = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nstopping.listen()\nos.kill(os.getpid(), signal.SIGHUP)"
    assert ended(code).returncode == 0


def test_a_forked_process_dies_of_the_signal_itself() -> None:
    code = """
stopping.listen()
ready, told = os.pipe()
if child := os.fork():
    os.read(ready, 1)
    os.kill(child, signal.SIGTERM)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) + 100)
os.write(told, b"x")
time.sleep(60)
"""
    assert ended(code).returncode == 100 - signal.SIGTERM


@pytest.mark.parametrize(
    ("name", "module"), [("repro.run", "omegaconf"), ("repro.run", "torch"), ("repro.campaign", "torch")]
)
def test_ctrl_c_during_an_import_is_one_line(name: str, module: str) -> None:
    code = f"""
import runpy
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv[1:] = ["setup=embedded", "suite=cifar_lrn"] if {name!r} == "repro.campaign" else ["setup=embedded"]
runpy.run_module({name!r}, run_name="__main__", alter_sys=True)
"""
    done = ended(code)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert "trains" not in done.stdout  # the first words may be there
