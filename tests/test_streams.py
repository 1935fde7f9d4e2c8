"""Standard streams that cannot be written."""

import subprocess
import sys
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
