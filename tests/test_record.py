import errno
import json
import os
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repro import record
from repro.environment import capture_machine
from repro.errors import RunFailure, UserError
from tests.interrupting import Kill, interrupt
from tests.synthetic import answers, file_record, make_curve, make_record


def names_under(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path: Path) -> None:
    run = make_record("no_lrn", seed=3, error=28.6)
    folder = file_record(tmp_path, run)
    again = record.read(folder)
    assert folder == tmp_path / "runs/imagenette_small/paper/no_lrn/seed3"
    assert again == run
    assert again.folder == folder
    assert again.curve() == make_curve()
    bits, expected = again.correct(), answers(run)
    assert expected is not None
    assert bits.keys() == {"centre", "ten_crops"}
    for mode in bits:
        np.testing.assert_array_equal(bits[mode], expected[mode])


def test_json_has_the_documented_keys(tmp_path: Path) -> None:
    plain = json.loads((file_record(tmp_path, make_record()) / "record.json").read_text())
    assert plain.keys() == set(record.Record.__dataclass_fields__) - {"folder"}
    assert plain["metrics"]["ten_crops"].keys() == {"top1", "top5"}
    assert plain["machine"].keys() >= {"device", "device_type", "driver", "torch", "cuda", "python", "threads"}


def test_diverged_record_has_nulls_and_no_bits(tmp_path: Path) -> None:
    curve = [{**make_curve(1)[0], "train_loss": float("nan"), "val_loss": None, "events": "diverged"}]
    folder = tmp_path / "seed0"
    record.write(folder, make_record(error=None), curve, None)
    again = record.read(folder)
    assert again.metrics.centre.top1 is None
    assert again.correct() == {}
    assert again.curve()[0]["train_loss"] is None
    assert again.curve()[0]["events"] == "diverged"


def test_not_finite_is_null(tmp_path: Path) -> None:
    run = make_record(config={"a": float("inf"), "b": [float("nan"), np.float32(0.5)]})
    assert record.read(file_record(tmp_path, run)).config == {"a": None, "b": [None, 0.5]}


def test_no_host_user_or_absolute_path(tmp_path: Path) -> None:
    secret = "/home/somebody/data"
    run = make_record(
        config={"data": {"root": secret}, "results_dir": f"{secret}/results"}, machine=capture_machine("cpu")
    )
    text = (file_record(tmp_path, run) / "record.json").read_text()
    assert "somebody" not in text
    assert platform.node() not in text
    assert '"root": "data"' in text


def test_config_hash_ignores_order_only() -> None:
    first, second = {"a": 1, "b": {"c": 0.1, "d": [1, 2]}}, {"b": {"d": [1, 2], "c": 0.1}, "a": 1}
    assert record.config_hash(first) == record.config_hash(second)
    assert record.config_hash(first) != record.config_hash({**first, "a": 2})
    assert record.config_hash({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


def test_prepare_results_makes_the_folder_and_leaves_nothing(tmp_path: Path) -> None:
    record.prepare_results(tmp_path / "a" / "b")
    assert names_under(tmp_path / "a" / "b") == []


def test_prepare_results_on_a_file(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    for folder in (tmp_path / "results", tmp_path / "results" / "below"):
        with pytest.raises(UserError, match=r"results_dir=.*choose another folder"):
            record.prepare_results(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_prepare_results_read_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        record.prepare_results(tmp_path)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (errno.EROFS, UserError, "Read-only file system.*choose another folder"),
        (errno.EACCES, UserError, "Permission denied.*choose another folder"),
        (errno.ENOSPC, RunFailure, "disk is full: free some space"),
    ],
)
def test_prepare_results_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception], words: str
) -> None:
    interrupt(monkeypatch, os, "fsync", 1, OSError(code, os.strerror(code)))
    with pytest.raises(kind, match=words) as caught:
        record.prepare_results(tmp_path)
    assert "\n" not in str(caught.value)
    assert names_under(tmp_path) == []


