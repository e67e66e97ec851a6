"""Carrying out `cascade generate`: here, among processes, on Slurm, as an estimate, or tile by tile."""

import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cascade import __version__, generation, hub
from cascade.assets import NAMES, embedded
from cascade.bank import stored_bank
from cascade.data.frames import read_image
from cascade.export.save import MARK, check_replaceable
from cascade.pipelines.cascade import CascadePipeline
from cascade.population import Cell
from cascade.scene import plan_scene
from cascade.tiles import compose_tiles

_NO_IMAGE = 1 << 30  # cells of a bank are made under numbers that no image has


def generate(options) -> None:
    """Do what the parsed options of `cascade generate` ask for."""
    folder = hub.model_folder(embedded(options.model) if options.model in NAMES else options.model)
    job = generation.Job(
        model=options.model,
        model_sha256=generation.folder_sha256(folder),
        version=__version__,
        seed=options.seed,
        num_images=options.num_images,
        shard_size=options.shard_size,
        formats=tuple(options.format),
        frames_per_sequence=400,
        meshes=options.meshes,
        settings={
            "canvas_size": options.canvas_size,
            "cells_per_image": options.cells_per_image,
            "clustering_probability": options.clustering_probability,
            "rho": options.rho,
            "correlation_length_um": options.correlation_length_um,
            "min_alignment": options.min_alignment,
            "reading": options.reading,
            "num_inference_steps": options.num_inference_steps,
            "max_overlap": options.max_overlap,
            "region": None if options.region is None else str(options.region.resolve()),
            "bank": options.bank,
            "dtype": options.dtype,
        },
    )
    if options.bank is not None and (options.bank < 1 or options.meshes):
        raise ValueError("--bank takes a number of cells above 0, and goes without --meshes: solids are not kept")
    if options.dry_run:
        return _estimate(folder, job, options.device)
    if options.tiles:
        return _compose_large(folder, job, options)
    if options.only is not None:
        made_by = generation.load_job(options.output_dir)  # its settings hold, whatever else is given now
        if made_by.model_sha256 != job.model_sha256:
            raise ValueError(f"{options.output_dir} was made with another model ({made_by.model}): give it as --model")
        generate = _generator(folder, made_by, options.device, options.output_dir)
        if not generation.again(options.output_dir, made_by, generate, options.only):
            raise ValueError(f"sample {options.only} differs from the data set's: another machine, version or library?")
        print(f"sample {options.only} is the same, byte for byte: see {options.output_dir / '.cascade' / 'again'}")
        return None
    generation.start(options.output_dir, job)
    if options.slurm:
        return _submit(folder, job, options)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    generate = _generator(folder, job, options.device, options.output_dir, rank, world)
    whole = generation.run(options.output_dir, job, generate, rank, world)
    if whole:
        name = " and ".join(job.formats)
        print(f"{job.num_images} images in {options.output_dir} ({name}); look at {options.output_dir / 'preview.png'}")
        if options.bank:
            print(_usage(options.output_dir))
    else:
        done, shards = generation.progress(options.output_dir, job)
        print(f"{done} of {shards} shards are done; other processes, or the same command again, make the rest")
    return None


def _compose_large(folder, job: generation.Job, options) -> None:
    """Images composed tile by tile; one that is there already is kept."""
    if not options.bank:
        raise ValueError("--tiles needs --bank: how many different cells a large canvas is made of")
    if options.format not in (["ctc"], ["ome-zarr"]):
        raise ValueError(f"--tiles writes ome-zarr, not {' '.join(options.format)}")
    check_replaceable(options.output_dir)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    (options.output_dir / MARK).touch()
    pipeline = load(folder, options.device, options.dtype)
    bank = _bank(pipeline, job, options.output_dir)
    for index in range(options.num_images):
        path = options.output_dir / f"sample_{index:06d}.ome.zarr"
        if path.exists():
            continue
        scene = plan_scene(
            pipeline.statistics,
            options.seed,
            index,
            options.canvas_size,
            options.cells_per_image,
            options.clustering_probability,
            None if options.region is None else read_image(options.region),
            options.max_overlap,
        )
        print(f"{path.name}: {scene.cells} cells, at most {len(bank)} of them different", file=sys.stderr)
        partial = path.with_name(path.name + ".partial")
        record = compose_tiles(bank, scene, pipeline.statistics, partial, options.seed, index)
        partial.rename(path)
        with (options.output_dir / MARK).open("a") as file:
            file.write(json.dumps({"sample": index, "seed": options.seed, "index": index, **record}) + "\n")
        print(f"{path}: {record['cells']} cells, each of the bank used at most {record['used_at_most']} times")


