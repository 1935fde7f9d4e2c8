"""The two ways a command ends badly, each with one line that says what is wrong and what to do."""


def printable(text: str) -> str:
    """A text in one line, with everything escaped that a terminal would obey or could not show."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class _OneLine(Exception):
    """Names of files and words of a command line may hold anything; its message is one line all the same.

    What else it is given stands below, a line each.
    """

    def __str__(self) -> str:
        return "\n".join(printable(str(line)) for line in self.args)


class UserError(_OneLine):
    """The user asked for something that cannot be: wrong value, missing data. Exit code 2."""


class RunFailure(_OneLine):
    """The request was right but the machine could not finish it: memory, disk. Exit code 1."""


class Unusable(UserError):
    """The images of a run cannot be used: other runs need not try the same ones."""


class Taken(UserError):
    """Another process is making the same run."""
