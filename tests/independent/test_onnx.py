"""Every recipe's network against ONNX Runtime, whose LRN is its own and divides alpha by the number of neighbours.

For each recipe a chain of ONNX operators is laid by hand from settings and weights, past the modules of `repro.model`.
One recipe also goes through `torch.onnx.export`.
"""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from repro.config import Config, Conv1Input, DropoutKind, DropoutPlace, InitKind, ModelConfig, Normalization
from repro.experiments import folder
from repro.experiments.compose import compose
from repro.model import Network, build

CLASSES = 10
OPSET, IR_VERSION = 17, 10
TOLERANCE = 1e-5  # of the largest logit
CONV1_PADS = {  # top, left, bottom, right
    Conv1Input.zero_right_bottom: [0, 0, 3, 3],
    Conv1Input.real_pixels: [0, 0, 0, 0],
    Conv1Input.zero_all_sides: [2, 2, 2, 2],
    Conv1Input.one_zero_all_sides: [1, 1, 1, 1],
}
Weights = dict[str, tuple[np.ndarray, np.ndarray]]


def make_case(recipe: str) -> tuple[Config, Network, Tensor, np.ndarray]:
    """A recipe at a quarter of the width: its settings, its network, two images, their logits.

    He's weights keep the logits dependent on the images; random biases tell one unit from another.
    """
    config = compose([f"recipe={recipe}", "setup=ilsvrc2012", "model.scale=0.25", "train.fast_kernels=false"])
    config.model.init.kind = InitKind.he
    network = build(config, CLASSES).eval()
    images = 60 * torch.randn(2, 3, config.crop, config.crop)  # grey levels, as wide as a photograph's
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
        logits = network(images).numpy()
    assert np.ptp(logits, axis=0).max() > 1000 * TOLERANCE * np.abs(logits).max(), "the images change little"
    return config, network, images, logits


def run_by_onnxruntime(model: onnx.ModelProto, images: Tensor) -> np.ndarray:
    """Logits (N, classes)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return np.asarray(logits)


def assert_same(found: np.ndarray, logits: np.ndarray) -> None:
    np.testing.assert_allclose(found, logits, rtol=0, atol=TOLERANCE * np.abs(logits).max())


class Chain:
    """ONNX operators, each applied to the result of the one before."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.last = "images"

    def add(self, operator: str, *constants: np.ndarray, inputs: tuple[str, ...] = (), **attributes: Any) -> None:
        """Applies an operator to the last result, or to `inputs`, and to constants."""
        names = [f"constant{len(self.constants) + index}" for index in range(len(constants))]
        self.constants += map(numpy_helper.from_array, constants, names)
        sources = [*(inputs or (self.last,)), *names]
        self.last = f"{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, sources, [self.last], **attributes))

    def model(self, crop: int) -> onnx.ModelProto:
        """The whole chain as a checked model of two images (2, 3, crop, crop)."""
        images = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [2, 3, crop, crop])
        logits = helper.make_tensor_value_info(self.last, onnx.TensorProto.FLOAT, [2, CLASSES])
        graph = helper.make_graph(self.nodes, "by_hand", [images], [logits], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return model


def lay(config: ModelConfig, weights: Weights) -> Chain:
    """The network of section 3.5 under a recipe's settings."""
    chain = Chain()
    orders = {"conv1": config.order1.value, "conv2": config.order2.value, "conv5": "relu_pool"}
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5"):
        _convolve(chain, config, name, weights)
        for step in orders.get(name, "relu").split("_"):
            if step == "relu":
                chain.add("Relu")
            elif step == "pool":
                window, stride = [config.pool.size] * 2, [config.pool.stride] * 2
                chain.add("MaxPool", kernel_shape=window, strides=stride, ceil_mode=int(config.pool.round_up))
            elif config.norm.kind is Normalization.lrn:
                _normalise(chain, config, maps=len(weights[name][1]))
                if name == "conv2" and config.norm.same_map_after_conv2:
                    _normalise_within_maps(chain)
    _classify(chain, config, weights)
    return chain


def _convolve(chain: Chain, config: ModelConfig, name: str, weights: Weights) -> None:
    if name == "conv1":
        chain.add("Conv", *weights[name], strides=[4, 4], pads=CONV1_PADS[config.conv1_input])
    else:
        zeros = {"conv2": config.conv2_padding, "conv5": config.conv5_padding}.get(name, 1)
        chain.add("Conv", *weights[name], pads=[zeros] * 4, group=1 if name in config.linked_layers else config.columns)


def _normalise(chain: Chain, config: ModelConfig, maps: int) -> None:
    """Section 3.3. Columns that know nothing of each other become images of their own."""
    norm = config.norm
    if norm.within_column:
        chain.add("Reshape", np.array([-1, maps // config.columns, 0, 0]))  # 0 keeps height and width
    alpha = norm.alpha if norm.alpha_over_n else norm.alpha * norm.n
    chain.add("LRN", size=norm.n, alpha=alpha, beta=norm.beta, bias=norm.k)
    if norm.within_column:
        chain.add("Reshape", np.array([-1, maps, 0, 0]))


def _normalise_within_maps(chain: Chain) -> None:
    """The authors' third norm, layers-145.cfg:107-117: x / (1 + 1e-3 * mean of x^2 over 5x5 pixels)^0.75."""
    x = chain.last
    chain.add("Mul", inputs=(x, x))
    chain.add("AveragePool", kernel_shape=[5, 5], pads=[2, 2, 2, 2], count_include_pad=1)
    for operator, number in (("Mul", 1e-3), ("Add", 1.0), ("Pow", 0.75)):
        chain.add(operator, np.array(number, np.float32))
    chain.add("Div", inputs=(x, chain.last))


def _classify(chain: Chain, config: ModelConfig, weights: Weights) -> None:
    """Section 4.2: dropout of the paper's kind multiplies by the keep rate at test, the inverted kind by nothing."""
    keep = np.array(1 - config.dropout.rate if config.dropout.kind is DropoutKind.paper else 1, np.float32)
    before = config.dropout.place is DropoutPlace.before_hidden
    chain.add("Flatten")
    for name in ("fc6", "fc7"):
        if before:
            chain.add("Mul", keep)
        chain.add("Gemm", *weights[name], transB=1)
        chain.add("Relu")
        if not before:
            chain.add("Mul", keep)
    chain.add("Gemm", *weights["fc8"], transB=1)


@pytest.mark.parametrize("recipe", folder.choices("recipe"))
def test_a_graph_laid_by_hand_gives_the_same_logits(recipe: str) -> None:
    config, network, images, logits = make_case(recipe)
    parameters = {name: parameter.detach().numpy() for name, parameter in network.named_parameters()}
    names = {name.split(".")[1]: name.rpartition(".")[0] for name in parameters}
    weights = {name: (parameters[f"{path}.weight"], parameters[f"{path}.bias"]) for name, path in names.items()}
    model = lay(config.model, weights).model(config.crop)
    assert_same(run_by_onnxruntime(model, images), logits)


def test_an_export_gives_the_same_logits() -> None:
    _, network, images, logits = make_case("source")  # with every kind of norm
    program = torch.onnx.export(network, (images,), dynamo=True, verbose=False)
    assert program is not None
    assert_same(run_by_onnxruntime(program.model_proto, images), logits)
