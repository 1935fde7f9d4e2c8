"""The end of a command: its exit code, and one line on stderr where it fails."""

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from repro import stopping, streams
from repro.errors import RunFailure, UserError, printable


def exit_code(command: Callable[[], None]) -> int:
    """Runs a command: 0; 2 for the user's mistake, 1 for a failure, the disk's too, 141 where its reader went away.

    130 for Ctrl-C, and 128 + its number for another signal, see `repro.stopping`.
    """
    streams.escape()
    try:
        _check_working_folder()
        command()
        if sys.stdout is not None:  # closed, it is none
            sys.stdout.flush()
    except UserError as error:
        return _end(2, f"error: {error}")
    except RunFailure as error:
        return _end(1, f"error: {error}")
    except KeyboardInterrupt as stop:
        code = stopping.code_of(stop)
        return _end(code, stopping.words(code))
    except BrokenPipeError:
        _drop_output()
        return 141
    except OSError as error:
        reason = error.strerror or str(error)
        if error.filename is not None:
            return _end(1, f"error: {printable(os.fsdecode(error.filename))}: {reason}")
        _drop_output()
        return _end(1, f"error: {reason}")
    return 0


def exit_code_of_run(run: Callable[[], None]) -> int:
    """Does as `exit_code` for one run of several: 1 for a fault of the program too, whose traceback is printed.

    So it costs no other run.
    """
    try:
        return exit_code(run)
    except Exception:
        traceback.print_exc()
        return 1


def _drop_output() -> None:
    """The interpreter flushes stdout once more at exit; that must not fail again (docs of SIGPIPE in `signal`).

    Where it can be written, the error came from elsewhere, and the runs after this one are still told.
    """
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(AttributeError, OSError):  # where stdout is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except AttributeError:  # where there is none
        pass


def _check_working_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise UserError("the working folder no longer exists: cd to one that does") from error


def helped(words: Sequence[str], text: str | None) -> bool:
    """Prints a command's help where its words ask for it, and tells whether they do."""
    asked = bool({"-h", "--help"} & set(words))
    if asked:
        print((text or "").strip())
    return asked


def warn(text: str) -> None:
    """One line on stderr, for a command whose stdout is its answer."""
    print(f"warning: {text}", file=sys.stderr)


def own_words(words: Sequence[str], defaults: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The `key=value` words that are a command's own, by key, and the rest, which are the configuration's.

    Raises UserError where one of its own is given twice.
    """
    mine = [word for word in words if "=" in word and key_of(word) in defaults]
    own = [word.partition("=")[::2] for word in mine]
    for number, (key, _) in enumerate(own):
        if key in dict(own[:number]):
            raise UserError(f"{key}= is given twice")
    return dict(defaults) | dict(own), [word for word in words if word not in mine]


def expanded(path: str, key: str) -> Path:
    """The path after `key=` on a command line, `~` being the user's home. UserError where that is nobody's."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{key}={path}: there is no such home folder") from error


def key_of(word: str) -> str:
    """What stands before the first `=` of a word; all of it where there is none."""
    return word.partition("=")[0]


def _end(code: int, message: str) -> int:
    print(message, file=sys.stderr)
    return code
