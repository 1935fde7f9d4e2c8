"""What a run files: its measurements, its record, and its weights."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from repro import record as records
from repro.config import Config
from repro.data.store import ImageData
from repro.environment import LoadMeter, capture_code, capture_machine, command_line
from repro.experiments import naming
from repro.model import Network
from repro.model.layers import Conv1
from repro.model.summary import layer_table, total
from repro.record import Record
from repro.request import Run
from repro.train import checkpoint, memory
from repro.train.evaluation import images_at_once, loss_of_guessing
from repro.train.loop import Training
from repro.train.out_of_memory import advised
from repro.weights.own import STATISTICS, Origin

Measured = tuple[records.Metrics, dict[str, Any] | None]
_NO_ERRORS = records.Errors(None, None)
NOT_MEASURED: Measured = (
    records.Metrics(_NO_ERRORS, _NO_ERRORS, records.TrainErrors(None, None, None), None),
    None,
)
KERNEL = (11, 11)  # pixels, section 3.5
WORST = 20
"""Classes, of those with the largest error, that a mirror of the run is told."""
TRAIN_IMAGES_EVALUATED = 50_000
"""Training images, evenly spaced, on which the final training error is taken; as many as ILSVRC's validation set."""


def file(wanted: Run, training: Training, record: Record, correct: dict[str, Any] | None = None) -> None:
    """Files the record of a run; before it, one that has ended leaves its weights, and no checkpoint after it."""
    kernels = kernels_of(training.network) if record.status == records.COMPLETE else None
    ended = record.status != records.STOPPED
    if ended:
        checkpoint.keep_weights(wanted.raw, training.network, origin_of(wanted, training.data))
    records.write(wanted.folder, record, training.curve, correct, kernels)
    if ended:
        checkpoint.delete(wanted.raw)


def kernels_of(network: Network) -> np.ndarray | None:
    """conv1's weights, (maps, 3, 11, 11), as figure 3 shows them; None where they have another size."""
    conv1 = network.weight_layers()["conv1"]
    if not isinstance(conv1, Conv1) or conv1.kernel_size != KERNEL:
        return None
    return conv1.weight.detach().cpu().numpy()


def origin_of(wanted: Run, data: ImageData) -> Origin:
    """Collects what using the weights needs beside them."""
    config = wanted.config
    return Origin(
        record=str(wanted.folder.relative_to(Path(config.results_dir, "runs"))),
        config={"recipe": config.recipe, "setup": config.setup, "seed": config.seed, **naming.settings(config)},
        classes=data.classes,
        statistics={name: getattr(data, name) for name in STATISTICS},
    )


def measure(training: Training) -> Measured:
    """Measures both crop modes on the validation set, and the centre crops of the training set."""
    val = training.data.val
    with advised(training.config, images_at_once(training.config.train)):
        centre = training.evaluate("centre crops", val)
        ten = training.evaluate("ten crops", val, ten_crops=True)
        train = training.evaluate("training images", training.train_split, at_most=TRAIN_IMAGES_EVALUATED)
        held_out = training.evaluate("minival", training.minival) if training.minival is not None else None
    metrics = records.Metrics(
        records.Errors(centre.top1, centre.top5),
        records.Errors(ten.top1, ten.top5),
        records.TrainErrors(train.top1, train.top5, train.loss),
        centre.loss,
        centre.answers,
        records.TrainErrors(held_out.top1, held_out.top5, held_out.loss) if held_out is not None else None,
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


def draft_of(wanted: Run, training: Training, wandb_id: str | None) -> Record:
    """The record as it is known before the training, of the code that trains; see `completed`."""
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
        metrics=NOT_MEASURED[0],
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


def completed(
    draft: Record, status: str, training: Training, meter: LoadMeter, metrics: records.Metrics = NOT_MEASURED[0]
) -> Record:
    """Returns the draft with how the run ended, what was measured and what it cost."""
    return replace(
        draft,
        status=status,
        metrics=metrics,
        cost=_cost(training.config, training, meter),
        epochs_to_train_error=training.error_stop.reached,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def worst_classes(data: ImageData, correct: dict[str, Any] | None) -> list[tuple[str, int, float]]:
    """The classes with the largest error on their validation images, centre crop: name, images, error in %."""
    if correct is None:
        return []
    labels, right = np.asarray(data.val.labels), np.asarray(correct[records.CENTRE])
    classes = [(data.classes[label], right[labels == label]) for label in np.unique(labels)]
    found = [(name, len(own), float(100 * (1 - own.mean()))) for name, own in classes]
    return sorted(found, key=lambda one: (-one[2], one[0]))[:WORST]


def summary_of(record: Record) -> dict[str, Any]:
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
