"""One run from configuration to record: data, network, training, evaluation, files."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch
from filelock import FileLock, Timeout

from repro import record as records
from repro import stopping, threads
from repro.config import Config, Normalization
from repro.data.batches import held_out_count
from repro.data.sources import Listing, class_count
from repro.data.store import ImageData, open_data
from repro.distributed import World, from_environment, init
from repro.environment import LoadMeter, capture_code, capture_machine, command_line
from repro.errors import Taken, UserError
from repro.experiments import naming
from repro.experiments.naming import PRECISION, leaves_precision_open
from repro.model import Network, build
from repro.model.layers import Conv1
from repro.model.summary import layer_table, total
from repro.record import Record
from repro.text import counted
from repro.train import checkpoint, memory
from repro.train.device import choose_device
from repro.train.evaluation import images_at_once, loss_of_guessing
from repro.train.loop import Progress, Training
from repro.train.numerics import fingerprint
from repro.train.out_of_memory import advised
from repro.train.precision import set_precision
from repro.weights import check, load_into, own
from repro.weights.own import STATISTICS, Origin

_Measured = tuple[records.Metrics, dict[str, Any] | None]
_NO_ERRORS = records.Errors(None, None)
_NOT_MEASURED: _Measured = (
    records.Metrics(_NO_ERRORS, _NO_ERRORS, records.TrainErrors(None, None, None), None),
    None,
)
REPLACES = "replaces"
"""In the checkpoint of a forced run, the record that it is to replace: by that it is told from one begun before."""
KERNEL = (11, 11)  # pixels, section 3.5
TRAIN_IMAGES_EVALUATED = 50_000
"""Training images, evenly spaced, on which the final training error is taken; as many as ILSVRC's validation set."""


@dataclass(frozen=True)
class Run:
    """A configuration, what it is filed under, and the command that asked for it."""

    config: Config
    label: str
    """Name of the ablation, from the difference against the plain recipe and setup."""
    difference: dict[str, Any]
    """Changed key -> (plain value, value here)."""
    plain: dict[str, Any]
    """The whole configuration as nested plain values."""
    config_hash: str
    """Of everything that makes the run the experiment that it is."""
    command: Sequence[str]
    init_from: Path | None = None
    """File of weights to start from, which the configuration knows by its fingerprint."""
    chosen: Sequence[str] = ()
    """Ablations asked for by name, `baseline` included."""

    @property
    def folder(self) -> Path:
        """The folder of the record."""
        return records.run_folder(*self._place)

    @property
    def raw(self) -> Path:
        """The folder of checkpoint and weights."""
        return records.raw_folder(*self._place)

    @property
    def _place(self) -> tuple[str, str, str, str, str]:
        config, device = self.config, choose_device(self.config.train.device, from_environment())
        automatic = PRECISION not in self.difference and leaves_precision_open(config.recipe, config.setup)
        leaf = records.leaf(config.seed, device.type, config.train.precision.name if automatic else None)
        return config.results_dir, config.setup, config.recipe, self.label, leaf


class Listener(Protocol):
    """A listener is told what a run does; a terminal is one."""

    def plan(self, run: Run) -> None:
        """Is told the run before anything heavy begins."""

    def images(self, config: Config, data: ImageData) -> None:
        """The images have been found."""

    def begin(self, training: Training) -> None:
        """Training begins, or goes on from a checkpoint."""

    def progress(self, step: Progress) -> None:
        """Some steps have been made."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch has ended; `row` is its line of the curve."""

    def evaluation(self, what: str, done: int, total: int) -> None:
        """So many of so many crops have been evaluated."""

    def evaluating(self) -> None:
        """Training has ended; the final errors are measured."""

    def warning(self, text: str) -> None:
        """Something that the user should know."""

    def skipped(self, record: Record, note: str = "") -> None:
        """The run was done already; `note` is about its weights."""

    def stopped(self, done: int, saved: int) -> None:
        """A signal ended the run after `done` epochs; the checkpoint has `saved` of them."""


class Mirror(Protocol):
    """A copy of a run elsewhere, such as on W&B; whatever it lacks costs a run nothing."""

    @property
    def run_id(self) -> str | None:
        """The name by which it knows the run; None where it has none."""

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        """Adds an epoch to its curves."""

    def finish(self, summary: Mapping[str, Any], files: Sequence[Path]) -> object:
        """Adds the final numbers and copies of these files."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


def run(wanted: Run, listener: Listener, mirror: Callable[[Run], Mirror]) -> Record | None:
    """Trains, evaluates and files one run; a finished one is returned as it is, unless `force`.

    `listener` is told what goes on; `mirror` opens another place that gets a copy of the run's curve and final numbers.

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
        _check_weights(wanted, listener, world)
        data = open_data(config.data, lambda listing: _check_listed(config, listing, device))
        if world.is_main:
            listener.images(config, data)
        _check_data(config, len(data.train.labels), len(data.classes))
        _check_size(config, len(data.classes), device)
        _check_shared(config, data, world)
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
    return state is not None and len(state["curve"]) == wanted.config.train.epochs


