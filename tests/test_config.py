import ast
from pathlib import Path

import pytest

from repro import config as schema
from repro.config import LAYER_NAMES, Config, Conv1Input

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
