"""One run from configuration to record: data, network, training, evaluation, files."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout

from repro import record as records
from repro import stopping, threads
from repro.data.store import ImageData, open_data
from repro.distributed import World, from_environment, init
from repro.environment import LoadMeter
from repro.errors import Taken, UserError
from repro.filing import NOT_MEASURED, completed, draft_of, file, measure, origin_of, summary_of, worst_classes
from repro.listening import Listener, Mirror
from repro.model import build
from repro.record import Record
from repro.request import Run
from repro.run_checks import check_data, check_listed, check_shared, check_size, check_weights
from repro.train import checkpoint, memory
from repro.train.device import choose_device
from repro.train.loop import Training
from repro.train.numerics import fingerprint
from repro.train.precision import set_precision
from repro.weights import load_into, own

T = TypeVar("T")

REPLACES = "replaces"
"""In the checkpoint of a forced run, the record that it is to replace: by that it is told from one begun before."""


def run(wanted: Run, listener: Listener, mirror: Callable[[Run, bool], Mirror]) -> Record | None:
    """Trains, evaluates and files one run; a finished one is returned as it is, unless `force`.

    `listener` is told what goes on; `mirror` opens another place that gets a copy of the run's curve and final numbers,
    anew or, where the run goes on from a checkpoint, as it was.

    Of the processes that share a run, as torchrun starts them, the first files and tells; the others return None.
    Raises UserError or RunFailure, each with one line. On KeyboardInterrupt, once training has begun, a record with
    status `stopped` is filed.
    """
    config, world = wanted.config, from_environment()
    device = choose_device(config.train.device, world)
    if config.train.cuda_graph and (device.type != "cuda" or world.size > 1):
        raise UserError("train.cuda_graph=true is for one process and a CUDA device: leave it out")
    init(world, device)
    with ExitStack() as held, stopping.raised():
        finished = world.broadcast(lambda: _begin(wanted, held))
        if finished is not None and not world.broadcast(lambda: _weights_are_in_checkpoint(wanted, finished)):
            if world.is_main:
                listener.skipped(finished, "" if _has_weights(wanted) else ", but without whole weights")
            return finished if world.is_main else None
        if world.is_main:
            listener.plan(wanted)
        check_weights(wanted, listener, world)
        data = open_data(config.data, lambda listing: check_listed(config, listing, device))
        if world.is_main:
            listener.images(config, data)
        check_data(config, len(data.train.labels), len(data.classes))
        check_size(config, len(data.classes), device)
        check_shared(config, data, world)
        training = _training(wanted, data, device, listener, world)
        if not world.is_main:
            _follow(training, finished)
            return None
        if finished is not None:
            return _restore(wanted, training, finished, listener)
        return _train(wanted, training, listener, mirror)


def _begin(wanted: Run, held: ExitStack) -> Record | None:
    """Takes the run's place; the finished record, where there is one."""
    records.prepare_results(wanted.config.results_dir)
    records.prepare(wanted.folder)
    held.enter_context(only_one(wanted))
    for leftover in wanted.raw.glob("numerics-*"):  # of a process that was killed meanwhile
        shutil.rmtree(leftover, ignore_errors=True)
    with suppress(OSError):  # it can be read as it lies, and filing another one tells what is wrong
        records.settle(wanted.folder)
    finished = _finished(wanted)
    if finished is not None and _has_weights(wanted) and _left_over(wanted):
        checkpoint.delete(wanted.raw)
    return finished


def _has_weights(wanted: Run) -> bool:
    return own.is_whole(wanted.raw / checkpoint.WEIGHTS)


def _weights_are_in_checkpoint(wanted: Run, finished: Record) -> bool:
    """Tells whether a complete run lacks its weights, and the checkpoint of its last epoch is still there."""
    if finished.status != records.COMPLETE or _has_weights(wanted):
        return False
    state = _left_over(wanted)
    return state is not None and len(state["curve"]) == len(finished.curve())


def _restore(wanted: Run, training: Training, finished: Record, listener: Listener) -> Record:
    """The weights of a complete run from its last checkpoint."""
    training.run()
    checkpoint.keep_weights(wanted.raw, training.network, origin_of(wanted, training.data))
    checkpoint.delete(wanted.raw)
    listener.skipped(finished, ", and its weights are written now, from its last checkpoint")
    return finished


def _follow(training: Training, finished: Record | None) -> None:
    """The part of a process that files nothing."""
    training.run()
    if finished is not None:
        return
    if not training.diverged:
        measure(training)


@contextmanager
def only_one(wanted: Run) -> Iterator[None]:
    """Keeps a second process off the same run: it gets Taken. Raises UserError where the folder cannot be made."""
    lock = FileLock(wanted.raw / "run.lock", blocking=False)
    try:
        wanted.raw.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise Taken(f"{wanted.folder}: another process is making this run: wait for it, or end it") from error
    except OSError as error:
        raise UserError(f"{wanted.raw}: cannot be written ({error.strerror}): choose another results_dir") from error
    try:
        yield
    finally:
        lock.release()


