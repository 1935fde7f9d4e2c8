import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from repro.experiments.compose import compose
from repro.pace import timings_of
from repro.request import Run, request
from repro.terminal import screen
from repro.terminal.screen import Screen
from repro.train.loop import Progress
from tests.tiny import make_training, tiny_config, tiny_data

ROOT = Path(__file__).parents[2]
WIDTH = 60


def asked(results: Path, *words: str) -> Run:
    words = (*words, f"results_dir={results}", "train.device=cpu", "train.precision=fp32")
    return request(compose(words), words, ("run.py", *words), print)


def screen_of(width: int, on_terminal: bool) -> Screen:
    """A screen that draws into memory, at `shown`."""
    screen = Screen()
    screen.console = Console(
        file=io.StringIO(), width=width, force_terminal=on_terminal, highlight=False, no_color=True
    )
    screen.on_terminal = on_terminal
    return screen


def shown(screen: Screen) -> str:
    text: str = screen.console.file.getvalue()  # type: ignore[attr-defined]
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def step(number: int, steps: int = 100, epoch: int = 0) -> Progress:
    return Progress(epoch, number, steps, 2.25, 80.5, 512.0, 2.0)


def test_the_plan_says_what_is_asked_changed_and_where(tmp_path: Path) -> None:
    screen = screen_of(WIDTH, on_terminal=False)
    run = asked(tmp_path, "ablation=no_lrn", "train.epochs=3")
    screen.plan(run)
    text = shown(screen)
    assert text.startswith("no_lrn+epochs=3")
    for line in (
        "asks     Does response normalisation lower the error?",
        "changes  model.norm.kind: lrn -> none",
        f"files    {run.folder}",
        "trains   3 epochs in batches of 64 images",
        "takes    not known yet: the first steps will tell",
    ):
        assert f"  {line}\n" in text
    assert re.search(r"on       cpu \(.+\), fp32, .*\d+ threads?\n", text)


def test_the_first_words_follow_from_the_command_alone(tmp_path: Path) -> None:
    words = ("ablation=no_lrn", "train.epochs=3", f"results_dir={tmp_path}")
    whole, early = screen_of(WIDTH, on_terminal=False), screen_of(WIDTH, on_terminal=False)
    early.first_words(compose(words), words)
    first = shown(early)
    assert "changes  model.norm.kind: lrn -> none" in first
    run = request(compose(words), words, ("run.py", *words), print)
    whole.plan(run)
    early.plan(run)
    assert shown(early) == shown(whole)
    by_device = screen_of(WIDTH, on_terminal=False)
    by_device.first_words(compose(["setup=imagenette_small", "train.precision=fp32"]), words)
    assert shown(by_device) == ""


def test_the_first_words_do_not_wait_for_pytorch() -> None:
    read_in = "import repro.terminal.screen, repro.experiments.sweep, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", read_in], cwd=ROOT, check=False).returncode == 0


def test_the_plan_knows_how_long_such_runs_took(tmp_path: Path) -> None:
    run = asked(tmp_path, "ablation=no_lrn")
    (tmp_path / "raw").mkdir()
    timings_of(run).add(run, 300.0)
    screen = screen_of(WIDTH, on_terminal=False)
    screen.plan(run)
    assert "takes    about 5 minutes, as runs of this setup took here" in shown(screen)


def test_what_opens_and_begins_is_counted(tmp_path: Path) -> None:
    config, data = tiny_config(), tiny_data()
    config.data.minival = 0.1
    screen = screen_of(WIDTH, on_terminal=False)
    screen.images(config, data)
    training = make_training(config, tmp_path, data)
    screen.begin(training)
    text = shown(screen)
    assert "images   36 to train on, 12 for validation, 4 more as minival; 4 classes; embedded" in text
    parameters = sum(parameter.numel() for parameter in training.network.parameters())
    assert f"network  {parameters:,} parameters, 3 steps an epoch, {torch.get_num_threads()} thread" in text


