import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from repro.config import Config, DataConfig, Net, Normalization, TrainConfig, WandbConfig
from repro.config_checks import check
from repro.errors import UserError
from repro.experiments import compose as composition
from repro.experiments import folder, words
from repro.experiments.compose import compose
from repro.experiments.folder import choices
from repro.experiments.naming import changes, difference
from repro.experiments.registry import ablations, named_keys
from repro.experiments.words import normalise_arguments, quoted
from tests.places import RECIPES, SETUPS, places, put

REQUIRED = """
    no_lrn lrn_alpha_over_n lrn_across_columns lrn_before_relu lrn_spatial batch_norm
    nonoverlapping_pool average_pool sigmoid tanh leaky_relu elu no_dropout dropout_inverted dropout_0_3
    one_column one_gpu_half no_column_links width_half width_double input_227 input_224_pad_2
    no_conv3 no_conv4 no_conv5 no_fc6 no_fc7 extra_conv6
    no_pca_color pca_eigenvalue no_flip no_random_crop no_augmentation crop_per_32 color_noise_off_late
    channel_mean unit_variance init_source init_paper init_xavier init_he bias_zero bias_0_1
    no_momentum no_weight_decay decay_biases bias_lr_double freeze_conv1_late torch_sgd adam cosine plateau batch_256
    baseline
"""


# ---- files -----------------------------------------------------------------------------------------------------------


def test_every_promised_ablation_exists() -> None:
    assert set(REQUIRED.split()) <= set(choices("ablation"))


@pytest.mark.parametrize("name", choices("ablation"))
def test_an_ablation_changes_exactly_the_keys_that_its_file_names(
    name: str, plain: dict[tuple[str, str], Config]
) -> None:
    recipe, setup = max(places(name), key=lambda place: len(changes(name, *place)))
    changed = difference(compose([f"recipe={recipe}", f"setup={setup}", f"ablation={name}"]), plain[recipe, setup])
    assert {key: value for key, (_, value) in changed.items()} == named_keys(name)
    assert bool(changed) == (name != "baseline")


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_ablations_change_something_valid_wherever_they_apply(
    recipe: str, setup: str, plain: dict[tuple[str, str], Config]
) -> None:
    for name in choices("ablation"):
        if (recipe, setup) in places(name) and name != "baseline":
            own = changes(name, recipe, setup)
            assert own, f"{name} changes nothing"
            changed = put(plain[recipe, setup], own)
            check(changed)
            assert difference(changed, plain[recipe, setup]).keys() == own.keys()


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.usefixtures("plain")
def test_no_two_ablations_are_equal(recipe: str, setup: str) -> None:
    names = [name for name in choices("ablation") if changes(name, recipe, setup) and (recipe, setup) in places(name)]
    seen: dict[str, str] = {}
    for name in names:
        assert seen.setdefault(repr(sorted(changes(name, recipe, setup).items())), name) == name


@pytest.mark.parametrize("name", choices("ablation"))
def test_the_about_block_is_complete(name: str) -> None:
    about = ablations()[name]
    assert about.question.endswith("?")
    assert about.kind in ({"baseline"} if name == "baseline" else {"remove", "add", "swap", "sweep"})
    assert about.expects in {"worse", "same", "better"}
    assert about.claims
    assert all(re.fullmatch(r"C([1-9]|1\d|2[0-7])", claim) for claim in about.claims)
    assert set(about.recipes) < set(RECIPES)
    assert set(about.setups) < set(SETUPS)
    assert set(about.nets) < set(Net.__members__)


@pytest.mark.parametrize("group", ["recipe", "setup"])
def test_a_recipe_and_a_setup_begin_with_their_name(group: str) -> None:
    for name in choices(group):
        raw = OmegaConf.load(folder.EXPERIMENTS / group / f"{name}.yaml")
        assert next(iter(raw.items())) == (group, name)


def test_every_difference_between_the_recipes_is_an_ablation(plain: dict[tuple[str, str], Config]) -> None:
    changed = difference(plain["source", "ilsvrc2012"], plain["paper", "ilsvrc2012"])
    own = [changes(name, "paper", "ilsvrc2012") for name in choices("ablation")]
    missing = [key for key, (_, value) in changed.items() if not any(keys.get(key) == value for keys in own)]
    assert missing == ["train.epochs"]  # a budget, not an ingredient


