"""Tables as Markdown for readers and CSV for programs."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any
from urllib.parse import quote

from repro.evidence import published, quiet, stats
from repro.evidence.comparison import MAIN, MEASURES, TOPS, Arm, Comparison, plain_text
from repro.evidence.image_copies import remark
from repro.evidence.quiet import RULE
from repro.experiments.registry import ablations
from repro.experiments.suites import Suite
from repro.record import CENTRE, COMPLETE, CROP_MODES, TEN_CROPS, Record
from repro.report.markdown import interval, number, p_value, simultaneous_words, stem, table
from repro.report.mixed import mixed_code

WRITTEN_BY = "Written by `python -m repro.compare` from the records in `../runs`; do not edit.\n"
SEVERAL = """\
Runs on different devices, on different images, by code that computes other bits or from different settings before the
change are never compared: each such group has a section of its own.
"""
EXPLANATION = f"""\
Errors are in %, differences in percentage points (positive: worse than the baseline). Each error is of the last step
on the validation set; brackets hold 95 % intervals over the seeds (Student t). A difference is paired by seed: the same
seed of the baseline is subtracted. The simultaneous interval is of ten crops too, and holds for all rows at once with
95 %: by Dunnett's test, which pools the variance of all arms whose spread agrees with the baseline's (p of 0.05 and
more by Brown-Forsythe and by F), else by Welch's, and by pairs for runs that go on from the baseline's own checkpoint;
it takes all seeds of both. The verdict says whether it leaves out 0. "Could show" is the smallest effect that it would
leave out 0 for in 80 of 100 repetitions. A run that gives one answer to every image, or whose loss stayed that of
guessing, did not learn: it has no effect in points, and is in no mean. p (t) is the paired t-test over seeds: would
other seeds show it too? p (McNemar) is the exact test on the images (ten crops) that one of two networks gets right,
pooled over seeds: do these very networks differ?
Published effects are the authors' own runs or the paper's words, on their data; `paper.csv` has the source of each.
`../README.md` explains numerics, mixed code, and which runs share their first epochs.
{RULE}"""


def render(parts: Iterable[Comparison], suites: Iterable[Suite] = (), more: Sequence[str] = ()) -> dict[str, str]:
    """File name -> content of all tables and of their index, which leads to the suites' pages too and says `more`."""
    files = {}
    index = []
    for name, group in groupby(parts, key=stem):
        same = list(group)
        files[f"{name}.md"] = _page(same)
        files[f"{name}.csv"] = _csv([_flat(part, arm) for part in same for arm in part.arms])
        index += [_index_row(part) for part in same]
    header = ("table", "data set", "section", "ablations", "runs", "seeds", "minutes a run")
    links = ["[The claims of the paper](claims.md), each with a verdict ([csv](claims.csv)).\n", *more]
    links += [f"[Suite `{suite.name}`](suite-{suite.name}.md): {suite.question}\n" for suite in suites]
    return {**files, "README.md": "\n".join(["# Tables\n", WRITTEN_BY, *links, table(header, index)])}


def _page(parts: Sequence[Comparison]) -> str:
    first = parts[0]
    title = f"# {first.setup}, recipe `{first.recipe}`, {first.device_type}\n"
    if len(parts) == 1:
        sections = [_section(first, first.device)]
    else:
        sections = [SEVERAL, *(_section(part, f"{part.device}: {hashes(part)}") for part in parts)]
    return "\n".join([title, WRITTEN_BY, *sections, "## How to read this\n", EXPLANATION])


def hashes(part: Comparison) -> str:
    """Names what tells a comparison from others in its file: keys set by hand, and fingerprints."""
    given = "".join(f"`{key}={plain_text(value)}`, " for key, value in part.given.items())
    numerics = f"numerics `{part.numerics[:8]}`" if part.numerics else "numerics not known"
    return f"{given}settings `{part.base_hash[:8]}`, images `{part.data.content_hash[:8]}`, {numerics}"


