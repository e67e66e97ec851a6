"""`cascade generate` of annotations that exist, or that a simulator makes: any source with any painter."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers.utils.logging import disable_progress_bar

from cascade import __version__
from cascade.annotation import Annotation, Sample
from cascade.commands.again import make_again
from cascade.commands.generate import settled_dtype, tell_done
from cascade.commands.simulate import Check, files_of, labels_source, settings_of
from cascade.data.label_sets import find_labels
from cascade.data.pairs import ANY_CHANNEL
from cascade.diffusion.painting import PaintingSettings
from cascade.entry import UsageError
from cascade.gan.painting import QualitySettings
from cascade.generation import shards
from cascade.generation.load import check_device, load
from cascade.generation.painting import Painter, Source, painted
from cascade.generation.settings import GenerationSettings, SourceSettings
from cascade.generation.shards import Job
from cascade.generation.simulation import (
    SimulateSettings,
    files_sha256,
    frames_per_sequence,
    plain_fields,
    simulated,
    some_of,
)
from cascade.hub import folders as hub
from cascade.hub.folders import FEW_STEPS
from cascade.hub.statistics import saved_statistics
from cascade.memory import keep_freed
from cascade.ownership import check_outside
from cascade.pipelines.conditional_gan import ConditionalGANPipeline
from cascade.pipelines.painter import check_annotation, check_spacing
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.population.settings import CascadeSettings
from cascade.simulators.catalogue import ORGANISMS
from cascade.simulators.labels import LabelsSettings

_WITHOUT = (
    "meshes",
    "region",
    "bank",
    "tiles",
    "slurm",
    "dry_run",
    "compile",
)  # which a cascade plans images with
_POPULATION = ("cells_per_image", "clustering_probability", "max_overlap", "reading", "shapes")
"""Of a cascade's images what annotations that exist say themselves."""
_SHARED = ("canvas_size", "num_inference_steps", "micro_batch_size", "vary")
_TILES = ("tile_size", "tile_overlap")

Kind = Literal["cascade", "sketch", "gan"]
_KINDS: dict[str, Kind] = {SketchPipeline.__name__: "sketch", ConditionalGANPipeline.__name__: "gan"}


_Found = tuple[Painter, tuple[float, ...], Check]
"""A painter, the voxel size of what it paints, µm, and what it cannot paint."""


@dataclass(frozen=True)
class _Annotations:
    """A source, how many annotations it has (None: as many as are asked for), and what makes it another one."""

    source: Source
    there: int | None
    record: dict[str, Any]
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _How:
    """All that a painting can be told; which of it means anything depends on the model."""

    images: CascadeSettings
    sketches: PaintingSettings
    quality: QualitySettings


def kind_of(model: str) -> Kind:
    """What a model is: a cascade, or one that has no annotations of its own, a DDPM from sketches or a conditional
    GAN."""
    return _KINDS.get(str(hub.model_index(hub.model_folder(model)).get("_class_name")), "cascade")


