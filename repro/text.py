"""Words for people: lines broken between words, and numbers of things."""

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def wrapped(line: str, width: int, indent: int = 0) -> str:
    """The line in so many columns, its rest indented; a longer word, such as a path to be copied, stays whole."""
    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 epoch`, `2,000 epochs`; `plural` where it is not the noun and an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def console_for_tables(width: int) -> "Console":
    """A console on stdout: as wide as the terminal, or of so many columns at least where stdout is none."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(width, console.width))
