"""What a data set will cost in time, memory and disk, from one sample of it: `cascade generate --dry_run`."""

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from cascade.generation.load import cells_together
from cascade.generation.maker import CascadeMaker
from cascade.generation.shards import Job
from cascade.processor import best_device


@dataclass(frozen=True)
class Estimate:
    """Of one image: seconds, bytes on disk, cells; of the whole: hours on one process; memory of this process."""

    seconds: float
    disk_bytes: int
    num_cells: int
    hours: float
    memory_bytes: int


def estimate(model: str | Path, job: Job, device: str | None) -> Estimate:
    """Make one sample of a job, and count."""
    bank = int(job.settings["bank"] or 0)
    once = 0.0
    with tempfile.TemporaryDirectory() as place:
        part = min(bank, cells_together(device or best_device()))
        few = replace(job, settings=job.settings | {"bank": part or None})
        maker = CascadeMaker(model, few, Path(place), device=device)
        start = time.perf_counter()
        (sample,) = maker.samples(job.seed, range(1))
        seconds = time.perf_counter() - start
        if bank:  # the first image waits for (part of) the bank, the others do not
            start = time.perf_counter()
            (sample,) = maker.samples(job.seed, range(1))
            once, seconds = seconds * bank / part, time.perf_counter() - start
        shutil.rmtree(Path(place) / ".cascade", ignore_errors=True)
        job.writer().write(sample, 0, Path(place))
        size = sum(p.stat().st_size for p in Path(place).rglob("*") if p.is_file())
    hours = (once + seconds * job.num_images) / 3600
    return Estimate(seconds, size, len(sample.cells), hours, psutil.Process().memory_info().rss)