def paint(
    settings: GenerationSettings,
    images: CascadeSettings,
    chosen: SourceSettings,
    sketches: PaintingSettings,
    quality: QualitySettings,
) -> None:
    """Paint a data set, or what is left of it.

    Raises ValueError for settings that do not fit the model or each other, FileExistsError for a folder that holds
    something else, both before anything is made.
    """
    folder = hub.model_folder(settings.model)
    check_outside(settings.output_dir, folder, "the model")
    kind, how = kind_of(settings.model), _How(images, sketches, quality)
    _check(settings, chosen, how, kind)
    settings = replace(settings, dtype=settled_dtype(settings))
    painter, spacing_um, check = _PAINTERS[kind](folder, settings, how)
    found = _source(chosen, spacing_um, check, images.canvas_size, settings.output_dir)
    wanted = settings.num_images or found.there or 1
    if found.there is not None and wanted > found.there:
        raise ValueError(f"num_images asks for {wanted}, and {chosen.annotations} holds {found.there} annotations")
    for index in range(wanted if found.there else 1):
        found.source(settings.seed, index)  # what cannot be painted is said before anything is
    used = {
        "cascade": plain_fields(images) | plain_fields(sketches),
        "sketch": plain_fields(sketches),
        "gan": plain_fields(quality),
    }[kind]
    used.pop("vary", None)
    if images.vary:  # recorded only where it is given
        used["vary"] = images.vary
    job = Job(
        model=settings.model,
        model_sha256=shards.folder_sha256(folder, few_steps=settings.few_steps),
        version=__version__,
        seed=settings.seed,
        num_images=wanted,
        shard_size=settings.shard_size,
        formats=settings.format,
        frames_per_sequence=frames_per_sequence(
            settings.format,
            some_of(found.source, settings.seed, wanted if found.there else None, simulated=wanted),
        ),
        meshes=False,
        settings=used | {"dtype": settings.dtype, "source": found.record, "labels_sha256": files_sha256(found.files)},
    )
    output, make = settings.output_dir, painted(found.source, painter)
    if settings.only is not None:
        return make_again(output, job, make, settings.only, "sample")
    shards.start(output, job)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    tell_done(job, output, shards.run(output, job, make, rank, world))


def _check(settings: GenerationSettings, chosen: SourceSettings, how: _How, kind: Kind) -> None:
    """Raise `UsageError` for settings that the source or the painter does not know."""
    if not chosen.given:
        raise UsageError(
            f"{settings.model} paints annotations, and there are none: give --annotations FOLDER, or --simulate gowt1, "
            "nuclei, tissue, …"
        )
    usual = {one.name: one.default for one in dataclasses.fields(settings)}
    odd = [name for name in _WITHOUT if getattr(settings, name) != usual[name]]
    if kind == "cascade":
        odd += [name for name in _changed(how.images, ()) if name in _POPULATION]
        odd += _changed(how.sketches, _SHARED) + _changed(how.quality, ())
    if kind == "sketch":
        odd += _changed(how.images, _SHARED) + _changed(how.quality, _TILES)
    if kind == "gan":
        odd += ["few_steps"] * settings.few_steps
        odd += _changed(how.images, ("canvas_size",)) + _changed(how.sketches, _TILES)
    if chosen.annotations is not None and how.images.canvas_size is not None:
        odd.append("canvas_size")
    if odd:
        raise UsageError(f"--{odd[0]} means nothing for annotations that {settings.model} paints: leave it out")


def _changed(settings: Any, but: Sequence[str]) -> list[str]:
    names = [one for one in dataclasses.fields(settings) if one.name not in but]
    return [one.name for one in names if getattr(settings, one.name) != one.default]


def _sketch_painter(folder: Path, settings: GenerationSettings, how: _How) -> _Found:
    disable_progress_bar()  # of loading, which takes no time
    device = check_device(settings.device)
    keep_freed()
    if settings.few_steps and not (folder / FEW_STEPS).is_file():
        raise hub.ModelError(f"{folder}: no weights for few steps ({FEW_STEPS}): leave `few_steps` out")
    dtype = getattr(torch, settings.dtype)
    pipeline = SketchPipeline.from_pretrained(folder, dtype=dtype, few_steps=settings.few_steps).to(device)
    pipeline.painting(**vars(how.sketches))  # what cannot be is said before anything is made
    if len(pipeline.sketch_settings) > 1 and "coco" in settings.format:
        raise UsageError(f"COCO's pictures have one channel, and {settings.model} paints more: give another --format")

    def painter(annotation: Annotation, seed: int, index: int) -> Sample:
        return pipeline.paint(annotation, seed, index, how.sketches, vary=how.images.vary)

    return painter, pipeline.spacing_um, lambda annotation: check_spacing(annotation, pipeline.spacing_um)


