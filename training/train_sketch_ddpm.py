"""Train a DDPM on raw images, without annotations, that paints sketches of whole scenes.

accelerate launch training/train_sketch_ddpm.py --config configs/sketch_ddpm_nuclei2d.yaml --data IMAGES --output_dir M
"""

if __name__ == "__main__":  # Ctrl-C during the imports below ends in one line, too
    from cascade.entry import end_in_one_line

    end_in_one_line()

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DDPMScheduler
from scipy import ndimage

from cascade.data.images import images_spacing
from cascade.data.patches import PatchDataset
from cascade.data.seen import look_at
from cascade.data.sketches import LOOKED_AT, fit_sketch
from cascade.data.structure import FIND, shown_structure
from cascade.diffusion.encoders import PatchEncoder
from cascade.diffusion.losses import DenoisingLoss
from cascade.diffusion.networks import Scenes
from cascade.diffusion.pixel_shuffle_unet import PixelShuffleUNet
from cascade.evenly import evenly
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.reading import DataError, read_channels
from cascade.sketch.channels import record_of
from cascade.sketch.draw import sketch_of_image
from cascade.sketch.settings import SketchSettings, Structure
from cascade.training.finish import draw_preview, origins, save_stage
from cascade.training.loop import training_loop
from cascade.training.script import parse, run
from cascade.training.settings import PainterSettings, Prediction, as_base, check_arguments, check_folders
from cascade.training.start import claimed, make_accelerator
from cascade.training.update import Update

_SCHEDULES = {"cosine": "squaredcos_cap_v2", "linear": "linear", "quadratic": "scaled_linear", "sigmoid": "sigmoid"}
_SHOWN, _SHOWN_AT = 8, (200, 400, 600)  # images of a preview, and t_start of what is painted
_SMOOTH_PX = 3.0
_PAINTING = ("t_start", "sigma", "num_inference_steps", "solver", "guidance_um")  # tuned, and a base model's is kept
_OWN = ("dimensions", "in_channels", "out_channels", "timed")  # arguments of the network that follow from the images
Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Settings(PainterSettings):
    """Settings of the DDPM from sketches."""

    data: tuple[str, ...] = ()
    """A folder of raw images, planes or stacks, or files."""
    channels: int = 1
    """Of the images, each of which is painted."""
    cell_channel: int = 1
    """Number of the one of them, from 1, that cells are looked for in."""
    channel: str | None = None
    """Learn this one of them alone: its name, or its number from 1."""
    time_as_depth: bool = False
    """Learn the planes of a sequence as one volume, time along z."""
    sketch: Literal["raw", "gt", "st", "none"] = "raw"
    """What sketches are fitted to: the raw images alone, their gold or silver truth or masks, or nothing."""
    noise_schedule: Literal["cosine", "linear", "quadratic", "sigmoid"] = "cosine"
    prediction_type: Prediction = "epsilon"
    train_batch_size: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_folders(self.output_dir, self.data, self.base_model)
        check_arguments("unet", self.unet, PixelShuffleUNet, own=_OWN)
        if self.channel is not None and self.channels > 1:
            raise ValueError("channel is one alone, and goes without `channels`")
        if not 1 <= self.cell_channel <= self.channels:
            raise ValueError(f"cell_channel must be a number from 1 to {self.channels}, got {self.cell_channel}")
        if self.sketch in ("gt", "st") and len(self.data) > 1:
            raise ValueError("sketch gt or st needs one folder as `data`, whose labels lie in it")


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    settings = parse(Settings, __doc__, argv)
    with claimed(settings):
        base = SketchPipeline.from_pretrained(settings.base_model) if settings.base_model else None
        source = settings.data[0] if len(settings.data) == 1 else settings.data
        patches = PatchDataset(
            source,
            settings.patch_size,
            sequences=settings.sequences,
            channels=settings.channels,
            channel=settings.channel,
            time_as_depth=settings.time_as_depth,
            gamma=settings.gamma,
            seed=settings.seed,
        )
        _train(settings, patches, base)


