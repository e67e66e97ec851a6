"""Cells a minute, stage by stage, by how many are made at once and in which precision: on a CPU or a GPU.

    python benchmarks/speed.py [--model nuclei3d] [--cells 32 256] [--dtypes float32 bfloat16] [--device cuda]
                              [--shapes inflated]

Every figure is of one call of `CascadePipeline.cells` after a small one to warm up. With --neus also what a step of
NeuS's own network costs for one cell and for many, beside the whole fit of the fast field. Prints one JSON object on
its last line.
"""

import argparse
import json
import time
from typing import get_args

import torch
from common import machine
from generation import clocked

from cascade.generation.load import load
from cascade.geometry.cameras import hemisphere
from cascade.multiview.renders import HarmonicRenders
from cascade.neus.fit import fit_views
from cascade.neus.settings import NeuSSettings
from cascade.population.settings import CascadeSettings, Shapes
from cascade.processor import best_device
from cascade.rng import torch_stream
from cascade.shapes.harmonics import ShapeLaw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nuclei3d")
    parser.add_argument("--cells", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--shapes", choices=get_args(Shapes), default=CascadeSettings().shapes)
    parser.add_argument("--neus", action="store_true")
    options = parser.parse_args()
    report: dict = {"model": options.model, "shapes": options.shapes, "cells": {}}
    for dtype in options.dtypes:
        pipeline = load(options.model, options.device, dtype)
        settings = CascadeSettings(shapes=options.shapes)
        pipeline.cells(4, 0, settings)
        report["cells"][dtype] = {count: made(pipeline, count, settings, options.device) for count in options.cells}
    if options.neus:
        report["neus"] = neus(options.cells, options.device)
    report["machine"] = machine()
    print(json.dumps(report))


def made(pipeline, count: int, settings: CascadeSettings, device: str) -> dict:
    """`count` cells made at once."""
    spent, start = clocked(), time.perf_counter()
    cells = pipeline.cells(count, 1, settings)
    _wait(device)
    seconds = time.perf_counter() - start
    stages = {name: round(value, 2) for name, value in spent.items()}
    slices = sum(len(cell.mask) if cell.mask.ndim == 3 else 1 for cell in cells)
    return {
        "seconds": round(seconds, 2),
        "cells_per_minute": round(60 * len(cells) / seconds, 1),
        "slices_per_second_of_texture": round(slices / max(spent["texture"], 1e-9), 1),
        "seconds_by_stage": stages | {"other": round(seconds - sum(stages.values()), 2)},
    }


def neus(counts: list[int], device: str, steps: int = 4) -> dict:
    """Seconds a cell of the fast fit, and of a step of the faithful one, by how many cells are fitted at once."""
    cameras = hemisphere(16)
    found: dict = {"fast_fit": {}, "faithful_step": {}}
    renders = HarmonicRenders(cameras, ShapeLaw(), 32)
    views = renders.draw(max(*counts, 16), torch_stream(0, "speed"))[2].to(device)
    fit_views(views[:1], cameras, NeuSSettings(), generator=torch_stream(0, "rays", device=device))  # to warm up
    for count in counts:
        found["fast_fit"][count] = round(_timed(views[:count], cameras, NeuSSettings(), device) / count, 4)
    for count in (1, 16) if device.startswith("cuda") else (1,):  # 2 GB a cell
        settings = NeuSSettings.faithful(steps)
        found["faithful_step"][count] = round(_timed(views[:count], cameras, settings, device) / count / steps, 4)
    return found


def _timed(views: torch.Tensor, cameras, settings: NeuSSettings, device: str) -> float:
    start = time.perf_counter()
    fit_views(views, cameras, settings, generator=torch_stream(0, "rays", device=device))
    _wait(device)
    return time.perf_counter() - start


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
