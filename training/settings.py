"""What a training can be told: from Python, a YAML file or the command line."""

import inspect
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from cascade.ownership import check_not_input
from cascade.settings import at_least, check_fields, check_spacing, positive

log = logging.getLogger(__name__)

Optimizer = Literal["adamw", "radam", "adamw8bit", "adafactor"]
Schedule = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
Precision = Literal["no", "fp16", "bf16"]
Tracker = Literal[
    "auto", "none", "tensorboard", "wandb", "aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "trackio"
]  # fmt: skip
Prediction = Literal["epsilon", "sample", "v_prediction"]


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How the parameters of one update are moved; checked where it is made."""

    learning_rate: float = 2e-4
    lr_scheduler: Schedule = "cosine"
    lr_warmup_steps: int = 200
    weight_decay: float = 0.0
    optimizer: Optimizer = "adamw"
    """adamw, or radam (Liu et al., ICLR 2020); on small GPUs adamw8bit (a quarter of its memory, needs bitsandbytes) or
    adafactor (nearly none)."""
    max_grad_norm: float = 1.0
    use_ema: bool = True
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        check_fields(self)
        positive(self, "learning_rate", "max_grad_norm")
        at_least(self, lr_warmup_steps=0, weight_decay=0)
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, got {self.ema_decay}")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(OptimizerSettings):
    """What every training has in common; fields are named as in diffusers' own examples.

    >>> TrainingSettings(output_dir="model", max_train_steps=0)
    Traceback (most recent call last):
    ValueError: max_train_steps must be a whole number from 1, got 0
    """

    output_dir: str
    """Folder of the trained stage; checkpoints and logs go there too."""
    seed: int = 0
    max_train_steps: int = 10_000
    train_batch_size: int = 64
    gradient_accumulation_steps: int = 1
    mixed_precision: Precision = field(
        default_factory=lambda: cast(Precision, os.environ.get("ACCELERATE_MIXED_PRECISION", "no"))
    )
    """no, fp16 (on GPUs) or bf16; default what `accelerate launch` was told, no where it was not used."""
    checkpointing_steps: int = 500
    checkpoints_total_limit: int = 2
    resume_from_checkpoint: str | None = None
    """A checkpoint folder, of the last phase where there are several, or "latest"."""
    logging_steps: int = 10
    preview_steps: int = 500
    dataloader_num_workers: int = 0
    report_to: Tracker = "auto"
    """tensorboard, wandb, … or none; auto is tensorboard where that is installed."""
    push_to_hub: bool = False
    hub_model_id: str | None = None
    model_license: str = "other"
    """For the model card, as the Hub names licences: apache-2.0, cc-by-4.0, …"""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, max_train_steps=1, train_batch_size=1, gradient_accumulation_steps=1, checkpointing_steps=1)
        at_least(self, checkpoints_total_limit=1, logging_steps=1, preview_steps=1, seed=0, dataloader_num_workers=0)
        if not self.output_dir:
            raise ValueError("output_dir is missing: name the folder for the trained stage")


@dataclass(frozen=True, kw_only=True)
class PainterSettings(TrainingSettings):
    """What trainings on patches of whole images have in common."""

    sequences: tuple[str, ...] = ()
    """Which of a Cell Tracking Challenge folder's; default all."""
    spacing_um: tuple[float, ...] = ()
    """Voxel size y x or z y x; default as stored with the images."""
    licence: str = "not stated"
    """Of the images, and whom to cite."""
    base_model: str = ""
    """A trained model to go on from. Arguments of networks are then not looked at, nor is a noise schedule."""
    patch_size: tuple[int, ...] = (128, 128)
    """Pixels of the patches that are learnt, y x or z y x."""
    gamma: float = 0.5
    """Of the intensity window; at 0.5 dim cells are learnt like bright ones."""
    turns: bool = True
    """Also turn patches by quarters: not where light comes from one side."""
    unet: dict[str, Any] = field(default_factory=lambda: dict(block_out_channels=[32, 64, 128], stem=2))
    """Arguments of `PixelShuffleUNet`, which paints."""
    learning_rate: float = 1e-3
    optimizer: Optimizer = "radam"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spacing("spacing_um", self.spacing_um)
        check_levels(self, "unet")
        positive(self, "gamma")


Made = TypeVar("Made", bound=TrainingSettings)


def check_levels(settings: object, *names: str) -> None:
    """Raises ValueError for a network's arguments without the channels of its levels."""
    for name in names:
        if not getattr(settings, name).get("block_out_channels"):
            raise ValueError(f"{name} needs block_out_channels, one number of channels a level, as in the configs")


def check_arguments(name: str, given: Mapping[str, Any], kind: Callable[..., Any], *, own: Sequence[str] = ()) -> None:
    """Raises ValueError for arguments, given as the setting `name`, that `kind` does not know, or that are the
    training's `own`."""
    known = [one for one in inspect.signature(kind).parameters if one not in own]
    unknown = [one for one in given if one not in known]
    if unknown:
        raise ValueError(f"{name} has no {', '.join(map(str, unknown))}; it has {', '.join(known)}")


def as_base(settings: Made, **learnt: Any) -> Made:
    """The settings with what a base model has learnt by; tells of each that was another."""
    for name, value in learnt.items():
        if (given := getattr(settings, name)) != value:
            log.warning("%s of the base model is %s: that holds, not %s", name, value, given)
    return replace(settings, **learnt)


def check_folders(output_dir: str, data: Sequence[str] = (), base_model: str = "") -> None:
    """Raises ValueError unless the folder to write is another than those that are read, and no part of them."""
    for folder in data:
        check_not_input(Path(output_dir), Path(folder))
    if base_model and Path(output_dir).resolve() == Path(base_model).resolve():
        raise ValueError(f"output_dir {output_dir} is the base_model itself: name another for what is trained")


def process_number(name: str, default: int) -> int:
    """A number that a launcher sets in the environment: RANK or WORLD_SIZE; raises ValueError for anything else."""
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise ValueError(f"the environment variable {name} must be a number, got {value!r}: unset it, or let it be set")
    return int(value)
