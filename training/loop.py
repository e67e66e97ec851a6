"""The one training loop: accelerate, EMA, exact resume, checkpoints, trackers."""

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from tqdm.auto import tqdm

from cascade.rng import stream, torch_stream

log = logging.getLogger(__name__)

_STATE = "training_state.json"
_CONFIG = "training_config.json"
_FREE = {  # settings that may be others after a restart, and nothing learned is
    "output_dir", "data", "max_train_steps", "checkpointing_steps", "checkpoints_total_limit", "resume_from_checkpoint",
    "logging_steps", "preview_steps", "dataloader_num_workers", "report_to", "push_to_hub", "hub_model_id",
    "model_license", "num_validation_images", "num_inference_steps",
}  # fmt: skip


@dataclass
class TrainingSettings:
    """What every training has in common; flags are named as in diffusers' own examples."""

    output_dir: str
    """Folder of the trained stage; checkpoints and logs go there too."""
    seed: int = 0
    max_train_steps: int = 10_000
    train_batch_size: int = 64
    gradient_accumulation_steps: int = 1
    learning_rate: float = 2e-4
    lr_scheduler: str = "cosine"
    lr_warmup_steps: int = 200
    weight_decay: float = 0.0
    optimizer: str = "adamw"
    """adamw; on small GPUs adamw8bit (a quarter of its memory, needs bitsandbytes) or adafactor (nearly none)."""
    max_grad_norm: float = 1.0
    mixed_precision: str = "no"
    """no, fp16 or bf16."""
    use_ema: bool = True
    ema_decay: float = 0.999
    checkpointing_steps: int = 500
    checkpoints_total_limit: int = 2
    resume_from_checkpoint: str | None = None
    """A checkpoint folder, or "latest"."""
    logging_steps: int = 10
    preview_steps: int = 500
    dataloader_num_workers: int = 0
    report_to: str = "tensorboard"
    """tensorboard, wandb, … or none."""
    push_to_hub: bool = False
    hub_model_id: str | None = None
    model_license: str = "other"
    """For the model card, as the Hub names licences: apache-2.0, cc-by-4.0, …"""


