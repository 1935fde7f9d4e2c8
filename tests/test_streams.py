"""Standard streams that cannot be written."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OUTLAST = "import os, sys; from repro import streams; streams.outlast();"


@pytest.mark.parametrize("redirection", [">/dev/full 2>&1", ">&- 2>&-", "2>&1 | true"])
def test_a_process_goes_on_when_its_streams_do_not(redirection: str, tmp_path: Path) -> None:
    end = tmp_path / "end"
    code = f"""{OUTLAST}
from rich.console import Console
for _ in range(20):
    print("x" * 10000, flush=True)
    Console().print("x")
    print("x", file=sys.stderr)
file = open({str(end)!r}, "w")
assert file.fileno() > 2
file.write("reached")
"""
    script = f"set -o pipefail; {sys.executable} -c '{code.replace(chr(39), chr(34))}' {redirection}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert end.read_text() == "reached"


def test_streams_that_can_be_written_are_as_before() -> None:
    code = (
        f"{OUTLAST} print('a', sys.stdout.isatty(), chr(228)); print(chr(0xdcff), file=sys.stderr); os.write(1, b'b')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    assert done.stdout == "ba False ä\n".encode()
    assert done.stderr == b"\\udcff\n"


@pytest.mark.parametrize(("wait", "read"), [(10, 3 * 10**6), (0.05, 1)])
def test_a_full_pipe_that_does_not_wait_is_waited_for(wait: float, read: int) -> None:
    """Its reader begins late; where it never does, what is too much is dropped in the end."""
    code = f"""{OUTLAST}
streams.LONGEST_WAIT = {wait}
os.set_blocking(1, False)
print("x" * {3 * 10**6})
print("reached", file=sys.stderr)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if read == 1:
            assert process.stderr.readline() == b"reached\n"
        else:
            time.sleep(0.3)
            assert len(process.stdout.read().rstrip()) == read
            assert process.stderr.readline() == b"reached\n"
