import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pandas as pd
import pytest

import tests.pretend as pretend
from repro import profile
from repro.command import exit_code
from repro.profiling import ceilings, recorded_steps
from tests.tiny import WORDS

TINY = (*WORDS, "data.classes=4")
pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Done:
    """What the command left."""

    out: str
    results: Path

    def folder(self, ablation: str) -> Path:
        (device,) = (self.results / "profiles").iterdir()
        only, *others = device.iterdir()  # one alone needs no name, which tells another precision than the device's
        return device / name_of(ablation) if others else only

    def table(self, ablation: str, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder(ablation) / f"{name}.csv")

    @property
    def traces(self) -> Path:
        (device,) = (self.results / "raw" / "profiles").iterdir()
        return device


@cache
def name_of(ablation: str) -> str:
    """Of the folder in which its tables lie."""
    return profile.arms([*TINY, f"ablation={ablation}"])[0].name


@contextmanager
def small_ceilings() -> Iterator[pytest.MonkeyPatch]:
    """Measured in no time, on tensors that fit a cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ceilings, "COPIED", {"cpu": 2**16, "cuda": 2**16})
        patch.setattr(ceilings, "SIDE", {"cpu": 64, "cuda": 64})
        yield patch


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command with these words; returns exit code, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [profile.__file__, *words])
        return exit_code(profile.main), *capfd.readouterr()

    return run


@pytest.fixture(scope="module")
def done(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The profiles of two ablations; there are no images."""
    results = tmp_path_factory.mktemp("profiled")
    words = (*TINY, "ablation=baseline,no_lrn", "steps=2", f"results_dir={results}")
    with small_ceilings() as patch, (results / "screen").open("w+") as screen:
        patch.setattr(sys, "argv", [profile.__file__, *words])
        patch.setattr(sys, "stdout", screen)
        assert exit_code(profile.main) == 0
        screen.seek(0)
        return Done(screen.read(), results)


def test_every_layer_has_its_time_and_all_rows_make_the_step(done: Done) -> None:
    table = done.table("baseline", "layers")
    places = set(zip(table["layer"], table["phase"], strict=True))
    layers = [*(f"conv{number}" for number in (1, 2, 3, 4, 5)), "norm1", "norm2", "pool5", "fc6", "dropout7", "fc8"]
    assert {(layer, phase) for layer in layers for phase in ("forward", "backward")} < places
    assert {("input", "input"), ("update", "update"), ("other", "other")} < places
    step = json.loads((done.folder("baseline") / "profile.json").read_text())["step_milliseconds"]
    assert table["milliseconds"].sum() == pytest.approx(step, rel=0.02)
    assert done.table("baseline", "kernels")["milliseconds"].sum() == pytest.approx(step, rel=0.02)


def test_kernels_are_named_with_their_calls_and_work(done: Done) -> None:
    kernels = done.table("baseline", "kernels").set_index(["kernel", "phase"])
    assert kernels.loc[("convolution_backward", "backward"), "calls"] == 5
    assert kernels.loc[("_LocalResponseNorm", "forward"), "calls"] == 2
    layers = done.table("baseline", "layers")
    convolutions = layers[layers["layer"].str.startswith("conv") & (layers["phase"] == "forward")]
    assert kernels.loc[("convolution", "forward"), "gflop"] == pytest.approx(convolutions["gflop"].sum(), rel=1e-4)


def test_the_difference_is_what_an_ingredient_costs(done: Done) -> None:
    change = done.table("no_lrn", "layers_less_baseline").set_index(["layer", "phase"])
    gone = change[change["milliseconds"] == 0]
    assert {layer for layer, _ in gone.index} - {"other"} == {"norm1", "norm2"}
    before = done.table("baseline", "layers").set_index(["layer", "phase"])["milliseconds"]
    saved = -change["difference_milliseconds"]
    assert saved[("norm1", "backward")] == pytest.approx(before[("norm1", "backward")])
    kernels = done.table("no_lrn", "kernels_less_baseline")
    assert "_LocalResponseNormBackward" in set(kernels[kernels["milliseconds"] == 0]["kernel"])


def test_the_screen_says_what_was_measured_and_where_it_lies(done: Done) -> None:
    assert re.search(r"conv1 +backward .*(memory|compute)", done.out)
    assert re.search(r"norm1 +forward +\d.* 0\.000 +-\d", done.out)
    assert "The images are random pixels in memory" in done.out
    assert f"Tables: {done.folder('baseline')}\n" in done.out
    assert "…" not in done.out


def test_the_files_name_device_precision_and_command_but_no_path(done: Done) -> None:
    folder = done.folder("baseline")
    summary = json.loads((folder / "profile.json").read_text())
    assert folder.parent.name.endswith("-fp32")
    assert f"torch{summary['machine']['torch'].split('+')[0]}" in folder.parent.name
    assert summary["steps"] == 2
    assert summary["matmul_flops_per_second"] > 0
    assert str(done.results) not in json.dumps(summary)
    names = {"layers.csv", "kernels.csv", "roofline.png", "profile.json"}
    assert {path.name for path in folder.iterdir()} == names