def test_scaled_setups_keep_the_gain_of_the_source(plain: dict[tuple[str, str], Config]) -> None:
    for (recipe, _), config in plain.items():
        if config.model.scale != 1:
            assert config.model.init.keep_gain
            assert config.model.init.std == plain["source", "ilsvrc2012"].model.init.std, recipe


@pytest.mark.parametrize("setup", SETUPS)
def test_conv1_leaves_no_remainder(setup: str, plain: dict[tuple[str, str], Config]) -> None:
    config = plain["paper", setup]
    if config.model.net.name == "alexnet":
        assert (config.data.crop + 3 - 11) % 4 == 0


# ---- one line for every mistake --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("ablation=no_lrm", "unknown ablation=no_lrm: did you mean no_lrn? there are adam, add_lrn,"),
        ("ablation=[tanh,no_lrm]", "unknown ablation=no_lrm: did you mean no_lrn?"),
        ("ablation=null", "unknown ablation=null: there are"),
        ("ablation=", "unknown ablation=: there are"),
        ("setup=cifar", "unknown setup=cifar: did you mean cifar10?"),
        ("recipe=text", "unknown recipe=text: there are caffe, caffenet, d2l,"),
        ("lr=0.1", "unknown key lr: did you mean optimizer.lr? there are ablation, recipe, setup, seed,"),
        ("abalation=no_lrn", "unknown key abalation: did you mean ablation?"),
        ("train.compile=false", "unknown key train.compile: it is train.fast_kernels now"),
        ("optimizer.lrr=1", "unknown key optimizer.lrr: did you mean optimizer.lr? there are kind, lr, momentum,"),
        ("model.nrm.kind=none", "unknown key model.nrm: did you mean model.norm? there are net, layers,"),
        ("optimizer.lr=fast", "optimizer.lr=fast: Value 'fast' of type 'str' could not be converted to Float"),
        ("train.epochs=1.5", "train.epochs=1.5: Value '1.5' of type 'float' could not be converted to Integer"),
        ("model.activation=gelu", "model.activation=gelu: Invalid value 'gelu', expected one of [relu, sigmoid,"),
        ("model.layers=conv1", "model.layers=conv1: Invalid value assigned"),
        ("model.norm=none", "model.norm is a group of keys: set one of model.norm.kind, "),
        ("data.minival=null", "data.minival=null: field 'data.minival' is not Optional"),
        ("schedule.drops=[half]", "schedule.drops=[half]: Value 'half'"),
        ("seed=-1", "seed=-1: must be at least 0"),
        ("seed", "cannot read 'seed': write key=value"),
        ("=3", "cannot read '=3': write key=value"),
        ("optimizer.lr=[1", "cannot read 'optimizer.lr=[1': write key=value"),
        ("hydra/launcher=nope", "Could not find 'hydra/launcher/nope'"),
    ],
)
def test_a_mistake_ends_in_one_line_that_says_what_exists(word: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        compose([word])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_words_of_other_options_are_left_alone() -> None:
    assert normalise_arguments(["--cfg", "job", "seed=1"]) == ["--cfg", "job", "seed=1"]
    assert normalise_arguments(["-m"]) == ["-m"]
    assert normalise_arguments(["--cfg", "job", "--resolve"]) == ["--cfg", "job", "--resolve"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "seed=0,1", "--cfg", "job"], "--cfg is for one configuration: leave -m and suite= out"),
        (["--resolve"], "--resolve goes with --cfg job"),
        (["--cfg", "all", "--info"], "--cfg and --info: give one of them"),
        (["--cfg"], "--cfg takes what to show: write --cfg job"),
        (["-c", "seed=1"], "-c takes what to show: write -c job"),
        (["--experimental-rerun", "x.pickle"], "--experimental-rerun: no option here: there are -m, --help and --cfg,"),
        (["@train.epochs=3"], "cannot read '@train.epochs=3': write key=value"),
        (["recipe=[paper,source]"], "recipe=[paper,source]: a run has one recipe: give one name"),
        (["-m", "ablation=glob(zz*)"], "ablation=glob(zz*) matches none: there are adam,"),
        (["-m", "seed=range(3,0)"], "seed=range(3,0) selects nothing"),
        (["-m", "seed=interval(0,1)"], "seed=interval(0,1): write a list, as in seed=0,1,2"),
        (["-m", "ablation=choice(tanh,no_lrm)"], "unknown ablation=no_lrm: did you mean no_lrn?"),
        (["ablation=[glob(no_*)]"], "unknown ablation=glob(no_*): there are"),
        (
            ["ablation=glob(no_*)"],
            "several values: put -m in front for one run each, or write ablation=[no_augmentation,",
        ),
        (["results_dir=~nobody-here/x"], "results_dir=~nobody-here/x: there is no such home folder"),
    ],
)
def test_words_that_would_run_nothing_or_something_else(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        normalise_arguments(words)
    assert message in str(caught.value)


PATHS = [
    "~/x",
    "/data/ä",
    "(1)",
    "[x]",
    "#",
    "it's",
    "a,b",
    "/x/日本",
    "lr=0.02",
    "1e3",
    "true",
    "a\\",
    r"x\\'",
    " b ",
    "{a}",
    "%",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_read_as_it_is_written(path: str) -> None:
    assert compose([f"data.root={path}"]).data.root == path
    (word,) = normalise_arguments([f"data.root={path}"])
    assert compose([word]).data.root == path
    assert compose([f"wandb.project={quoted(path)}"]).wandb.project == path


def test_quotes_and_null_around_a_path_are_the_users() -> None:
    assert compose(["data.root='a b'", 'data.cache="c"', "init_from=null"]).data.root == "a b"
    assert compose(["data.root=null"]).data.root is None
    assert normalise_arguments(["-m", "init_from='a,b',c=d"]) == ["-m", "init_from='a,b','c=d'"]


def test_a_sweep_takes_a_file_that_is_there_for_one_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a,b=c"
    words = ["-m", f"init_from={path}", "seed=0,1"]
    assert normalise_arguments(words) == ["-m", f"init_from={tmp_path / 'a'},'b=c'", "seed=0,1"]
    path.touch()
    assert normalise_arguments(words) == ["-m", f"init_from='{path}'", "seed=0,1"]


def test_results_lie_in_the_users_home_where_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ä")
    assert compose(["results_dir=~/x"]).results_dir == compose(["results_dir='~/x'"]).results_dir == "/home/ä/x"
    assert normalise_arguments(["-m", "results_dir=~/x"]) == ["-m", "results_dir='/home/ä/x'"]
    with pytest.raises(UserError, match="results_dir=: give a folder"):
        compose(["results_dir="])


def test_what_a_path_takes_from_elsewhere_must_be_there() -> None:
    with pytest.raises(UserError, match=r"^data\.root: Interpolation key 'y' not found$"):
        compose(["data.root=/x/${y}"])


def test_the_keys_of_texts_are_those_of_the_schema() -> None:
    declared = {"results_dir", "init_from"}
    for section in (DataConfig, TrainConfig, WandbConfig):
        prefix = section.__name__.removesuffix("Config").lower()
        declared |= {f"{prefix}.{field.name}" for field in fields(section) if field.type in (str, str | None)}
    assert declared == set(words.TEXTS)


def test_a_composition_kept_from_before_is_what_hydra_makes() -> None:
    words = [
        "ablation=[tanh,no_lrn]",
        "seed=3",
        "model.init.std.conv1=1e-3",
        "schedule.drops=[0.5,0.75]",
        "data.root=a",
    ]
    whole = composition.to_config(composition._by_hydra(folder.EXPERIMENTS, tuple(words)))
    assert compose(words) == whole
    assert compose(words[:1]).seed == 0  # nothing is left of the words before


# ---- types -----------------------------------------------------------------------------------------------------------


def test_composition_gives_dataclasses_and_enums() -> None:
    config = compose(["ablation=no_lrn", "data.root=images", "optimizer.clip_norm=2"])
    assert config.model.norm.kind is Normalization.none
    assert config.data.root == "images"
    assert isinstance(config.optimizer.clip_norm, float)
    assert isinstance(config, Config)


def test_importing_experiments_loads_no_heavy_module() -> None:
    code = "import sys, repro.experiments; print(*{'torch', 'pandas', 'wandb', 'scipy', 'numpy'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""
