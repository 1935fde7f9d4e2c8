import re
from typing import Any

import pytest

from repro.config import Config, Precision
from repro.errors import UserError
from repro.experiments.compose import compose
from repro.experiments.folder import choices
from repro.experiments.naming import LONGEST_LABEL, arm, changes, difference, identify, settings
from repro.experiments.words import chosen_ablations
from tests.places import places, put


@pytest.mark.parametrize(
    ("keys", "label"),
    [
        ({}, "baseline"),
        ({"seed": 7, "results_dir": "elsewhere", "force": True}, "baseline"),
        ({"data.root": "/data", "data.cache": "/cache", "train.device": "cpu"}, "baseline"),
        ({"wandb.mode": "offline", "train.micro_batch": 32, "train.checkpoint_activations": True}, "baseline"),
        ({"train.cuda_graph": True}, "baseline"),
        ({"model.norm.kind": "none"}, "no_lrn"),
        ({"model.activation": "tanh", "model.norm.kind": "none"}, "no_lrn+tanh"),
        ({"augment.flip": False, "augment.random_crop": False}, "no_flip+no_random_crop"),
        ({"augment.flip": False, "augment.random_crop": False, "augment.color_noise": "none"}, "no_augmentation"),
        ({"optimizer.kind": "adam"}, "optimizer.kind=adam"),
        ({"optimizer.kind": "adam", "optimizer.lr": 1e-4, "train.epochs": 3}, "adam+epochs=3"),
        ({"model.init.std.conv1": 0.5, "data.unit_variance": True}, "unit_variance+std.conv1=0.5"),
        ({"schedule.drops": [0.5, 0.75]}, "drops=0.5,0.75"),
        ({"optimizer.clip_norm": 1.0, "data.skip_bad": True}, "skip_bad=true+clip_norm=1.0"),
    ],
)
def test_a_run_is_named_after_what_it_changes(
    keys: dict[str, Any], label: str, plain: dict[tuple[str, str], Config]
) -> None:
    config = plain["paper", "embedded"]
    found, changed = identify(put(config, keys))
    assert found == label
    assert changed == {key: (settings(config)[key], value) for key, value in keys.items() if key in settings(config)}


@pytest.mark.parametrize("name", choices("ablation"))
def test_every_ablation_is_filed_under_its_own_name(name: str, plain: dict[tuple[str, str], Config]) -> None:
    for place in places(name):
        assert identify(put(plain[place], changes(name, *place)), [name])[0] == name


def test_an_ablation_that_another_key_undoes_does_not_name_the_run() -> None:
    words = ["ablation=no_lrn", "model.norm.kind=lrn"]
    assert identify(compose(words), chosen_ablations(words)) == ("baseline", {})


def test_long_names_are_cut_and_stay_apart(plain: dict[tuple[str, str], Config]) -> None:
    names = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    keys = {f"optimizer.decay_factor.{name}": 2.0 for name in names}
    one, _ = identify(put(plain["paper", "embedded"], keys))
    other, _ = identify(put(plain["paper", "embedded"], {**keys, "optimizer.decay_factor.fc8": 3.0}))
    assert len(one) == len(other) == LONGEST_LABEL
    assert one != other
    assert re.fullmatch(r"[\w.,+=-]+", one)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["setup=cifar10", "ablation=no_pca_color"], r"setup=cifar10; it applies to model.net=alexnet$"),
        (["recipe=source", "ablation=crop_per_32"], r"recipe=source setup=embedded; it applies to recipe=paper and"),
        (["ablation=[sigmoid,tanh]"], r"sigmoid and tanh both set model\.activation"),
        (["ablation=[no_flip,no_augmentation]"], r"no_augmentation contains no_flip: write ablation=no_augmentation"),
    ],
)
def test_ablations_that_do_not_apply_or_clash_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        identify(compose(words), chosen_ablations(words))


