import json
import re
import sys
from typing import Any

import pytest

from repro import describe
from repro.command import exit_code


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs the command with these words; returns exit code, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [describe.__file__, *words])
        return exit_code(describe.main), *capfd.readouterr()

    return run


def test_the_papers_network_has_its_parameters_and_neurons(answer: Any) -> None:
    code, out, err = answer("recipe=paper", "format=json")
    assert (code, err) == (0, "")
    table = json.loads(out)
    assert table.keys() == {"layers", "total"}
    keys = {"name", "kind", "output_shape", "parameters", "macs", "neurons"}
    assert {frozenset(layer) for layer in table["layers"]} == {frozenset(keys)}
    # figure 2's caption, 253,440-186,624-64,896-64,896-43,264-4096-4096-1000, but with conv1's 55 x 55 x 96 = 290,400
    assert table["total"]["parameters"] == 60_965_224
    assert table["total"]["neurons"] == 659_272
    for key, total in table["total"].items():
        assert sum(layer[key] for layer in table["layers"]) == total


def test_layers_are_in_order_with_shapes_and_counts_of_one_image(answer: Any) -> None:
    layers = {layer["name"]: layer for layer in json.loads(answer("format=json")[1])["layers"]}
    names = ["conv1", "relu1", "norm1", "pool1", "conv2", "conv3", "conv4", "conv5", "pool5", "fc6", "dropout6", "fc8"]
    assert [name for name in layers if name in names] == names
    assert layers["conv1"] == {
        "name": "conv1",
        "kind": "conv",
        "output_shape": [96, 55, 55],
        "parameters": 96 * (11 * 11 * 3 + 1),
        "macs": 96 * 55 * 55 * 11 * 11 * 3,
        "neurons": 96 * 55 * 55,
    }
    assert layers["conv2"]["parameters"] == 256 * (5 * 5 * 48 + 1)  # a column sees its own 48 maps
    assert layers["fc6"]["macs"] == 4096 * 9216
    assert layers["pool5"] | {"name": ""} == {
        "name": "", "kind": "pool", "output_shape": [256, 6, 6], "parameters": 0, "macs": 0, "neurons": 0,
    }  # fmt: skip


def test_both_columns_narrower_networks_and_other_setups_are_described_too(answer: Any) -> None:
    source = json.loads(answer("recipe=source", "format=json")[1])
    assert source["total"]["parameters"] == 60_965_224
    assert "same_map_norm2" in [layer["name"] for layer in source["layers"]]
    ten = json.loads(answer("data.classes=10", "format=json")[1])
    assert ten["total"]["parameters"] == 60_965_224 - 990 * 4097
    cifar = json.loads(answer("setup=cifar10", "data.classes=10", "format=json")[1])
    assert cifar["layers"][-1]["output_shape"] == [10]


def test_the_table_is_for_readers(answer: Any) -> None:
    code, out, _ = answer()
    assert code == 0
    assert "60,965,224" in out
    assert "96 x 55 x 55" in out
    assert "setup" not in out
    assert "ilsvrc2012, recipe paper: 1000 classes, 224-pixel input" in " ".join(out.split())


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_shows_how_it_is_called(word: str, answer: Any) -> None:
    code, out, _ = answer(word)
    assert code == 0
    assert "python -m repro.describe recipe=paper format=json" in out


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("format=xml", "format=xml: choose one of table, json"),
        ("recipe=papr", "did you mean paper?"),
    ],
)
def test_a_mistake_is_one_line(word: str, message: str, answer: Any) -> None:
    code, out, err = answer(word)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("columns", [60, 80])
def test_the_table_fits_a_narrow_terminal(columns: int, answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TTY_COMPATIBLE": "1", "COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    _, out, _ = answer("setup=ilsvrc2012")
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in out.splitlines()]
    assert max(map(len, lines)) <= columns
    assert "…" not in out
    assert ["conv2", "256", "x", "27", "x", "27", "307,456", "223,948,800", "186,624"] in map(str.split, lines)
