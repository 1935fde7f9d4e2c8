"""The table of a suite: each of its arms against the first, on the same images and device."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from repro import stats
from repro.config import Net
from repro.describe import DEFAULT_CLASSES, layer_table, total
from repro.experiments import BASELINE, compose, named_keys
from repro.naming import changed, changes, plain_settings
from repro.record import CENTRE, Record
from repro.report.copies import remark
from repro.report.effects import MAIN, Arm, effect_of, plain_text
from repro.report.tables import interval, markdown, verdict
from repro.suites import Suite

HEADER = (
    "arm", "top-1 error, ten crops", "difference", "n", "verdict", "top-1 error, centre crop", "minutes",
    "parameters", "MACs", "what differs from the first",
)  # fmt: skip
_WORDS = """\
{question}

Errors are in %, of the last step, with 95 % intervals over seeds (Student t). A difference is paired by seed with the
first arm, in percentage points (positive: worse). Every arm has the setup's epochs. Parameters and MACs (multiply-adds
of one image) are those of {net}. `python -m repro.run suite={name}` runs what is missing.
"""

_Arms = dict[tuple[str, str], Arm]


def render(suite: Suite, runs: Iterable[Record]) -> str:
    """The page of a suite, as Markdown, with a section for each device and set of images."""
    arms = [(recipe, ablation) for recipe in suite.recipe for ablation in suite.ablation]
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for run in runs:
        if run.setup == suite.setup and (run.recipe, run.ablation) in arms:
            groups[run.machine.device, run.data.content_hash].append(run)
    sections = [_section(suite, arms, groups[key]) for key in sorted(groups)]
    net = "the setup's net" if _own_net(suite.setup) else f"the full net with {DEFAULT_CLASSES:,} classes"
    words = _WORDS.format(question=suite.question, name=suite.name, net=net)
    return "\n".join([f"# Suite `{suite.name}`: setup `{suite.setup}`\n", words, *(sections or ["No records yet.\n"])])


def _section(suite: Suite, names: Sequence[tuple[str, str]], runs: Sequence[Record]) -> str:
    arms = {
        name: Arm(_name(suite, *name), [run for run in runs if (run.recipe, run.ablation) == name]) for name in names
    }
    first = runs[0]
    words = remark(first.data.content_hash)
    title = f"## {first.machine.device}: {first.data.val_images} validation images of {first.data.source}\n"
    sizes = {name: _sizes(suite.setup, *name, first.data.classes) for name in names}
    rows = [_row(suite, name, arms, sizes[name]) for name in names]
    return "\n".join([title, *([f"{words}.\n"] if words else []), markdown(HEADER, rows)])


def _name(suite: Suite, recipe: str, ablation: str) -> str:
    """What tells an arm from the others of its suite."""
    return recipe if ablation == BASELINE and len(suite.recipe) > 1 else ablation


def _row(suite: Suite, name: tuple[str, str], arms: _Arms, sizes: tuple[str, str]) -> list[str]:
    arm, (first_name, first) = arms[name], next(iter(arms.items()))
    keys = ", ".join(_differences(suite.setup, first_name, name))
    if not arm.complete:
        state = "no complete run" if arm.runs else "not run yet"
        return [f"`{arm.name}`", "", "", "0", state, "", "", *sizes, keys]
    cost = [run.cost.minutes for run in arm.complete.values()]
    effect = None if name == first_name else effect_of(first, arm).differences[MAIN]
    return [
        f"`{arm.name}`",
        interval(stats.mean(arm.values(MAIN))),
        interval(effect, "+") if effect else "",
        str(effect.n if effect else len(arm.complete)),
        verdict(effect) if effect else "",
        interval(stats.mean(arm.values((CENTRE, "top1")))),
        f"{sum(cost) / len(cost):.1f}",
        *sizes,
        keys,
    ]


def _own_net(setup: str) -> bool:
    """Whether a setup has a net of its own, rather than the paper's at some scale."""
    return bool(plain_settings("paper", setup)["model.net"] != Net.alexnet.name)


@cache
def _sizes(setup: str, recipe: str, ablation: str, classes: int) -> tuple[str, str]:
    """Parameters and MACs; `classes` count where the setup has a net of its own."""
    if ablation != BASELINE and not any(key.startswith("model.") for key in named_keys(ablation)):
        return _sizes(setup, recipe, BASELINE, classes)
    full, classes = (setup, classes) if _own_net(setup) else ("ilsvrc2012", DEFAULT_CLASSES)
    sums = total(layer_table(compose([f"setup={full}", f"recipe={recipe}", f"ablation={ablation}"]), classes))
    return f"{sums['parameters']:,}", f"{sums['macs']:,}"


def _differences(setup: str, first: tuple[str, str], name: tuple[str, str]) -> list[str]:
    before, after = (_settings(setup, *arm) for arm in (first, name))
    return [f"`{key}={plain_text(value)}`" for key, (_, value) in changed(before, after).items()]


@cache
def _settings(setup: str, recipe: str, ablation: str) -> dict[str, Any]:
    return plain_settings(recipe, setup) | changes(ablation, recipe, setup)
