"""Ways in which Hydra runs something else than asked, or leaves files behind; each must end well here."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from repro.errors import UserError
from repro.experiments import compose as composition
from repro.experiments import folder, naming, registry
from repro.experiments.compose import compose
from repro.experiments.naming import identify
from repro.experiments.registry import ablations
from repro.experiments.words import chosen_ablations, normalise_arguments

APP = """
import sys, hydra
from hydra.core.hydra_config import HydraConfig
from repro.experiments.compose import to_config
from repro.experiments.folder import EXPERIMENTS
from repro.experiments.naming import identify
from repro.experiments.words import chosen_ablations, normalise_arguments

def job(node):
    config = to_config(node)
    label, _ = identify(config, chosen_ablations(HydraConfig.get().overrides.task))
    print(label, config.seed)

sys.argv[1:] = normalise_arguments(sys.argv[1:])
hydra.main(config_path=str(EXPERIMENTS), config_name="config", version_base="1.3")(job)()
"""


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of experiments/ that a test may spoil."""
    place = tmp_path / "experiments"
    shutil.copytree(folder.EXPERIMENTS, place)
    of_files = (registry.read_keys, registry.read_ablation, registry._registered, registry.ablations)
    caches = [naming.plain_settings, composition._by_hydra, *of_files]
    monkeypatch.setattr(folder, "EXPERIMENTS", place)
    for cache in caches:
        cache.cache_clear()
    yield place
    for cache in caches:
        cache.cache_clear()


def run_app(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    root = Path(folder.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-c", APP, *words], cwd=place, env=environment, capture_output=True, text=True
    )


def refusal(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        compose(words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_ablation_needs_no_plus_and_is_in_force() -> None:
    assert compose(["ablation=no_lrn"]).model.norm.kind.name == "none"
    assert compose([]).model.norm.kind.name == "lrn"


def test_an_ablation_before_self_runs_the_baseline_but_is_not_filed_as_more(sandbox: Path) -> None:
    """Hydra says nothing when the defaults list is in the wrong order; the name of the run does."""
    path = sandbox / "config.yaml"
    lines = path.read_text().splitlines(keepends=True)
    entry = next(line for line in lines if "ablation: baseline" in line)
    lines.remove(entry)
    lines.insert(next(number for number, line in enumerate(lines) if "recipe: paper" in line), entry)
    path.write_text("".join(lines))
    config = compose(["ablation=no_lrn"])
    assert config.model.norm.kind.name == "lrn"
    assert identify(config, ["no_lrn"]) == ("baseline", {})


def test_a_file_without_its_package_header_is_an_error(sandbox: Path) -> None:
    path = sandbox / "ablation" / "no_lrn.yaml"
    path.write_text(path.read_text().removeprefix("# @package _global_\n"))
    assert refusal("ablation=no_lrn") == "ablation/no_lrn.yaml: its first line must be '# @package _global_'"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "model:\n  norm:\n    knd: none\n",
            "ablation/new.yaml: unknown key model.norm.knd: did you mean model.norm.k",
        ),
        (
            "model:\n  norm:\n    n: five\n",
            "ablation/new.yaml: line 7: model.norm.n: 'five' is not a whole number",
        ),
        ("model:\n  norm:\n    n: '3'\n", "ablation/new.yaml: line 7: model.norm.n: '3' is not a whole number"),
        ("seeds: 3\n", "ablation/new.yaml: unknown key seeds: did you mean seed?"),
        ("model:\n  norm\n    n: 3\n", "ablation/new.yaml: line 7: mapping values are not allowed here"),
    ],
)
def test_a_mistake_in_a_file_is_an_error_that_names_the_file(sandbox: Path, content: str, message: str) -> None:
    (sandbox / "ablation" / "new.yaml").write_text(f"# @package _global_\nabout:\n  question: New?\n\n{content}")
    assert refusal("ablation=new").startswith(message)
    assert "new.yaml" in refusal("ablation=[new,tanh]")


