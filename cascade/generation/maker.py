"""How the samples of a job are made, by seed and numbers, and how they are written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from cascade.generation import shards as generation
from cascade.generation.load import cells_together, load
from cascade.optics.statistics import Statistics
from cascade.pipelines.cascade import CascadePipeline
from cascade.population.bank import stored_bank
from cascade.population.compositing import Cell
from cascade.population.scene import Scene, plan_scene
from cascade.population.tiles import compose_tiles
from cascade.reading import read_image

_NO_IMAGE = 1 << 30  # cells of a bank are made under numbers that no image has


def plan_of(statistics: Statistics, job: generation.Job, index: int, region: np.ndarray | None = None) -> Scene:
    """The plan of one image of a job."""
    names = ("canvas_size", "cells_per_image", "clustering_probability", "max_overlap")
    if region is None:
        region = region_of(job)
    return plan_scene(statistics, job.seed, index, region=region, **{name: job.settings[name] for name in names})


def region_of(job: generation.Job) -> np.ndarray | None:
    return None if job.settings.get("region") is None else read_image(Path(job.settings["region"]))


def bank_of(
    pipeline: CascadePipeline, job: generation.Job, output_dir: Path, rank: int = 0, world: int = 1
) -> list[Cell]:
    """The job's bank of cells, made where it is missing, and kept beside the marks of the finished shards."""
    names = ("rho", "correlation_length_um", "min_alignment", "num_inference_steps", "reading", "shapes")
    settings = {name: job.settings[name] for name in names}

    def make(part: int, size: int) -> list[Cell]:
        return pipeline.cells(size, job.seed, _NO_IMAGE + part, **settings)[0]

    together = cells_together(pipeline.device)
    return stored_bank(output_dir / ".cascade" / "bank", job.settings["bank"], make, rank, world, together)


def maker(
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
            bank = bank_of(pipeline, job, output_dir, rank, world) if job.settings.get("bank") else None
            ready.update(pipeline=pipeline, bank=bank, region=region_of(job))
        return ready["pipeline"]

    def generate(seed: int, numbers):
        pipeline = prepare_once()
        if job.settings.get("tiles"):
            return (plan_of(pipeline.statistics, job, number, ready["region"]) for number in numbers)
        own = ("dtype", "compile", "region_sha256")
        settings = {key: value for key, value in job.settings.items() if key not in own}
        return pipeline.generate(seed, numbers, **settings | {"region": ready["region"], "bank": ready["bank"]})

    def compose(scene: Scene, number: int, place: Path) -> dict:
        path = place / f"sample_{number:06d}.ome.zarr"
        return compose_tiles(ready["bank"], scene, ready["pipeline"].statistics, path, job.seed, number)

    return generate, compose if job.settings.get("tiles") else None
