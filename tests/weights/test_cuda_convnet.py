import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from repro import weights
from repro.errors import UserError
from tests.weights.nets import CLASSES, assert_same, logits, random_images, random_network, small_config
from tests.weights.python2 import Global, Instance, Reduced, dumps

Layer = dict[str, Any]
OBJECT = Global("__builtin__", "object")
UNITS = 128  # a column's, of fc2048a and its like
MAPS = {"conv1": 3, "conv2": 8, "conv3": 12, "conv4": 12, "conv5": 8}  # a column's
BELOW = {  # what each layer of column a or b names as its inputs; layers-145.cfg, with the ReLUs apart (layer.py:627)
    "conv1": {"a": ["data"], "b": ["data"]},
    "conv2": {"a": ["pool1a_neuron"], "b": ["pool1b_neuron"]},
    "conv3": {"a": ["pool2a", "pool2b"], "b": ["pool2a", "pool2b"]},
    "conv4": {"a": ["conv3a_neuron"], "b": ["conv3b_neuron"]},
    "conv5": {"a": ["conv4a_neuron"], "b": ["conv4b_neuron"]},
    "fc2048": {"a": ["pool3a_neuron", "pool3b_neuron"], "b": ["pool3a_neuron", "pool3b_neuron"]},
    "fc2048b": {"a": ["hs1a", "hs1b"], "b": ["hs1b", "hs1a"]},
    "fc1000": {"": ["hs2a", "hs2b"]},
}


def parameters(name: str, inputs: list[str], rows: int, columns: int, order: Any) -> Layer:
    """What all layers with weights have: a matrix an input, biases, and the velocity of each."""
    rng = np.random.default_rng([*name.encode()])
    scale = np.sqrt(2 / (rows * len(inputs)))
    matrices = [np.array(rng.normal(0, scale, (rows, columns)), np.float32, order=order) for _ in inputs]
    biases = rng.normal(size=(1, columns) if order == "F" else (columns, 1)).astype(np.float32)
    velocity = {"weightsInc": [np.zeros_like(matrix) for matrix in matrices], "biasesInc": np.zeros_like(biases)}
    below = [{"name": source, "type": "neuron"} for source in inputs]
    return {"name": name, "inputs": inputs, "inputLayers": below, "weights": matrices, "biases": biases, **velocity}


@pytest.fixture
def layers() -> dict[str, Layer]:
    """Net 145 at a sixteenth of its width, for 96-pixel images."""
    net: dict[str, Layer] = {"data": {"name": "data", "type": "data"}}
    sizes = {"conv1": (3, 11), "conv2": (3, 5), "conv3": (8, 3), "conv4": (12, 3), "conv5": (12, 3)}
    for name, columns in BELOW.items():
        for column, inputs in columns.items():
            if name in sizes:
                channels, size = sizes[name]
                layer = parameters(f"{name}{column}", inputs, channels * size**2, MAPS[name], "C")
                layer |= {"type": "conv", "filterSize": [size] * len(inputs), "channels": [channels] * len(inputs)}
            else:
                rows = 8 * 2 * 2 if name == "fc2048" else UNITS
                layer = parameters(f"{name}{column}", inputs, rows, UNITS if column else CLASSES, "F") | {"type": "fc"}
            net[layer["name"]] = layer
    return net


def checkpoint(layers: Mapping[str, Layer] | list[Layer]) -> bytes:
    """A pickle as the authors' program left it, with costs and options that no reader of weights needs."""
    dtype = np.dtype("f8")
    costs = {"logprob": [Reduced(Global("numpy.core.multiarray", "scalar"), (dtype, bytes(8))), 0.5]}
    option = Instance(Global("options", "Option"), {"parser": Global("options", "IntegerOptionParser"), "value": 93})
    state = {
        "layers": layers,
        "epoch": 91,
        "batchnum": 49,
        "train_outputs": [(costs, 128)],
        "names": Reduced(Global("ordereddict", "OrderedDict"), ([["conv1a", 0]],)),
        "object": Reduced(Global("copy_reg", "_reconstructor"), (Global("options", "X"), OBJECT, None)),
    }
    options = Instance(Global("options", "OptionsParser"), {"options": {"num_epochs": option}})
    return dumps({"model_state": state, "op": options})


