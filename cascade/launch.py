"""Carrying out `cascade generate`: here, among processes, on Slurm, as an estimate, or tile by tile."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import torch

from cascade import __version__, generation, hub
from cascade.assets import NAMES, embedded
from cascade.bank import stored_bank
from cascade.data.frames import read_image
from cascade.data.statistics import Statistics, saved_statistics
from cascade.pipelines.cascade import CascadePipeline
from cascade.population import Cell
from cascade.scene import Scene, plan_scene
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
            "shapes": options.shapes,
            "num_inference_steps": options.num_inference_steps,
            "max_overlap": options.max_overlap,
            "region": None if options.region is None else str(options.region.resolve()),
            "bank": options.bank,
            "cells_together": cells_together(options.device or best_device()) if options.bank else None,
            "dtype": options.dtype,
            "compile": options.compile,
        },
    )
    if options.bank is not None and options.meshes:
        raise ValueError("--bank goes without --meshes: solids are not kept")
    if options.tiles:
        if not options.bank:
            raise ValueError("--tiles needs --bank: how many different cells a large canvas is made of")
        if options.format not in (["ctc"], ["ome-zarr"]) or options.dry_run or options.max_overlap:
            raise ValueError("--tiles writes ome-zarr, and goes without --dry_run and --max_overlap")
        job = replace(job, formats=("ome-zarr",), shard_size=1, settings=job.settings | {"tiles": True})
    if options.dry_run:
        return _estimate(folder, job, options.device)
    if options.only is not None:
        made_by = generation.load_job(options.output_dir)  # its settings hold, whatever else is given now
        if made_by.model_sha256 != job.model_sha256:
            raise ValueError(f"{options.output_dir} was made with another model ({made_by.model}): give it as --model")
        maker = _maker(folder, made_by, options.device, options.output_dir)
        if not generation.again(options.output_dir, made_by, maker[0], options.only, maker[1]):
            raise ValueError(f"sample {options.only} differs from the data set's: another machine, version or library?")
        print(f"sample {options.only} is the same, byte for byte: see {options.output_dir / '.cascade' / 'again'}")
        return None
    _scene(Statistics.from_dict(saved_statistics(folder)), job, 0)  # what cannot be, is said before anything is made
    generation.start(options.output_dir, job)
    if options.slurm:
        return _submit(folder, options)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    generate, write = _maker(folder, job, options.device, options.output_dir, rank, world)
    whole = generation.run(options.output_dir, job, generate, rank, world, write)
    if whole:
        name = " and ".join(job.formats)
        print(f"{job.num_images} images in {options.output_dir} ({name}); look at {options.output_dir / 'preview.png'}")
        if options.bank:
            print(_usage(options.output_dir))
    else:
        done, shards = generation.progress(options.output_dir, job)
        print(f"{done} of {shards} shards are done; other processes, or the same command again, make the rest")
    return None


def _scene(statistics: Statistics, job: generation.Job, index: int, region: np.ndarray | None = None) -> Scene:
    """The plan of one image of a job."""
    names = ("canvas_size", "cells_per_image", "clustering_probability", "max_overlap")
    if region is None:
        region = _region(job)
    return plan_scene(statistics, job.seed, index, region=region, **{name: job.settings[name] for name in names})


def _region(job: generation.Job) -> np.ndarray | None:
    return None if job.settings.get("region") is None else read_image(Path(job.settings["region"]))


def _bank(
    pipeline: CascadePipeline, job: generation.Job, output_dir: Path, rank: int = 0, world: int = 1
) -> list[Cell]:
    """The job's bank of cells, made where it is missing, and kept beside the marks of the finished shards."""
    names = ("rho", "correlation_length_um", "min_alignment", "num_inference_steps", "reading", "shapes")
    settings = {name: job.settings[name] for name in names}

    def make(part: int, size: int) -> list[Cell]:
        return pipeline.cells(size, job.seed, _NO_IMAGE + part, **settings)[0]

    together = job.settings["cells_together"]
    return stored_bank(output_dir / ".cascade" / "bank", job.settings["bank"], make, rank, world, together)


