"""`cascade generate`: here, among processes, on Slurm, as an estimate, or tile by tile."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from cascade import __version__
from cascade.export import ctc
from cascade.generation import shards as generation
from cascade.generation.estimate import estimate
from cascade.generation.maker import maker, plan_of
from cascade.generation.settings import GenerationSettings
from cascade.generation.slurm import submit
from cascade.hub import folders as hub
from cascade.hub.embedded import embedded
from cascade.hub.statistics import saved_statistics
from cascade.optics.statistics import Statistics
from cascade.population.settings import CascadeSettings

_IN_3D = {"reading": "silhouette", "shapes": "multiview"}  # without meaning for planes


def generate(settings: GenerationSettings, images: CascadeSettings) -> None:
    """Make the data set."""
    options = SimpleNamespace(**vars(settings) | vars(images))
    options.format = list(settings.format)
    options.canvas_size = images.canvas_size and list(images.canvas_size)
    folder = hub.model_folder(options.model)
    job = generation.Job(
        model=options.model,
        model_sha256=_model_sha256(folder),
        version=__version__,
        seed=options.seed,
        num_images=options.num_images,
        shard_size=options.shard_size,
        formats=tuple(options.format),
        frames_per_sequence=400,  # or fewer, see below
        meshes=options.meshes,
        settings={
            "canvas_size": options.canvas_size,
            "cells_per_image": options.cells_per_image,
            "clustering_probability": options.clustering_probability,
            "rho": options.rho,
            "correlation_length_um": options.correlation_length_um,
            "min_alignment": options.min_alignment,
            "reading": options.reading,
            "shapes": options.shapes,
            "num_inference_steps": options.num_inference_steps,
            "max_overlap": options.max_overlap,
            "region": None if options.region is None else str(options.region.resolve()),
            "region_sha256": None if options.region is None else generation.file_sha256(options.region),
            "bank": options.bank,
            "dtype": options.dtype,
            "compile": options.compile,
        },
    )
    if options.bank is not None and options.meshes:
        raise ValueError("--bank goes without --meshes: solids are not kept")
    if options.slurm and options.device:
        raise ValueError("--device goes without --slurm: each task takes its GPU (--slurm_gpus), or the CPU")
    if options.tiles:
        if not options.bank:
            raise ValueError("--tiles needs --bank: how many different cells a large canvas is made of")
        if options.format not in (["ctc"], ["ome-zarr"]) or options.dry_run or options.max_overlap:
            raise ValueError("--tiles writes ome-zarr, and goes without --dry_run and --max_overlap")
        job = replace(job, formats=("ome-zarr",), shard_size=1, settings=job.settings | {"tiles": True})
    if options.only is not None:
        made_by = generation.load_job(options.output_dir)  # its settings hold, whatever else is given now
        if made_by.model_sha256 != job.model_sha256:
            raise ValueError(f"{options.output_dir} was made with another model ({made_by.model}): give it as --model")
        made = maker(folder, made_by, options.device, options.output_dir)
        if not generation.again(options.output_dir, made_by, made[0], options.only, made[1]):
            raise ValueError(f"sample {options.only} differs from the data set's: another machine, version or library?")
        print(f"sample {options.only} is the same, byte for byte: see {options.output_dir / '.cascade' / 'again'}")
        return None
    statistics = Statistics.from_dict(saved_statistics(folder))
    _check(statistics, job)  # what cannot be, is said before anything is made
    if options.dry_run:
        job.writer()
        return estimate(folder, job, options.device)
    job = replace(job, frames_per_sequence=_sequence_length(statistics, job))
    generation.start(options.output_dir, job)
    if options.slurm:
        return submit(folder, options)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    generate, write = maker(folder, job, options.device, options.output_dir, rank, world)
    whole = generation.run(options.output_dir, job, generate, rank, world, write)
    if whole:
        name = " and ".join(job.formats)
        preview = options.output_dir / "preview.png"
        shown = f"; look at {preview}" if preview.is_file() else ""
        print(f"{job.num_images} images in {options.output_dir} ({name}){shown}")
        if options.bank:
            print(_usage(options.output_dir))
    else:
        done, shards = generation.progress(options.output_dir, job)
        print(f"{done} of {shards} shards are done; other processes, or the same command again, make the rest")
    return None


def _model_sha256(folder: Path) -> str:
    """Of all that a model makes cells with: one of stacks takes the embedded multiview stage if it has none."""
    own = generation.folder_sha256(folder)
    deep = len(saved_statistics(folder)["spacing_um"]) == 3
    if not deep or (folder / "multiview").is_dir():
        return own
    return own + generation.folder_sha256(embedded("nuclei3d") / "multiview")


def _check(statistics: Statistics, job: generation.Job) -> None:
    """Raise ValueError for settings that cannot be."""
    plan_of(statistics, job, 0)
    rho, length = job.settings["rho"], job.settings["correlation_length_um"]
    if not rho >= 0:
        raise ValueError(f"--rho must be at least 0, got {rho}")
    if length is not None and not length > 0:
        raise ValueError(f"--correlation_length_um must be above 0, got {length}")
    if "coco" in job.formats and statistics.ndim == 3:
        raise ValueError("COCO describes planes, and this model makes stacks: give another --format")
    deep = {"--correlation_length_um": length is not None, "--meshes": job.meshes}
    deep |= {f"--{name}": job.settings[name] != usual for name, usual in _IN_3D.items()}
    if statistics.ndim == 2 and any(deep.values()):
        given = ", ".join(name for name, is_given in deep.items() if is_given)
        raise ValueError(f"this model makes planes, and {given} is for stacks: leave it out")


def _sequence_length(statistics: Statistics, job: generation.Job) -> int:
    """Images in a sequence of the Cell Tracking Challenge's layout, at most 400: every cell of every image of one has a
    number of its own, of 16 bits."""
    most = job.settings["cells_per_image"]
    if most is None:  # the fullest real image's, on this canvas
        scene, own = plan_of(statistics, job, 0), statistics.cells_per_image
        most = int(np.ceil((scene.cells + 0.5) * max(own) / max(own[scene.like], 1)))
    if "ctc" in job.formats and most > ctc.TRACK_IDS:
        raise ValueError(
            f"images of {most} cells are too many for the {ctc.TRACK_IDS} numbers of the Cell Tracking Challenge's "
            "layout: give another --format, ome-zarr for one"
        )
    return min(400, max(ctc.TRACK_IDS // max(most, 1), 1))


def _usage(output_dir: Path) -> str:
    """How often the cells of the bank were used."""
    import pyarrow.parquet as pq

    table = pq.read_table(output_dir / "cells.parquet")
    if "bank" not in table.column_names:
        return "no cell was placed"
    times = np.bincount(table["bank"].to_numpy())
    times = times[times > 0]
    return f"{len(times)} different cells, each used {times.mean():.0f} times on average and {times.max()} at most"