def _bank(
    pipeline: CascadePipeline, job: generation.Job, output_dir: Path, rank: int = 0, world: int = 1
) -> list[Cell]:
    """The job's bank of cells, made where it is missing, and kept beside the marks of the finished shards."""
    names = ("rho", "correlation_length_um", "min_alignment", "num_inference_steps", "reading")
    settings = {name: job.settings[name] for name in names}

    def make(part: int, size: int) -> list[Cell]:
        return pipeline.cells(size, job.seed, _NO_IMAGE + part, **settings)[0]

    return stored_bank(output_dir / ".cascade" / "bank", job.settings["bank"], make, rank, world)


def _usage(output_dir: Path) -> str:
    """How often the cells of the bank were used."""
    import pyarrow.parquet as pq

    times = np.bincount(pq.read_table(output_dir / "cells.parquet", columns=["bank"])["bank"].to_numpy())
    return f"{len(times)} different cells, each used {times.mean():.0f} times on average and {times.max()} at most"


def _generator(
    folder, job: generation.Job, device: str | None, output_dir: Path, rank: int = 0, world: int = 1
) -> Callable:
    """The job's samples by seed and numbers; the model is loaded and the bank made when the first one is asked for."""
    ready: dict = {}

    def generate(seed: int, numbers):
        if not ready:
            pipeline = ready["pipeline"] = load(folder, device, job.settings.get("dtype", "float32"))
            pipeline.set_progress_bar_config(disable=True)
            region = job.settings.get("region")
            ready["region"] = None if region is None else read_image(Path(region))
            ready["bank"] = _bank(pipeline, job, output_dir, rank, world) if job.settings.get("bank") else None
        settings = {key: value for key, value in job.settings.items() if key != "dtype"}
        settings |= {"region": ready["region"], "bank": ready["bank"]}
        return ready["pipeline"].generate(seed, numbers, **settings)

    return generate


def _estimate(folder, job, device: str | None) -> None:
    """Time, memory and disk of a job, from one sample of it."""
    bank = job.settings["bank"] or 0
    once = 0.0
    with tempfile.TemporaryDirectory() as place:
        few = replace(job, settings=job.settings | {"bank": min(bank, 32) or None})
        generate = _generator(folder, few, device, Path(place))
        start = time.perf_counter()
        (sample,) = generate(job.seed, range(1))
        seconds = time.perf_counter() - start
        if bank:  # the first image waits for (part of) the bank, the others do not
            start = time.perf_counter()
            (sample,) = generate(job.seed, range(1))
            once, seconds = seconds * bank / min(bank, 32), time.perf_counter() - start
        shutil.rmtree(Path(place) / ".cascade", ignore_errors=True)
        job.writer().write(sample, 0, Path(place))
        size = sum(p.stat().st_size for p in Path(place).rglob("*") if p.is_file())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    hours = (once + seconds * job.num_images) / 3600
    print(f"one image: {seconds:.1f} s, {size / 2**20:.1f} MB; {len(sample.cells)} cells; peak memory {memory:.1f} GB")
    disk = size * job.num_images / 2**30
    print(f"{job.num_images} images: about {hours:.1f} hours on one process, {disk:.1f} GB of disk")


def _submit(folder, job, options) -> None:
    """Hand the shards to a Slurm array, one task a part."""
    try:
        import submitit
    except ImportError as error:
        raise ValueError("--slurm needs submitit: pip install 'cascade-microscopy[slurm]'") from error
    executor = submitit.AutoExecutor(options.output_dir / ".cascade" / "slurm")
    executor.update_parameters(
        slurm_partition=options.slurm, timeout_min=24 * 60, slurm_array_parallelism=options.slurm_tasks
    )
    tasks = options.slurm_tasks
    jobs = executor.map_array(
        run_part, [str(options.output_dir)] * tasks, [str(folder)] * tasks, range(tasks), [tasks] * tasks
    )
    print(f"submitted {', '.join(j.job_id for j in jobs)}; the same command without --slurm shows what is done")


def run_part(output_dir: str, model: str, rank: int, world: int) -> bool:
    """One task of an array: the shards of one rank."""
    job = generation.load_job(output_dir)
    generate = _generator(model, job, None, Path(output_dir), rank, world)
    return generation.run(output_dir, job, generate, rank, world)


def load(folder, device: str | None = None, dtype: str = "float32") -> CascadePipeline:
    """A cascade on the best device there is, whose stages leave the progress bar to the whole."""
    pipeline = CascadePipeline.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device or best_device())
    for stage in pipeline.stages:
        stage.set_progress_bar_config(disable=True)
    return pipeline


def best_device() -> str:
    """This process's GPU, or the CPU."""
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
