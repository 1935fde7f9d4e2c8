"""How a command ends: its exit code, and one line on stderr where it fails."""

import os
import sys
from collections.abc import Callable

from repro.errors import RunFailure, UserError


def exit_code(command: Callable[[], None]) -> int:
    """Runs a command: 0; 2 for the user's mistake, 1 for a failure, 130 for Ctrl-C, 141 where its reader went away."""
    try:
        command()
        sys.stdout.flush()
    except UserError as error:
        return _end(2, f"error: {error}")
    except RunFailure as error:
        return _end(1, f"error: {error}")
    except KeyboardInterrupt:
        return _end(130, "interrupted")
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit; that must not fail again (docs of SIGPIPE in `signal`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def _end(code: int, message: str) -> int:
    print(message, file=sys.stderr)
    return code
