"""Names that a file of weights gives, as a terminal can show them."""

from collections.abc import Iterable

LONGEST_NAME = 60  # characters; torchvision's longest takes 19
MOST_NAMES = 12  # more than any net here has layers


def shown(name: object) -> str:
    """A name with everything a terminal would obey escaped, and cut to a length that a line can hold."""
    text = str(name)
    cut = text[:LONGEST_NAME] + ("..." if len(text) > LONGEST_NAME else "")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in cut)


def listed(names: Iterable[str]) -> str:
    """The first of these names, with commas, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - MOST_NAMES} more" if len(every) > MOST_NAMES else ""
    return (", ".join(map(shown, every[:MOST_NAMES])) or "none") + more
