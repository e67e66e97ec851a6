"""The one training loop: steps of one or more updates, resumed exactly."""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from cascade.files import replacing
from cascade.training.batches import BatchOrder, TrainingData, batches_of
from cascade.training.checkpoints import (
    CheckpointError,
    Stateful,
    check_same,
    check_shapes,
    checkpoint_to_resume,
    load_checkpoint,
    read_record,
    remove_partial,
    save_checkpoint,
)
from cascade.training.log import add_to_log, cut_log, last_loss
from cascade.training.optimizers import learning_rate_schedule
from cascade.training.settings import TrainingSettings
from cascade.training.update import Running, Update, hold_still, start_updates

log = logging.getLogger(__name__)

_CONFIG = "training_config.json"
_SAME = ("seed", "train_batch_size", "gradient_accumulation_steps", "optimizer", "use_ema")  # or no resuming is exact
_FREE = {  # settings that may be others after a restart, and nothing learned is
    "output_dir", "data", "max_train_steps", "checkpointing_steps", "checkpoints_total_limit", "resume_from_checkpoint",
    "logging_steps", "preview_steps", "dataloader_num_workers", "report_to", "push_to_hub", "hub_model_id",
    "model_license", "licence", "num_validation_images", "num_inference_steps", *_SAME,
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """What the loop yields after a step."""

    number: int  # finished steps
    loss: float  # of the first update, the mean at the last log
    preview: bool  # the caller should draw one now
    last: bool


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number; the last checkpoint is still good."""


def training_loop(
    updates: Sequence[Update],
    dataset: TrainingData,
    settings: TrainingSettings,
    accelerator: Accelerator,
    *,
    state: Mapping[str, Stateful] | None = None,
) -> Iterator[Step]:
    """Carry out the updates in their order, step after step, and yield after every step.

    updates: all of a step see the same batches. dataset: map-style, `dataset[list of indices]` gives a batch. state:
    what else is checkpointed, by name, such as the strength of an augmentation that adapts; it is put away before a
    step is yielded, and has to be the same in all processes.

    Randomness comes from streams named by seed and step: which samples a step sees and the `generator` a loss is given
    do not depend on what happened before, so N steps equal k steps, a restart and N − k steps, exactly. While the
    caller holds a step with `preview`, and after the last one, the networks carry the averaged (EMA) weights.

    Raises TrainingDiverged for a loss that is not finite, naming the samples of its batch, before anything more is
    logged or saved; CheckpointError for a checkpoint that is damaged, or of another training than this one.
    """
    output = Path(settings.output_dir)
    running = start_updates(updates, settings, accelerator)
    everything = [p for update in running for p in update.parameters]
    parts = {name: part for update in running for name, part in update.parts().items()} | dict(state or {})
    record: dict[str, Any] = {
        "settings": json.loads(json.dumps(asdict(settings))),
        "identity": _identity(updates, dataset, settings, accelerator),
        "scaler": {} if accelerator.scaler is None else accelerator.scaler.state_dict(),
    }
    start = _resume(settings, accelerator, running, record, parts)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        remove_partial(output)
        cut_log(output, start)
        with replacing(output / _CONFIG) as partial:
            partial.write_text(json.dumps(asdict(settings), indent=1), encoding="utf-8")
    if start == settings.max_train_steps:
        for update in running:
            update.averaged(keep=False)
        yield Step(start, last_loss(output), True, True)
        return

    order = BatchOrder(len(dataset), settings, accelerator, start)
    steps, main = range(start + 1, settings.max_train_steps + 1), accelerator.is_main_process
    bar = tqdm(total=steps[-1], initial=start, desc="training", unit="step", disable=None if main else True)
    logged, clock = start, time.perf_counter()
    for number, batches in zip(steps, batches_of(dataset, order, settings, accelerator), strict=True):
        for update in running:
            if number % update.every == 0:
                if len(running) > 1:
                    hold_still(everything, but=update.parameters)
                update.step(number - 1, batches)
        bar.update()
        last = number == steps[-1]
        log_now, checkpoint, preview = (
            last or number % every == 0
            for every in (settings.logging_steps, settings.checkpointing_steps, settings.preview_steps)
        )
        if log_now or checkpoint or preview:  # not at every step: to look at a loss is to wait for it
            for update in running:
                _check_finite(update, settings, order)
        if log_now:
            seconds = (time.perf_counter() - clock) / (number - logged)
            logged, clock = number, time.perf_counter()
            values = _logged(running, number) | {"seconds_per_step": seconds}
            bar.set_postfix(loss=f"{values['loss']:.4f}")
            accelerator.log(values, step=number)
            if main:
                add_to_log(output, number, values)
        if checkpoint:
            if main:
                if accelerator.scaler is not None:
                    record["scaler"] = accelerator.scaler.state_dict()
                save_checkpoint(output, record, parts, step=number, limit=settings.checkpoints_total_limit)
            accelerator.wait_for_everyone()
        for update in running if preview else []:
            update.averaged(keep=not last)
        yield Step(number, running[0].mean, preview, last)
        for update in running if preview and not last else []:
            update.trained()
    hold_still([], but=everything)
    bar.close()


def _identity(
    updates: Sequence[Update], dataset: TrainingData, settings: TrainingSettings, accelerator: Accelerator
) -> dict[str, str | float]:
    """What must be the same where a checkpoint is gone on with, beside the networks' shapes."""
    identity: dict[str, str | float] = {"data": dataset.fingerprint, "samples": len(dataset)}
    identity["processes"] = accelerator.num_processes
    identity |= {name: getattr(settings, name) for name in _SAME}
    for update in updates:
        identity |= update.identity
    return identity


def _resume(
    settings: TrainingSettings,
    accelerator: Accelerator,
    running: Sequence[Running],
    now: Mapping[str, Any],
    parts: Mapping[str, Stateful],
) -> int:
    """Load the checkpoint that was asked for; returns the number of finished steps."""
    output = Path(settings.output_dir)
    wanted = settings.resume_from_checkpoint
    folder = checkpoint_to_resume(output, wanted) if wanted else None
    if folder is None:
        if wanted:
            log.warning("no checkpoint in %s: starting from the beginning", output)
        for update in running:
            if update.average is not None:
                update.average.to(accelerator.device)
        return 0
    before = read_record(folder)
    check_same(folder, before["identity"], now["identity"])
    for update in running:
        check_shapes(folder, update.name, update.network)
    step = int(before["step"])
    if step > settings.max_train_steps:
        raise CheckpointError(
            f"{folder}: has {step} steps, and max_train_steps is {settings.max_train_steps}: ask for more, or resume "
            "an older one"
        )
    _look_at_changes(folder, before["settings"], now["settings"], finished=step == settings.max_train_steps)
    load_checkpoint(folder, before, parts)
    if accelerator.scaler is not None and before["scaler"]:
        accelerator.scaler.load_state_dict(before["scaler"])
    for update in running:
        if update.average is not None:
            update.average.to(accelerator.device)  # a checkpoint's averages are read to the CPU
            update.average.decay = update.decay  # the checkpoint's comes with them
    _tell_rates(running, step, int(before["settings"]["max_train_steps"]), settings.max_train_steps)
    log.info("resuming from %s at step %d of %d", folder, step, settings.max_train_steps)
    return step


def _look_at_changes(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any], *, finished: bool) -> None:
    """Warn of a restart with settings that are not those that its checkpoint was trained with.

    Raises CheckpointError where nothing is left to train with them: cards and configs would tell of them all the same.
    """
    for name in sorted(now.keys() - _FREE):
        if name not in before or _same(before[name], now[name]):
            continue
        if finished:
            raise CheckpointError(
                f"{folder}: is finished, and was trained with {name} {before[name]}, now it is {now[name]}: give the "
                "same, or more max_train_steps"
            )
        log.warning("going on with --%s %s, where it was %s", name, now[name], before[name])