def _gan_painter(folder: Path, settings: GenerationSettings, how: _How) -> _Found:
    disable_progress_bar()
    device = check_device(settings.device)
    keep_freed()
    pipeline = ConditionalGANPipeline.from_pretrained(folder, dtype=getattr(torch, settings.dtype)).to(device)
    pipeline.painting(**vars(how.quality))

    def painter(annotation: Annotation, seed: int, index: int) -> Sample:
        return pipeline.paint(annotation, seed, index, how.quality)

    return painter, pipeline.spacing_um, lambda annotation: check_spacing(annotation, pipeline.spacing_um)


def _cascade_painter(folder: Path, settings: GenerationSettings, how: _How) -> _Found:
    pipeline = load(folder, settings.device, settings.dtype, few_steps=settings.few_steps)
    pipeline.set_progress_bar_config(disable=True)

    def painter(annotation: Annotation, seed: int, index: int) -> Sample:
        return pipeline.paint(annotation, seed, index, how.images)

    spacing_um = tuple(saved_statistics(folder)["spacing_um"])
    return painter, spacing_um, lambda annotation: check_annotation(pipeline.parts, annotation)


_PAINTERS = {"cascade": _cascade_painter, "sketch": _sketch_painter, "gan": _gan_painter}


def _source(
    chosen: SourceSettings,
    spacing_um: tuple[float, ...],
    check: Check,
    canvas_size: Sequence[int] | None,
    output_dir: Path,
) -> _Annotations:
    """Annotations at a model's voxel size; `check` is made of each as it is read."""
    if chosen.annotations is not None:
        check_outside(output_dir, chosen.annotations, "the annotations")
        own = LabelsSettings(source=chosen.annotations)
        files = find_labels(own.source, own.truth, own.sequences, channel=ANY_CHANNEL)
        source, there = labels_source(own, files, check)
        record = {"annotations": str(chosen.annotations.resolve())}
        return _Annotations(source, there, record, tuple(files_of(files)))
    organism = chosen.simulate or ""
    given: dict[str, Any] = {"spacing_um": spacing_um} | ({"canvas_size": canvas_size} if canvas_size else {})
    if chosen.like is not None:
        asked = SimulateSettings(
            output_dir=output_dir,
            like=chosen.like,
            like_sequences=chosen.like_sequences,
            like_channel=chosen.like_channel,
        )
        organism, simulator = settings_of(organism, asked, given)
    elif organism in ORGANISMS and organism != "labels":
        simulator = _as_dense(organism, given)
    else:
        known = ", ".join(name for name in ORGANISMS if name != "labels")
        raise UsageError(f"--simulate takes an organism, {known}, or auto with --like FOLDER; got {organism}")
    source = simulated(ORGANISMS[organism].simulate(), simulator)
    check(source(0, 0))
    return _Annotations(source, None, {"organism": organism, **plain_fields(simulator)})


def _as_dense(organism: str, given: dict[str, Any]) -> Any:
    """Settings of an organism on another canvas: as many cells for its extent as there are on its own one.

    Raises `UsageError` for an organism that has no voxel size to be given.
    """
    kind = ORGANISMS[organism].settings_class()
    usual, names = kind(), {one.name for one in dataclasses.fields(kind)}
    if "spacing_um" not in names:
        raise UsageError(f"--simulate {organism} has its own voxels, which no model paints: simulate it, then resample")
    if "canvas_size" not in given and len(given["spacing_um"]) != len(usual.canvas_size):
        raise UsageError(f"--canvas_size must be given for {organism} in {len(given['spacing_um'])}D")
    if {"num_cells", "radius_um"} <= names:
        share = _cells_of(kind(**given, num_cells=usual.num_cells)) / _cells_of(usual)
        given = given | {"num_cells": tuple(share * number for number in usual.num_cells)}
    return kind(**given)


def _cells_of(settings: Any) -> float:
    """How many cells of its size would fill its canvas."""
    extent, radius = np.prod(settings.canvas_size) * np.prod(settings.spacing_um), np.mean(settings.radius_um)
    return float(extent / (np.pi * radius**2 if len(settings.canvas_size) == 2 else 4 / 3 * np.pi * radius**3))