def test_the_difference_is_plain_and_has_both_values(plain: dict[tuple[str, str], Config]) -> None:
    config = put(plain["paper", "embedded"], {"model.pool.kind": "average", "optimizer.clip_norm": 5.0})
    assert difference(config, plain["paper", "embedded"]) == {
        "model.pool.kind": ("max", "average"),
        "optimizer.clip_norm": (None, 5.0),
    }


@pytest.mark.parametrize("found", [Precision.fp32, Precision.bf16])
def test_the_precision_that_auto_has_become_names_no_run(
    found: Precision, plain: dict[tuple[str, str], Config]
) -> None:
    config = plain["paper", "imagenette_small"]
    assert config.train.precision is Precision.auto
    assert identify(put(config, {"train.precision": found.name}), auto=found) == ("baseline", {})
    other, changed = identify(put(config, {"train.precision": "tf32"}), auto=found)
    assert (other, changed) == ("precision=tf32", {"train.precision": (found.name, "tf32")})


def test_a_setup_in_fp32_stays_so_whatever_the_processor_has(plain: dict[tuple[str, str], Config]) -> None:
    assert identify(plain["paper", "embedded"], auto=Precision.bf16) == ("baseline", {})


@pytest.mark.parametrize(
    ("keys", "chosen", "name", "own"),
    [
        ({}, None, "baseline", set()),
        ({"model.norm.kind": "none"}, None, "no_lrn", {"model.norm.kind"}),
        ({"model.norm.kind": "none", "train.epochs": 1}, None, "no_lrn", {"model.norm.kind"}),
        ({"model.norm.kind": "none", "optimizer.lr": 0.03}, None, "no_lrn", {"model.norm.kind"}),
        ({"model.norm.kind": "none", "model.activation": "tanh"}, None, "no_lrn+tanh",
         {"model.norm.kind", "model.activation"}),
        ({"optimizer.lr": 0.03}, None, "lr=0.03", {"optimizer.lr"}),
        ({"optimizer.lr": 0.03, "train.epochs": 1}, None, "lr=0.03", {"optimizer.lr"}),
        ({"train.epochs": 1, "train.precision": "bf16"}, None, "baseline", set()),
        ({"augment.flip": False}, None, "no_flip", {"augment.flip"}),
        ({"augment.flip": False}, ["baseline"], "baseline", set()),
        ({"augment.flip": False, "model.norm.kind": "none"}, ["no_lrn"], "no_lrn", {"model.norm.kind"}),
        ({"augment.flip": False, "augment.random_crop": False, "augment.color_noise": "none"}, ["no_flip"],
         "no_flip", {"augment.flip"}),
        ({"augment.flip": False}, ["no_lrn"], "baseline", set()),  # another key undid it
    ],
)  # fmt: skip
def test_what_a_run_is_compared_for_is_what_was_chosen_or_else_its_ablations(
    keys: dict[str, Any], chosen: list[str] | None, name: str, own: set[str], plain: dict[tuple[str, str], Config]
) -> None:
    config = put(plain["paper", "embedded"], keys)
    assert arm(difference(config, plain["paper", "embedded"]), settings(config), chosen) == (name, own)


SIX = ("no_dropout", "no_flip", "no_lrn", "no_momentum", "no_pca_color", "no_weight_decay")


def test_an_arm_of_many_ablations_keeps_them_all_though_its_folder_is_cut(
    plain: dict[tuple[str, str], Config],
) -> None:
    many = {"optimizer.decay_factor.fc6": 2.0, "optimizer.decay_factor.fc7": 2.0, "optimizer.decay_factor.fc8": 2.0}
    keys = {key: value for name in SIX for key, value in changes(name, "paper", "embedded").items()}
    config = put(plain["paper", "embedded"], keys | many)
    label, changed = identify(config, SIX)
    assert len(label) == LONGEST_LABEL
    assert arm(changed, settings(config), SIX) == arm(changed, settings(config)) == ("+".join(SIX), set(keys))
