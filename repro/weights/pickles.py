"""Pickles read as data.

A pickle is a program. This one may call what its reader's table holds, and nothing else: not even torch's or numpy's
own functions. Its opcodes are looked over before it runs, so that a few bytes can take neither the memory nor the stack
of the process.
"""

import io
import mmap
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple, cast

from repro.weights.names import shown

MOST_OPCODES = 3_000_000  # a log of all batches of 90 epochs takes half a million; each may take 200 bytes
DEEPEST_TUPLE = 100  # hashing a tuple goes down its whole depth on the C stack
LARGEST_TUPLE = 50_000  # elements, those of its tuples included: hashing it goes through all of them
MOST_UNPACKED = 20  # times a compressed archive's length; trained weights hardly shrink

Globals = Mapping[tuple[str, str], Any]
"""What stands in for a global, by module and name; the name `*` is for all others of its module."""


class Sealed:
    """An object that the opcode BUILD, which sets attributes, cannot alter."""

    __slots__ = ()

    def __setstate__(self, _: object) -> None:
        """Raises UnpicklingError."""
        raise pickle.UnpicklingError("a state for what has none")


class Call(Sealed):
    """A function that a pickle may call; the function itself is out of its reach."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        """`function` checks its own arguments."""
        self._function = function

    def __call__(self, *args: Any) -> Any:
        """Calls the function with the arguments."""
        return self._function(*args)


class Unused:
    """An object of which nothing is needed."""

    def __init__(self, *_: object) -> None:
        """Takes and forgets whatever it is made of."""

    def __setstate__(self, _: object) -> None:
        """Forgets its attributes."""


class Dictionary(dict[Any, Any]):
    """Stands in for `OrderedDict`, and forgets the attributes that torch gives one."""

    def __setstate__(self, _: object) -> None:
        """Forgets its attributes."""


COMMON: Globals = {
    ("collections", "OrderedDict"): Dictionary,
    ("numpy", "ndarray"): Unused,
    **{(module, "scalar"): Unused for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
}
"""Globals that weights of any program may hold; numpy moved its own in version 2."""


def load(
    stream: io.BytesIO | mmap.mmap,
    allowed: Globals,
    refuse: Callable[[str, bytes], Exception],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The value of the pickle at this place of a stream, which is left behind its end.

    The stream is a mapped file or in memory: its `read` takes no more memory than there are bytes left.

    `refuse` makes the error for a global that `allowed` lacks, from its name and the pickle; `persistent` turns what
    the pickle knows by an id into a value. Raises UnpicklingError, ValueError and others where the pickle is damaged,
    or asks for too much.
    """
    start = stream.tell()
    _look_over(stream)
    end = stream.tell()
    stream.seek(start)
    content = stream.read(end - start)
    return _Unpickler(content, allowed, lambda name: refuse(name, content), persistent).load()


class _Unpickler(pickle.Unpickler):
    """Builds plain values and stand-ins."""

    def __init__(
        self,
        content: bytes,
        allowed: Globals,
        refuse: Callable[[str], Exception],
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")  # a str of Python 2 is bytes: latin1 keeps each
        self._allowed, self._refuse, self._persistent = allowed, refuse, persistent

    def find_class(self, module: str, name: str) -> Any:
        for place in ((module, name), (module, "*")):
            if place in self._allowed:
                return self._allowed[place]
        raise self._refuse(shown(f"{module}.{name}"))

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent is None:
            raise pickle.UnpicklingError("an id where none can be")
        return self._persistent(pid)


# ---- looking it over -------------------------------------------------------------------------------------------------


class _Cost(NamedTuple):
    """The cost of hashing a value; only tuples and frozen sets are more than one element."""

    depth: int = 0
    elements: int = 1


_PLAIN = _Cost()
_HASHED_IN_DEPTH = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}


def _look_over(stream: io.BytesIO | mmap.mmap) -> None:
    """Reads to the end of a pickle without running it. Raises UnpicklingError where it would take too much.

    `genops` itself raises ValueError where a string or number claims to be longer than the rest of the stream.
    """
    stack = _Stack()
    memo: dict[int, _Cost] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], stream))):
        if count >= MOST_OPCODES:
            raise pickle.UnpicklingError("too many opcodes")
        if opcode.name in _PUTS:
            index = len(memo) if argument is None else int(argument)  # MEMOIZE has none
            if not 0 <= index <= count:  # the unpickler keeps an array as long as the largest index
                raise pickle.UnpicklingError("an index far behind the last")
            memo[index] = stack.top()
        elif opcode.name in _GETS:
            stack.push(memo[int(argument or 0)])
        else:
            stack.step(opcode)


class _Stack:
    """The unpickler's stack, with the cost of each value in place of the value, and its marks."""

    def __init__(self) -> None:
        self._costs: list[_Cost] = []
        self._marks: list[int] = []
        """Height of the stack at each mark."""

    def top(self) -> _Cost:
        return self._costs[-1]

    def push(self, cost: _Cost) -> None:
        self._costs.append(cost)

    def step(self, opcode: pickletools.OpcodeInfo) -> None:
        """Takes off and puts on what an opcode does."""
        if opcode.name == "MARK":
            self._marks.append(len(self._costs))
            return
        if opcode.name == "POP" and self._marks and self._marks[-1] == len(self._costs):
            self._marks.pop()  # a mark is taken off as a value is
            return
        taken = self._take(opcode)
        made = _PLAIN
        if opcode.name in _HASHED_IN_DEPTH:
            made = _Cost(1 + max((cost.depth for cost in taken), default=0), 1 + sum(cost.elements for cost in taken))
            if made.depth > DEEPEST_TUPLE or made.elements > LARGEST_TUPLE:
                raise pickle.UnpicklingError("a tuple too deep or too large")
        elif opcode.name == "DUP":
            made = taken[0]
        self._costs += [made] * len(opcode.stack_after)

    def _take(self, opcode: pickletools.OpcodeInfo) -> list[_Cost]:
        """Down to the last mark, and what lies under it as far as the opcode reaches; the values above it."""
        before = opcode.stack_before
        if pickletools.markobject in before:
            mark = self._marks.pop()
            taken = self._costs[mark:]
            del self._costs[max(0, mark - before.index(pickletools.markobject)) :]
            return taken
        cut = max(0, len(self._costs) - len(before))
        taken = self._costs[cut:]
        del self._costs[cut:]
        return taken
