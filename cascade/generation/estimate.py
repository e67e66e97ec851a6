"""What a data set will cost in time, memory and disk, from one sample of it: `cascade generate --dry_run`."""

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil

from cascade.generation.load import best_device, cells_together
from cascade.generation.maker import maker


def estimate(folder, job, device: str | None) -> None:
    """Time, memory and disk of a job, from one sample of it."""
    bank = job.settings["bank"] or 0
    once = 0.0
    with tempfile.TemporaryDirectory() as place:
        part = min(bank, cells_together(device or best_device()))
        few = replace(job, settings=job.settings | {"bank": part or None})
        generate, _ = maker(folder, few, device, Path(place))
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
