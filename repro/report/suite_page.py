"""The table of a suite: each of its arms against the first, in the groups that the tables compare."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from repro.config import Net
from repro.evidence import quiet, stats
from repro.evidence.comparison import MAIN, Arm, Comparison, Effect, as_family, notes, pair_notes, plain_text
from repro.evidence.image_copies import remark
from repro.experiments.compose import compose
from repro.experiments.folder import BASELINE
from repro.experiments.naming import GIVEN, PRECISION, changed, changes, plain_settings
from repro.experiments.registry import named_keys
from repro.experiments.suites import Suite
from repro.model.summary import DEFAULT_CLASSES, layer_table, total
from repro.record import CENTRE
from repro.report import tuned_page
from repro.report.markdown import interval, simultaneous_words, table
from repro.report.mixed import mixed_words

HEADER = (
    "arm", "top-1 error, ten crops", "difference, paired", "simultaneous interval", "n", "verdict",
    "top-1 error, centre crop", "minutes", "parameters", "MACs", "what differs from the first", "notes",
)  # fmt: skip
_WORDS = """\
{question}

Errors are in %, of the last step, with 95 % intervals over seeds (Student t). A difference is paired by seed with the
first arm, in percentage points (positive: worse); the simultaneous interval holds for all arms of the table at once,
and the verdict is by it. Only runs that share device, images, numerics, budget and precision
stand in one section; `../README.md` explains the rest. `python -m repro.run suite={name}` runs what is missing.
Parameters and MACs (multiply-adds of one image) are those of {net}.
{quiet}"""

_Key = tuple[str, str]
"""Recipe and ablation of an arm."""


def render(suite: Suite, parts: Iterable[Comparison]) -> str:
    """The page of a suite, as Markdown, with a section for each group of runs that compare; of a list, its commands."""
    if suite.parts:
        commands = "\n".join(f"    python -m repro.run {part}" for part in suite.parts)
        return (
            f"# Suite `{suite.name}`\n\n{suite.question}\n\nIts runs are those of, most wanted first:\n\n{commands}\n"
        )
    if suite.tune:
        return tuned_page.render(suite, parts)
    sections = [_section(suite, group) for group in _groups(suite, parts)]
    net = "the setup's net" if _own_net(suite.setup) else f"the full net with {DEFAULT_CLASSES:,} classes"
    words = _WORDS.format(question=suite.question, name=suite.name, net=net, quiet=quiet.RULE)
    return "\n".join([f"# Suite `{suite.name}`: setup `{suite.setup}`\n", words, *(sections or ["No records yet.\n"])])


def _groups(suite: Suite, parts: Iterable[Comparison]) -> list[list[Comparison]]:
    """The comparisons of tables that hold the suite's arms, those together that recipes alone tell apart."""
    groups: dict[tuple[Any, ...], list[Comparison]] = defaultdict(list)
    recipes = [plain_settings(recipe, suite.setup) for recipe in suite.recipe]
    shared = [key for key, value in recipes[0].items() if all(other[key] == value for other in recipes)]
    for part in parts:
        names = {arm.name for arm in part.arms} & set(suite.ablation)
        if part.setup == suite.setup and part.recipe in suite.recipe and names and not _set_by_hand(part):
            same = tuple(str(part.base[key]) for key in sorted({*shared, PRECISION}))
            groups[part.device, part.data.content_hash, part.numerics or "", same].append(part)
    return [group for key in sorted(groups) for group in _one_of_each(groups[key])]


def _set_by_hand(part: Comparison) -> bool:
    """Tells whether all its runs have a key that is no part of the suite; a budget, say, is the group's own."""
    return any(key not in GIVEN for key in part.given)


def _one_of_each(parts: Sequence[Comparison]) -> list[list[Comparison]]:
    """Keeps at most one comparison a recipe; what else there is, of an older version of a recipe, stands apart."""
    by_recipe: dict[str, list[Comparison]] = defaultdict(list)
    for part in sorted(parts, key=lambda part: -len(part.runs)):
        by_recipe[part.recipe].append(part)
    first = [same[0] for same in by_recipe.values()]
    return [first, *([part] for same in by_recipe.values() for part in same[1:])]


def _section(suite: Suite, parts: Sequence[Comparison]) -> str:
    found = {(part.recipe, arm.name): arm for part in parts for arm in part.arms}
    names = [(recipe, ablation) for recipe in suite.recipe for ablation in suite.ablation]
    arms = {name: Arm(_name(suite, *name), found[name].runs if name in found else []) for name in names}
    first = parts[0]
    words = remark(first.data.content_hash)
    given = "".join(f", `{key}={plain_text(value)}`" for key, value in first.given.items())
    images = f"{first.data.val_images} validation images of {first.data.source}"
    numerics = f"numerics `{first.numerics[:8]}`" if first.numerics else "numerics not known"
    title = f"## {first.device}: {images}, {first.precision}, {numerics}{given}\n"
    sizes = {name: _sizes(suite.setup, *name, first.data.classes) for name in names}
    plain = {arms[name].name: Effect(arms[names[0]], arms[name]) for name in names[1:] if arms[name].runs}
    effects = as_family(plain)
    rows = [_row(suite, name, arms[name], effects.get(arms[name].name), sizes[name]) for name in names]
    mixed = mixed_words(arms.values(), effects.values(), f"python -m repro.run suite={suite.name} force=true")
    return "\n".join([title, *([f"{words}.\n"] if words else []), *mixed, table(HEADER, rows)])


def _name(suite: Suite, recipe: str, ablation: str) -> str:
    """Names what tells an arm from the others of its suite."""
    return recipe if ablation == BASELINE and len(suite.recipe) > 1 else ablation


def _row(suite: Suite, name: _Key, arm: Arm, effect: Effect | None, sizes: tuple[str, str]) -> list[str]:
    keys = ", ".join(_differences(suite.setup, (suite.recipe[0], suite.ablation[0]), name))
    if not arm.runs:
        return [f"`{arm.name}`", "", "", "", "0", "not run yet", "", "", *sizes, keys, ""]
    difference, whole = (effect.differences[MAIN], effect.simultaneous) if effect else (None, None)
    minutes = quiet.minutes(arm.complete.values())
    return [
        f"`{arm.name}`",
        interval(stats.mean(arm.values(MAIN))),
        interval(difference, "+") if difference else "",
        simultaneous_words(whole),
        str(whole.n if whole else difference.n if difference else len(arm.learned)),
        effect.verdict if effect else "",
        interval(stats.mean(arm.values((CENTRE, "top1")))),
        "" if minutes is None else f"{minutes:.1f}",
        *sizes,
        keys,
        "; ".join(notes(arm) + (pair_notes(effect) if effect else [])),
    ]


def _own_net(setup: str) -> bool:
    """Tells whether a setup has a net of its own, rather than the paper's at some scale."""
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
