"""Each part of the benchmark measures what its targets ask for; here on toy sizes, where the figures mean nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from repro import threads
from repro.benchmarks import (
    alternating,
    busy_machine,
    inputs,
    jpeg_files,
    lrn,
    startup,
    throughput,
    training_steps,
    whole_runs,
)
from repro.benchmarks.alternating import Measured
from repro.benchmarks.targets import CPU, judge, targets
from repro.config import Config, Precision
from repro.errors import RunFailure
from repro.model import Network, build
from repro.model.summary import layer_table, total
from repro.profiling.roofline import Ceilings
from repro.train.step import TrainingStep
from tests.tiny import make_image_folder, tiny_config

CPU_DEVICE = torch.device(CPU)
pytestmark = pytest.mark.usefixtures("one_thread", "short")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One short round each."""
    monkeypatch.setattr(alternating, "WARM_UP", 1)
    for part in (lrn, training_steps):
        monkeypatch.setattr(part, "ROUNDS", {CPU: 1})
        monkeypatch.setattr(part, "BATCH", {CPU: 2})
        monkeypatch.setattr(part, "LEAST_SECONDS", {CPU: 0.0})
    for part in (inputs, startup, throughput):
        monkeypatch.setattr(part, "ROUNDS", 1)
    monkeypatch.setattr(inputs, "BATCH", 4)


def check(part: str, measured: Measured) -> None:
    """Every target of the part can be judged from what was measured."""
    rows = [judge(target, measured.rounds, measured.left_out) for target in targets(CPU, part)]
    assert len(rows) >= 2
    assert all(row.ours is not None or row.reason for row in rows)
    assert measured.note


def test_lrn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lrn, "SIDE", 5)
    measured = lrn.race(CPU_DEVICE)
    check("lrn", measured)
    assert "2 x 96 x 5 x 5" in measured.note


def test_the_copy_is_counted_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lrn, "SIDE", 5)
    monkeypatch.setattr(lrn, "rate", lambda function, work, device, least: lambda: work)
    rounds = lrn.race(CPU_DEVICE).rounds
    # five tensors go through memory for each two of a copy: 2 images of LRN take as long as 0.8 copied ones
    assert (rounds["ours, fp32"], rounds["copy, fp32"]) == ([2], [0.8])


@pytest.fixture
def tiny_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def configuration(batch: int, precision: Precision = Precision.fp32, *words: str) -> Config:
        config = tiny_config()
        config.train.batch_size, config.train.precision, config.optimizer.lr = batch, precision, 1e-6
        return config

    monkeypatch.setattr(training_steps, "configuration", configuration)


@contextmanager
def here(make: Callable[..., Callable[[], float]], *arguments: Any) -> Iterator[Callable[[], float]]:
    """In place of `apart`, whose processes know nothing of what a test replaces."""
    yield make(*arguments)


@pytest.mark.usefixtures("tiny_steps")
def test_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_steps, "torchvision_alexnet", training_steps.ours)  # it has one size, the large one
    monkeypatch.setattr(training_steps, "apart", here)
    check("step", training_steps.race(CPU_DEVICE))


@pytest.mark.usefixtures("tiny_steps")
def test_what_is_emulated_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_steps, "apart", here)
    monkeypatch.setattr(training_steps, "torchvision_alexnet", training_steps.ours)
    monkeypatch.setattr(training_steps, "has_bf16", lambda device: False)
    measured = training_steps.race(CPU_DEVICE)
    rows = [judge(target, measured.rounds, measured.left_out) for target in targets(CPU, "step")]
    for row in rows:
        assert (row.reason == "bf16 is emulated on this processor") == ("bf16" in row.name)
        assert (row.ratio is None) == ("bf16" in row.name)
    monkeypatch.setattr(throughput, "has_bf16", lambda device: False)
    monkeypatch.setattr(throughput, "BATCHES", {CPU: (2,)})
    assert throughput.race(CPU_DEVICE).note.endswith("in fp32")


def test_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    @contextmanager
    def counted(count: int) -> Iterator[None]:
        started.append(count)
        yield

    monkeypatch.setattr(busy_machine, "compose", lambda words: tiny_config())
    monkeypatch.setattr(busy_machine.threads, "_watch", lambda: None)
    monkeypatch.setattr(busy_machine.threads, "cores", lambda: 3)
    monkeypatch.setattr(busy_machine.threads, "free_cores", lambda: 1)
    monkeypatch.setattr(busy_machine, "neighbours", counted)
    monkeypatch.setattr(busy_machine, "apart", here)
    monkeypatch.setattr(busy_machine, "SETTLED", 0)
    monkeypatch.setattr(busy_machine, "ROUNDS", 1)
    monkeypatch.setattr(busy_machine, "LEAST_SECONDS", 0.0)
    check("neighbour", busy_machine.race(CPU_DEVICE))
    assert started == [1, 3]


def test_neighbours_are_busy_and_end_with_the_block() -> None:
    before = os.times().children_user
    with busy_machine.neighbours(2):
        time.sleep(0.2)
    assert os.times().children_user > before  # those that have ended


def test_nobody_speaks_for_the_threads_while_neighbours_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with busy_machine._nothing_set():
        assert not {*threads.NUMBER_SET_BY, *threads.WAITING_SET_BY} & set(os.environ)
    assert os.environ["OMP_NUM_THREADS"] == "1"


@pytest.mark.usefixtures("tiny_steps")
def test_a_slow_machine_leaves_the_last_candidates_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(make: Callable[..., Callable[[], float]], *arguments: Any) -> Any:
        time.sleep(0.6)
        return here(make, *arguments)

    monkeypatch.setattr(training_steps, "SECONDS", 0.5)
    monkeypatch.setattr(training_steps, "apart", slowly)
    measured = training_steps.race(CPU_DEVICE)
    assert measured.rounds.keys() == {"plain PyTorch, fp32"}
    assert measured.left_out["ours, fp32"] == "no time was left: this machine is slow or busy"