def _train(settings: Settings, patches: PatchDataset, base: SketchPipeline | None) -> None:
    accelerator = make_accelerator(settings)
    if base:
        learnt = base.scheduler.config
        schedules = {of_diffusers: name for name, of_diffusers in _SCHEDULES.items()}
        schedule = schedules.get(learnt.beta_schedule, settings.noise_schedule)
        settings = as_base(settings, noise_schedule=schedule, prediction_type=learnt.prediction_type)
    pipeline, examples = _pipeline(settings, patches, base)
    unet, scheduler = pipeline.unet, pipeline.scheduler
    loss = DenoisingLoss(Scenes(unet), PatchEncoder(turns=settings.turns), scheduler)
    fixed = ("prediction_type", "noise_schedule", "turns")
    update = Update(loss=loss, identity={name: getattr(settings, name) for name in fixed})
    for step in training_loop([update], patches, settings, accelerator):
        if step.preview and accelerator.is_main_process:
            pipeline.to(accelerator.device)
            draw_preview(_preview(pipeline, examples), settings, step, columns=len(_SHOWN_AT) + 2)
    if accelerator.is_main_process:
        title, base_model = "Scenes painted from sketches (DDPM)", settings.base_model or None
        data = origins(settings.data, settings.licence)
        save_stage(pipeline.to("cpu"), settings, step, title=title, data=data, base_model=base_model)
    accelerator.end_training()


def _pipeline(
    settings: Settings, patches: PatchDataset, base: SketchPipeline | None
) -> tuple[SketchPipeline, list[tuple[Array, Array]]]:
    """The pipeline that is trained, and some sketches in camera units, each with the real image that it is of."""
    axes, source = len(settings.patch_size), Path(settings.data[0])
    spacing = images_spacing(source, patches.paths, axes, settings.spacing_um or None)
    sketch, examples = _sketches(settings, patches, spacing)
    torch.manual_seed(settings.seed)
    own = dict(dimensions=axes, in_channels=settings.channels, out_channels=settings.channels)
    schedule = _SCHEDULES[settings.noise_schedule]
    painting = {name: base.config[name] for name in _PAINTING} if base else {}
    pipeline = SketchPipeline(
        base.unet if base else PixelShuffleUNet(**own, **settings.unet),
        base.scheduler if base else DDPMScheduler(beta_schedule=schedule, prediction_type=settings.prediction_type),
        spacing_um=list(spacing),
        windows=[asdict(window) for window in patches.windows],
        dtype=str(patches.images[0].dtype),
        sketch=None if sketch is None else record_of(sketch, settings.cell_channel),
        **painting,
    )
    return pipeline, examples


