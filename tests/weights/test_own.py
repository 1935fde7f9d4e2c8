"""What a run's file of weights says beside them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save, save_file

from repro import weights
from repro.errors import UserError
from repro.experiments.compose import compose
from repro.experiments.naming import settings
from repro.model import Network, build
from repro.weights.own import STATISTICS, Origin, configuration_words, is_whole, read_origin, to_bytes

WORDS = (
    "recipe=source", "setup=cifar10_13pct", "seed=3", "optimizer.lr=0.02", "schedule.drops=[0.5,0.75]",
    "model.init.kind=he", "optimizer.clip_norm=1.5", "model.scale=0.25", "data.minival=0.1", "model.linked_layers=[]",
    "data.skip_bad=true",
)  # fmt: skip


@pytest.fixture(scope="module")
def network() -> Network:
    """To be read only."""
    torch.manual_seed(0)
    return build(compose(list(WORDS)), 10)


def origin(*words: str) -> Origin:
    config = compose(list(words))
    described = {"recipe": config.recipe, "setup": config.setup, "seed": config.seed, **settings(config)}
    statistics = {name: np.random.default_rng(0).normal(size=(3, 3)) for name in STATISTICS}
    return Origin("a/b/c/seed3", described, ("cat", "dog, 'big'", "\u7db2"), statistics)


def test_a_file_gives_back_what_it_was_given(network: Network, tmp_path: Path) -> None:
    given, path = origin(*WORDS), tmp_path / "x"
    path.write_bytes(to_bytes(network, given))
    found = read_origin(path)
    assert found is not None
    assert (found.record, found.config, found.classes) == (given.record, given.config, given.classes)
    assert found.statistics.keys() == set(STATISTICS)
    for name, values in given.statistics.items():
        assert np.array_equal(found.statistics[name], values)
    other = build(compose(list(WORDS)), 10)
    weights.load_into(path, other)
    for name, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def test_statistics_in_half_precision_are_read(network: Network, tmp_path: Path) -> None:
    tensors = load(to_bytes(network, origin(*WORDS)))
    (tmp_path / "x").write_bytes(to_bytes(network, origin(*WORDS)))
    with safe_open(tmp_path / "x", "pt") as file:
        metadata = file.metadata()
    (tmp_path / "x").write_bytes(save({name: tensor.bfloat16() for name, tensor in tensors.items()}, metadata))
    found = read_origin(tmp_path / "x")
    assert found is not None
    assert {values.dtype.name for values in found.statistics.values()} == {"float32"}


def test_names_need_no_quoting(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(to_bytes(network, origin()))
    assert all(re.fullmatch(r"[A-Za-z0-9_.]+", name) for name in load_file(path))


def test_files_of_before_say_nothing_and_are_read(network: Network, tmp_path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, tmp_path / "x")
    assert read_origin(tmp_path / "x") is None
    other = build(compose(list(WORDS)), 10)
    weights.load_into(tmp_path / "x", other)
    assert torch.equal(other.state_dict()["features.conv1.weight"], network.state_dict()["features.conv1.weight"])


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04", b"\x80\x02}."])
def test_files_of_others_say_nothing(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    assert read_origin(tmp_path / "x") is None
    assert configuration_words(tmp_path / "x", []) == []


# ---- its configuration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), WORDS, ("ablation=[no_lrn,bias_zero]", "data.classes=null")])
def test_the_configuration_comes_back(words: tuple[str, ...], network: Network, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(to_bytes(network, origin(*words)))
    again, before = compose(configuration_words(path, ["train.device=cpu"])), compose(list(words))
    assert settings(again) == settings(before)
    assert (again.recipe, again.setup) == (before.recipe, before.setup)


def test_what_is_given_counts_more(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(to_bytes(network, origin(*WORDS)))
    given = ["optimizer.lr=0.5"]
    assert compose([*configuration_words(path, given), *given]).optimizer.lr == 0.5
    for word in ("setup=embedded", "recipe=paper", "ablation=no_lrn"):
        assert configuration_words(path, [word]) == []


@pytest.mark.parametrize(
    ("metadata", "answer"),
    [
        ({"config": "{", "classes": "[]"}, "what it says about its run is damaged"),
        ({"config": "[]", "classes": "[]"}, "what it says about its run is damaged"),
        ({"config": "[" * 100_000, "classes": "[]"}, "what it says about its run is damaged"),
        (
            {"config": '{"recipe": "\\u001b[31m", "setup": "x"}', "classes": "[]"},
            r"of recipe=\\x1b\[31m setup=x, which",
        ),
        ({"config": "{}", "classes": "[]"}, "of recipe=None setup=None, which are not here: give both"),
    ],
)
def test_what_it_says_can_be_wrong(metadata: dict[str, str], answer: str, tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "x", {"record": "x", **metadata})
    with pytest.raises(UserError, match=rf"x: {answer}"):
        configuration_words(tmp_path / "x", [])


@pytest.mark.parametrize("value", ["x', force='true\\", ["x', force='true"], "${oc.env:HOME}", ["${oc.env:HOME}"]])
def test_a_value_is_no_more_than_a_value(value: object, network: Network, tmp_path: Path) -> None:
    """A file adds no words to the command line, and reads no environment."""
    given = origin()
    given.config["optimizer.kind"] = value
    (tmp_path / "x").write_bytes(to_bytes(network, given))
    with pytest.raises(UserError, match=r"optimizer\.kind|what it says about its run is damaged"):
        compose(configuration_words(tmp_path / "x", []))


def test_a_file_is_whole_where_its_header_says_so(network: Network, tmp_path: Path) -> None:
    content = to_bytes(network, origin(*WORDS))
    for name, other in {"whole": content, "short": content[:-1], "long": content + b"x", "junk": b"x" * 99}.items():
        (tmp_path / name).write_bytes(other)
        assert is_whole(tmp_path / name) == (name == "whole")
    for name in ("empty", "none"):
        (tmp_path / "empty").touch()
        assert not is_whole(tmp_path / name)
    assert not is_whole(tmp_path)