def _section(part: Comparison, title: str) -> str:
    data = part.data
    software = _list(run.machine.torch for run in part.runs)
    lines = [
        f"## {title}\n",
        f"{data.source}: {data.classes} classes, {data.train_images} training and {data.val_images} validation images."
        f"{_remark(part)} {processor(part)}, torch {software}, {part.precision}. Fingerprints:"
        f" {hashes(part)}.\n",
        *mixed_code(part, part.arms),
        "### Effect of each change on the error\n",
        table(EFFECT_HEADER, [_effect_row(part, arm) for arm in part.arms]),
        "### Errors and cost\n",
        table(COST_HEADER, [_cost_row(arm) for arm in part.arms]),
    ]
    if missing := part.missing_runs():
        lines.append("Runs that are missing:\n\n" + "".join(f"    {command}\n" for command in missing))
    return "\n".join(lines)


def _remark(part: Comparison) -> str:
    words = remark(part.data.content_hash)
    return f" **{words}.**" if words else ""


def processor(part: Comparison) -> str:
    """The device, and what of it computed: `Xeon, 1, 2 threads` where runs differ, `H200, 4 processes`.

    A GPU's sums do not depend on the threads of the machine around it.
    """
    machines = [run.machine for run in part.runs]
    counts, processes = (_list(of) for of in zip(*((m.threads, m.processes) for m in machines), strict=True))
    several = "" if processes == "1" else f" in each of {processes} processes"
    if part.device_type == "cuda":
        return f"{part.device}{several.replace(' in each of', ',')}"
    return f"{part.device}, {counts} thread{'' if counts == '1' else 's'}{several}"


CSV_START = "setup,recipe,device,device_type,data,content_hash,"
"""How a table begins as CSV."""
KEPT_MEMORY = ("c6c4351c19342f8e89be07072cda6fbf52511e41",)
"""Commits whose suites kept a GPU's memory from one run to the next: their peaks are too high, and are not shown."""
EFFECT_HEADER = (
    "ablation", "question", "published, top-1 / top-5", "ten crops, top-1", "simultaneous interval", "could show",
    "centre crop, top-1", "n", "verdict", "p (t)", "p (McNemar)", "notes",
)  # fmt: skip
COST_HEADER = (
    "ablation", "n", "ten crops, top-1", "ten crops, top-5", "centre crop, top-1", "centre crop, top-5",
    "training, top-1", "minutes", "images/s", "peak MiB", "parameters",
)  # fmt: skip


def _effect_row(part: Comparison, arm: Arm) -> list[str]:
    notes = "; ".join(part.notes(arm))
    effect = part.effects.get(arm.name)
    if effect is None:
        return [_linked(part, arm), _question(arm), *[""] * 5, str(len(arm.learned)), "", "", "", notes]
    main, mcnemar, whole = effect.differences[MAIN], effect.mcnemar[TEN_CROPS], effect.simultaneous
    return [
        _linked(part, arm),
        _question(arm),
        published_effect(arm),
        interval(main, "+"),
        simultaneous_words(whole),
        number(whole.detectable, 2) if whole else "",
        interval(effect.differences[CENTRE, "top1"], "+"),
        str(whole.n if whole else main.n),
        effect.verdict,
        p_value(main.p),
        p_value(mcnemar.p if mcnemar else None),
        notes,
    ]


def _linked(part: Comparison, arm: Arm) -> str:
    """The arm's name, which leads to the folder of its records; where several hold them, to the first."""
    folder = arm.runs[0].folder.parent.name
    return f"[{arm.name}](../runs/{part.setup}/{part.recipe}/{quote(folder)})"


def _cost_row(arm: Arm) -> list[str]:
    errors = [interval(stats.mean(arm.values((mode, top)))) for mode in (TEN_CROPS, CENTRE) for top in TOPS]
    cost = _cost(arm)
    return [
        arm.name,
        str(len(arm.learned)),
        *errors,
        number(cost["train_top1"], 2),
        number(cost["minutes"], 1),
        number(cost["images_per_second"], 0),
        number(cost["peak_memory_mib"], 0),
        number(cost["parameters"], 0),
    ]


def _index_row(part: Comparison) -> list[str]:
    name, runs = stem(part), part.runs
    return [
        f"[{part.setup}, {part.recipe}, {part.device_type}]({name}.md) ([csv]({name}.csv))",
        part.data.source,
        f"{part.device}, {hashes(part)}",
        str(len(part.arms)),
        str(len(runs)),
        _list(run.seed for run in runs),
        number(quiet.minutes(run for run in runs if run.status == COMPLETE), 1),
    ]


