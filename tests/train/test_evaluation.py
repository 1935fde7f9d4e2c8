import math
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repro.config import Config, TrainConfig
from repro.data.augmentation import ten_windows
from repro.data.preprocess import Pixels
from repro.data.store import ImageData, Split
from repro.model import Network
from repro.train.evaluation import evaluate, loss_of_guessing, probabilities
from tests.tiny import tiny_data

SIDE, CROP = 6, 2  # pixels: corners at 0 and 4, the centre at 2


class HandMade(nn.Module):
    """A network that is a function of its input; remembers what it was shown."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        self.shown.append(x.clone())
        return self.function(x)


def hand_made(function: Callable[[Tensor], Tensor]) -> Network:
    return cast(Network, HandMade(function))


def shown(network: Network) -> Tensor:
    return torch.cat(cast(HandMade, network).shown)


def pixels_of(images: np.ndarray, labels: list[int] | None = None) -> tuple[Split, Pixels]:
    """A split of the images (N, 6, 6, 3) and what cuts it; the mean image is 0."""
    split = Split(images.astype(np.uint8), np.array(labels or [0] * len(images)))
    data = ImageData(
        split, split, ("a", "b"), np.zeros((SIDE, SIDE, 3), np.float32), np.ones(3), np.eye(3), np.ones(3), "", ()
    )
    config = Config()
    config.data.image_size, config.data.crop = SIDE, CROP
    return split, Pixels(config, data, torch.device("cpu"))


def numbered(count: int) -> np.ndarray:
    """Images that hold their own number."""
    return np.broadcast_to(np.arange(count)[:, None, None, None], (count, SIDE, SIDE, 3))


def first_pixel(x: Tensor) -> Tensor:
    return x[:, 0, 0, 0]


def test_the_ten_windows_are_corners_and_centre_then_their_mirror_images() -> None:
    places = [(0, 0), (0, 4), (2, 2), (4, 0), (4, 4)]
    assert ten_windows(4) == [(*place, False) for place in places] + [(*place, True) for place in places]


def test_the_centre_crop_is_a_slice() -> None:
    data = tiny_data()
    config = Config()
    config.data.image_size, config.data.crop = 72, 64
    network = hand_made(lambda x: x.new_zeros(len(x), 4))
    evaluate(network, data.val, Pixels(config, data, torch.device("cpu")), TrainConfig())
    centred = data.val.images[:, 4:68, 4:68].astype(np.float32) - data.mean[4:68, 4:68]
    torch.testing.assert_close(shown(network), torch.from_numpy(centred).permute(0, 3, 1, 2))


def test_ten_crops_show_every_window_and_its_mirror_image() -> None:
    image = np.arange(SIDE * SIDE * 3).reshape(1, SIDE, SIDE, 3)
    network = hand_made(lambda x: x.new_zeros(len(x), 2))
    evaluate(network, *pixels_of(image), TrainConfig(), ten_crops=True)
    plain = [image[0, top : top + 2, left : left + 2] for top, left in ((0, 0), (0, 4), (2, 2), (4, 0), (4, 4))]
    expected = np.stack([*plain, *(crop[:, ::-1] for crop in plain)]).astype(np.float32)
    torch.testing.assert_close(shown(network), torch.from_numpy(expected).permute(0, 3, 1, 2))


def test_ten_crops_average_the_softmax_outputs_not_the_logits() -> None:
    image = np.zeros((1, SIDE, SIDE, 3))
    image[0, 0, 0] = 101  # seen first by one crop of the ten only

    def logits(x: Tensor) -> Tensor:
        sure = first_pixel(x) - 1  # 100 once, -1 nine times: class 0 by mean logit, class 1 by mean probability
        return torch.stack([sure, torch.zeros_like(sure)], dim=1)

    split, pixels = pixels_of(image, [1])
    network = hand_made(logits)
    outputs = probabilities(network, split, pixels, TrainConfig(), ten_crops=True, indices=np.array([0]))
    expected = (1 + 9 / (1 + np.exp(1))) / 10
    torch.testing.assert_close(outputs, torch.tensor([[expected, 1 - expected]], dtype=torch.float32))
    assert logits(shown(network)).mean(0).argmax() == 0
    result = evaluate(network, split, pixels, TrainConfig(), ten_crops=True)
    assert result.top1 == 0
    assert result.loss == pytest.approx(-np.log(1 - expected))


def test_top1_and_top5_count_the_first_guess_and_the_first_five() -> None:
    split, pixels = pixels_of(numbered(4), [0, 4, 5, 9])

    def logits(x: Tensor) -> Tensor:
        return -torch.arange(10.0).expand(len(x), 10)  # guesses 0, 1, 2, 3, 4 in this order

    result = evaluate(hand_made(logits), split, pixels, TrainConfig())
    assert (result.top1, result.top5) == (75, 50)
    assert result.correct.tolist() == [True, False, False, False]
    assert result.correct.dtype == bool
    log_probability = torch.log_softmax(-torch.arange(10.0), 0)
    assert result.loss == pytest.approx(-log_probability[[0, 4, 5, 9]].mean().item(), rel=1e-5)


def test_with_two_classes_there_is_no_top5_error() -> None:
    split, pixels = pixels_of(numbered(2), [0, 1])
    result = evaluate(hand_made(lambda x: torch.eye(2)[[0, 0]]), split, pixels, TrainConfig())
    assert (result.top1, result.top5) == (50, None)


def test_a_probability_that_underflows_has_a_finite_loss() -> None:
    split, pixels = pixels_of(numbered(1), [1])
    result = evaluate(hand_made(lambda x: torch.tensor([[1e4, 0.0]])), split, pixels, TrainConfig())
    assert 80 < result.loss < 100


@pytest.mark.parametrize(
    ("at_most", "chosen"), [(None, range(10)), (10, range(10)), (99, range(10)), (4, [0, 3, 6, 9]), (1, [0])]
)
def test_at_most_takes_evenly_spaced_images(at_most: int | None, chosen: list[int]) -> None:
    network = hand_made(lambda x: x.new_zeros(len(x), 2))
    result = evaluate(network, *pixels_of(numbered(10)), TrainConfig(), at_most=at_most)
    assert first_pixel(shown(network)).tolist() == list(chosen)
    assert len(result.correct) == len(chosen)


def test_the_number_of_images_at_once_changes_nothing() -> None:
    split, pixels = pixels_of(numbered(10), [0, 1] * 5)

    def logits(x: Tensor) -> Tensor:
        return torch.stack([first_pixel(x) - 4.5, torch.zeros(len(x))], dim=1)

    whole = evaluate(hand_made(logits), split, pixels, TrainConfig(), ten_crops=True)
    network = hand_made(logits)
    parts = evaluate(network, split, pixels, TrainConfig(micro_batch=2), ten_crops=True)
    assert [len(shown) for shown in cast(HandMade, network).shown[:3]] == [4, 4, 2]
    assert (parts.top1, parts.top5, parts.loss) == (whole.top1, whole.top5, whole.loss)
    assert parts.correct.tolist() == whole.correct.tolist()


@pytest.mark.parametrize(("brightness", "answers"), [([200, 200, 200], 1), ([0, 200, 0], 2)])
def test_the_different_answers_are_counted(brightness: list[int], answers: int) -> None:
    images = np.stack([np.full((SIDE, SIDE, 3), value) for value in brightness])
    split, pixels = pixels_of(images, [0, 1, 1])
    network = hand_made(lambda x: torch.stack((100 - x.mean((1, 2, 3)), x.mean((1, 2, 3)) - 100), dim=1))
    assert evaluate(network, split, pixels, TrainConfig()).answers == answers


def test_the_loss_of_guessing_is_the_entropy_of_the_labels() -> None:
    balanced = np.arange(40) % 4
    assert loss_of_guessing(balanced, balanced, 4) == pytest.approx(math.log(4))
    few = np.array([0] * 9 + [1])
    assert loss_of_guessing(few, few, 2) == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    assert loss_of_guessing(np.zeros(3, int), few, 2) == math.inf