def test_words_are_kept_whole_on_a_narrow_terminal(tmp_path: Path) -> None:
    folder = tmp_path / "[bold]é[/] and more"
    screen = screen_of(WIDTH, on_terminal=True)
    screen.plan(asked(tmp_path, "ablation=no_lrn"))
    row = {"epoch": 7, "train_loss": 1.0, "train_top1": 50.0, "val_top1": 49.0, "images_per_second": 512.0}
    screen.epoch(row | {"events": "learning rate divided by 10 (1)"})
    screen.warning(f"{folder}: is [not] markup")
    text = shown(screen)
    lines = [line for line in text.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= WIDTH
    assert "divided by" in " ".join(text.split())
    assert "[not] markup" in " ".join(text.split())


def test_what_the_terminal_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = screen_of(WIDTH, on_terminal=False)
    monkeypatch.setattr(Console, "encoding", "ascii")
    screen.say("/x/日本/\udcff")
    assert shown(screen) == "/x/\\u65e5\\u672c/\\udcff\n"


def test_the_bars_fit_and_tell_the_time_left(tmp_path: Path) -> None:
    screen = screen_of(WIDTH, on_terminal=True)
    screen.bars.live.console = screen.console
    screen.begin(make_training(tiny_config(), tmp_path))
    screen.epochs = 100
    screen.progress(step(49))
    screen.evaluation("validation", 5, 10)
    drawn = Console(file=io.StringIO(), width=WIDTH, force_terminal=True, no_color=True)
    drawn.print(screen.bars.get_renderable())
    lines = re.sub(r"\x1b\[[0-9;?]*m", "", drawn.file.getvalue()).splitlines()  # type: ignore[attr-defined]
    assert [line.split("━")[0].strip() for line in lines[:2]] == ["training, epoch 1 of 100", "validation"]
    assert all(line.rstrip().endswith("left") for line in lines[:2])
    assert lines[2].strip() == "loss 2.250, training error 80.5 %, 512 images/s"
    assert max(map(len, lines)) <= WIDTH
    screen.evaluation("validation", 10, 10)
    assert list(screen.tasks) == ["training"]
    screen.evaluating()
    assert screen.tasks == {}


def test_a_line_every_half_minute_stands_for_the_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    screen = screen_of(WIDTH, on_terminal=False)
    screen.bars.get_time = lambda: now[0]
    config = tiny_config()
    config.train.epochs = 100
    screen.begin(make_training(config, tmp_path))
    screen.epochs, before = 100, shown(screen)
    for number in range(7):
        now[0] += 10
        screen.progress(step(number % 3, 3, epoch=number // 3))
    lines = shown(screen).removeprefix(before).splitlines()
    assert lines[0] == "about 50 minutes to go, at 512 images/s"  # 303 more steps of 10 seconds
    assert lines[1].startswith("training, epoch 2 of 100: step 3 of 3, loss 2.250, training error 80.5 %, 512 images/s")
    assert lines[1].endswith("about 49 minutes left")
    assert len(lines) == 2
    now[0] += 30
    screen.evaluation("ten crops", 60, 120)
    assert shown(screen).splitlines()[-1] == "ten crops: 60 of 120 crops"


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(screen.Console, "is_terminal", property(lambda console: True))
    assert not Screen().on_terminal


def test_a_run_of_a_sweep_says_which(tmp_path: Path) -> None:
    screen = screen_of(WIDTH, on_terminal=False)
    screen.place = "3 of 9"
    screen.plan(asked(tmp_path))
    assert shown(screen).startswith("3 of 9: baseline, seed 0: setup embedded, recipe paper\n")


def test_a_run_keeps_how_long_it_took(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.synthetic import make_record

    run = asked(tmp_path)
    (tmp_path / "raw").mkdir()
    screen = Screen()
    screen.plan(run)
    screen.ended(run, make_record("baseline"))
    assert timings_of(run).estimate(run) is None  # it was there already
    screen.fresh = True
    screen.ended(run, make_record("baseline"))
    assert timings_of(run).estimate(run) == pytest.approx(0, abs=5)