@dataclass(frozen=True)
class Step:
    """What the loop yields after a step."""

    number: int  # finished optimiser steps
    loss: float  # mean at the last log
    preview: bool  # the caller should draw one now
    last: bool


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number; the last checkpoint is still good."""


def training_loop(
    module: torch.nn.Module, dataset, settings: TrainingSettings, accelerator: Accelerator
) -> Iterator[Step]:
    """Train `module`, whose forward(batch, generator) returns a scalar loss, and yield after every optimiser step.

    dataset: map-style, `dataset[list of indices]` gives a batch (a tensor or a dict of tensors).

    Randomness comes from streams named by seed and step: which samples a step sees and the `generator` it is given
    do not depend on what happened before, so N steps equal k steps, a restart and N − k steps, exactly. While the
    caller holds a step with `preview`, and after the last one, the module carries the averaged (EMA) weights.

    Raises TrainingDiverged for a loss that is not finite, naming the samples of its batch, before anything more is
    logged or saved.
    """
    device, output = accelerator.device, Path(settings.output_dir)
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = _optimizer(settings, parameters)
    scheduler = get_scheduler(
        settings.lr_scheduler,
        optimizer,
        num_warmup_steps=settings.lr_warmup_steps,
        num_training_steps=settings.max_train_steps,
    )
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    ema = None
    if settings.use_ema:
        ema = EMAModel(parameters, decay=settings.ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
        accelerator.register_for_checkpointing(ema)
    accelerator.register_for_checkpointing(scheduler)
    start = _resume(settings, accelerator, output)
    if ema is not None:
        ema.to(device)  # a checkpoint's averages are read to the CPU
    if accelerator.is_main_process:
        _cut_log(output, start)
    if start >= settings.max_train_steps:
        if ema is not None:
            ema.copy_to(parameters)
        yield Step(start, _last_loss(output), True, True)
        return

    batches = _Batches(len(dataset), settings, accelerator, start)
    loader = torch.utils.data.DataLoader(
        dataset,
        sampler=torch.utils.data.BatchSampler(batches, batches.size, drop_last=True),
        batch_size=None,
        num_workers=settings.dataloader_num_workers,
        pin_memory=device.type == "cuda",
    )
    bar = tqdm(
        total=settings.max_train_steps,
        initial=start,
        desc="training",
        unit="step",
        disable=not accelerator.is_main_process,
    )
    losses, mean, clock = [], float("nan"), time.perf_counter()
    micro_steps = settings.gradient_accumulation_steps
    micro = start * micro_steps
    for batch in loader:
        batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
        generator = torch_stream(settings.seed, "noise", micro, accelerator.process_index, device=device)
        with accelerator.accumulate(wrapped):
            loss = wrapped(batch, generator)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(parameters, settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        micro += 1
        losses.append(loss.detach())
        if micro % micro_steps:
            continue
        step = micro // micro_steps
        scheduler.step()
        if ema is not None:
            ema.step(parameters)
        bar.update()
        last = step == settings.max_train_steps
        log_now, checkpoint, preview = (
            last or step % every == 0
            for every in (settings.logging_steps, settings.checkpointing_steps, settings.preview_steps)
        )
        if log_now or checkpoint or preview:  # not at every step: to look at a loss is to wait for it
            _check_finite(losses, micro, micro_steps, batches, output)
        if log_now:
            mean = accelerator.gather(torch.stack(losses).mean()).mean().item()
            seconds = (time.perf_counter() - clock) * micro_steps / len(losses)
            losses.clear()
            clock = time.perf_counter()
            bar.set_postfix(loss=f"{mean:.4f}")
            _log(accelerator, output, step, mean, scheduler.get_last_lr()[0], seconds)
        if checkpoint:
            _checkpoint(accelerator, output, step, settings.checkpoints_total_limit)
        if ema is not None and preview:
            ema.store(parameters)
            ema.copy_to(parameters)
        yield Step(step, mean, preview, last)
        if ema is not None and preview and not last:
            ema.restore(parameters)
    bar.close()


def check_output(settings: TrainingSettings) -> None:
    """Raise FileExistsError for a folder that holds a training, finished or not, that is not to be gone on with."""
    output = Path(settings.output_dir)
    if settings.resume_from_checkpoint is None and (_checkpoints(output) or (output / "model_index.json").is_file()):
        raise FileExistsError(
            f"{output}: holds a training; --resume_from_checkpoint latest goes on with it, or name another --output_dir"
        )


def make_accelerator(settings: TrainingSettings) -> Accelerator:
    """The accelerator of a training, with its output folder, log and tracker; writes `training_config.json`.

    Raises ValueError where several processes were started that do not know of each other, and what `check_output` does.
    """
    check_output(settings)
    output = Path(settings.output_dir)
    tracker = None if settings.report_to == "none" else settings.report_to
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        log_with=tracker,
        project_config=ProjectConfiguration(str(output), str(output / "logs")),
    )
    if accelerator.num_processes < int(os.environ.get("WORLD_SIZE", 1)):
        raise ValueError(
            "several processes were started, but without GPUs each would train alone, into the same folder: start one, "
            "or set ACCELERATE_USE_CPU=true"
        )
    if accelerator.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
        _tell_changes(settings, output)
        (output / _CONFIG).write_text(json.dumps(asdict(settings), indent=1))
    if tracker:
        accelerator.init_trackers("cascade")
    return accelerator


def _tell_changes(settings: TrainingSettings, output: Path) -> None:
    """Warn of a restart with settings that are not those that its checkpoints were trained with."""
    if not _checkpoints(output) or not (output / _CONFIG).is_file():
        return
    before, now = json.loads((output / _CONFIG).read_text()), json.loads(json.dumps(asdict(settings)))
    for name in sorted(now.keys() - _FREE):
        if name in before and before[name] != now[name]:
            log.warning("going on with --%s %s, where it was %s", name, now[name], before[name])


def end_phase(accelerator: Accelerator) -> None:
    """Close the logs of a phase that another one follows: `end_training` would part the processes for good."""
    for tracker in accelerator.trackers:
        tracker.finish()


def _check_finite(losses: list[torch.Tensor], micro: int, micro_steps: int, batches: "_Batches", output: Path) -> None:
    """`losses` are those of the micro steps up to `micro`."""
    values = torch.stack(losses)
    if values.isfinite().all():
        return
    first = int(values.isfinite().int().argmin())
    at = micro - len(losses) + first
    raise TrainingDiverged(
        f"the loss is {values[first].item()} at step {at // micro_steps + 1}, on samples {batches.of(at).tolist()}: "
        f"look at them, or lower --learning_rate; the last checkpoint in {output} is good"
    )


def _optimizer(settings: TrainingSettings, parameters: list) -> torch.optim.Optimizer:
    common = dict(lr=settings.learning_rate, weight_decay=settings.weight_decay)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **common)
    if settings.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(parameters, **common, scale_parameter=False, relative_step=False)
    if settings.optimizer == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError as error:
            raise ValueError("--optimizer adamw8bit needs bitsandbytes and a GPU: pip install bitsandbytes") from error
        return AdamW8bit(parameters, **common)
    raise ValueError(f"--optimizer is adamw, adamw8bit or adafactor, not {settings.optimizer!r}")


class _Batches:
    """Sample indices: each epoch a permutation of its own stream, each process a part of every global batch."""

    def __init__(self, count: int, settings: TrainingSettings, accelerator: Accelerator, start: int):
        if count == 0:
            raise ValueError("the training set is empty: see what 'cascade prepare' left out and why")
        self.count, self.size, self.seed = count, settings.train_batch_size, settings.seed
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.first = start * settings.gradient_accumulation_steps
        self.stop = settings.max_train_steps * settings.gradient_accumulation_steps
        self.epoch, self.order = -1, np.empty(0, int)

    def of(self, micro_step: int) -> np.ndarray:
        """Indices of this process's batch at a micro step."""
        begin = (micro_step * self.world + self.rank) * self.size
        return np.array([self._at(i) for i in range(begin, begin + self.size)])

    def __iter__(self) -> Iterator[int]:
        for micro_step in range(self.first, self.stop):
            yield from self.of(micro_step).tolist()

    def __len__(self) -> int:
        return (self.stop - self.first) * self.size

    def _at(self, position: int) -> int:
        epoch, offset = divmod(position, self.count)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, stream(self.seed, "epoch", epoch).permutation(self.count)
        return int(self.order[offset])