def _same(before: Any, now: Any) -> bool:
    """Whether a setting is as it was; a folder may be called otherwise."""
    paths = isinstance(before, str) and isinstance(now, str)
    return bool(before == now) or (paths and os.path.realpath(before) == os.path.realpath(now))


def _tell_rates(running: Sequence[Running], step: int, before: int, now: int) -> None:
    """Warn where learning rates jump, as those of another number of steps do."""
    for update in running:
        was, rate = learning_rate_schedule(update.how, before)(step), update.rate(step)
        if before != now and abs(rate - was) > 0.01 * update.how.learning_rate:
            log.warning(
                "going on with --max_train_steps %d, where it was %d: the learning rate of %s, which %s sets by it, is "
                "%.3g now, and was to be %.3g", now, before, update.name, update.how.lr_scheduler, rate, was,
            )  # fmt: skip


def _check_finite(update: Running, settings: TrainingSettings, order: BatchOrder) -> None:
    """Raise TrainingDiverged if one of the losses since the last log is not finite."""
    if not update.losses:
        return
    values = torch.stack([loss for _, loss in update.losses])
    if values.isfinite().all():
        return
    first = int(values.isfinite().int().argmin())
    micro = update.losses[first][0]
    raise TrainingDiverged(
        f"the loss is {values[first].item()} at step {micro // settings.gradient_accumulation_steps + 1}, on samples "
        f"{order.of(micro)}: look at them, or lower --learning_rate; the last checkpoint in {settings.output_dir} is "
        "good"
    )


def _logged(running: Sequence[Running], number: int) -> dict[str, float]:
    """Losses and rates: the first update's as they are, those of others with its name."""
    values: dict[str, float] = {}
    for update in running:
        suffix = f"_{update.name}" if values else ""
        values |= {f"{key}{suffix}": value for key, value in update.logged(number).items()}
    return values
