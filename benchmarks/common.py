"""Where the benchmarks find real data, what they ran on, and how long cells take there."""

import os
import platform
import time
from pathlib import Path

import torch

from cascade import CascadePipeline


def data_folder() -> Path:
    """The folder with BBBC039 and BBBC050 that CASCADE_DATA names."""
    return Path(os.environ.get("CASCADE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def new_cells(pipeline: CascadePipeline, quick: bool) -> dict[str, float]:
    """Seconds for cells that are not taken from a bank: a plane of 60 nuclei, or one cell of a stack of 14; the second
    time, when everything is loaded."""
    flat = pipeline.statistics.ndim == 2
    size, count = ((512, 512), 60) if flat else ((48, 160, 160), 14)
    count = 3 if quick else count
    for seed in (0, 1):
        start = time.perf_counter()
        pipeline(canvas_size=size, cells_per_image=count, generator=torch.Generator().manual_seed(seed))
        seconds = time.perf_counter() - start
    return {"seconds_per_image_2d": round(seconds, 2)} if flat else {"seconds_per_cell_3d": round(seconds / count, 3)}


def machine() -> str:
    """Processor, threads, and GPU if there is one."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads{gpu}"