@pytest.mark.parametrize(("step", "call"), [("write_file", 1), ("write_file", 3), ("sync_folder", 1)])
def test_disk_full_keeps_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, call: int) -> None:
    folder = file_record(tmp_path, make_record(error=25.0))
    interrupt(monkeypatch, record, step, call, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(RunFailure, match=r"No space left on device.*make room"):
        file_record(tmp_path, make_record(error=30.0))
    assert record.read(folder).metrics.ten_crops.top1 == 25.0
    assert names_under(folder.parent) == ["seed0"]


CRASHES = [("write_file", call) for call in (1, 2, 3)] + [
    ("sync_folder", 1),
    ("rename", 1),
    ("rename", 2),
    ("sync_folder", 2),
]


@pytest.mark.parametrize(("step", "call"), CRASHES)
@pytest.mark.parametrize("older", [True, False])
def test_kill_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, call: int, older: bool) -> None:
    folder = record.run_folder(tmp_path, "imagenette_small", "paper", "baseline", "seed0")
    if older:
        file_record(tmp_path, make_record(error=25.0))
    elif (step, call) == ("rename", 2):
        pytest.skip("there is one rename where nothing has to move aside")
    with monkeypatch.context() as patch:
        interrupt(patch, Path if step == "rename" else record, step, call, Kill())
        with pytest.raises(Kill):
            file_record(tmp_path, make_record(error=30.0))
    found = record.find(tmp_path)
    assert len(found) == (1 if older or (step, call) == ("sync_folder", 2) else 0)
    assert record.exists(folder) == bool(found)
    for run in found:
        assert run.metrics.ten_crops.top1 in (25.0, 30.0)
        expected = answers(run)
        assert expected is not None
        np.testing.assert_array_equal(run.correct()["centre"], expected["centre"])
    file_record(tmp_path, make_record(error=35.0))
    assert record.read(folder).metrics.ten_crops.top1 == 35.0
    assert names_under(folder.parent) == ["seed0"]


def test_two_kills_in_a_row_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = file_record(tmp_path, make_record(error=25.0))
    for owner, name, call, error in ((Path, "rename", 2, 30.0), (record, "write_file", 1, 35.0)):
        with monkeypatch.context() as patch:
            interrupt(patch, owner, name, call, Kill())
            with pytest.raises(Kill):
                file_record(tmp_path, make_record(error=error))
    assert record.read(folder).metrics.ten_crops.top1 == 30.0