def _log(accelerator: Accelerator, output: Path, step: int, loss: float, rate: float, seconds: float) -> None:
    record = {"loss": loss, "learning_rate": rate, "seconds_per_step": seconds}
    accelerator.log(record, step=step)
    if accelerator.is_main_process:
        with (output / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **record}) + "\n")


def _cut_log(output: Path, start: int) -> None:
    """Take out of the log what a training that was cut off had done beyond the checkpoint it goes on from."""
    log_file = output / "log.jsonl"
    if log_file.is_file():
        lines = log_file.read_text().splitlines(keepends=True)
        log_file.write_text("".join(line for line in lines if json.loads(line)["step"] <= start))


def _last_loss(output: Path) -> float:
    log_file = output / "log.jsonl"
    return json.loads(log_file.read_text().splitlines()[-1])["loss"] if log_file.is_file() else float("nan")


def _checkpoint(accelerator: Accelerator, output: Path, step: int, limit: int) -> None:
    """Save under a temporary name, rename, then drop the oldest: a full disk never costs the previous checkpoint."""
    final, partial = output / f"checkpoint-{step}", output / f"partial-checkpoint-{step}"
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()  # every process leaves its random state there
    if accelerator.is_main_process:
        (partial / _STATE).write_text(json.dumps({"step": step}))
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in _checkpoints(output)[:-limit]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def _checkpoints(output: Path) -> list[Path]:
    found = [p for p in output.glob("checkpoint-*") if (p / _STATE).is_file()]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def _resume(settings: TrainingSettings, accelerator: Accelerator, output: Path) -> int:
    """Load the checkpoint that was asked for; returns the number of finished steps."""
    if settings.resume_from_checkpoint is None:
        return 0
    if settings.resume_from_checkpoint == "latest":
        found = _checkpoints(output)
        if not found:
            log.warning("no checkpoint in %s: starting from the beginning", output)
            return 0
        folder = found[-1]
    else:
        folder = Path(settings.resume_from_checkpoint)
    if not (folder / _STATE).is_file():
        raise FileNotFoundError(
            f"{folder} is no checkpoint; --resume_from_checkpoint latest finds the newest in {output}"
        )
    accelerator.load_state(str(folder))
    step = json.loads((folder / _STATE).read_text())["step"]
    log.info("resuming from %s at step %d of %d", folder, step, settings.max_train_steps)
    return min(step, settings.max_train_steps)
