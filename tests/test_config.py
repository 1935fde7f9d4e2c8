import ast
import math
from pathlib import Path
from typing import Any

import pytest

from repro import config as schema
from repro.config import LAYER_NAMES, Config, Conv1Input, ScheduleKind
from repro.errors import UserError

CLASSES = [node for node in ast.parse(Path(schema.__file__).read_text()).body if isinstance(node, ast.ClassDef)]


def test_every_class_and_field_says_what_it_is() -> None:
    """A section explains itself, and so does one number a layer."""
    sections = {node.name for node in CLASSES if node.name.endswith("Config")} | {"About"}
    for node in CLASSES:
        assert ast.get_docstring(node), node.name
        for field, below in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and ast.unparse(field.annotation) not in sections:
                documented = isinstance(below, ast.Expr) or ast.unparse(field.target) in {
                    *LAYER_NAMES,
                    "recipe",
                    "setup",
                }
                assert documented, f"{node.name}.{ast.unparse(field.target)}"


@pytest.mark.parametrize("key", ["model", "data", "augment", "optimizer", "schedule", "train", "wandb"])
def test_the_schema_is_plain_data(key: str) -> None:
    assert getattr(Config(), key) == getattr(Config(), key)
    assert getattr(Config(), key) is not getattr(Config(), key)


def test_the_default_is_valid() -> None:
    config = Config()
    config.data.image_size, config.data.crop = 256, 224
    config.check()


def test_the_learning_rate_scales_with_the_batch() -> None:
    config = Config()
    assert config.lr == config.optimizer.lr == 0.01
    config.train.batch_size = 256
    assert config.lr == pytest.approx(0.02)


def test_real_pixels_take_the_place_of_the_zeros() -> None:
    config = Config()
    assert config.crop == 224
    config.model.conv1_input = Conv1Input.real_pixels
    assert config.crop == 227


def test_biases_are_one_where_section_5_says() -> None:
    bias = Config().model.init.bias
    assert [name for name in LAYER_NAMES if bias.of(name)] == ["conv2", "conv4", "conv5", "conv6", "fc6", "fc7"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", -1, "seed=-1"),
        ("train.epochs", 0, "train.epochs=0"),
        ("train.batch_size", 0, "train.batch_size=0"),
        ("train.micro_batch", 0, "train.micro_batch=0: must divide train.batch_size=128"),
        ("train.micro_batch", 100, "train.micro_batch=100"),
        ("data.crop", 300, "data.crop=300"),
        ("data.crop", 254, None),
        ("model.dropout.rate", 1.0, "model.dropout.rate=1.0"),
        ("model.dropout.rate", -0.1, "model.dropout.rate=-0.1"),
        ("optimizer.lr", 0.0, "optimizer.lr=0.0"),
        ("optimizer.lr", math.nan, "optimizer.lr=nan"),
        ("optimizer.lr", math.inf, "optimizer.lr=inf"),
        ("schedule.drops", [0.5, 1.5], "shares of a run"),
        ("schedule.conv1_freeze_at", -0.1, "shares of a run"),
        ("augment.color_noise_off_at", 2.0, "shares of a run"),
        ("data.minival", 1.0, "data.minival=1.0"),
        ("schedule.kind", ScheduleKind.plateau, "set data.minival"),
        ("model.columns", 0, "model.columns=0"),
        ("augment.share", 0, "augment.share=0"),
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
        config.check()
        return
    with pytest.raises(UserError, match=message.replace("[", r"\[")) as caught:
        config.check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("micro_batch", 32), ("checkpoint_activations", True)])
def test_a_recorded_pass_is_of_whole_batches(key: str, value: object) -> None:
    config = Config()
    config.train.cuda_graph = True
    setattr(config.train, key, value)
    with pytest.raises(UserError, match=r"leave train\.micro_batch and train.checkpoint_activations out"):
        config.check()


def test_pixels_in_place_of_zeros_must_fit_too() -> None:
    config = Config()
    config.data.crop, config.data.image_size = 254, 256
    config.check()
    config.model.conv1_input = Conv1Input.real_pixels
    with pytest.raises(UserError, match="257 pixels"):
        config.check()


def test_a_schedule_without_drops_cannot_leave_them_out_for_the_biases() -> None:
    config = Config()
    config.schedule.kind, config.schedule.drop_biases = ScheduleKind.cosine, False
    with pytest.raises(UserError, match="drop_biases=false changes nothing under"):
        config.check()