def _train(wanted: Run, training: Training, listener: Listener, mirror: Callable[[Run, bool], Mirror]) -> Record:
    """Trains from the last checkpoint on, and files the record."""
    meter = LoadMeter()
    with mirror(wanted, bool(training.curve)) as copy:
        listener.begin(training)
        for row in training.curve if not copy.goes_on else ():
            copy.log_epoch(row)
        training.on_epoch = _both(listener.epoch, copy.log_epoch)
        training.on_progress = _both(listener.progress, copy.log_progress)
        draft = draft_of(wanted, training, copy.run_id)
        records.to_json(draft)  # what would fail at the end fails here
        try:
            training.run()
            listener.evaluating()
            status = records.DIVERGED if training.diverged else records.COMPLETE
            metrics, correct = NOT_MEASURED if training.diverged else measure(training)
        except KeyboardInterrupt:
            with stopping.held():
                if not _standing(wanted):  # under `force` there may be a finished record
                    file(wanted, training, completed(draft, records.STOPPED, training, meter))
                listener.stopped(len(training.curve), training.saved)
            raise
        with stopping.held():
            done = completed(draft, status, training, meter, metrics)
            file(wanted, training, done, correct)
        files = [path for name in records.FILES if (path := wanted.folder / name).is_file()]
        copy.finish(summary_of(done), files, worst_classes(training.data, correct))
    return done


def _ended(folder: Path) -> Record | None:
    """The record there, if its run was not stopped half-way."""
    record = records.read(folder) if records.exists(folder) else None
    return None if record is None or record.status == records.STOPPED else record


def _finished(wanted: Run) -> Record | None:
    """The record of the same run, if it ended. UserError where it is another run's, or damaged."""
    record = None if wanted.config.force and not _has_replaced(wanted) else _ended(wanted.folder)
    if record is None:
        return None
    where = f"{wanted.folder}: there is a record"
    if not wanted.is_of(record):
        raise UserError(f"{where} of an older configuration: force=true replaces it, results_dir=... keeps both")
    record.verify()
    return replace(record, chosen=list(wanted.chosen) or None)  # as it is asked for now


def _standing(wanted: Run) -> str:
    """Names the record that a forced run would replace; empty where none has ended."""
    try:
        ended = _ended(wanted.folder) is not None
    except UserError:  # damaged: it may have been whole
        ended = True
    return records.digest(wanted.folder) if ended else ""


def _has_replaced(wanted: Run) -> bool:
    """Tells whether a forced run was killed after it filed its record, before it removed its checkpoint."""
    state = _own_checkpoint(wanted) if _has_weights(wanted) else None
    return state is not None and REPLACES in state and _standing(wanted) not in ("", state[REPLACES])


def _left_over(wanted: Run) -> dict[str, Any] | None:
    """The checkpoint of the run whose record stands; None where it is of a forced run that is to replace it."""
    state = _own_checkpoint(wanted)
    return None if state is None or state.get(REPLACES) == _standing(wanted) else state


def _own_checkpoint(wanted: Run) -> dict[str, Any] | None:
    """Reads the checkpoint, if that can be done and it is of this configuration."""
    try:
        checkpoint.settle(wanted.raw, lambda text: None)
        return checkpoint.load(wanted.raw, {"config": wanted.config_hash})
    except UserError:
        return None


def _training(wanted: Run, data: ImageData, device: torch.device, listener: Listener, world: World) -> Training:
    """Everything seeded and in place, after the last checkpoint if there is one."""
    config = wanted.config
    set_precision(config.train.precision, config.train.cudnn_benchmark)
    numerics = world.broadcast(lambda: fingerprint(config.train, device, wanted.raw))
    if numerics is None and world.is_main:
        listener.warning("this device does not give the same bits twice: only runs of one commit compare with this one")
    torch.manual_seed(config.seed)
    threads.take()
    memory.keep_freed(device)
    memory.reset_peak(device)
    identity = {"config": wanted.config_hash, "data": data.content_hash, "device": device.type}
    identity["numerics"] = numerics or ""
    if config.force:
        identity[REPLACES] = world.broadcast(lambda: _standing(wanted))
    network = build(config, len(data.classes))
    if wanted.init_from is not None:
        load_into(wanted.init_from, network, new_classes=True)
    training = Training(config, network, data, device, wanted.raw, identity, world=world)
    if world.is_main:
        training.on_progress, training.on_warning = listener.progress, listener.warning
        training.on_evaluation = listener.evaluation
    training.resume()
    return training


def _both(*listeners: Callable[[T], None]) -> Callable[[T], None]:
    def told(what: T) -> None:
        for listener in listeners:
            listener(what)

    return told