def _restore(wanted: Run, training: Training, finished: Record, listener: Listener) -> Record:
    """The weights of a complete run from its last checkpoint."""
    training.run()
    checkpoint.keep_weights(wanted.raw, training.network, _origin(wanted, training.data))
    checkpoint.delete(wanted.raw)
    listener.skipped(finished, ", and its weights are written now, from its last checkpoint")
    return finished


def _follow(training: Training, finished: Record | None) -> None:
    """The part of a process that files nothing."""
    training.run()
    if finished is not None:
        return
    if not training.diverged:
        _measure(training)


def _check_shared(config: Config, data: ImageData, world: World) -> None:
    if world.size > 1 and config.model.norm.kind is Normalization.batch_norm:
        raise UserError("batch normalisation is over the images of one process: run it without torchrun")
    held = held_out_count(config, len(data.train.labels))
    fewest = min(config.train.batch_size, len(data.val.labels), held or len(data.val.labels))
    if fewest < world.size:
        raise UserError(f"{world.size} processes cannot share {fewest} images: start {fewest} or fewer")


@contextmanager
def only_one(wanted: Run) -> Iterator[None]:
    """Keeps a second process off the same run. Taken in the second one, UserError where the folder cannot be made."""
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


def _train(wanted: Run, training: Training, listener: Listener, mirror: Callable[[Run], Mirror]) -> Record:
    """Trains from the last checkpoint on, and files the record."""
    meter = LoadMeter()
    with mirror(wanted) as copy:
        listener.begin(training)
        for row in training.curve:
            copy.log_epoch(row)
        training.on_epoch = _both(listener.epoch, copy.log_epoch)
        draft = _draft(wanted, training, copy.run_id)
        records.to_json(draft)  # what would fail at the end fails here
        try:
            training.run()
            listener.evaluating()
            status = records.DIVERGED if training.diverged else records.COMPLETE
            metrics, correct = _NOT_MEASURED if training.diverged else _measure(training)
        except KeyboardInterrupt:
            with stopping.held():
                if not _standing(wanted):  # under `force` there may be a finished record
                    _file(wanted, training, _completed(draft, records.STOPPED, training, meter))
                listener.stopped(len(training.curve), training.saved)
            raise
        with stopping.held():
            done = _completed(draft, status, training, meter, metrics)
            _file(wanted, training, done, correct)
        copy.finish(_summary(done), [wanted.folder / "record.json"])
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
    if records.config_hash(naming.recorded_settings(record.config)) != wanted.config_hash:
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


def _check_weights(wanted: Run, listener: Listener, world: World) -> None:
    """Raises UserError where the file of weights does not fit the network, before any image is packed."""
    if wanted.init_from is None:
        return
    data = wanted.config.data
    left_out = check(wanted.init_from, wanted.config, lambda: class_count(data), new_classes=True)
    if left_out and world.is_main:
        listener.warning(left_out)


def _check_listed(config: Config, listing: Listing, device: torch.device) -> None:
    """Raises UserError where packing would be in vain: a network that cannot be built, too few images."""
    _check_data(config, len(listing.train.names), len(listing.classes))
    _check_size(config, len(listing.classes), device)


def _check_size(config: Config, classes: int, device: torch.device) -> None:
    """UserError where the parameters, their gradients and their velocities, 4 bytes each, cannot all be in memory."""
    parameters = total(layer_table(config, classes))["parameters"]
    needed, there = 3 * 4 * parameters, memory.size_of(device)
    if needed > there:
        place = "the GPU" if device.type == "cuda" else "this machine"
        numbers = f"{needed / 2**30:,.0f} GiB, and {place} has {there / 2**30:,.0f}"
        raise UserError(
            f"{parameters:,} parameters, their gradients and velocities take {numbers}: make model.scale,"
            " model.width or model.sizes smaller"
        )


def _check_data(config: Config, images: int, found: int) -> None:
    """UserError where so many training images of so many classes do not fit the configuration."""
    batch = config.train.batch_size
    if images < batch:
        few = counted(images, "training image")
        raise UserError(f"{few}, fewer than a batch of {batch}: set train.batch_size={images} or less")
    left = images - held_out_count(config, images)
    if left < batch:
        share = f"data.minival={config.data.minival:g} leaves {counted(left, 'training image')}"
        raise UserError(f"{share}, fewer than a batch of {batch}: set one of the two lower")
    expected = config.data.classes
    if expected is not None and expected != found:
        raise UserError(f"data.classes={expected}, but the training folder has {counted(found, 'class', 'classes')}")


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


