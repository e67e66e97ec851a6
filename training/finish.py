"""What a training leaves: the stage, its card, its previews."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import DiffusionPipeline

from cascade.export.preview import image_grid
from cascade.hub import folders as hub
from cascade.hub.cards import Origin, write_card
from cascade.optics.statistics import Statistics
from cascade.training.loop import Step
from cascade.training.settings import TrainingSettings


def draw_preview(images: np.ndarray[Any, Any], settings: TrainingSettings, step: Step, *, columns: int = 16) -> None:
    """A step's sheet of pictures (N, H, W) in [0, 1]."""
    image_grid(images, preview_of(settings, step), columns)


def preview_of(settings: TrainingSettings, step: Step) -> Path:
    """Where a step's sheet lies."""
    return Path(settings.output_dir) / f"preview_{step.number:06d}.png"


def save_stage(
    pipeline: DiffusionPipeline,
    settings: TrainingSettings,
    step: Step,
    *,
    title: str,
    data: Sequence[Statistics | Origin],
    base_model: str | None = None,
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Save a trained stage with its card, and upload it where that was asked for; one process only.

    step: the last one, whose sheet the card shows. data: statistics of the crops, or the origin of images. metrics: of
    the samples drawn last. Raises OSError where it was saved and cannot be uploaded.
    """
    output = Path(settings.output_dir)
    pipeline.save_pretrained(output)
    for name in pipeline.components:
        hub.forget_paths(output / name)  # or a training that was resumed leaves other bytes than one that was not
    write_card(
        output,
        title,
        type(pipeline).__name__,
        data,
        asdict(settings),
        step.loss,
        base_model,
        preview_of(settings, step),
        dict(metrics) if metrics else None,
    )
    if settings.push_to_hub:
        with uploading(output):
            hub.push(pipeline, settings.hub_model_id or output.resolve().name, cards=output)


@contextmanager
def uploading(output: Path) -> Iterator[None]:
    """Raises OSError, which says how to upload what lies in `output`, for whatever goes wrong with the Hub."""
    try:
        yield
    except Exception as error:  # of the network, the token, the name: each library has its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise OSError(
            f"{output}: the model is saved here, but not uploaded ({reason}); the same command with "
            "--resume_from_checkpoint latest uploads it"
        ) from error


def origins(data: Sequence[str], licence: str) -> list[Origin]:
    """Of folders of images, and of files by the folders that they lie in."""
    folders = [source if source.is_dir() else source.parent for source in map(Path, data)]
    return [Origin(name, licence) for name in dict.fromkeys(folder.resolve().name for folder in folders)]
