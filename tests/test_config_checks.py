"""Every number has its range, and whatever is asked ends in a run or in one line that says what is wrong."""

import math
import types
import typing
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from repro.config import Config, Conv1Input, ScheduleKind
from repro.config_checks import RANGES, check, range_of
from repro.data.augmentation import random_windows
from repro.errors import RunFailure, UserError
from repro.experiments.compose import compose
from repro.experiments.folder import GROUPS, choices
from repro.experiments.naming import identify
from repro.model.summary import layer_table
from repro.train.schedule import Schedule
from tests.places import put
from tests.tiny import make_training, tiny_config, tiny_data


def typed_fields(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of the schema: dotted key -> declared type."""
    for name, declared in typing.get_type_hints(kind).items():
        if is_dataclass(declared):
            assert isinstance(declared, type)
            yield from typed_fields(declared, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", declared


FIELDS = dict(typed_fields(Config)) | {"ablation": str}


def parts(declared: Any) -> tuple[Any, ...]:
    """The types that a union or a list is of."""
    is_union = typing.get_origin(declared) in (types.UnionType, typing.Union, list)
    return tuple(part for one in typing.get_args(declared) for part in parts(one)) if is_union else (declared,)


NUMBERS = [key for key, declared in FIELDS.items() if {int, float} & set(parts(declared))]


def test_every_number_has_a_range_and_every_range_a_number() -> None:
    assert [key for key in NUMBERS if range_of(key) is None] == []
    used = [{key, f"{key.rpartition('.')[0]}.*"} & RANGES.keys() for key in NUMBERS]
    assert set().union(*used) == RANGES.keys()


# ---- every field, every value ----------------------------------------------------------------------------------------


def edges(key: str) -> list[float]:
    """The ends of a key's range, and what lies a little beyond."""
    limits = RANGES.get(key) or range_of(key)
    assert limits is not None
    return [limits.low, limits.high, limits.low - 1, limits.high + 1, limits.low + 1e-3]


NUMBER = st.one_of(
    st.integers(), st.integers(0, 8), st.floats(), st.floats(0, 1), st.sampled_from(["nan", "-inf", "1e400", "-0.0"])
)
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    st.sampled_from(
        ["~/x", "/data/ä", "(1)", "[x]", "#", "it's", "a,b", "/x/日本", "[/]", "${y}", "${oc.env:NO}", "null"]
    ),
)


def one_value(key: str) -> st.SearchStrategy[str]:
    """Words for one key: fitting ones, those at the ends of its range, and those of any other kind."""
    kinds = parts(FIELDS[key])
    fitting: list[st.SearchStrategy[Any]] = []
    if key in (*GROUPS, "ablation"):
        fitting.append(st.sampled_from(choices(key)))
    if range_of(key):
        fitting.append(st.sampled_from(edges(key)))
        fitting.append(NUMBER)
    if bool in kinds:
        fitting.append(st.sampled_from(["true", "false", "yes"]))
    fitting += [
        st.sampled_from([*kind.__members__]) for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum)
    ]
    if type(None) in kinds:
        fitting.append(st.just("null"))
    if typing.get_origin(FIELDS[key]) is list:
        fitting = [
            st.lists(one, max_size=4).map(lambda items: f"[{','.join(map(str, items))}]") for one in fitting or [TEXT]
        ]
    return st.one_of(*fitting * 4, TEXT, NUMBER).map(str)  # most draws are of the right kind


def tried(*words: str) -> None:
    """Composes, names, builds and schedules what the words ask for, short of memory for weights and images."""
    config = compose(words)
    identify(config)
    layer_table(config, config.data.classes or 10)
    schedule = Schedule(config, 100)
    for step in (0, 50, 99):
        assert schedule.lr(step) >= 0
        schedule.observe(50.0)
        schedule.events(step)
    random_windows(config.augment, 4, config.data.image_size - config.crop, torch.Generator())


def refusal(*words: str) -> str:
    """The one line for words that cannot be; nothing where they can."""
    try:
        tried(*words)
    except UserError as error:
        return str(error) or "\n"
    return ""