def edit(folder: Path, **changed: Any) -> None:
    path = folder / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"schema": 99}, "schema 99, this version reads 1"),
        ({"seed": "0"}, "seed is '0'"),
        ({"seed": True}, "seed is True"),
        ({"status": "fine"}, "status 'fine'"),
        ({"surprise": 1}, "wrong or missing keys: surprise"),
        ({"code": {"commit": None, "dirty": None}}, "wrong or missing keys: version"),
        ({"machine": None}, "wrong or missing keys"),
        ({"metrics": {"centre": {"top1": 101.0, "top5": 1.0}}}, "wrong or missing keys"),
        ({"status": "complete", "wandb_id": 3}, "wandb_id is 3"),
        ({"difference": {"model.norm.kind": []}}, r"difference\.model\.norm\.kind is \[\]"),
        ({"config": {"train": None}}, r"config\.train is None"),
        ({"data": asdict(make_record().data) | {"classes": 0}}, r"data\.classes is 0"),
    ],
)
def test_damaged_record_is_named(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    folder = file_record(tmp_path, make_record())
    edit(folder, **changed)
    with pytest.raises(UserError, match=words) as caught:
        record.find(tmp_path)
    assert str(folder / "record.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_record_from_before_processes_were_counted_is_of_one(tmp_path: Path) -> None:
    folder = file_record(tmp_path, make_record())
    machine = json.loads((folder / "record.json").read_text())["machine"]
    assert machine.pop("processes") == 1
    edit(folder, machine=machine)
    assert record.read(folder) == make_record()


def test_an_older_record_of_few_classes_has_no_top5_error(tmp_path: Path) -> None:
    run = make_record()
    folder = file_record(tmp_path, replace(run, data=replace(run.data, classes=5)))
    metrics = json.loads((folder / "record.json").read_text())["metrics"]
    for errors in (metrics["centre"], metrics["ten_crops"], metrics["train"]):
        errors["top5"] = 0.0
    edit(folder, metrics=metrics)
    found = record.read(folder)
    assert found.metrics.centre == record.Errors(27.0, None)
    assert found.metrics.train.top5 is None
    assert {row["val_top5"] for row in found.curve()} == {None}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', "\udcff"])
def test_broken_json_is_named(tmp_path: Path, content: str) -> None:
    folder = file_record(tmp_path, make_record())
    (folder / "record.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"record\.json: not a readable record"):
        record.read(folder)


@pytest.mark.parametrize("value", [None, -1.0, 100.5])
def test_complete_run_needs_errors_between_0_and_100(tmp_path: Path, value: float | None) -> None:
    metrics = record.Metrics(
        record.Errors(value, 1.0), record.Errors(1.0, 1.0), record.TrainErrors(None, None, None), None
    )
    with pytest.raises(ValueError, match=r"metrics\.centre of a complete run"):
        record.write(tmp_path / "seed0", make_record(metrics=metrics), [], None)
    assert names_under(tmp_path) == []


@pytest.mark.parametrize("name", ["curve.csv", "correct.npz"])
@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_damaged_curve_and_bits_are_named(tmp_path: Path, name: str, damage: str) -> None:
    folder = file_record(tmp_path, make_record())
    path = folder / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9] if damage == "cut" else b"a,b\n1,2\n")
    run = record.read(folder)
    with pytest.raises(UserError, match=f"{name}: not a readable record"):
        run.curve() if name == "curve.csv" else run.correct()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda bits: {mode: ~right for mode, right in bits.items()}, "% wrong in centre, where record.json says"),
        (lambda bits: {mode: right[:-1] for mode, right in bits.items()}, "399 answers to 400 images"),
        (lambda bits: {mode: np.append(right, True) for mode, right in bits.items()}, "401 answers to 400 images"),
    ],
)
def test_bits_of_another_run_are_told(tmp_path: Path, change: Any, words: str) -> None:
    run = make_record()
    folder = file_record(tmp_path, run)
    record.write(folder, run, make_curve(), change(answers(run)))
    with pytest.raises(UserError, match=rf"correct\.npz: not a readable record \(.*{words}"):
        record.read(folder).correct()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (make_curve(2), "2 epochs of a run of 3"),
        ([make_curve()[number] for number in (0, 2, 1)], "its epochs are not 1, 2, 3"),
        ([*make_curve(2), make_curve()[2] | {"val_top1": 60.0}], "a last val_top1 of 60.0"),
        ([*make_curve(2), make_curve()[2] | {"val_top1": None}], "a last val_top1 of None"),
    ],
)
def test_a_curve_of_another_run_is_told(tmp_path: Path, rows: list[dict[str, Any]], words: str) -> None:
    run = make_record(error=10.0, epochs=3)
    folder = file_record(tmp_path, run)
    right = [*make_curve(2), make_curve()[2] | {"val_top1": 12.0}]
    record.write(folder, run, right, answers(run))
    record.read(folder).verify()
    record.write(folder, run, rows, answers(run))
    with pytest.raises(UserError, match=rf"curve\.csv: not a readable record \(.*{words}"):
        record.read(folder).verify()


def test_crop_modes_must_agree_in_length(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="differ in their number of images"):
        record.write(tmp_path / "seed0", make_record(), [], {"centre": np.ones(3), "ten_crops": np.ones(4)})


def test_find_sorts_by_number_of_the_seed(tmp_path: Path) -> None:
    for ablation, seed in (("no_lrn", 0), ("baseline", 10), ("baseline", 2)):
        file_record(tmp_path, make_record(ablation, seed))
    (tmp_path / "runs" / "imagenette_small" / "paper" / "baseline" / "seed3").mkdir()
    assert [(run.ablation, run.seed) for run in record.find(tmp_path)] == [
        ("baseline", 2),
        ("baseline", 10),
        ("no_lrn", 0),
    ]
    assert record.find(tmp_path / "nothing") == []


