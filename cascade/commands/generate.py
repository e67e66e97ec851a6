"""`cascade generate`: here, among processes, on Slurm, as an estimate, or tile by tile."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil

from cascade import __version__
from cascade.export import ctc
from cascade.generation import shards
from cascade.generation.estimate import estimate
from cascade.generation.load import fast_dtype
from cascade.generation.maker import CascadeMaker, making, region_of
from cascade.generation.recipe import Recipe
from cascade.generation.settings import Dtype, GenerationSettings
from cascade.generation.shards import Job
from cascade.generation.slurm import submit
from cascade.hub import folders as hub
from cascade.hub.embedded import embedded
from cascade.hub.statistics import saved_statistics
from cascade.optics.statistics import Statistics
from cascade.ownership import check_outside
from cascade.population.scene import plan_scene
from cascade.population.settings import CascadeSettings

_IN_3D = ("correlation_length_um", "reading", "shapes")  # without meaning for planes
_BYTES_A_VOXEL = 48  # of a canvas while it is composed, measured


def generate(settings: GenerationSettings, images: CascadeSettings) -> None:
    """Make a data set, or what is left of it.

    Raises ValueError for settings that do not fit the model or each other, FileExistsError for a folder that holds
    something else, both before anything is made.
    """
    folder = hub.model_folder(settings.model)
    check_outside(settings.output_dir, folder, "the model")
    if settings.only is not None:
        return _make_again(settings, folder, settings.only)
    statistics = Statistics.from_dict(saved_statistics(folder))
    settings = replace(settings, dtype=settled_dtype(settings))
    recipe = Recipe.of(settings, images)
    _check(statistics, settings, recipe)
    job = Job(
        model=settings.model,
        model_sha256=model_sha256(folder, few_steps=settings.few_steps),
        version=__version__,
        seed=settings.seed,
        num_images=settings.num_images or 1,
        shard_size=1 if settings.tiles else settings.shard_size,
        formats=("ome-zarr",) if settings.tiles else settings.format,
        frames_per_sequence=sequence_length(statistics, settings, recipe),
        meshes=settings.meshes,
        settings=recipe.record(),
    )
    if settings.dry_run:
        job.writer()
        return _tell_cost(job, folder, settings.device)
    shards.start(settings.output_dir, job)
    if settings.slurm:
        submitted = submit(folder, settings)
        print(f"submitted {submitted}; the same command without --slurm shows what is done")
        return None
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    maker = CascadeMaker(folder, job, settings.output_dir, device=settings.device, rank=rank, world=world)
    make, write = making(maker)
    whole = shards.run(settings.output_dir, job, make, rank, world, write)
    return tell_done(job, settings.output_dir, whole)


def settled_dtype(settings: GenerationSettings) -> Dtype:
    """The networks' precision: as it was asked for, or as the data set was begun, or what is fast here."""
    if settings.dtype != "auto":
        return settings.dtype
    try:
        begun: Dtype = shards.load_job(settings.output_dir).settings.get("dtype", "float32")
    except FileNotFoundError:
        return fast_dtype(settings.device)
    return begun


def model_sha256(folder: Path, *, few_steps: bool = False) -> str:
    """Of all that a model makes cells with: one of stacks takes the embedded multiview stage if it has none."""
    own = shards.folder_sha256(folder, few_steps=few_steps)
    deep = len(saved_statistics(folder)["spacing_um"]) == 3
    if not deep or (folder / "multiview").is_dir():
        return own
    return own + shards.folder_sha256(embedded("nuclei3d") / "multiview")