ABOUT = "# @package _global_\nabout:\n  question: New?\n"
N_3 = "model:\n  norm:\n    n: 3\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{ABOUT}\tkind: swap\n{N_3}", "line 4: found character '\\t'"),
        (f"{ABOUT}model: {{activation: [relu]}}\n", "line 4: model.activation: ['relu'] is not one of relu,"),
        (f"{ABOUT}model: {{activation: '${{'}}\n", ""),
        (f"{ABOUT}model: {{norm: 3}}\n", "model.norm is a group of keys: set one of model.norm.kind"),
        (f"{ABOUT}{N_3}seed: 3\n", "line 7: seed: is for the command line, or another file's: take it out"),
        (f"{ABOUT}{N_3}results_dir: x\n", "line 7: results_dir: is for the command line"),
        (f"{ABOUT}{N_3}recipe: caffe\n", "line 7: recipe: is for the command line"),
        (f"{ABOUT}{N_3}{N_3}", "line 7: found duplicate key model"),
        (f"# @package _global_\n{N_3}", "has no about"),
        (f"{ABOUT}  kind: ä\n".encode("latin-1"), "line 4: not UTF-8"),
        ("", "holds no keys"),
        ("- a\n", "holds no keys"),
        (f"\ufeff{ABOUT}{N_3}", "line 1: begins with a byte order mark"),
        (f"{ABOUT}  kind: removed\n{N_3}", "line 4: about.kind: removed: there are baseline, remove, add, swap, sweep"),
        (f"{ABOUT}  claims: [C28]\n{N_3}", "line 4: about.claims: C28: there are C1 to C27"),
        (f"{ABOUT}  claims: C1\n{N_3}", "line 4: about.claims: 'C1' is not a list of which each is a text"),
        (f"{ABOUT}  expects: worst\n{N_3}", "line 4: about.expects: worst: there are worse, same, better"),
        (f"{ABOUT}model:\n  norm:\n    kind: none\n", "changes the same as ablation/no_lrn.yaml"),
    ],
)
def test_a_bad_file_is_named_and_only_who_asks_for_it_ends(
    content: str | bytes, message: str, sandbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sandbox / "ablation" / "a_new.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert identify(compose(["ablation=no_lrn"]), ["no_lrn"])[0] == "no_lrn"
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"warning: ablation/a_new.yaml: {message}")
    with pytest.raises(UserError, match=re.escape(f"ablation/a_new.yaml: {message}")):
        registry.check_files()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("optimizer:\n  lr: 0.1\n  lr: 0.2\n", "line 4: found duplicate key lr"),
        ("optimizer:\n\tlr: 0.1\n", "line 3: found character '\\t'"),
        ("# é\n".encode("latin-1"), "line 2: not UTF-8"),
        ("optimizer:\n  lr: high\n", "line 3: optimizer.lr: 'high' is not a number"),
        ("- a\n", "holds no keys"),
        ("force: true\n", "line 2: force: is for the command line, or another file's"),
    ],
)
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("recipe/new", ["recipe=new"]),
        ("setup/new", ["setup=new"]),
        ("recipe/paper", []),
        ("recipe/caffe", ["recipe=caffenet"]),  # which begins with its keys
        ("setup_recipe/embedded_paper", ["setup=embedded"]),
    ],
)
def test_a_bad_file_of_another_group_is_named_too(
    content: str | bytes, message: str, file: str, words: list[str], sandbox: Path
) -> None:
    whole = b"# @package _global_\n" + (content.encode() if isinstance(content, str) else content)
    (sandbox / f"{file}.yaml").write_bytes(whole)
    assert refusal(*words).startswith(f"{file}.yaml: {message}")
    assert compose(["recipe=source", "setup=cifar10"]).recipe == "source"


def test_a_broken_link_among_the_ablations(sandbox: Path) -> None:
    (sandbox / "ablation" / "new.yaml").symlink_to("nowhere.yaml")
    assert refusal("ablation=new") == "ablation/new.yaml: cannot be read (No such file or directory): mend or remove it"
    assert "new" not in ablations()


def test_a_file_that_is_equal_in_one_setup_does_not_rename_the_registrys(sandbox: Path) -> None:
    content = f"{ABOUT}model:\n  columns: 2\n  norm:\n    kind: none\n"
    (sandbox / "ablation" / "a_new.yaml").write_text(content)
    assert identify(compose(["ablation=no_lrn"]), ["no_lrn"])[0] == "no_lrn"


def test_one_more_file_is_one_more_ablation(sandbox: Path) -> None:
    text = "# @package _global_\nabout:\n  question: New?\n\nmodel:\n  norm:\n    n: 3\n"
    (sandbox / "ablation" / "lrn_n_3.yaml").write_text(text)
    assert identify(compose(["ablation=lrn_n_3"]), ["lrn_n_3"])[0] == "lrn_n_3"
    assert ablations()["lrn_n_3"].question == "New?"


def test_an_ablation_that_changes_nothing_says_what_is_there_already() -> None:
    words = ["recipe=caffe", "setup=imagenette", "ablation=batch_256"]
    with pytest.raises(UserError, match=r"setup=imagenette, which has train\.batch_size=256 already: leave it out$"):
        identify(compose(words), chosen_ablations(words))


def test_a_list_of_ablations_is_named_by_all() -> None:
    words = ["ablation=[no_lrn,no_dropout]", "seed=1"]
    assert chosen_ablations(words) == ["no_lrn", "no_dropout"]
    assert identify(compose(words), chosen_ablations(words))[0] == "no_dropout+no_lrn"
    assert chosen_ablations(["seed=1"]) == []
    assert chosen_ablations(["ablation=tanh"]) == ["tanh"]


