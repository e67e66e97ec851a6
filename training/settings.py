"""What a training can be told: from Python, a YAML file or the command line."""

import dataclasses
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

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


Made = TypeVar("Made", bound=TrainingSettings)


def parse(settings: type[Made], description: str | None, argv: list[str] | None = None) -> Made:
    """An instance of the dataclass `settings`, from `--config FILE.yaml` and flags named like its fields.

    description: of the script, whose first line the help shows.
    Flags win over the file; unknown keys and missing values end the program with one line that names them. Raises
    ValueError for values that cannot be trained with.
    """
    from jsonargparse import ArgumentParser

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "accelerate", "datasets", "diffusers"):
        logging.getLogger(name).setLevel(logging.WARNING)
    parser = ArgumentParser(description=(description or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with any of the settings below")
    lists = {f.name for f in dataclasses.fields(settings) if f.type == list[str]}
    parser.add_class_arguments(settings, skip=lists)
    for name in sorted(lists):  # --data A B, as well as a YAML list
        parser.add_argument(f"--{name}", nargs="+", type=str, required=True)
    parser.error = _told  # type: ignore[method-assign,assignment]
    switches = {f"--{f.name}" for f in dataclasses.fields(settings) if f.type is bool}
    values = parser.parse_args(_switched_on(sys.argv[1:] if argv is None else argv, switches)).as_dict()
    values.pop("config", None)
    return settings(**values)


def _told(message: str, error: Exception | None = None) -> NoReturn:
    """End with one line, where jsonargparse would write the usage."""
    sys.exit(f"{Path(sys.argv[0]).name}: {' '.join(message.split())}")


def _switched_on(argv: list[str], switches: set[str]) -> list[str]:
    """`--push_to_hub` alone means `--push_to_hub true`."""
    given = []
    for word, following in zip(argv, [*argv[1:], "--"], strict=True):
        given += [word, "true"] if word in switches and following.startswith("--") else [word]
    return given


def run(main: Callable[[list[str] | None], None], argv: list[str] | None = None) -> None:
    """Run a script's `main`; a mistake in the input ends the program with one line and code 1, Ctrl-C with 130."""
    from cascade.training.loop import TrainingDiverged

    name = main.__module__.split(".")[-1]
    try:
        main(argv)
    except (ValueError, OSError, ImportError, TrainingDiverged) as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt as stopped:
        print(f"{name}: {stopped if str(stopped) else 'stopped before the training began'}", file=sys.stderr)
        sys.exit(130)