def _both(*listeners: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def on_epoch(row: dict[str, Any]) -> None:
        for listener in listeners:
            listener(row)

    return on_epoch


def _file(wanted: Run, training: Training, record: Record, correct: dict[str, Any] | None = None) -> None:
    """Files the record of a run; before it, one that has ended leaves its weights, and no checkpoint after it."""
    kernels = _kernels(training.network) if record.status == records.COMPLETE else None
    ended = record.status != records.STOPPED
    if ended:
        checkpoint.keep_weights(wanted.raw, training.network, _origin(wanted, training.data))
    records.write(wanted.folder, record, training.curve, correct, kernels)
    if ended:
        checkpoint.delete(wanted.raw)


def _kernels(network: Network) -> np.ndarray | None:
    """conv1's weights, (maps, 3, 11, 11), as figure 3 shows them; None where they have another size."""
    conv1 = network.weight_layers()["conv1"]
    if not isinstance(conv1, Conv1) or conv1.kernel_size != KERNEL:
        return None
    return conv1.weight.detach().cpu().numpy()


def _origin(wanted: Run, data: ImageData) -> Origin:
    """Collects what using the weights needs beside them."""
    config = wanted.config
    return Origin(
        record=str(wanted.folder.relative_to(Path(config.results_dir, "runs"))),
        config={"recipe": config.recipe, "setup": config.setup, "seed": config.seed, **naming.settings(config)},
        classes=data.classes,
        statistics={name: getattr(data, name) for name in STATISTICS},
    )


def _measure(training: Training) -> _Measured:
    """Measures both crop modes on the validation set, and the centre crops of the training set."""
    val = training.data.val
    with advised(training.config, images_at_once(training.config.train)):
        centre = training.evaluate("centre crops", val)
        ten = training.evaluate("ten crops", val, ten_crops=True)
        train = training.evaluate("training images", training.train_split, at_most=TRAIN_IMAGES_EVALUATED)
    metrics = records.Metrics(
        records.Errors(centre.top1, centre.top5),
        records.Errors(ten.top1, ten.top5),
        records.TrainErrors(train.top1, train.top5, train.loss),
        centre.loss,
        centre.answers,
    )
    return metrics, {records.CENTRE: centre.correct, records.TEN_CROPS: ten.correct}


def _cost(config: Config, training: Training, meter: LoadMeter) -> records.Cost:
    sums = total(layer_table(config, len(training.data.classes)))
    minutes, step = (training.curve[-1]["minutes"], training.curve[-1]["step"]) if training.curve else (0.0, 0)
    epochs, steps = divmod(step, training.steps)  # a run that diverged ended within its last epoch
    images = epochs * len(training.train_split.labels) + steps * config.train.batch_size
    load = meter.read(training.world.size)
    return records.Cost(
        minutes=minutes,
        images_per_second=images / minutes / 60 if minutes else None,
        peak_memory_mib=memory.peak_mib(training.device),
        parameters=sums["parameters"],
        macs=sums["macs"],
        load_start=load.start,
        load_end=load.end,
        steal=load.steal,
        others=load.others,
    )


def _draft(wanted: Run, training: Training, wandb_id: str | None) -> Record:
    """The record as it is known before the training, of the code that trains; see `_completed`."""
    config, data = wanted.config, training.data
    return Record(
        setup=config.setup,
        recipe=config.recipe,
        ablation=wanted.label,
        seed=config.seed,
        status=records.STOPPED,
        difference={key: list(pair) for key, pair in wanted.difference.items()},
        config=wanted.plain,
        config_hash=wanted.config_hash,
        data=records.Data(
            source=config.data.source.value,
            content_hash=data.content_hash,
            classes=len(data.classes),
            train_images=len(training.train_split.labels),
            val_images=len(data.val.labels),
            skipped=list(data.skipped),
            **vars(data.counts),
            guessing_loss=loss_of_guessing(training.train_split.labels, data.val.labels, len(data.classes)),
        ),
        metrics=_NOT_MEASURED[0],
        cost=_cost(config, training, LoadMeter()),
        machine=capture_machine(str(training.device), training.world.size),
        code=capture_code(),
        command=command_line(wanted.command),
        wandb_id=wandb_id,
        finished="",
        numerics=training.identity["numerics"] or None,
        chosen=list(wanted.chosen) or None,
        threads_before=training.threads_before or None,
        branched_from=training.branched_from,
        folder=wanted.folder,
    )


def _completed(
    draft: Record, status: str, training: Training, meter: LoadMeter, metrics: records.Metrics = _NOT_MEASURED[0]
) -> Record:
    return replace(
        draft,
        status=status,
        metrics=metrics,
        cost=_cost(training.config, training, meter),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _summary(record: Record) -> dict[str, Any]:
    """The final numbers as W&B shows them."""
    metrics = record.metrics
    return {
        "centre_top1": metrics.centre.top1,
        "centre_top5": metrics.centre.top5,
        "ten_crops_top1": metrics.ten_crops.top1,
        "ten_crops_top5": metrics.ten_crops.top5,
        "train_top1": metrics.train.top1,
        "status": record.status,
        "minutes": record.cost.minutes,
    }
