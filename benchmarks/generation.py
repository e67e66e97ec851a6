"""Large data sets from the embedded weights: images a minute, peak memory, and where the time goes.

    python benchmarks/generation.py [--quick] [--output_dir DIR]

Makes 1000 planes from a bank of 1000 cells and 100 stacks from a bank of 200, with `cascade generate` itself, and
checks what it made with `cascade validate`. Prints one JSON object on its last line. Started again with the same
--output_dir it goes on, and the times are then those of the rest.
"""

import argparse
import json
import resource
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from common import machine

from cascade.commands import cli
from cascade.data.settings import ValidateSettings
from cascade.data.validate import validate
from cascade.export.formats import DataSetWriter
from cascade.pipelines import cascade as pipelines
from cascade.pipelines import stages

SETS = {"nuclei2d": (1000, 1000), "nuclei3d": (100, 200)}  # images, cells in the bank


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a twentieth of it")
    parser.add_argument("--output_dir", type=Path, help="keep the data sets here")
    options = parser.parse_args()
    report = {}
    with tempfile.TemporaryDirectory() as place:
        folder = options.output_dir or Path(place)
        for model, numbers in SETS.items():
            images, bank = (max(n // 20, 2) if options.quick else n for n in numbers)
            report[model] = made(model, images, bank, folder / model)
    report["machine"] = machine()
    print(json.dumps(report))


def made(model: str, images: int, bank: int, folder: Path) -> dict:
    """One data set, timed."""
    spent = clocked()
    start = time.perf_counter()
    arguments = ["generate", "--model", model, "--num_images", str(images), "--bank", str(bank)]
    if cli.main([*arguments, "--output_dir", str(folder)]):
        raise SystemExit(f"cascade {' '.join(arguments)} failed")
    seconds = time.perf_counter() - start
    stages = {name: round(value, 1) for name, value in spent.items()}
    check = validate(ValidateSettings(folder))
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and ".cascade" not in p.parts)
    return {
        "images": images,
        "cells_in_bank": bank,
        "seconds": round(seconds, 1),
        "images_per_minute": round(60 * images / seconds, 1),
        "seconds_by_stage": stages | {"other": round(seconds - sum(stages.values()), 1)},
        "peak_memory_gb_so_far": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "gb_on_disk": round(size / 2**30, 3),
        "sound": not check.errors,
        "cells": check.num_cells,
    }


def clocked() -> dict[str, float]:
    """Seconds by stage, from here on: the stages' functions are replaced by such that look at the clock."""
    spent: dict[str, float] = defaultdict(float)

    def watch(owner, name: str, stage: str) -> None:
        function = getattr(owner, name)
        function = getattr(function, "watched", function)

        def timed(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[stage] += time.perf_counter() - start

        timed.watched = function
        setattr(owner, name, timed)

    watch(pipelines.MaskDDPMPipeline, "__call__", "outlines")
    watch(pipelines.MultiviewPipeline, "__call__", "views")
    watch(stages, "fit_views", "solids")
    watch(stages, "inflated_outline", "solids")
    watch(stages, "solid_slices", "slices")
    watch(stages.TexturePipeline, "draw_aligned", "texture")
    watch(pipelines, "take_picture", "population and camera")
    watch(DataSetWriter, "write", "files")
    return spent


if __name__ == "__main__":
    main()