def _usage(output_dir: Path) -> str:
    """How often the cells of the bank were used."""
    import pyarrow.parquet as pq

    table = pq.read_table(output_dir / "cells.parquet")
    if "bank" not in table.column_names:
        return "no cell was placed"
    times = np.bincount(table["bank"].to_numpy())
    times = times[times > 0]
    return f"{len(times)} different cells, each used {times.mean():.0f} times on average and {times.max()} at most"


def _maker(
    folder, job: generation.Job, device: str | None, output_dir: Path, rank: int = 0, world: int = 1
) -> tuple[Callable, Callable | None]:
    """How the job's samples are made, by seed and numbers, and how they are written.

    The model is loaded and the bank made when the first one is asked for. A canvas of tiles is only planned, and
    composed when it is written.
    """
    ready: dict = {}

    def prepare_once() -> CascadePipeline:
        if not ready:
            pipeline = load(folder, device, job.settings.get("dtype", "float32"), job.settings.get("compile", False))
            pipeline.set_progress_bar_config(disable=True)
            bank = _bank(pipeline, job, output_dir, rank, world) if job.settings.get("bank") else None
            ready.update(pipeline=pipeline, bank=bank, region=_region(job))
        return ready["pipeline"]

    def generate(seed: int, numbers):
        pipeline = prepare_once()
        if job.settings.get("tiles"):
            return (_scene(pipeline.statistics, job, number, ready["region"]) for number in numbers)
        own = ("dtype", "compile", "cells_together")
        settings = {key: value for key, value in job.settings.items() if key not in own}
        return pipeline.generate(seed, numbers, **settings | {"region": ready["region"], "bank": ready["bank"]})

    def compose(scene: Scene, number: int, place: Path) -> dict:
        path = place / f"sample_{number:06d}.ome.zarr"
        return compose_tiles(ready["bank"], scene, ready["pipeline"].statistics, path, job.seed, number)

    return generate, compose if job.settings.get("tiles") else None


def _estimate(folder, job, device: str | None) -> None:
    """Time, memory and disk of a job, from one sample of it."""
    bank = job.settings["bank"] or 0
    once = 0.0
    with tempfile.TemporaryDirectory() as place:
        part = min(bank, job.settings["cells_together"] or 0)
        few = replace(job, settings=job.settings | {"bank": part or None})
        generate, _ = _maker(folder, few, device, Path(place))
        start = time.perf_counter()
        (sample,) = generate(job.seed, range(1))
        seconds = time.perf_counter() - start
        if bank:  # the first image waits for (part of) the bank, the others do not
            start = time.perf_counter()
            (sample,) = generate(job.seed, range(1))
            once, seconds = seconds * bank / part, time.perf_counter() - start
        shutil.rmtree(Path(place) / ".cascade", ignore_errors=True)
        job.writer().write(sample, 0, Path(place))
        size = sum(p.stat().st_size for p in Path(place).rglob("*") if p.is_file())
    memory = psutil.Process().memory_info().rss / 2**30
    hours = (once + seconds * job.num_images) / 3600
    print(f"one image: {seconds:.1f} s, {size / 2**20:.1f} MB; {len(sample.cells)} cells; {memory:.1f} GB of memory")
    disk = size * job.num_images / 2**30
    print(f"{job.num_images} images: about {hours:.1f} hours on one process, {disk:.1f} GB of disk")


def _submit(folder, options) -> None:
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
    generate, write = _maker(model, job, None, Path(output_dir), rank, world)
    return generation.run(output_dir, job, generate, rank, world, write)


def load(folder, device: str | None = None, dtype: str = "float32", compile: bool = False) -> CascadePipeline:
    """A cascade on the best device there is, whose stages leave the progress bar to the whole.

    compile: the texture networks by torch.compile, which takes a minute or two and pays on large data sets.
    """
    pipeline = CascadePipeline.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device or best_device())
    for stage in pipeline.stages:
        stage.set_progress_bar_config(disable=True)
    if compile:
        for network in (pipeline.texture.unet, pipeline.texture.controlnet):
            network.compile()
    return pipeline


def cells_together(device: str) -> int:
    """How many cells of a bank are made at once: a GPU makes 128 at nearly twice the rate of 32, a CPU 32 at any rate,
    and loses less where it is interrupted."""
    return 128 if device.startswith("cuda") else 32


def best_device() -> str:
    """This process's GPU, or the CPU."""
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