PER_FIELD = -(-500 // len(FIELDS))


@pytest.mark.slow
@pytest.mark.parametrize("key", FIELDS)
def test_any_value_of_any_field_is_a_run_or_one_line(key: str) -> None:
    """500 draws in all, of each field with another one, always the same."""
    others = st.sampled_from([name for name in FIELDS if name != key])
    pairs = others.flatmap(lambda other: st.tuples(st.just(other), one_value(other)))

    @seed(zlib.crc32(key.encode()))
    @settings(max_examples=PER_FIELD, phases=[Phase.generate], deadline=None, database=None)
    @given(own=one_value(key), other=pairs)
    def one_draw(own: str, other: tuple[str, str]) -> None:
        assert refusal(f"{key}={own}", "=".join(other)).isprintable()

    one_draw()


NOT_RUN = (
    *("model.sizes", "model.scale", "model.width", "model.columns", "data.image_size", "data.crop", "train.epochs"),
    "data.minival",
)
"""At their ends a run would take all memory, or years, or have no image; the nets' shapes are tried above."""


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("key", [key for key in NUMBERS if not key.startswith(NOT_RUN)])
def test_a_run_at_the_ends_of_a_range_ends(key: str, tmp_path: Path) -> None:
    limits = range_of(key)
    assert limits is not None
    low = math.nextafter(limits.low, limits.high) if limits.above else limits.low
    high = math.nextafter(limits.high, limits.low) if limits.below else limits.high
    for value in (low, high):
        assert value in limits
        number = float(value) if float in parts(FIELDS[key]) else int(value)
        config = put(tiny_config(), {key: [number] if key == "schedule.drops" else number})
        with suppress(UserError, RunFailure):  # a size that does not fit the others
            check(config)
            make_training(config, tmp_path / str(value), tiny_data(16, 4)).run()


# ---- single values ---------------------------------------------------------------------------------------------------


def test_the_default_is_valid() -> None:
    config = Config()
    config.data.image_size, config.data.crop = 256, 224
    check(config)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", -1, "seed=-1: must be at least 0"),
        ("seed", 2**64, "seed=18446744073709551616: must be at least 0"),
        ("seed", 2**64 - 1, None),
        ("train.epochs", 0, "train.epochs=0"),
        ("train.batch_size", 0, "train.batch_size=0"),
        ("train.micro_batch", 0, "train.micro_batch=0: must be at least 1"),
        ("train.micro_batch", 100, "train.micro_batch=100"),
        ("data.crop", 300, "data.crop=300"),
        ("data.crop", 254, None),
        ("model.dropout.rate", 1.0, "model.dropout.rate=1.0"),
        ("model.dropout.rate", -0.1, "model.dropout.rate=-0.1"),
        ("optimizer.lr", 0.0, "optimizer.lr=0.0"),
        ("optimizer.lr", math.nan, "optimizer.lr=nan"),
        ("optimizer.lr", math.inf, "optimizer.lr=inf"),
        ("schedule.drops", [0.5, 1.5], "schedule.drops=[0.5, 1.5]: each must be at least 0 and at most 1"),
        ("schedule.drops", [[1]], "schedule.drops=[[1]]: each must be a number"),
        ("schedule.drops", [0.5] * 51, "schedule.drops has 51 drops: 50 are the most"),
        ("schedule.conv1_freeze_at", -0.1, "schedule.conv1_freeze_at=-0.1: must"),
        ("augment.color_noise_off_at", 2.0, "augment.color_noise_off_at=2.0: must"),
        ("data.minival", 1.0, "data.minival=1.0"),
        ("schedule.kind", ScheduleKind.plateau, "set data.minival"),
        ("model.columns", 0, "model.columns=0"),
        ("augment.share", 0, "augment.share=0"),
        ("model.scale", 512.0, "make a layer of 2,097,152: 65,536 is the most"),
        ("model.norm.n", 4, "model.norm.n=4: must be odd"),
        ("results_dir", "", "results_dir=: give a folder"),
        ("init_from", "", "init_from=: give a file of weights, or leave it out"),
        ("results_dir", "a\nb", r"results_dir='a.nb': give a folder, with a name that a terminal can show"),
        ("data.cache", "a\0b", r"data.cache='a.x00b': no path holds a zero byte"),
        ("train.micro_batch", 32, None),
        ("train.cuda_graph", True, None),
        ("model.dropout.rate", 0.0, None),
    ],
)
def test_impossible_values_are_named(key: str, value: Any, message: str | None) -> None:
    config = Config()
    *sections, leaf = key.split(".")
    node: Any = config
    for section in sections:
        node = getattr(node, section)
    setattr(node, leaf, value)
    if message is None:
        check(config)
        return
    with pytest.raises(UserError, match=message.replace("[", r"\[")) as caught:
        check(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("micro_batch", 32), ("checkpoint_activations", True)])
def test_a_recorded_pass_is_of_whole_batches(key: str, value: object) -> None:
    config = Config()
    config.train.cuda_graph = True
    setattr(config.train, key, value)
    with pytest.raises(UserError, match=r"leave train\.micro_batch and train.checkpoint_activations out"):
        check(config)


def test_pixels_in_place_of_zeros_must_fit_too() -> None:
    config = Config()
    config.data.crop, config.data.image_size = 254, 256
    check(config)
    config.model.conv1_input = Conv1Input.real_pixels
    with pytest.raises(UserError, match="257 pixels"):
        check(config)


def test_a_schedule_without_drops_cannot_leave_them_out_for_the_biases() -> None:
    config = Config()
    config.schedule.kind, config.schedule.drop_biases = ScheduleKind.cosine, False
    with pytest.raises(UserError, match="drop_biases=false changes nothing under"):
        check(config)
