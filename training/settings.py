"""What a training can be told: from Python, a YAML file or the command line."""

import os
from dataclasses import dataclass

from cascade.training import checks

OPTIMIZERS = ("adamw", "adamw8bit", "adafactor")
SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial")
TRACKERS = ("none", "tensorboard", "wandb", "aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "trackio")


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How the parameters of one update are moved; checked where it is made."""

    learning_rate: float = 2e-4
    lr_scheduler: str = "cosine"
    lr_warmup_steps: int = 200
    weight_decay: float = 0.0
    optimizer: str = "adamw"
    """adamw; on small GPUs adamw8bit (a quarter of its memory, needs bitsandbytes) or adafactor (nearly none)."""
    max_grad_norm: float = 1.0
    use_ema: bool = True
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        checks.positive(self, "learning_rate", "max_grad_norm")
        checks.at_least(0, self, "lr_warmup_steps", "weight_decay")
        checks.one_of(SCHEDULES, self, "lr_scheduler")
        checks.one_of(OPTIMIZERS, self, "optimizer")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, got {self.ema_decay}")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(OptimizerSettings):
    """What every training has in common; fields are named as in diffusers' own examples.

    >>> TrainingSettings(output_dir="model", max_train_steps=0)
    Traceback (most recent call last):
    ValueError: max_train_steps must be at least 1, got 0
    """

    output_dir: str
    """Folder of the trained stage; checkpoints and logs go there too."""
    seed: int = 0
    max_train_steps: int = 10_000
    train_batch_size: int = 64
    gradient_accumulation_steps: int = 1
    mixed_precision: str = "no"
    """no, fp16 or bf16."""
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

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("max_train_steps", "train_batch_size", "gradient_accumulation_steps", "checkpointing_steps")
        checks.at_least(1, self, *counts, "checkpoints_total_limit", "logging_steps", "preview_steps")
        checks.at_least(0, self, "seed", "dataloader_num_workers")
        checks.one_of(("no", "fp16", "bf16"), self, "mixed_precision")
        checks.one_of(TRACKERS, self, "report_to")
        if not self.output_dir:
            raise ValueError("output_dir is missing: name the folder for the trained stage")


def process_number(name: str, default: int) -> int:
    """A number that a launcher sets in the environment: RANK or WORLD_SIZE; raises ValueError for anything else."""
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise ValueError(f"the environment variable {name} must be a number, got {value!r}: unset it, or let it be set")
    return int(value)
