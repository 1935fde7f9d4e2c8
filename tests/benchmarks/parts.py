"""Parts of a benchmark that never ran."""

from typing import Any

from repro.benchmarks.benchfile import Part
from repro.benchmarks.targets import CPU, judge, targets
from repro.environment import Code, Machine


def make_part(
    name: str,
    kind: str = CPU,
    peer: float = 0.1,
    table: list[dict[str, Any]] | None = None,
    reasons: dict[str, str] | None = None,
) -> Part:
    """Every target of a part: ours is 1, every peer is `peer`; what `reasons` names was not measured."""
    rows = []
    for target in targets(kind, name):
        rounds = {target.ours: [1.0]} | ({target.peer: [peer]} if target.peer else {})
        rows.append(judge(target, rounds, reasons))
    machine = Machine(f"A {kind}", kind, 2, 2, None, "2.15.0", None, "3.11.7")
    code = Code("0123abc", False, "0.1.0")
    return Part("2026-11-21T12:00:00+00:00", machine, code, "in a test", rows, table or [])