def sequence_length(statistics: Statistics, settings: GenerationSettings, recipe: Recipe) -> int:
    """Images in a sequence of the Cell Tracking Challenge's layout, at most 400: every cell of every image of one has a
    number of its own, of 16 bits."""
    most = recipe.images.cells_per_image
    if most is None:  # the fullest real image's, on this canvas
        scene = plan_scene(statistics, recipe.images, settings.seed, 0, region=region_of(recipe))
        own = statistics.cells_per_image
        most = int(np.ceil((scene.num_cells + 0.5) * max(own) / max(own[scene.like], 1)))
    if "ctc" in settings.format and not settings.tiles and most > ctc.TRACK_IDS:
        raise ValueError(
            f"images of {most} cells are too many for the {ctc.TRACK_IDS} numbers of the Cell Tracking Challenge's "
            "layout: give another `format`, ome-zarr for one"
        )
    return min(400, max(ctc.TRACK_IDS // max(most, 1), 1))


def _check(statistics: Statistics, settings: GenerationSettings, recipe: Recipe) -> None:
    """Raise ValueError for what does not fit the model, or this machine."""
    scene = plan_scene(statistics, recipe.images, settings.seed, 0, region=region_of(recipe))
    if settings.tiles and recipe.images.max_overlap:
        raise ValueError("tiles goes without `max_overlap`")
    if settings.tiles and recipe.images.vary:
        raise ValueError("tiles goes without `vary`")
    if "coco" in settings.format and statistics.ndim == 3:
        raise ValueError("COCO describes planes, and this model makes stacks: give another `format`")
    usual = CascadeSettings()
    given = [f"--{name}" for name in _IN_3D if getattr(recipe.images, name) != getattr(usual, name)]
    given = ["--meshes"] * settings.meshes + given
    if statistics.ndim == 2 and given:
        raise ValueError(f"this model makes planes, and {', '.join(given)} is for stacks: leave it out")
    needed, there = _BYTES_A_VOXEL * float(np.prod(scene.canvas)), psutil.virtual_memory().total
    if needed > there and not settings.tiles:
        raise ValueError(
            f"a canvas of {'×'.join(map(str, scene.canvas))} takes about {needed / 2**30:.0f} GB, and this machine has "
            f"{there / 2**30:.0f}: compose it of tiles (--tiles --bank 1000)"
        )


def _make_again(settings: GenerationSettings, folder: Path, number: int) -> None:
    """One sample of a data set, whose own settings hold, whatever else is given now."""
    output = settings.output_dir
    job = shards.load_job(output)
    if job.model_sha256 != model_sha256(folder, few_steps=job.settings.get("few_steps", False)):
        raise ValueError(f"{output} was made with another model ({job.model}): give it as --model")
    make, write = making(CascadeMaker(folder, job, output, device=settings.device))
    print(f"sample {number} is the same, byte for byte: see {shards.again(output, job, make, number, write)}")


def _tell_cost(job: Job, folder: Path, device: str | None) -> None:
    cost = estimate(folder, job, device)
    megabytes, memory, disk = cost.disk_bytes / 2**20, cost.memory_bytes / 2**30, cost.disk_bytes / 2**30
    print(f"one image: {cost.seconds:.1f} s, {megabytes:.1f} MB; {cost.num_cells} cells; {memory:.1f} GB of memory")
    whole = f"about {cost.hours:.1f} hours on one process, {disk * job.num_images:.1f} GB of disk"
    print(f"{job.num_images} images: {whole}")


def tell_done(job: Job, output: Path, whole: bool) -> None:
    if not whole:
        done, count = shards.progress(output, job)
        print(f"{done} of {count} shards are done; other processes, or the same command again, make the rest")
        return
    preview = output / "preview.png"
    shown = f"; look at {preview}" if preview.is_file() else ""
    print(f"{job.num_images} images in {output} ({' and '.join(job.formats)}){shown}")
    if job.settings.get("bank"):
        print(_usage(output))


def _usage(output_dir: Path) -> str:
    """How often the cells of the bank were used."""
    import pyarrow.parquet as pq

    table = pq.read_table(output_dir / "cells.parquet")
    if "bank" not in table.column_names:
        return "no cell was placed"
    times = np.bincount(table["bank"].to_numpy())
    times = times[times > 0]
    return f"{len(times)} different cells, each used {times.mean():.0f} times on average and {times.max()} at most"
