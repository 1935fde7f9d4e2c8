"""The two ways a command ends badly, each with one line that says what is wrong and what to do."""


class UserError(Exception):
    """The user asked for something that cannot be: wrong value, missing data. Exit code 2."""


class RunFailure(Exception):
    """The request was right but the machine could not finish it: memory, disk. Exit code 1."""


class Taken(UserError):
    """Another process is making the same run."""
