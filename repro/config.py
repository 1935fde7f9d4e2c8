"""Every setting of a run: type, unit, and the section of the paper that it comes from.

The defaults are those of `experiments/recipe/paper.yaml`, which cites the source of each value. Sections
are of Krizhevsky, Sutskever, Hinton (NIPS 2012). This file knows neither Hydra nor torch: a configuration
is plain data, and what follows from its values is a property. `config_checks.py` says what they may be.

A key that is added later must have a default that keeps what was done before: old records are read with it.
"""

from dataclasses import dataclass, field, fields
from enum import Enum

PAPER_BATCH = 128  # section 5; learning rates are quoted for this batch


class Net(Enum):
    """The network: the paper's (3.5), or one of the small CIFAR-10 nets (3.1, 3.3)."""

    alexnet = "alexnet"
    cifar_conv = "cifar_conv"
    cifar_local = "cifar_local"


class Conv1Input(Enum):
    """The way in which conv1 gets its 55 positions from a 224-pixel crop (section 3.5).

    `zero_all_sides`: two zeros on each side (torchvision). `one_zero_all_sides`: one, which makes 54 (d2l).
    """

    zero_right_bottom = "zero_right_bottom"
    real_pixels = "real_pixels"
    zero_all_sides = "zero_all_sides"
    one_zero_all_sides = "one_zero_all_sides"


class Order(Enum):
    """The layers that follow a convolution, in order (sections 3.3 to 3.5)."""

    relu_lrn_pool = "relu_lrn_pool"
    relu_pool_lrn = "relu_pool_lrn"
    lrn_relu_pool = "lrn_relu_pool"
    lrn_pool_relu = "lrn_pool_relu"


class Activation(Enum):
    """The neuron's output function (section 3.1)."""

    relu = "relu"
    sigmoid = "sigmoid"
    tanh = "tanh"
    leaky_relu = "leaky_relu"
    elu = "elu"


class Normalization(Enum):
    """The layer in the places of response normalisation (section 3.3)."""

    none = "none"
    lrn = "lrn"
    batch_norm = "batch_norm"


class Neighbourhood(Enum):
    """The neighbours that an LRN sum runs over: n adjacent maps (section 3.3), or n x n pixels of one map."""

    maps = "maps"
    pixels = "pixels"


class Pooling(Enum):
    """The number that stands for a pooling window (section 3.4)."""

    max = "max"
    average = "average"


class DropoutKind(Enum):
    """`paper`: mask in training, outputs times the keep rate at test (4.2). `inverted`: rescaled in training."""

    paper = "paper"
    inverted = "inverted"


class DropoutPlace(Enum):
    """The place of dropout: the outputs of the hidden fully connected layers (4.2), or their inputs (torchvision)."""

    after_hidden = "after_hidden"
    before_hidden = "before_hidden"


class InitKind(Enum):
    """Distribution of the initial weights (section 5); `torch` is PyTorch's default, biases included."""

    normal = "normal"
    xavier = "xavier"
    he = "he"
    torch = "torch"


class Source(Enum):
    """The data set, or the place that images come from."""

    embedded = "embedded"
    cifar10 = "cifar10"
    imagenette = "imagenette"
    imagefolder = "imagefolder"
    ilsvrc2012 = "ilsvrc2012"
    ilsvrc2010 = "ilsvrc2010"


class Format(Enum):
    """The form of the packed squares: their bytes, or JPEG files in one large file, several times smaller."""

    raw = "raw"
    jpeg = "jpeg"


JPEG_QUALITY = 95


class Exif(Enum):
    """The way up of an image: as its pixels lie in the file (as in torchvision), or as its EXIF orientation says."""

    keep = "keep"
    rotate = "rotate"


class Transparency(Enum):
    """The colour of transparent pixels: the one stored beneath (as torchvision has them), or one behind them."""

    keep = "keep"
    white = "white"
    grey = "grey"
    black = "black"


class Mean(Enum):
    """The mean that is subtracted from the pixels (section 2).

    `image`: the mean image, seen through the same window as the crop, and mirrored with it. `image_centre`: its
    central window, whatever the crop, never mirrored. `channel`: one number a colour.
    """

    image = "image"
    image_centre = "image_centre"
    channel = "channel"


class ColorNoise(Enum):
    """Scale of the principal components in colour noise (section 4.1)."""

    none = "none"
    deviation = "deviation"
    eigenvalue = "eigenvalue"


class OptimizerKind(Enum):
    """`paper_sgd`: the velocity contains the learning rate (section 5). `torch_sgd`: it does not."""

    paper_sgd = "paper_sgd"
    torch_sgd = "torch_sgd"
    adam = "adam"


