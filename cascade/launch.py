"""Carrying out `cascade generate`: here, among processes, on Slurm, as an estimate, or tile by tile."""

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from cascade import __version__, generation, hub
from cascade.assets import NAMES, embedded
from cascade.data.frames import read_image
from cascade.export.save import MARK, check_replaceable
from cascade.pipelines.cascade import CascadePipeline
from cascade.scene import plan_scene
from cascade.tiles import compose_tiles


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
            "num_inference_steps": options.num_inference_steps,
            "max_overlap": options.max_overlap,
            "region": None if options.region is None else str(options.region.resolve()),
        },
    )
    if options.bank:
        return _compose_large(folder, options)
    if options.dry_run:
        return _estimate(folder, job, options.device)
    if options.only is not None:
        made_by = generation.load_job(options.output_dir)  # its settings hold, whatever else is given now
        if made_by.model_sha256 != job.model_sha256:
            raise ValueError(f"{options.output_dir} was made with another model ({made_by.model}): give it as --model")
        if not generation.again(options.output_dir, made_by, _generator(folder, made_by, options.device), options.only):
            raise ValueError(f"sample {options.only} differs from the data set's: another machine, version or library?")
        print(f"sample {options.only} is the same, byte for byte: see {options.output_dir / '.cascade' / 'again'}")
        return None
    generation.start(options.output_dir, job)
    if options.slurm:
        return _submit(folder, job, options)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    whole = generation.run(options.output_dir, job, _generator(folder, job, options.device), rank, world)
    if whole:
        name = " and ".join(job.formats)
        print(f"{job.num_images} images in {options.output_dir} ({name}); look at {options.output_dir / 'preview.png'}")
    else:
        done, shards = generation.progress(options.output_dir, job)
        print(f"{done} of {shards} shards are done; other processes, or the same command again, make the rest")
    return None


def _compose_large(folder, options) -> None:
    """Images composed tile by tile; one that is there already is kept."""
    if options.format not in (["ctc"], ["ome-zarr"]):
        raise ValueError(f"--bank writes ome-zarr, not {' '.join(options.format)}")
    check_replaceable(options.output_dir)
    pipeline = load(folder, options.device)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    (options.output_dir / MARK).touch()
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
        size = min(options.bank, scene.cells)
        print(f"{path.name}: {scene.cells} cells, {size} of them different", file=sys.stderr)
        names = ("rho", "correlation_length_um", "min_alignment", "num_inference_steps")
        settings = {name: getattr(options, name) for name in names}
        bank, _ = pipeline.cells(size, options.seed, index, scene.like, **settings)
        partial = path.with_name(path.name + ".partial")
        record = compose_tiles(bank, scene, pipeline.statistics, partial, options.seed, index)
        partial.rename(path)
        with (options.output_dir / MARK).open("a") as file:
            file.write(json.dumps({"sample": index, "seed": options.seed, "index": index, **record}) + "\n")
        print(f"{path}: {record['cells']} cells, each of the bank used at most {record['used_at_most']} times")


def _generator(folder, job, device: str | None):
    """The job's samples by seed and numbers."""

    pipeline = load(folder, device)
    pipeline.set_progress_bar_config(disable=True)
    region = None if job.settings.get("region") is None else read_image(Path(job.settings["region"]))
    return lambda seed, numbers: pipeline.generate(seed, numbers, **job.settings | {"region": region})


def _estimate(folder, job, device: str | None) -> None:
    """Time, memory and disk of a job, from one sample of it."""
    generate = _generator(folder, job, device)
    start = time.perf_counter()
    (sample,) = generate(job.seed, range(1))
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as place:
        job.writer().write(sample, 0, Path(place))
        size = sum(p.stat().st_size for p in Path(place).rglob("*") if p.is_file())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    hours = seconds * job.num_images / 3600
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
    return generation.run(output_dir, job, _generator(model, job, None), rank, world)


def load(folder, device: str | None = None) -> CascadePipeline:
    """A cascade on the best device there is, whose stages leave the progress bar to the whole."""
    pipeline = CascadePipeline.from_pretrained(folder).to(device or best_device())
    for stage in pipeline.stages:
        stage.set_progress_bar_config(disable=True)
    return pipeline


def best_device() -> str:
    """This process's GPU, or the CPU."""
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
