import math
from pathlib import Path

import numpy as np
import pytest

from repro import record as records
from repro.train.error_stop import ErrorStop
from repro.train.loop import Training
from tests.tiny import WORDS, make_image_folder, make_training, only_record, run_command, tiny_config, tiny_data

IMAGES = 300


def right_answers(epochs: int) -> np.ndarray:
    """(epochs, IMAGES) bool: right more and more often."""
    chances = np.linspace(0.2, 1.0, epochs * IMAGES).reshape(epochs, IMAGES)
    return np.random.default_rng(0).random((epochs, IMAGES)) < chances


@pytest.mark.parametrize("level", [95.0, 70.0, 51.5, 25.0])
def test_it_is_reached_where_a_window_over_all_answers_first_falls_to_the_level(level: float) -> None:
    right, stop = right_answers(6), ErrorStop(level, IMAGES)
    wrong = ~right.reshape(-1)
    ends = range(IMAGES, wrong.size + 1, 10)
    first = next(end for end in ends if 100 * wrong[end - IMAGES : end].mean() <= level)
    for epoch, answers in enumerate(right):
        for images in range(10, IMAGES + 1, 10):
            stop.look(epoch, images, 100 * (1 - answers[:images].mean()))
    assert stop.reached == pytest.approx(first / IMAGES)
    assert f"training error of {level:g} % reached after {first / IMAGES:.2f} epochs" == stop.event


def test_a_level_that_is_not_reached_or_not_set_ends_nothing() -> None:
    for stop in (ErrorStop(10.0, 4), ErrorStop(None, 4)):
        stop.look(0, 2, 50.0)
        stop.look(0, 4, 50.0)
        assert stop.reached is None
        assert stop.event == ""


def learning(folder: Path, level: float | None) -> Training:
    config = tiny_config()
    config.model.dropout.rate = 0.0
    config.train.epochs, config.train.batch_size, config.train.stop_at_train_error = 12, 4, level
    return make_training(config, folder, tiny_data(80))


def test_the_run_ends_after_that_epoch_and_is_the_beginning_of_the_whole_one(tmp_path: Path) -> None:
    whole, ended = learning(tmp_path / "whole", None), learning(tmp_path / "ended", 30.0)
    for training in (whole, ended):
        training.folder.mkdir()
        training.run()
    reached = ended.error_stop.reached
    assert reached is not None
    assert 1 < reached < 12
    assert len(ended.curve) == math.ceil(reached)
    assert ended.curve[-1]["events"] == ended.error_stop.event
    kept = [key for key in whole.curve[0] if key not in ("images_per_second", "minutes", "events")]
    assert [[row[key] for key in kept] for row in ended.curve] == [
        [row[key] for key in kept] for row in whole.curve[: len(ended.curve)]
    ]


def test_a_resumed_run_knows_the_epoch_before_and_that_it_has_ended(tmp_path: Path) -> None:
    straight = learning(tmp_path, 30.0)
    straight.run()
    again = learning(tmp_path, 30.0)
    again.resume()
    again.run()
    assert again.error_stop == straight.error_stop
    assert len(again.curve) == len(straight.curve)

    class Killed(Exception):
        pass

    def kill(row: dict[str, object]) -> None:
        if row["epoch"] == len(straight.curve) - 1:
            raise Killed

    folder = tmp_path / "cut"
    folder.mkdir()
    cut = learning(folder, 30.0)
    cut.on_epoch = kill
    with pytest.raises(Killed):
        cut.run()
    rest = learning(folder, 30.0)
    rest.resume()
    rest.run()
    assert rest.error_stop == straight.error_stop


def test_the_record_says_when_and_is_whole(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = (*WORDS, f"data.root={make_image_folder(tmp_path / 'images')}", f"results_dir={tmp_path / 'results'}")
    stopping = ("train.epochs=6", "train.stop_at_train_error=100", "wandb.mode=disabled")
    assert run_command(*words, *stopping) == 0
    record = only_record(tmp_path / "results")
    assert record.status == records.COMPLETE
    assert record.epochs_to_train_error == 1.0
    assert len(record.curve()) == 1
    record.verify()
    assert "training error of 100 % reached after 1.00 epochs" in capfd.readouterr().out
    assert run_command(*words, *stopping) == 0
    assert "done already" in capfd.readouterr().out
