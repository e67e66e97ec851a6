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
from diffusers.utils.logging import disable_progress_bar

from cascade import __version__, generation, hub
from cascade.assets import embedded
from cascade.bank import stored_bank
from cascade.data.frames import read_image
from cascade.data.statistics import Statistics, saved_statistics
from cascade.export import ctc
from cascade.pipelines.cascade import CascadePipeline
from cascade.population import Cell
from cascade.scene import Scene, plan_scene
from cascade.tiles import compose_tiles

_IN_3D = {"reading": "silhouette", "shapes": "multiview"}  # without meaning for planes
_NO_IMAGE = 1 << 30  # cells of a bank are made under numbers that no image has


def generate(options) -> None:
    """Do what the parsed options of `cascade generate` ask for."""
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
        maker = _maker(folder, made_by, options.device, options.output_dir)
        if not generation.again(options.output_dir, made_by, maker[0], options.only, maker[1]):
            raise ValueError(f"sample {options.only} differs from the data set's: another machine, version or library?")
        print(f"sample {options.only} is the same, byte for byte: see {options.output_dir / '.cascade' / 'again'}")
        return None
    statistics = Statistics.from_dict(saved_statistics(folder))
    _check(statistics, job)  # what cannot be, is said before anything is made
    if options.dry_run:
        job.writer()
        return _estimate(folder, job, options.device)
    job = replace(job, frames_per_sequence=_sequence_length(statistics, job))
    generation.start(options.output_dir, job)
    if options.slurm:
        return _submit(folder, options)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    generate, write = _maker(folder, job, options.device, options.output_dir, rank, world)
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
    _scene(statistics, job, 0)
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
        scene, own = _scene(statistics, job, 0), statistics.cells_per_image
        most = int(np.ceil((scene.cells + 0.5) * max(own) / max(own[scene.like], 1)))
    if "ctc" in job.formats and most > ctc.TRACK_IDS:
        raise ValueError(
            f"images of {most} cells are too many for the {ctc.TRACK_IDS} numbers of the Cell Tracking Challenge's "
            "layout: give another --format, ome-zarr for one"
        )
    return min(400, max(ctc.TRACK_IDS // max(most, 1), 1))


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

    together = cells_together(pipeline.device)
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
        own = ("dtype", "compile", "region_sha256")
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
        part = min(bank, cells_together(device or best_device()))
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
        raise ValueError("--slurm needs submitit: pip install -e '.[slurm]'") from error
    executor = submitit.AutoExecutor(options.output_dir / ".cascade" / "slurm")
    asked = {"slurm_gpus_per_node": options.slurm_gpus} if options.slurm_gpus else {}
    executor.update_parameters(
        slurm_partition=options.slurm, timeout_min=24 * 60, slurm_array_parallelism=options.slurm_tasks, **asked
    )
    tasks = options.slurm_tasks
    jobs = executor.map_array(
        run_part, [str(options.output_dir)] * tasks, [str(folder)] * tasks, range(tasks), [tasks] * tasks
    )
    where = "" if executor.cluster == "slurm" else f" to this machine, as there is no sbatch ({executor.cluster})"
    ids = ", ".join(j.job_id for j in jobs)
    print(f"submitted {ids}{where}; the same command without --slurm shows what is done")


def run_part(output_dir: str, model: str, rank: int, world: int) -> bool:
    """One task of an array: the shards of one rank."""
    job = generation.load_job(output_dir)
    generate, write = _maker(model, job, None, Path(output_dir), rank, world)
    return generation.run(output_dir, job, generate, rank, world, write)


def load(folder, device: str | None = None, dtype: str = "float32", compile: bool = False) -> CascadePipeline:
    """A cascade on the best device there is, whose stages leave the progress bar to the whole.

    compile: the texture networks by torch.compile, which takes a minute or two and pays on large data sets.
    """
    disable_progress_bar()  # of loading, which takes no time
    device = device or best_device()
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"--device {device}: this installation of torch sees no GPU; leave it out, or see cascade doctor"
        )
    pipeline = CascadePipeline.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device)
    for stage in pipeline.stages:
        stage.set_progress_bar_config(disable=True)
    if compile:
        for network in (pipeline.texture.unet, pipeline.texture.controlnet):
            network.compile()
    return pipeline


def cells_together(device: torch.device | str) -> int:
    """How many cells of a bank are made at once: a GPU makes 128 at nearly twice the rate of 32, a CPU 32 at any rate,
    and loses less where it is interrupted."""
    return 128 if torch.device(device).type == "cuda" else 32


def best_device() -> str:
    """This process's GPU, which it shares where there are more processes than GPUs, or the CPU."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
