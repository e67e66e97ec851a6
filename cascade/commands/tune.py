"""`cascade tune`: from which time, and how smooth, a model paints sketches of real images best."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers.utils.logging import disable_progress_bar

from cascade.commands.paint import kind_of
from cascade.data.frames import Frame, find_frames
from cascade.data.images import find_images
from cascade.data.spacing import frame_spacing, spacing_of
from cascade.data.structure import FIND
from cascade.entry import UsageError
from cascade.evaluation.settings import TuneSettings
from cascade.evaluation.sources import Source
from cascade.evaluation.sweep_report import tables, write_report
from cascade.evaluation.sweeps import SketchedImage, Tried, recommended, sweep
from cascade.evenly import evenly
from cascade.files import exclusive, replacing
from cascade.generation.load import check_device, fast_dtype
from cascade.geometry.masks import one_piece
from cascade.geometry.slices import matched_slices
from cascade.hub import folders as hub
from cascade.hub.embedded import NAMES
from cascade.memory import keep_freed
from cascade.optics.window import Window
from cascade.ownership import check_not_input, check_outside
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.reading import DataError, read_channels, read_image
from cascade.shapes.membranes import membranes
from cascade.sketch.draw import sketch_of_image

Array = npt.NDArray[Any]

_Seen = tuple[list[Array], Array | None, tuple[float, ...]]
"""The channels of an image, its labels if it has some, and its voxel size."""

_PART = {2: (384, 384), 3: (24, 128, 128)}  # pixels of an image that are painted: minutes for all pairs


def tune(settings: TuneSettings) -> Tried:
    """Sweep, report, and with `save` keep; the pair that is recommended.

    Raises ValueError, in one line, for a model that paints no sketches or is not to be written to, times beyond its
    schedule, and images that it cannot be tried on.
    """
    folder = hub.model_folder(settings.model)
    if kind_of(settings.model) != "sketch":
        raise UsageError(f"--model {settings.model} is no DDPM from sketches: give one of cascade train sketch")
    if settings.save and (settings.model in NAMES or not Path(settings.model).is_dir()):
        raise UsageError(f"--save writes into the model's folder, and {settings.model} is none of yours: copy it first")
    check_outside(settings.output_dir, folder, "the model")
    check_not_input(settings.output_dir, settings.source)
    disable_progress_bar()  # of loading, which takes no time
    device = check_device(settings.device)
    keep_freed()
    pipeline = SketchPipeline.from_pretrained(folder, dtype=getattr(torch, fast_dtype(device))).to(device)
    steps = {t: pipeline.painting(t_start=t).num_inference_steps for t in settings.t_start}
    scenes = scenes_of(settings, pipeline)

    windows, order, kept = pipeline.windows, _order(pipeline), pipeline.scheduler.alphas_cumprod.tolist()
    window, back = windows[order[0]], np.argsort(order)

    def paint(sketches: Sequence[Array], t_start: int, sigma: float) -> list[Array]:
        generator = torch.Generator().manual_seed(settings.seed)
        each = [_moved(one, window, windows[order[n % len(order)]]) for n, one in enumerate(sketches)]
        whole = [np.stack(each[start : start + len(order)])[back] for start in range(0, len(each), len(order))]
        made = pipeline(sketches=whole, t_start=t_start, sigma=sigma, generator=generator).images
        return [_moved(image[n], windows[n], window) for image in made for n in order]

    with exclusive(settings.output_dir, "cascade tune"):
        found = sweep(
            scenes, paint, window=window, kept=kept, t_starts=settings.t_start, sigmas=settings.sigma,
            seed=settings.seed,
        )  # fmt: skip
        best = recommended(found)
        about = {
            "model": settings.model,
            "source": str(settings.source),
            "cells": f"labels, {settings.truth}" if settings.truth else "detected",
            "images": len(scenes) // len(windows),
            "num_inference_steps": steps,
        }
        write_report(
            settings.output_dir, found, best, scenes, window=window, kept=kept, about=about, seed=settings.seed
        )
    print(tables(found, best))
    print(f"recommended: t_start {best.t_start}, sigma {best.sigma:g}; look at {settings.output_dir / 'grid.png'}")
    if settings.save:
        _keep(folder, best, steps[best.t_start])
        print(f"{folder} paints so from now on: cascade generate --model {folder} …")
    else:
        print(f"cascade generate --model {settings.model} --t_start {best.t_start} --sigma {best.sigma:g} … paints so")
    return best


def scenes_of(settings: TuneSettings, pipeline: SketchPipeline) -> list[SketchedImage]:
    """The middles of some images, with sketches as the model draws them, each cell as bright as it is; of several
    channels one after the other, the one that shows the cells first, all in the range of that one's window.

    Raises ValueError for images of another dimension or voxel size than the model's, and where no cell is known.
    """
    drawn, own, windows = pipeline.sketch_settings, pipeline.cell_channel - 1, pipeline.windows
    if len(drawn) > 1 and settings.channel is not None:
        raise UsageError(f"--model {settings.model} paints {len(drawn)} channels: leave --channel out")
    scenes = []
    for image, labels, spacing in (_labelled if settings.truth else _raw)(settings, pipeline):
        _check_kind(settings, image[own], spacing, pipeline.spacing_um)
        image, labels = [_middle(one) for one in image], _middle(labels)
        labels = (
            FIND[drawn[own].structure](image[own], spacing) if labels is None else one_piece(matched_slices(labels))[0]
        )
        if not labels.any():
            continue
        for n in _order(pipeline):
            one, how, window = image[n], drawn[n], windows[n]
            sketch = sketch_of_image(labels, one, how, spacing_um=spacing)
            walls = how.structure == "membranes"
            structure = membranes(labels, spacing, how.thickness_um) > 0 if walls else labels > 0
            real = _moved(one.astype(np.float32), window, windows[own])
            scenes.append(SketchedImage(real, _moved(sketch, window, windows[own]), structure))
    if not scenes:
        known = "is labelled" if settings.truth else "can be seen"
        raise DataError(f"{settings.source}: no cell {known} in the middle of any image that was looked at")
    return scenes


def _order(pipeline: SketchPipeline) -> list[int]:
    """Channels, the one that shows the cells first."""
    return sorted(range(len(pipeline.windows)), key=lambda n: n != pipeline.cell_channel - 1)


def _moved(image: Array, window: Window, to: Window) -> Array:
    """Camera units of one window in those of another."""
    if window == to:
        return image
    return np.asarray(to.low + (image - window.low) * (to.span / window.span), np.float32)


def _labelled(settings: TuneSettings, pipeline: SketchPipeline) -> list[_Seen]:
    truth, sequences, found = settings.truth or "gt", settings.sequences, []
    count = len(pipeline.windows)
    for channel in [settings.channel] if count == 1 else [str(n + 1) for n in range(count)]:
        frames, _ = find_frames(settings.source, truth, list(sequences) or None, channel=channel)
        unknown = spacing_of(settings.source, frames, len(pipeline.spacing_um), settings.spacing_um)[1] == "assumed"
        given = pipeline.spacing_um if unknown and frames[0].z is None else settings.spacing_um
        try:
            found.append(Source(settings.source, truth, sequences, settings.num_images, given, channel).load())
        except DataError as error:
            raise DataError(f"{error} (the model paints {count} channels)" if count > 1 else str(error)) from error
    return [([one.image for one in each], each[0].labels, each[0].spacing_um) for each in zip(*found, strict=True)]


def _raw(settings: TuneSettings, pipeline: SketchPipeline) -> list[_Seen]:
    paths = [path for group in find_images(settings.source, settings.sequences) for path in group]
    some = [paths[n] for n in evenly(len(paths), settings.num_images)]
    frames, ndim, given = [Frame(path.stem, path, path) for path in some], len(pipeline.spacing_um), settings.spacing_um
    first, origin = spacing_of(settings.source, frames, ndim, given)
    usual = pipeline.spacing_um if origin == "assumed" else first
    spacings = [frame_spacing(settings.source, frame, ndim, usual, given) for frame in frames]
    count, channel = len(pipeline.windows), settings.channel
    images = [list(read_channels(path, count)) if count > 1 else [read_image(path, channel)] for path in some]
    return [(image, None, spacing) for image, spacing in zip(images, spacings, strict=True)]


def _middle(image: Array | None) -> Any:
    if image is None:
        return None
    part = zip(image.shape, _PART[image.ndim], strict=True)
    return image[tuple(slice(max(n - m, 0) // 2, max(n - m, 0) // 2 + m) for n, m in part)]


def _check_kind(settings: TuneSettings, image: Array, spacing: tuple[float, ...], wanted: tuple[float, ...]) -> None:
    if image.ndim != len(wanted):
        raise DataError(f"{settings.source}: images of {image.ndim} axes, and the model paints {len(wanted)}")
    if not np.allclose(spacing, wanted, rtol=0.02):
        here, there = (" × ".join(f"{s:g}" for s in lengths) for lengths in (spacing, wanted))
        raise DataError(f"{settings.source}: voxels of {here} µm, and the model paints {there}: resample the images")


def _keep(folder: Path, best: Tried, num_inference_steps: int | None) -> None:
    """Write a pair into a model's index, with as many steps as are in proportion."""
    index = folder / "model_index.json"
    record = hub.read_json(index)
    record |= {"t_start": best.t_start, "sigma": best.sigma, "num_inference_steps": num_inference_steps}
    with replacing(index) as path:
        path.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