def test_multirun_may_stand_anywhere() -> None:
    assert normalise_arguments(["ablation=tanh,elu", "-m"]) == ["-m", "ablation=tanh,elu"]
    assert normalise_arguments(["seed=0,1", "--multirun", "ablation=tanh"]) == ["-m", "seed=0,1", "ablation=tanh"]
    assert normalise_arguments(["-m", "ablation=glob(no_fc*)"]) == ["-m", "ablation=no_fc6,no_fc7"]


@pytest.mark.parametrize("word", ["ablation=no_lrn,tanh", "seed=0,1", "seed=range(0,3)"])
def test_several_values_need_multirun(word: str) -> None:
    with pytest.raises(UserError, match="names several values: put -m in front"):
        normalise_arguments([word])
    assert "names several values: give one" in refusal(word)  # other commands have no -m
    assert ("write ablation=[no_lrn,tanh] for all in one run" in refusal(word)) == word.startswith("ablation")


def test_a_choice_given_twice_is_refused() -> None:
    """Hydra takes the last and drops the first."""
    assert "write ablation=[no_lrn,tanh]" in refusal("ablation=no_lrn", "ablation=tanh")
    assert refusal("setup=cifar10", "setup=embedded") == "setup= is given twice"
    assert refusal("seed=1", "seed=2") == refusal("seed=1", "++seed=1") == "seed= is given twice"
    assert refusal("train.epochs=1", "seed=1", "train.epochs=2") == "train.epochs= is given twice"
    with pytest.raises(UserError, match="seed= is given twice"):
        normalise_arguments(["-m", "seed=0,1", "seed=2"])
    assert normalise_arguments(["--cfg", "job", "--package", "job"]) == ["--cfg", "job", "--package", "job"]


def test_a_sweep_with_an_unknown_name_starts_no_run() -> None:
    with pytest.raises(UserError, match="unknown ablation=no_lrm: did you mean no_lrn"):
        normalise_arguments(["-m", "ablation=baseline,no_lrm"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("+lrr=3", "unknown key lrr"),  # gets past the schema
        ("++model.norm.gamma=3", "unknown key model.norm.gamma"),
        ("+ablation=no_lrn", "+ablation: write ablation=name, without +"),
        ("~ablation", "~ablation: write ablation=name, without ~"),  # the baseline in silence
        ("~seed", "seed cannot be taken away"),  # the schema's default in silence
        ("~model.norm.kind", "~model.norm.kind: "),
    ],
)
def test_keys_are_neither_added_nor_taken_away(word: str, message: str) -> None:
    assert refusal(word).startswith(message)


def test_composition_does_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = compose(["ablation=tanh"])
    monkeypatch.chdir(tmp_path)
    assert compose(["ablation=tanh"]) == here


def test_a_run_finds_its_baseline_inside_hydra_and_leaves_no_file(tmp_path: Path) -> None:
    """Hydra's default folders are named by the second: two runs started together would share one."""
    ended = run_app(tmp_path, "ablation=[tanh,no_lrn]", "seed=3")
    assert (ended.stdout, ended.stderr, ended.returncode) == ("no_lrn+tanh 3\n", "", 0)
    assert not any(tmp_path.iterdir())


def test_a_sweep_names_each_of_its_runs_and_leaves_one_file_where_git_does_not_look(tmp_path: Path) -> None:
    ended = run_app(tmp_path, "ablation=baseline,[tanh,no_lrn],elu", "seed=0,1", "-m")
    assert ended.stderr == ""
    assert ended.stdout.split("\n")[:-1] == [
        f"{name} {seed}" for name in ("baseline", "no_lrn+tanh", "elu") for seed in (0, 1)
    ]
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()] == [
        Path("results/raw/sweep/multirun.yaml")
    ]


def test_help_lists_the_choices_and_leaves_nothing(tmp_path: Path) -> None:
    text = subprocess.run(
        [sys.executable, "-m", "repro.run", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    for group in (*folder.GROUPS, "suite"):
        assert f" {group}: {', '.join(folder.choices(group))} " in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 120
    assert "python -m repro.run ablation=no_lrn" in text
    assert not any(tmp_path.iterdir())


def test_hidden_files_are_no_choices(sandbox: Path) -> None:
    """Such as those that macOS leaves beside each file on a foreign disk."""
    (sandbox / "ablation" / "._no_lrn.yaml").write_bytes(b"\x00\x05\x16\x07")
    assert all(not name.startswith(".") for name in folder.choices("ablation"))
    registry.check_files()