def indexed(layers: dict[str, Layer]) -> list[Layer]:
    """Layers as cuda-convnet's first release kept them: a list, inputs by number."""
    sources = [source for layer in layers.values() for source in layer.get("inputLayers", ())]
    everything = [*layers.values(), *sources]
    names = [layer["name"] for layer in everything]
    for layer in layers.values():
        layer["inputs"] = [names.index(name) for name in layer.get("inputs", ())]
    return everything


def zipped(content: bytes) -> bytes:
    """As with `--zip-save`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", content)
    return file.getvalue()


# ---- the authors' forward pass ---------------------------------------------------------------------------------------


def conv(layer: Layer, x: dict[str, Tensor], stride: int = 1, padding: int = 0) -> Tensor:
    """Row c * k * k + y * k + x of a matrix meets pixel (y, x) of channel c, as `unfold` lists them."""
    out = torch.from_numpy(layer["biases"]).clone()
    for source, matrix, size in zip(layer["inputs"], layer["weights"], layer["filterSize"], strict=True):
        out = out + torch.from_numpy(matrix).T @ F.unfold(x[source], size, padding=padding, stride=stride)
    side = round(out.shape[2] ** 0.5)
    return out.unflatten(2, (side, side))


def fc(layer: Layer, x: dict[str, Tensor]) -> Tensor:
    pairs = zip(layer["inputs"], map(torch.from_numpy, layer["weights"]), strict=True)
    return sum((x[source].flatten(1) @ matrix for source, matrix in pairs), torch.from_numpy(layer["biases"]))


def pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, ceil_mode=True)


def forward(layers: dict[str, Layer], images: Tensor) -> Tensor:
    """layers-145.cfg from top to bottom, each column for itself, at test."""
    x = {"data": F.pad(images, (0, 3, 0, 3))}
    for column in "ab":
        rnorm1 = F.local_response_norm(conv(layers[f"conv1{column}"], x, stride=4), 5, 1e-4, 0.75, 2.0)
        x[f"pool1{column}_neuron"] = F.relu(pool(rnorm1))
        rnorm2 = F.local_response_norm(F.relu(conv(layers[f"conv2{column}"], x, padding=2)), 5, 1e-4, 0.75, 2.0)
        x[f"pool2{column}"] = pool(rnorm2 / (1 + 1e-3 * F.avg_pool2d(rnorm2**2, 5, 1, 2)) ** 0.75)
    for column in "ab":
        x[f"conv3{column}_neuron"] = F.relu(conv(layers[f"conv3{column}"], x, padding=1))
        x[f"conv4{column}_neuron"] = F.relu(conv(layers[f"conv4{column}"], x, padding=1))
        x[f"pool3{column}_neuron"] = F.relu(pool(conv(layers[f"conv5{column}"], x, padding=1)))
    for column in "ab":
        x[f"hs1{column}"] = 0.5 * F.relu(fc(layers[f"fc2048{column}"], x))
    for column in "ab":
        x[f"hs2{column}"] = 0.5 * F.relu(fc(layers[f"fc2048b{column}"], x))
    return fc(layers["fc1000"], x)


@pytest.mark.parametrize("form", ["by name", "list", "zip"])
def test_a_checkpoint_gives_the_authors_logits(form: str, layers: dict[str, Layer], tmp_path: Path) -> None:
    config = small_config("source")
    images = random_images(config)
    expected = forward(layers, images)
    content = checkpoint(indexed(layers) if form == "list" else layers)
    path = tmp_path / "91.49"
    path.write_bytes(zipped(content) if form == "zip" else content)
    network = random_network(config)
    weights.load_into(path, network)
    assert_same(logits(network, images), expected)


def test_the_test_writes_what_python_2_wrote(layers: dict[str, Layer]) -> None:
    content = checkpoint(layers)
    assert content.startswith(b"\x80\x02}q")
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    assert b"ccopy_reg\n_reconstructor\n" in content
    assert b"U\x0bmodel_state" in content  # a string of bytes, which Python 3 never writes
    assert b"_codecs" not in content


def test_a_checkpoint_fits_the_papers_net_too(layers: dict[str, Layer], tmp_path: Path) -> None:
    (tmp_path / "91.49").write_bytes(checkpoint(layers))
    weights.load_into(tmp_path / "91.49", random_network(small_config("paper")))


def test_the_order_of_inputs_is_the_layers_own(layers: dict[str, Layer], tmp_path: Path) -> None:
    path = tmp_path / "91.49"
    path.write_bytes(checkpoint(layers))
    before = weights.read(path)["fc7.weight"]
    del layers["fc2048ba"]["inputLayers"]  # `inputs` alone says it too
    layers["fc2048bb"]["inputLayers"].reverse()
    path.write_bytes(checkpoint(layers))
    after = weights.read(path)["fc7.weight"]
    assert torch.equal(after[:UNITS], before[:UNITS])
    assert torch.equal(after[UNITS:], before[UNITS:].roll(UNITS, dims=1))


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("__builtin__", "eval"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromstring"),
        ("collections", "defaultdict"),
        ("options.evil", "OptionsParser"),
    ],
)
def test_a_pickle_that_asks_for_code(module: str, name: str, tmp_path: Path) -> None:
    touched, path = tmp_path / "touched", tmp_path / "91.49"
    evil = Reduced(Global(module, name), (f"touch {touched}",))
    for content in (dumps({"model_state": {"layers": evil}}), zipped(dumps({"op": evil}))):
        path.write_bytes(content)
        answer = rf"91\.49: asks for {module}\.{name}, which is no part of weights: refused"
        with pytest.raises(UserError, match=answer):
            weights.read(path)
    assert not touched.exists()


def test_arrays_of_objects_are_refused(layers: dict[str, Layer], tmp_path: Path) -> None:
    """Their bytes would be taken for addresses."""
    layers["fc1000"]["weights"][0] = np.zeros((UNITS, CLASSES))
    (tmp_path / "91.49").write_bytes(checkpoint(layers).replace(b"U\x02f8", b"U\x02O8"))
    with pytest.raises(UserError, match=r"91\.49: .*damaged"):
        weights.read(tmp_path / "91.49")


@pytest.mark.parametrize(
    ("damage", "answer"),
    [
        (lambda net: net.pop("conv1b"), "layer conv1: the checkpoint has no conv1b"),
        (lambda net: net["conv2a"].pop("biases"), "layer conv2: the checkpoint has no biases"),
        (lambda net: net["conv3b"]["weights"].pop(), "layer conv3: its matrices do not fit together"),
        (
            lambda net: net["conv4b"].update(weights=[np.zeros((9 * 11, 12), np.float32)]),
            r"layer conv4: its matrices do not fit together \(.*size 12 .*size 11",
        ),
        (lambda net: net["fc1000"].update(weights=["none", 1]), "layer fc8: .*str instead of an array"),
        (lambda net: net.update({"conv6a": net["conv5a"]}), "layer conv6: the checkpoint has no conv6b"),
    ],
)
def test_layers_that_are_not_whole(damage: Any, answer: str, layers: dict[str, Layer], tmp_path: Path) -> None:
    damage(layers)
    (tmp_path / "91.49").write_bytes(checkpoint(layers))
    with pytest.raises(UserError, match=rf"91\.49: {answer}"):
        weights.read(tmp_path / "91.49")


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ({"data": [1, 2]}, "a pickle, but not a checkpoint of cuda-convnet: it has no model_state"),
        ([1, 2], ".*it has no model_state"),
        (
            {"model_state": {"layers": {"conv1": {"type": "conv"}, "fc10": {}}}},
            "a checkpoint of conv1, fc10: the two-column net has conv1a to fc1000",
        ),
    ],
)
def test_pickles_of_something_else(value: Any, answer: str, tmp_path: Path) -> None:
    (tmp_path / "91.49").write_bytes(dumps(value))
    with pytest.raises(UserError, match=rf"91\.49: {answer}"):
        weights.read(tmp_path / "91.49")
