from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from repro import weights
from repro.errors import UserError
from repro.weights.caffe import read_mean
from tests.weights import protobuf
from tests.weights.nets import CLASSES, assert_same, logits, random_images, random_network, small_config

Layers = dict[str, tuple[np.ndarray, np.ndarray]]
SHAPES = {
    "conv1": (6, 3, 11, 11),
    "conv2": (16, 3, 5, 5),
    "conv3": (24, 16, 3, 3),
    "conv4": (24, 12, 3, 3),
    "conv5": (16, 12, 3, 3),
    "fc6": (256, 16 * 2 * 2),
    "fc7": (256, 256),
    "fc8": (CLASSES, 256),
}


@pytest.fixture(scope="module")
def layers() -> Layers:
    """Weights as Caffe holds them, for BGR images."""
    rng = np.random.default_rng(0)
    return {
        name: (rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32), rng.normal(size=shape[0]))
        for name, shape in SHAPES.items()
    }


def caffe_forward(layers: Layers, bgr: Tensor, pool_first: bool) -> Tensor:
    """bvlc_alexnet's deploy.prototxt line by line, and bvlc_reference_caffenet's where norm follows pool."""
    w = {name: torch.from_numpy(weight) for name, (weight, _) in layers.items()}
    b = {name: torch.from_numpy(bias).float() for name, (_, bias) in layers.items()}

    def norm_and_pool(x: Tensor) -> Tensor:
        if pool_first:
            return F.local_response_norm(F.max_pool2d(x, 3, 2, ceil_mode=True), 5, 1e-4, 0.75, 1.0)
        return F.max_pool2d(F.local_response_norm(x, 5, 1e-4, 0.75, 1.0), 3, 2, ceil_mode=True)

    x = norm_and_pool(F.relu(F.conv2d(bgr, w["conv1"], b["conv1"], stride=4)))
    x = norm_and_pool(F.relu(F.conv2d(x, w["conv2"], b["conv2"], padding=2, groups=2)))
    x = F.relu(F.conv2d(x, w["conv3"], b["conv3"], padding=1))
    x = F.relu(F.conv2d(x, w["conv4"], b["conv4"], padding=1, groups=2))
    x = F.relu(F.conv2d(x, w["conv5"], b["conv5"], padding=1, groups=2))
    x = F.max_pool2d(x, 3, 2, ceil_mode=True).flatten(1)
    for name in ("fc6", "fc7"):
        x = F.relu(F.linear(x, w[name], b[name]))
    return F.linear(x, w["fc8"], b["fc8"])


@pytest.mark.parametrize("write", [protobuf.model, protobuf.old_model])
@pytest.mark.parametrize("recipe", ["caffe", "caffenet"])
def test_a_model_gives_caffes_logits(recipe: str, write: object, layers: Layers, tmp_path: Path) -> None:
    assert callable(write)
    path = tmp_path / "bvlc.caffemodel"
    path.write_bytes(write(layers))
    config = small_config(recipe)
    network = random_network(config)
    weights.load_into(path, network)
    rgb = random_images(config)
    expected = caffe_forward(layers, rgb[:, [2, 1, 0]], pool_first=recipe == "caffenet")
    assert_same(logits(network, rgb), expected)


@pytest.mark.parametrize("net", [None, "", "a", "\u00c9poque \u7db2", "x" * 127, "x" * 128, "x" * 20_000, "\0", "PK"])
@pytest.mark.parametrize("write", [protobuf.model, protobuf.old_model])
def test_a_model_is_known_whatever_its_net_is_called(
    write: object, net: str | None, layers: Layers, tmp_path: Path
) -> None:
    assert callable(write)
    path = tmp_path / "x.bin"
    nameless = write(layers).partition(b"AlexNet" if write is protobuf.model else b"CaffeNet")[2]
    path.write_bytes((b"" if net is None else protobuf.field(1, net.encode())) + nameless)
    assert np.array_equal(weights.read(path)["fc8.weight"], layers["fc8"][0])


def test_other_fields_may_stand_before_the_layers(layers: Layers, tmp_path: Path) -> None:
    """Deploy nets name an input and its shape first."""
    path = tmp_path / "x.caffemodel"
    start = protobuf.field(3, b"data") + protobuf.field(4, 10) + protobuf.field(5, 1) + protobuf.field(8, b"")
    path.write_bytes(start + protobuf.model(layers))
    assert np.array_equal(weights.read(path)["fc8.weight"], layers["fc8"][0])


def test_weights_in_double_precision(layers: Layers, tmp_path: Path) -> None:
    values = layers["fc8"][0].astype(np.float64)
    blob = protobuf.field(7, protobuf.field(1, bytes([CLASSES, 0x80, 0x02]))) + protobuf.field(8, values.tobytes())
    path = tmp_path / "double.caffemodel"
    path.write_bytes(protobuf.field(100, protobuf.field(1, b"fc8") + protobuf.field(7, blob)))
    assert np.array_equal(weights.read(path)["fc8.weight"], layers["fc8"][0])


def test_a_shape_and_numbers_that_disagree(layers: Layers, tmp_path: Path) -> None:
    blob = protobuf.blob(layers["conv2"][0]) + protobuf.field(5, bytes(12))  # the last of two counts
    path = tmp_path / "odd.caffemodel"
    path.write_bytes(protobuf.field(100, protobuf.field(1, b"conv2") + protobuf.field(7, blob)))
    with pytest.raises(UserError, match=r"odd\.caffemodel: layer conv2: weight has 3 numbers for a shape of 16 x 3 x"):
        weights.read(path)


# ---- the mean image --------------------------------------------------------------------------------------------------


def test_a_mean_image_comes_in_our_order(tmp_path: Path) -> None:
    bgr = np.random.default_rng(0).uniform(0, 255, (3, 4, 5)).astype(np.float32)
    path = tmp_path / "imagenet_mean.binaryproto"
    path.write_bytes(protobuf.old_blob(bgr))
    mean = read_mean(path)
    assert mean.shape == (4, 5, 3)
    assert np.array_equal(mean[..., 0], bgr[2])
    assert np.array_equal(mean[..., 2], bgr[0])


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (None, "cannot be read"),
        (b"mean", "not a mean image of Caffe"),
        (protobuf.old_blob(np.zeros((3, 4, 4)))[:-1], "not a mean image of Caffe"),
        (protobuf.old_blob(np.zeros((1, 4, 4))), "4 x 4 numbers are not the mean of colour images"),
        (protobuf.old_blob(np.zeros((2, 3, 4, 4))), "not a mean image of Caffe"),
    ],
)
def test_what_is_no_mean_image(content: bytes | None, answer: str, tmp_path: Path) -> None:
    path = tmp_path / "mean.binaryproto"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"mean\.binaryproto: .*{answer}"):
        read_mean(path)