def _flat(part: Comparison, arm: Arm) -> dict[str, Any]:
    """An arm as one row of plain numbers; rounded, so that another version of scipy gives the same file."""
    row: dict[str, Any] = {
        "setup": part.setup,
        "recipe": part.recipe,
        "device": part.device,
        "device_type": part.device_type,
        "data": part.data.source,
        "content_hash": part.data.content_hash,
        "data_remark": remark(part.data.content_hash),
        "base_hash": part.base_hash,
        "given": "; ".join(f"{key}={plain_text(value)}" for key, value in part.given.items()),
        "precision": part.precision,
        "numerics": part.numerics or "",
        "commits": _list(arm.commits),
        "ablation": arm.name,
        "question": _question(arm),
        "published": published_effect(arm),
        "n": len(arm.learned),
        "seeds": _list(arm.learned),
        "did_not_learn": _list(arm.at_chance),
        "verdict": part.effects[arm.name].verdict if arm.name in part.effects else "",
    }
    effect = part.effects.get(arm.name)
    for measure in MEASURES:
        name = "_".join(measure)
        row |= _numbers(f"{name}_error", stats.mean(arm.values(measure)))
        difference = effect.differences[measure] if effect else None
        row |= _numbers(f"{name}_difference", difference)
        row[f"{name}_difference_n"] = difference.n if difference else None
        row[f"{name}_p_t"] = _significant(difference.p if difference else None)
    whole = effect.simultaneous if effect else None
    row |= {
        "simultaneous_difference": _rounded(whole.mean) if whole else None,
        "simultaneous_low": _rounded(whole.low) if whole else None,
        "simultaneous_high": _rounded(whole.high) if whole else None,
        "simultaneous_method": whole.method.value if whole else "",
        "detectable": _rounded(whole.detectable) if whole else None,
    }
    for mode in CROP_MODES:
        test = effect.mcnemar[mode] if effect else None
        row[f"{mode}_only_baseline_right"] = test.only_baseline if test else None
        row[f"{mode}_only_arm_right"] = test.only_arm if test else None
        row[f"{mode}_p_mcnemar"] = _significant(test.p) if test else None
        by_seed = test.p_by_seed if test else {}
        row[f"{mode}_p_mcnemar_by_seed"] = "; ".join(f"{seed}: {_significant(p)}" for seed, p in by_seed.items())
    return row | {key: _rounded(value) for key, value in _cost(arm).items()} | {"notes": "; ".join(part.notes(arm))}


def _question(arm: Arm) -> str:
    """The ablation's question; where it has no file, what it changes."""
    if arm.name in ablations():
        return ablations()[arm.name].question
    differences = arm.runs[0].difference.items()
    return "; ".join(f"{key}: {before} → {after}" for key, (before, after) in differences if key in arm.keys)


def published_effect(arm: Arm) -> str:
    """The effects of this ablation that were published, with their data."""
    return "; ".join(map(str, published.of_ablation(arm.name)))


def _cost(arm: Arm) -> dict[str, float | None]:
    """Training error of the runs that learned and cost of the complete ones: means, but the highest peak.

    Minutes and images/s are of runs on a quiet machine.
    """
    runs, learned = list(arm.complete.values()), arm.learned.values()
    peaks = [run.cost.peak_memory_mib for run in runs if run.cost.peak_memory_mib is not None and not _kept(run)]
    return {
        "train_top1": quiet.mean(run.metrics.train.top1 for run in learned),
        "train_loss": quiet.mean(run.metrics.train.loss for run in learned),
        "minutes": quiet.minutes(runs),
        "images_per_second": quiet.images_per_second(runs),
        "peak_memory_mib": max(peaks, default=None),
        "parameters": arm.runs[0].cost.parameters,
        "macs": arm.runs[0].cost.macs,
    }


def _kept(run: Record) -> bool:
    """Tells whether a run's peak holds the memory of the runs before it, which suites on a GPU did not free."""
    return run.machine.device_type == "cuda" and run.code.commit in KEPT_MEMORY


def _numbers(name: str, value: stats.Mean | None) -> dict[str, float | None]:
    parts = (value.mean, value.low, value.high) if value else (None, None, None)
    return {key: _rounded(part) for key, part in zip((name, f"{name}_low", f"{name}_high"), parts, strict=True)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _significant(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _list(values: Iterable[Any]) -> str:
    return ", ".join(map(str, sorted(set(values))))


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