class ScheduleKind(Enum):
    """The rule by which the learning rate falls (section 5)."""

    step = "step"
    plateau = "plateau"
    cosine = "cosine"


class Precision(Enum):
    """Arithmetic of convolutions and matrix products; weights, sums and updates stay in fp32.

    `auto`: bf16 where the device or processor has it in hardware, else fp32; a record holds which of the two it was.
    """

    auto = "auto"
    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"


class WandbMode(Enum):
    """`auto`: online where the user is logged in, else offline."""

    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class LayerSizes:
    """Maps of a convolution or units of a fully connected layer, over all columns together (section 3.5)."""

    conv1: int = 96
    conv2: int = 256
    conv3: int = 384
    conv4: int = 384
    conv5: int = 256
    conv6: int = 256
    local3: int = 64
    local4: int = 32
    fc6: int = 4096
    fc7: int = 4096


@dataclass
class LayerNumbers:
    """One number a layer; a net reads those of the layers it has."""

    conv1: float = 1.0
    conv2: float = 1.0
    conv3: float = 1.0
    conv4: float = 1.0
    conv5: float = 1.0
    conv6: float = 1.0
    local3: float = 1.0
    local4: float = 1.0
    fc6: float = 1.0
    fc7: float = 1.0
    fc8: float = 1.0
    fc10: float = 1.0

    def of(self, layer: str) -> float:
        """The number of one layer by its name."""
        return float(getattr(self, layer))


LAYER_NAMES = tuple(item.name for item in fields(LayerNumbers))


def reached(share: float | None, step: int, steps: int) -> bool:
    """Tells whether a step, counted from 0, lies at or behind a share of a run; the share None is never reached."""
    return share is not None and step >= round(share * steps)


def _same(value: float) -> LayerNumbers:
    return LayerNumbers(**dict.fromkeys(LAYER_NAMES, value))


def _paper_biases() -> LayerNumbers:
    ones = {"conv2", "conv4", "conv5", "conv6", "fc6", "fc7"}
    return LayerNumbers(**{name: float(name in ones) for name in LAYER_NAMES})


@dataclass
class NormConfig:
    """Local response normalisation, section 3.3: b = a / (k + alpha * sum of a^2)^beta."""

    kind: Normalization = Normalization.lrn
    """LRN, batch normalisation in its places, or neither."""
    neighbourhood: Neighbourhood = Neighbourhood.maps
    """Adjacent maps (the paper), or an n x n window of the same map."""
    k: float = 2.0
    """Constant k, section 3.3."""
    n: int = 5
    """Neighbours in a sum, section 3.3."""
    alpha: float = 1e-4
    """Coefficient of the sum, section 3.3."""
    beta: float = 0.75
    """Exponent, section 3.3."""
    alpha_over_n: bool = False
    """Divide alpha by the number of neighbours, as the authors' code, Caffe and PyTorch do."""
    within_column: bool = True
    """The window stops at the border between the two columns."""
    same_map_after_conv2: bool = False
    """The authors' undocumented third norm: 5x5 pixels of the same map, before pool2."""


@dataclass
class PoolConfig:
    """Pooling layers, section 3.4."""

    kind: Pooling = Pooling.max
    """Maximum or average."""
    size: int = 3
    """Window z, pixels."""
    stride: int = 2
    """Step s, pixels; overlapping where s < z."""
    round_up: bool = True
    """A window that juts out counts, as in the authors' code and Caffe; otherwise what does not fit is left out."""


@dataclass
class DropoutConfig:
    """Dropout in the fully connected part, section 4.2."""

    kind: DropoutKind = DropoutKind.paper
    """Where the rescaling happens."""
    place: DropoutPlace = DropoutPlace.after_hidden
    """Which units are dropped."""
    rate: float = 0.5
    """Probability that a unit is set to zero; 0 switches dropout off."""


@dataclass
class InitConfig:
    """Initial weights and biases, section 5."""

    kind: InitKind = InitKind.normal
    """Distribution of the weights."""
    std: LayerNumbers = field(default_factory=lambda: _same(0.01))
    """Standard deviation of `normal`, one a layer, for the full-width net."""
    bias: LayerNumbers = field(default_factory=_paper_biases)
    """Initial bias, one a layer."""
    keep_gain: bool = False
    """Multiply each std by sqrt(fan-in of the layer in the full-width net / its fan-in here), for scaled nets."""


def _all_layers() -> list[str]:
    return ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]