def test_our_step_is_the_papers_net_and_hardly_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Network] = []

    def remember(config: Config, classes: int) -> Network:
        made.append(build(config, classes))
        return made[-1]

    monkeypatch.setattr(training_steps, "build", remember)
    config = tiny_config()
    config.optimizer.lr = 1e-6
    step = training_steps.ours(config, CPU_DEVICE, classes=4)
    weight = made[0].get_submodule("classifier.fc8").weight
    assert isinstance(weight, torch.Tensor)
    before = weight.detach().clone()
    step()
    assert not torch.equal(weight, before)
    torch.testing.assert_close(weight.detach(), before, atol=1e-4, rtol=0)


def test_configurations_are_the_full_net() -> None:
    config = training_steps.configuration(64, Precision.bf16, "ablation=no_lrn")
    assert (config.recipe, config.model.scale, config.crop, config.train.batch_size) == ("paper", 1.0, 224, 64)
    assert config.model.norm.kind.name == "none"


@pytest.mark.usefixtures("tiny_steps")
def test_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "LEAST_SECONDS", 0.01)
    monkeypatch.setattr(inputs, "STEP_SECONDS", 0.0)
    monkeypatch.setattr(inputs, "WORKERS", 0)
    monkeypatch.setattr(jpeg_files, "write", lambda folder, train, val: str(make_image_folder(folder, 8, 4)))
    monkeypatch.setattr(inputs, "configuration", folder_config)
    check("input", inputs.race(CPU_DEVICE))


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "EPOCHS", 3)
    monkeypatch.setattr(jpeg_files, "write", lambda folder, train, val: str(make_image_folder(folder, 8, 4)))
    monkeypatch.setattr(inputs, "configuration", folder_config)
    monkeypatch.setattr(inputs, "own_mib", iter([9.0, 5.0, 7.0, 9.0, 5.0, 4.0]).__next__)
    measured = inputs.memory(CPU_DEVICE)
    check("memory", measured)
    assert measured.rounds == {"raw store": [2.0], "jpeg store": [-1.0]}  # the first epoch does not count


def folder_config(folder: Path, kind: str = "raw") -> Config:
    """The files of `tests.tiny.make_image_folder` at their own size."""
    config = _configuration(folder, kind)
    config.data.image_size, config.data.crop = 72, 64
    return config


_configuration = inputs.configuration


def test_a_processs_own_memory_is_told() -> None:
    if not inputs.STATUS.exists():
        pytest.skip("Linux only")
    program = (
        "import torch; from repro.benchmarks.inputs import own_mib;"
        "before = own_mib(); taken = torch.ones(2**24); print(own_mib() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert float(done.stdout) == pytest.approx(64, abs=4)


def test_elsewhere_than_on_linux_it_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inputs, "STATUS", tmp_path / "status")
    with pytest.raises(RunFailure, match="leave memory out of only"):
        inputs.own_mib()


def test_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "to_help", lambda: 1.0)
    monkeypatch.setattr(startup, "to_first_step", lambda: 2.0)
    check("start", startup.race(CPU_DEVICE))


def test_the_first_step_is_awaited_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = f"import time; print({startup._STEP_DONE!r}, flush=True); time.sleep(0.5)"
    monkeypatch.setattr(startup, "_UNTIL_FIRST_STEP", slow)
    assert startup.to_first_step() > 0
    monkeypatch.setattr(startup, "_UNTIL_FIRST_STEP", "raise SystemExit('no room')")
    with pytest.raises(RunFailure, match=r"made no step \(no room\)"):
        startup.to_first_step()


def test_the_first_step_of_a_run_says_so_and_ends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps_made: list[str] = []
    monkeypatch.setattr(TrainingStep, "__call__", steps_made.append)  # the script's own is taken back after the test
    exec(startup._UNTIL_FIRST_STEP.replace("sys.exit(main())", ""), {})
    with pytest.raises(KeyboardInterrupt):
        TrainingStep.__call__("batch")  # type: ignore[arg-type, call-arg]
    assert steps_made == ["batch"]
    assert capsys.readouterr().out == f"{startup._STEP_DONE}\n"


def test_a_rate_is_set_against_the_ceilings() -> None:
    config = tiny_config()
    work = throughput.step_work(config, classes=4)
    ceilings = Ceilings(flops=work.flops, bandwidth=work.bytes / 2)  # a second of operations, two of bytes
    row = throughput.row(config, config.train.batch_size / 4, ceilings, classes=4)
    assert (row.flops_share, row.bandwidth_share) == pytest.approx((0.25, 0.5))
    assert row.bound == pytest.approx(config.train.batch_size / 2)
    assert row.bound_by == "memory"


def test_the_work_of_a_step_is_three_forward_passes_and_an_update() -> None:
    config = training_steps.configuration(128)
    work = throughput.step_work(config)
    macs = total(layer_table(config, training_steps.CLASSES))["macs"]
    images_gradient = 2 * 128 * 55 * 55 * 96 * 11 * 11 * 3
    assert work.flops == pytest.approx(6 * 128 * macs - images_gradient, rel=0.02)
    halved = throughput.step_work(training_steps.configuration(128, Precision.bf16))
    assert halved.flops == work.flops
    assert 0.5 < halved.bytes / work.bytes < 0.7  # the update stays in fp32


def test_hours_of_the_papers_training_and_its_evaluations() -> None:
    assert whole_runs.hours(90 * 1_281_167 / 3600, 90 * 50_000 / 3600) == pytest.approx(2)