def test_the_trace_has_the_papers_layers_on_its_timeline(done: Done) -> None:
    path = done.traces / done.folder("baseline").name / "baseline.pt.trace.json.gz"
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    ranges = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    for layer in ("conv1", "norm1", "pool5", "fc8", "input", "forward"):
        assert ranges.count(layer) == 1  # two arms take two turns of a step each; the trace is the last
    assert [path.name for path in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["steps=0"], "steps=0: give the number of steps to profile, 1 or more"),
        (["steps=many"], "steps=many: give the number of steps to profile, 1 or more"),
        (["ablation=no_lnr,baseline"], "unknown ablation=no_lnr: did you mean no_lrn?"),
        (["ablation=no_lrn", "ablation=baseline"], "write ablation=no_lrn,baseline"),
    ],
)
def test_mistakes_are_told_in_one_line(answer: Any, words: list[str], message: str) -> None:
    code, out, err = answer(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_help_tells_where_things_go(answer: Any) -> None:
    code, out, err = answer("--help")
    assert (code, err) == (0, "")
    assert "results/raw/profiles/" in out


def test_ablations_within_brackets_are_one_arm() -> None:
    arms = profile.arms(["ablation=baseline,[no_lrn,no_dropout]", "train.batch_size=8"])
    assert [arm.ablation for arm in arms] == ["baseline", "no_lrn+no_dropout"]
    assert [arm.label for arm in arms] == ["batch_size=8", "no_dropout+no_lrn+batch_size=8"]
    assert profile.arms([])[0].name == "embedded-paper-baseline"


def test_on_a_pretended_gpu_a_step_is_profiled_kernel_by_kernel_and_timed_as_a_graph(tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith("train.device")]
    with pretend.gpu() as gpu, small_ceilings(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            recorded_steps, "ACTIVITIES", {"cuda": recorded_steps.ACTIVITIES["cpu"]}
        )  # there is no driver to be asked
        patch.setattr(recorded_steps, "IMAGES_ON_GPU", 20)
        profile.profile(profile.arms([*words, f"results_dir={tmp_path}"]), steps=2)
    done = Done("", tmp_path)
    summary = json.loads((done.folder("baseline") / "profile.json").read_text())
    assert summary["machine"]["device_type"] == "cuda"
    assert summary["step_milliseconds_as_graph"] > 0
    layers = done.table("baseline", "layers")
    wanted = {(layer, phase) for layer in ("conv1", "norm1", "fc8") for phase in ("forward", "backward")}
    assert wanted <= set(zip(layers["layer"], layers["phase"], strict=True))
    assert not any("steps.py" in wait for wait in gpu.waits if not wait.startswith("synchronize"))


@pytest.mark.cuda
def test_on_a_gpu_the_kernels_are_the_devices(tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith("train.device")]
    profile.profile(profile.arms([*words, "train.device=cuda", f"results_dir={tmp_path}"]), steps=2)
    done = Done("", tmp_path)
    layers = done.table("baseline", "layers")
    seen = layers[layers["milliseconds"] > 0]
    wanted = {(layer, phase) for layer in ("conv1", "norm1", "fc8") for phase in ("forward", "backward")}
    assert wanted <= set(zip(seen["layer"], seen["phase"], strict=True))
    assert "convolution" not in set(done.table("baseline", "kernels")["kernel"])


# ---- TensorBoard -----------------------------------------------------------------------------------------------------


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """A TensorBoard on this folder; gives its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", "0", "--load_fast=false"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = (re.search(r"at (http://localhost:\d+)/", line) for line in process.stderr)
            yield next(match[1] for match in found if match)
        finally:
            process.terminate()


def wait_for_run(plugin: str, run: str, seconds: float = 60) -> None:
    """Until the plugin, which reads traces in other processes, has this one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with urlopen(f"{plugin}/runs") as answer:
            if run in json.load(answer)["runs"]:
                return
        time.sleep(0.5)
    raise AssertionError(f"{plugin}/runs does not name {run}")


@pytest.mark.slow
def test_the_page_of_tensorboards_plugin_shows_the_run(done: Done, tmp_path: Path) -> None:
    missing = [name for name in ("tensorboard", "torch_tb_profiler") if find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}: pip install 'alexnet-repro[profile]'")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a headless browser: apt-get install chromium")
    options = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path}",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",  # the page wants charts from the network
        "--virtual-time-budget=20000", "--dump-dom",
    ]  # fmt: skip
    run = done.folder("baseline").name
    with tensorboard(done.traces / run) as address:  # of several runs the page shows the first
        plugin = f"{address}/data/plugin/pytorch_profiler"
        wait_for_run(plugin, run)
        environment = {**os.environ, "HOME": str(tmp_path)}
        command = [browser, *options, f"{plugin}/index.html"]
        page = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env=environment).stdout
    shown = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    assert run in shown
    assert "Overview" in shown