@dataclass
class ModelConfig:
    """The network, section 3."""

    net: Net = Net.alexnet
    """Which network."""
    layers: list[str] = field(default_factory=_all_layers)
    """Layers with weights, in order (alexnet only): conv3 to conv5, fc6, fc7 may be left out, conv6 added."""
    columns: int = 2
    """Columns, one a GPU in 2012; section 3.2."""
    linked_layers: list[str] = field(default_factory=lambda: ["conv3", "conv6", "fc6", "fc7"])
    """Layers that see every column; the others see their own. The classifier always sees all."""
    sizes: LayerSizes = field(default_factory=LayerSizes)
    """Maps and units of the full-width net, all columns together; section 3.5."""
    scale: float = 1.0
    """The setup's share of those sizes; 1 is the paper's net."""
    width: float = 1.0
    """A further multiplier of all sizes, for ablations."""
    conv1_input: Conv1Input = Conv1Input.zero_right_bottom
    """How the crop meets conv1."""
    conv2_padding: int = 2
    """Zeros around conv2's input, pixels."""
    conv5_padding: int = 1
    """Zeros around conv5's input, pixels."""
    order1: Order = Order.relu_lrn_pool
    """What follows conv1."""
    order2: Order = Order.relu_lrn_pool
    """What follows conv2."""
    activation: Activation = Activation.relu
    """Output function of every hidden layer, section 3.1."""
    norm: NormConfig = field(default_factory=NormConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    init: InitConfig = field(default_factory=InitConfig)


@dataclass
class DataConfig:
    """Images and what happens to them before any augmentation, section 2."""

    source: Source = Source.embedded
    """Which images."""
    root: str | None = None
    """Folder that holds the data sets; none: the one named by the environment variable REPRO_DATA."""
    cache: str | None = None
    """Folder of the packed stores; none: next to the data (embedded: the user's cache folder)."""
    classes: int | None = None
    """Number of classes; none: as many as the training folder has."""
    format: Format = Format.raw
    """How the packed squares are kept; `jpeg` for a smaller disk, its pixels differ a little."""
    jpeg_quality: int = JPEG_QUALITY
    """Quality of `jpeg`, 1 to 100. At 95 a pixel is off by about one grey level of 255, far below the colour noise."""
    exif: Exif = Exif.keep
    """Which way up images are that a camera was turned for."""
    transparency: Transparency = Transparency.keep
    """What is seen of transparent pixels."""
    image_size: int = 256
    """Side of the stored square, pixels: shorter side to this, then the centre; section 2."""
    crop: int = 224
    """Side of the training crop, pixels; section 4.1."""
    mean: Mean = Mean.image
    """What is subtracted, section 2."""
    unit_variance: bool = False
    """Divide by each channel's standard deviation over the training set; the paper does not."""
    shuffle: bool = True
    """A new order each epoch; otherwise one order, drawn from the seed, for the whole run."""
    minival: float = 0.0
    """Share of the training set held out for decisions (plateau), never trained on."""
    skip_bad: bool = False
    """Leave unreadable images out instead of stopping; the record says which."""


@dataclass
class AugmentConfig:
    """Label-preserving changes of the training images, section 4.1."""

    random_crop: bool = True
    """Crop at a random place; otherwise the centre."""
    flip: bool = True
    """Mirror horizontally with probability 1/2."""
    color_noise: ColorNoise = ColorNoise.deviation
    """Add principal components of RGB times a random amount."""
    color_noise_sigma: float = 0.1
    """Standard deviation of that amount, in units of the component."""
    color_noise_divisor: float = 1.0
    """Divide the pixels by this while the noise is on (1.1 in the authors' code)."""
    color_noise_off_at: float | None = None
    """Share of the run after which the noise stops; none: never."""
    share: int = 1
    """Consecutive images that share one crop place and one flip."""


@dataclass
class OptimizerConfig:
    """The update rule, section 5."""

    kind: OptimizerKind = OptimizerKind.paper_sgd
    """Rule."""
    lr: float = 0.01
    """Initial learning rate epsilon per step at batch 128; another batch scales it linearly."""
    momentum: float = 0.9
    """Share of the velocity kept a step."""
    weight_decay: float = 0.0005
    """Decay, multiplied by the learning rate in the update."""
    decay_factor: LayerNumbers = field(default_factory=LayerNumbers)
    """Multiplier of the decay, one a layer (the CIFAR nets differ by layer)."""
    decay_biases: bool = False
    """Decay the biases too."""
    bias_lr_factor: float = 1.0
    """Learning rate of biases over that of weights."""
    clip_norm: float | None = None
    """Largest norm of the whole gradient; none: no clipping."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""


@dataclass
class ScheduleConfig:
    """The course of the learning rate, section 5."""

    kind: ScheduleKind = ScheduleKind.step
    """Rule."""
    drops: list[float] = field(default_factory=lambda: [25 / 91, 51 / 91, 79 / 91])
    """Shares of the run at which `step` divides the rate; epochs 25, 51, 79 of 91 in the authors' log."""
    divisor: float = 10.0
    """The rate is divided by this at each drop."""
    patience: int = 2
    """Epochs in a row without a lower held-out error that `plateau` lets pass; it drops after one more."""
    max_drops: int = 3
    """`plateau` drops at most this often."""
    conv1_lower_at: float | None = None
    """Share of the run at which conv1's rate is divided too; none: never."""
    conv1_freeze_at: float | None = None
    """Share of the run at which conv1 stops learning; none: never."""
    drop_biases: bool = True
    """The biases' rate drops with that of the weights; in the authors' run of table 2 it seems to have stayed. Warm-up
    holds for both."""


@dataclass
class TrainConfig:
    """Budget and arithmetic."""

    epochs: int = 90
    """Passes over the training set; "roughly 90 cycles", section 5."""
    stop_at_train_error: float | None = None
    """Training error over an epoch, %, at which the run ends earlier, as complete (figure 1 has 25); none: it does not.
    The schedule goes on as if it did not."""
    batch_size: int = PAPER_BATCH
    """Images a step, section 5."""
    micro_batch: int | None = None
    """Images held in memory at once; a step adds up as many as make the batch. None: the whole batch."""
    checkpoint_activations: bool = False
    """Recompute the convolutional layers' outputs in the backward pass instead of keeping them."""
    precision: Precision = Precision.fp32
    """Arithmetic: fp32, tf32, bf16, or `auto` for what the hardware has."""
    fast_kernels: bool = True
    """Fast paths, same result to rounding: LRN, and the gradient of a ReLU in front of it, by kernels of its own where
    the machine can compile them (C++ for CPUs, Triton for GPUs); conv1 over blocks of pixels, in bf16 and on GPUs
    in tf32; on GPUs one convolution a column, and max-pooling and the input by kernels too."""
    cuda_graph: bool | None = None
    """Record the step of a whole batch once as a CUDA graph and replay it, same result: the host starts all its kernels
    by one call. None: on a GPU, where one process makes the run and the batch is not worked on in parts."""
    cudnn_benchmark: bool = False
    """Let cuDNN try its algorithms and take the fastest: another run may take others, whose sums round otherwise."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`."""


@dataclass
class WandbConfig:
    """Mirror of the run on Weights & Biases; the files under results_dir are the truth."""

    mode: WandbMode = WandbMode.auto
    """Where it goes."""
    project: str = "alexnet-repro"
    """Project name."""
    entity: str | None = None
    """User or team; none: the user's default."""


@dataclass
class About:
    """The question that an ablation asks; no part of what is run."""

    question: str = ""
    """Says a number of seconds in words."""
    kind: str = "baseline"
    """remove, add, swap, sweep or baseline."""
    claims: list[str] = field(default_factory=list)
    """Claims of the paper that it bears on, C1 to C27."""
    expects: str = "same"
    """Error expected against the baseline: worse, same or better."""
    recipes: list[str] = field(default_factory=list)
    """Recipes it applies to; empty: all."""
    setups: list[str] = field(default_factory=list)
    """Setups it applies to; empty: all."""
    nets: list[str] = field(default_factory=list)
    """Networks (`model.net`) it applies to; empty: all."""


@dataclass
class Config:
    """One run."""

    recipe: str = "paper"
    setup: str = "embedded"
    seed: int = 0
    """Seed of weights, order, augmentation and dropout."""
    results_dir: str = "results"
    """Folder of records, tables and raw files."""
    force: bool = False
    """Run again even if a complete record exists, and replace it."""
    init_from: str | None = None
    """File of weights to start from; none: the recipe's random ones."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    about: About = field(default_factory=About)

    @property
    def crop(self) -> int:
        """Side of the network's input, pixels: three more where real pixels stand for the zeros."""
        return self.data.crop + (3 if self.model.conv1_input is Conv1Input.real_pixels else 0)

    @property
    def lr(self) -> float:
        """Learning rate per step at this batch size (linear scaling, Krizhevsky 2014, section 5)."""
        return self.optimizer.lr * self.train.batch_size / PAPER_BATCH

    @property
    def may_record(self) -> bool:
        """Tells whether the step of a whole batch may become a CUDA graph, where there is one GPU for the run."""
        train = self.train
        in_parts = train.micro_batch is not None or train.checkpoint_activations
        return not in_parts if train.cuda_graph is None else train.cuda_graph
