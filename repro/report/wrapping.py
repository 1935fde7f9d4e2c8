"""Lines of a terminal broken between words."""

import textwrap


def wrapped(line: str, width: int, indent: int = 0) -> str:
    """The line in so many columns, its rest indented; a longer word, such as a path to be copied, stays whole."""
    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