def _sketches(
    settings: Settings, patches: PatchDataset, spacing: tuple[float, ...]
) -> tuple[list[SketchSettings] | None, list[tuple[Array, Array]]]:
    """How the sketch of each channel is drawn, and some of parts of the images; without it, parts smoothed until little
    else is left."""
    images, own = _some(patches.images), settings.cell_channel - 1
    if settings.sketch == "none":
        parts = [_middle(one, patches.patch_size) for one in images]
        return None, [(np.stack([ndimage.gaussian_filter(c, _SMOOTH_PX) for c in part]), part) for part in parts]
    if settings.sketch != "raw":
        images, labels, found = _of_labels(settings, spacing)
    elif settings.time_as_depth:  # cells are looked for in each frame: what moves from one to the next is no solid
        depth, spacing = patches.patch_size[0], spacing[1:]
        volumes = [image[:, (image.shape[1] - depth) // 2 :][:, :depth] for image in images]
        images = [frame for volume in volumes for frame in np.moveaxis(volume, 1, 0)]
        labels, found = _of_cells(settings, images, spacing, shown_structure([one[own] for one in volumes]))
    else:
        labels, found = _of_cells(settings, images, spacing, shown_structure([one[own] for one in images]))
    sketches = [
        np.stack([sketch_of_image(one, c, own, spacing_um=spacing) for c, own in zip(image, found, strict=True)])
        for one, image in zip(labels, images, strict=True)
    ]
    if settings.time_as_depth and settings.sketch == "raw":
        sketches, images = (_in_volumes(several, depth) for several in (sketches, images))
    pairs = zip(sketches, images, strict=True)
    return found, [(_middle(a, patches.patch_size), _middle(b, patches.patch_size)) for a, b in pairs]


def _of_cells(
    settings: Settings, images: list[Array], spacing: tuple[float, ...], structure: Structure
) -> tuple[list[Array], list[SketchSettings]]:
    """Cells that are found in one channel of images (C, …), where they look so, and how they are drawn in each."""
    own = settings.cell_channel - 1
    labels = [FIND[structure](image[own], spacing) for image in images]
    return labels, _in_each(settings, images, labels, spacing, structure)


def _of_labels(settings: Settings, spacing: tuple[float, ...]) -> tuple[list[Array], list[Array], list[SketchSettings]]:
    """Some labelled images (C, …), their labels, and how cells are drawn in each channel."""
    how: dict[str, Any] = dict(truth=settings.sketch, sequences=settings.sequences, spacing_um=spacing)
    if settings.channels == 1:
        seen = look_at(settings.data[0], channel=settings.channel, most=_SHOWN, whole=False, **how)
        found = [fit_sketch(settings.data[0], channel=settings.channel, **how)]
        return [image[None] for image in seen.images() or ()], seen.labels, found
    seen = look_at(settings.data[0], channel=str(settings.cell_channel), most=LOOKED_AT, whole=False, **how)
    images = [read_channels(path, settings.channels) for path in seen.paths or ()]
    return images[:_SHOWN], seen.labels[:_SHOWN], _in_each(settings, images, seen.labels, spacing, seen.structure)


def _in_each(
    settings: Settings,
    images: Sequence[Array],
    labels: Sequence[Array],
    spacing: tuple[float, ...],
    structure: Structure | None,
) -> list[SketchSettings]:
    """How cells are drawn in each channel. structure: that of the one that shows them, the others' is looked at."""
    found = []
    for n in range(settings.channels):
        own = structure if n == settings.cell_channel - 1 else None
        try:
            found.append(fit_sketch([image[n] for image in images], labels, spacing_um=spacing, structure=own))
        except DataError as error:
            if settings.channels == 1:
                raise
            why = f"channel {n + 1}: {error}; or look for cells in another `cell_channel`, or give `sketch` none"
            raise DataError(why) from error
    return found


def _in_volumes(frames: list[Array], depth: int) -> list[Array]:
    """Frames (C, Y, X), so many of which are a volume (C, T, Y, X)."""
    return [np.stack(frames[start : start + depth], 1) for start in range(0, len(frames), depth)]


def _some(images: Sequence[Array]) -> list[Array]:
    return [images[n] for n in evenly(len(images), _SHOWN)]


def _middle(image: Array, size: Sequence[int]) -> Array:
    """The middle part of (C, …), float32."""
    part = tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(image.shape[1:], size, strict=True))
    return image[(slice(None), *part)].astype(np.float32)


def _preview(pipeline: SketchPipeline, examples: list[tuple[Array, Array]]) -> Array:
    """Rows of a sketch, what is painted of it from several times, and the real image, each channel in one of its own:
    (N, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    sketches = [sketch for sketch, _ in examples]
    painted = [pipeline(sketches=sketches, t_start=t, generator=generator).images for t in _SHOWN_AT]
    rows = [[sketch, *(images[n] for images in painted), real] for n, (sketch, real) in enumerate(examples)]
    shown = [(w, one[c]) for row in rows for c, w in enumerate(pipeline.windows) for one in row]
    return np.stack([w.stretch(one if one.ndim == 2 else one[len(one) // 2]) for w, one in shown])


if __name__ == "__main__":
    run(main)
