import subprocess
import sys
from pathlib import Path

import pytest

from repro.command import exit_code, own_words
from repro.errors import RunFailure, UserError


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("no such class"), 2, "error: no such class\n"),
        (RunFailure("disk full"), 1, "error: disk full\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_a_failure_is_a_code_and_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise error

    assert exit_code(command) == code
    assert capsys.readouterr().err == line


def test_success_is_0_and_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: None) == 0
    assert capsys.readouterr() == ("", "")


def test_a_working_folder_that_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert exit_code(lambda: print(Path().resolve())) == 2
    assert capsys.readouterr().err == "error: the working folder no longer exists: cd to one that does\n"


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: print(1 // 0))


def test_reader_that_goes_away() -> None:
    code = "import sys; from repro.command import exit_code; sys.exit(exit_code(lambda: print('x' * 10**6)))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_commands_own_words_are_told_from_those_of_the_configuration() -> None:
    words = ["recipe=paper", "format=json", "format", "formats=x", "weights=a=b"]
    own, rest = own_words(words, {"format": "table", "weights": "", "mean": ""})
    assert own == {"format": "json", "weights": "a=b", "mean": ""}
    assert rest == ["recipe=paper", "format", "formats=x"]


def test_an_own_word_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="format= is given twice"):
        own_words(["format=json", "recipe=paper", "format=table"], {"format": "table"})


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (IsADirectoryError(21, "Is a directory", "results/a\nb"), "error: results/a\\nb: Is a directory\n"),
        (OSError(28, "No space left on device"), "error: No space left on device\n"),
        (TimeoutError("too late"), "error: too late\n"),
    ],
)
def test_what_the_disk_refuses_is_a_failure_in_one_line(
    error: OSError, line: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command() -> None:
        raise error

    monkeypatch.setattr("repro.command._drop_output", lambda: None)  # the stdout of this process is wanted
    assert exit_code(command) == 1
    assert capfd.readouterr().err == line


def test_an_error_from_elsewhere_leaves_the_output_alone() -> None:
    code = """
from repro.command import exit_code
def command():
    raise OSError(12, "Cannot allocate memory")
print(exit_code(command))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1\n", "error: Cannot allocate memory\n")


@pytest.mark.parametrize(
    "words",
    [
        ("repro.run", "--cfg", "job"),
        ("repro.run", "--help"),
        ("repro.describe", "format=json"),
        ("repro.compare", "--help"),
    ],
    ids=" ".join,
)
def test_an_answer_that_cannot_be_written_is_a_failure_in_one_line(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")