def test_record_under_another_name_is_refused(tmp_path: Path) -> None:
    folder = file_record(tmp_path, make_record("no_lrn"))
    folder.rename(folder.with_name("seed1"))
    with pytest.raises(UserError, match=r"seed1: holds the record of .*ablation=no_lrn seed=0"):
        record.find(tmp_path)


def test_runs_on_other_devices_and_in_other_automatic_precisions_lie_side_by_side(tmp_path: Path) -> None:
    leaves = {("cpu", "fp32", None): "seed0", ("cpu", "bf16", "bf16"): "seed0", ("cpu", "fp32", "fp32"): "seed0-fp32",
              ("cuda", "bf16", "bf16"): "seed0-cuda", ("cuda", "fp32", "fp32"): "seed0-cuda-fp32"}  # fmt: skip
    for (device, precision, automatic), name in leaves.items():
        assert record.leaf(0, device, automatic) == name
        run = make_record(device_type=device, keys={"train.precision": precision})
        record.write(
            record.run_folder(tmp_path, run.setup, run.recipe, "baseline", name), run, make_curve(), answers(run)
        )
    found = record.find(tmp_path)
    assert [run.folder.name for run in found] == sorted(set(leaves.values()))
    assert [run.precision for run in found] == ["bf16", "bf16", "fp32", "fp32"]


@pytest.mark.parametrize("name", ["seed1", "seed0-cuda", "seed0-bf16", "seed0-tf32"])
def test_a_record_in_the_wrong_leaf_is_told(name: str, tmp_path: Path) -> None:
    run = make_record()
    record.write(record.run_folder(tmp_path, run.setup, run.recipe, "baseline", name), run, make_curve(), answers(run))
    with pytest.raises(UserError, match=r"holds the record of .* seed=0 on cpu in fp32: move it"):
        record.find(tmp_path)


def test_records_of_before_numerics_and_load_are_read(tmp_path: Path) -> None:
    folder = file_record(tmp_path, make_record(numerics="cafe"))
    assert record.read(folder).numerics == "cafe"
    path = folder / "record.json"
    plain = json.loads(path.read_text())
    del plain["numerics"]
    for key in ("load_start", "load_end", "steal", "others"):
        del plain["cost"][key]
    path.write_text(json.dumps(plain))
    old = record.read(folder)
    assert (old.numerics, old.cost.load_start, old.cost.others) == (None, None, None)


def test_kernels_come_back_in_half_precision(tmp_path: Path) -> None:
    run = make_record()
    folder = file_record(tmp_path, run)
    assert record.read(folder).kernels() is None
    kernels = np.linspace(-1, 1, 4 * 3 * 11 * 11, dtype=np.float32).reshape(4, 3, 11, 11)
    record.write(folder, run, make_curve(), answers(run), kernels)
    kept = record.read(folder).kernels()
    assert kept is not None
    assert kept.dtype == np.float16
    np.testing.assert_allclose(kept, kernels, atol=5e-4)  # half a step of float16 just below 1
    (folder / "kernels.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"kernels\.npz: not a readable record"):
        record.read(folder).kernels()


def test_a_kill_leaves_no_trace_of_the_trial_that_a_folder_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, there = os.fsync, []
    monkeypatch.setattr(os, "fsync", lambda handle: (there.append(names_under(tmp_path)), fsync(handle))[1])
    record.prepare_results(tmp_path)
    assert there == [[]]


@pytest.mark.parametrize("name", ["seed0", ".seed0.new", ".seed0.old"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_in_the_way_of_a_record_is_told_before_the_run(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.touch() if kind == "file" else path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is no folder, and in the way of the record: move it") as refused:
        record.prepare(tmp_path / "seed0")
    assert str(refused.value).startswith(f"{path}: ")


def test_what_a_user_has_laid_beside_a_record_stays_when_it_is_replaced(tmp_path: Path) -> None:
    folder = file_record(tmp_path, make_record())
    (folder / "notes.txt").write_text("mine")
    (folder / "more").mkdir()
    (folder / "more" / "x").touch()
    assert file_record(tmp_path, make_record(error=24.0)) == folder
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "more" / "x").exists()
    assert record.read(folder).metrics.ten_crops.top1 == 24.0
