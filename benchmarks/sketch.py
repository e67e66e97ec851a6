"""DDPM from sketches: how near to real images, how fast, and whether what was drawn is there.

    python benchmarks/sketch.py [--quick] [--model DATA_SET=FOLDER …] [--images N] [--only fidelity|speed|tiles|kept]

Prints one JSON object on its last line. `fidelity` (per data set `psnr`, `ssim`, `mae`, `zncc`): sketches of real
labels, each cell at its mean, painted at the model's default, against the real images; PSNR, SSIM and MAE in units of
the model's window, and beside it those of the sketch itself. `speed`: a part of an image at the default against the
reference, all t_start ancestral steps, in this run: `speedup`, `psnr_loss`, `zncc_loss`; network calls and
`seconds_per_image`. `tiles`: a painting in tiles against the same without, `difference` the largest of the range;
`seam` and `overlap`, gradient at tiles' borders and variance where they overlap over those elsewhere, of what the
same is in the painting without tiles. `kept`: of
simulated scenes fitted to the raw training images, with and without guidance, at several t_start: `lost` share of
cells, `phantoms` per 100 cells, `dim_contrast` of the dimmest fifth; not of tissue, whose cells touch everywhere.

Needs CASCADE_DATA with BBBC039, BBBC050, Fluo-N2DH-GOWT1 and root_membrane, those whose model there is.
"""

import argparse
import itertools
import json
import time
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from common import data_folder, machine
from scipy import ndimage

from cascade.annotation import Annotation
from cascade.data.calibrate import nuclei_like
from cascade.data.detection import detect
from cascade.data.like import LEAST_CONTRAST
from cascade.data.measures import measure_labels
from cascade.diffusion.tiles import tile_origins
from cascade.evaluation.faithfulness import Faithfulness, faithfulness
from cascade.evaluation.images import paired_metrics
from cascade.evenly import evenly
from cascade.geometry.masks import one_piece
from cascade.geometry.slices import matched_slices
from cascade.hub.embedded import NAMES
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.reading import read_image, read_labels
from cascade.rng import stream
from cascade.simulators.nuclei import nuclei
from cascade.sketch.draw import draw_sketch, sketch_of_image

Array = np.ndarray
_T_STARTS = (400, 600)


@dataclass(frozen=True)
class DataSet:
    """Images with labels of all cells, to compare with, and raw ones that the model was trained on."""

    model: str
    spacing_um: tuple[float, ...]
    pairs: tuple[tuple[Path, Path], ...]
    raw: tuple[Path, ...]
    first_column: int = 0
    """Of images whose other part the model was trained on."""


def data_sets(data: Path) -> dict[str, DataSet]:
    """By name."""
    sets = {
        "BBBC039": ("sketch2d", (0.65, 0.65), "BBBC039", ["02"], "GT", ["01"]),
        "GOWT1": ("stemcells2d", (0.24, 0.24), "Fluo-N2DH-GOWT1", ["01"], "ST", ["01"]),
        "BBBC050": ("sketch3d", (1.75, 0.8, 0.8), "BBBC050", ["10", "11"], "ST", [f"{n:02d}" for n in range(1, 10)]),
    }
    found = {}
    for name, (model, spacing, folder, test, truth, train) in sets.items():
        labels = [p for one in test for p in sorted((data / folder / f"{one}_{truth}" / "SEG").glob("*.tif"))]
        pairs = tuple(
            (p.parents[2] / p.parents[1].name[:2] / f"t{p.stem.removeprefix('man_seg')}.tif", p) for p in labels
        )
        raw = tuple(p for one in train for p in sorted((data / folder / one).glob("*.tif")))
        found[name] = DataSet(model, spacing, pairs, raw)
    root = (data / "root_membrane" / "root.tif", data / "root_membrane" / "root_masks.tif")
    found["root"] = DataSet("membrane3d", (0.25, 0.1625, 0.1625), (root,) if root[0].is_file() else (), (), 120)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small part of one image each, in under a minute")
    parser.add_argument("--model", nargs="+", default=[], help="DATA_SET=FOLDER, instead of the embedded one")
    parser.add_argument("--images", type=int, default=6, help="of each data set")
    parser.add_argument("--only", choices=("fidelity", "speed", "tiles", "kept"))
    options = parser.parse_args()
    models = dict(one.split("=", 1) for one in options.model)
    report: dict = {}
    for name, of in data_sets(data_folder()).items():
        model = models.get(name, None if models else of.model)
        if model is None or (model not in NAMES and not Path(model).is_dir()) or not of.pairs:
            continue
        pipeline = SketchPipeline.from_pretrained(model)
        pipeline.set_progress_bar_config(disable=True)
        parts: dict = {"fidelity": fidelity, "speed": speed, "tiles": tiles}
        if of.raw and not (options.quick and report):  # the fit of a simulator takes a quarter of a minute
            parts["kept"] = kept
        row = {part: run(pipeline, of, options) for part, run in parts.items() if options.only in (None, part)}
        report[name] = row
        print(name, json.dumps(row), flush=True)
    first = next(iter(report.values()), {})
    summary = {
        "psnr": {name: row["fidelity"]["psnr"] for name, row in report.items() if "fidelity" in row},
        "zncc": {name: row["fidelity"]["zncc"] for name, row in report.items() if "fidelity" in row},
        **{key: first.get("speed", {}).get(key) for key in ("speedup", "psnr_loss", "seconds_per_image")},
        "tile_difference": first.get("tiles", {}).get("difference"),
        **{key: first.get("kept", {}).get("default", {}).get(key) for key in ("lost", "phantoms", "dim_contrast")},
    }
    print(json.dumps(summary | {"data_sets": report, "machine": machine()}))


def fidelity(pipeline: SketchPipeline, of: DataSet, options: argparse.Namespace) -> dict:
    """Of whole images, painted from their labels."""
    made: list[dict] = []
    drawn: list[dict] = []
    for n in evenly(len(of.pairs), 1 if options.quick else options.images):
        image, sketch = _sketched(pipeline, of, n, _part(of, options))
        painted = pipeline(sketches=sketch, generator=torch.Generator().manual_seed(n)).images[0]
        made.append(_metrics(pipeline, image, painted))
        drawn.append(_metrics(pipeline, image, sketch))
    return {key: round(float(np.mean([one[key] for one in made])), 3) for key in made[0]} | {
        "of_sketch": {key: round(float(np.mean([one[key] for one in drawn])), 3) for key in ("psnr", "zncc")},
        "images": len(made),
    }


def speed(pipeline: SketchPipeline, of: DataSet, options: argparse.Namespace) -> dict:
    """Default against reference, on the middle part of one image."""
    size = (64, 64) if options.quick else (256, 256)
    part = size if len(of.spacing_um) == 2 else (16, *(n // 4 for n in size))
    image, sketch = _sketched(pipeline, of, len(of.pairs) // 2, part)
    t_start = 40 if options.quick else pipeline.config.t_start
    runs = {
        "default": dict(t_start=t_start),
        "reference": dict(t_start=t_start, solver="ancestral", num_inference_steps=t_start),
    }
    seconds, found = {}, {}
    for name, how in runs.items():
        pipeline(sketches=sketch, t_start=t_start, num_inference_steps=1)  # warm
        start = time.perf_counter()
        painted = pipeline(sketches=sketch, generator=torch.Generator().manual_seed(0), **how).images[0]
        seconds[name], found[name] = time.perf_counter() - start, _metrics(pipeline, image, painted)
    _, whole = _sketched(pipeline, of, 0, _part(of, options))
    start = time.perf_counter()
    pipeline(sketches=whole)
    return {
        "part": list(part),
        "network_calls": pipeline.painting(t_start=t_start).num_inference_steps,
        "speedup": round(seconds["reference"] / seconds["default"], 1),
        "psnr_loss": round(found["reference"]["psnr"] - found["default"]["psnr"], 2),
        "zncc_loss": round(found["reference"]["zncc"] - found["default"]["zncc"], 4),
        "seconds_per_image": round(time.perf_counter() - start, 2),
        "image": list(whole.shape),
    }


def tiles(pipeline: SketchPipeline, of: DataSet, options: argparse.Namespace) -> dict:
    """Tiles of half an image's width against the whole."""
    factor = pipeline.unet.factor
    _, sketch = _sketched(pipeline, of, 0, _part(of, options))
    tile = tuple(
        max(n // 2 // factor, 2) * factor if n > 2 * factor else -(-n // factor) * factor for n in sketch.shape
    )
    whole, tiled = (
        pipeline(sketches=sketch, generator=torch.Generator().manual_seed(0), **how).images[0]
        for how in ({}, {"tile_size": tile})
    )
    window = pipeline.windows[0]
    overlap = min(pipeline.unet.reach, *(one // 2 for one in tile))
    found = [
        (_steps_at(one, tile, overlap, factor), _variance_where_shared(one, tile, overlap, factor))
        for one in (tiled, whole)
    ]
    return {
        "tile": list(tile),
        "difference": round(float(np.abs(tiled - whole).max() / (window.high - window.low)), 5),
        "mean_difference": round(float(np.abs(tiled - whole).mean() / (window.high - window.low)), 6),
        "seam": round(found[0][0] / found[1][0], 4),
        "overlap": round(found[0][1] / found[1][1], 4),
    }


def _spans(size: int, tile: int, overlap: int, factor: int) -> list[tuple[int, int]]:
    """Where tiles begin and end along an axis."""
    return [(at, at + tile) for at in tile_origins(-(-size // factor) * factor, tile, overlap, factor)]


def _steps_at(image: Array, tile: tuple[int, ...], overlap: int, factor: int) -> float:
    """Mean step between neighbouring pixels across the borders of tiles, over that elsewhere, mean over axes."""
    ratios = []
    for axis, (size, side) in enumerate(zip(image.shape, tile, strict=True)):
        step = np.abs(np.diff(image, axis=axis)).mean(tuple(n for n in range(image.ndim) if n != axis))
        ends = {end for span in _spans(size, side, overlap, factor) for end in span if 0 < end < size}
        border = np.isin(np.arange(1, size), list(ends))
        if border.any():
            ratios.append(step[border].mean() / step[~border].mean())
    return float(np.mean(ratios))


def _variance_where_shared(image: Array, tile: tuple[int, ...], overlap: int, factor: int) -> float:
    """Variance of fine detail where several tiles lie, over that where one does."""
    count = np.zeros(image.shape, int)
    spans = [_spans(size, side, overlap, factor) for size, side in zip(image.shape, tile, strict=True)]
    for corner in itertools.product(*spans):
        count[tuple(slice(*span) for span in corner)] += 1
    fine = image - ndimage.gaussian_filter(image, 2)
    return float(fine[count > 1].var() / fine[count == 1].var())


def kept(pipeline: SketchPipeline, of: DataSet, options: argparse.Namespace) -> dict:
    """Of simulated nuclei like those of the raw training images."""
    raw = [read_image(of.raw[n]) for n in evenly(len(of.raw), 2 if options.quick else 8)]
    measures = measure_labels(
        [detect(one, of.spacing_um) for one in raw], of.spacing_um, raw, least_contrast=LEAST_CONTRAST
    )
    shape = tuple(int(n) for n in np.median([one.shape for one in raw], 0))
    canvas = tuple(min(n, m) for n, m in zip(shape, (192, 192) if len(shape) == 2 else (48, 96, 96), strict=True))
    settings = nuclei_like(measures, shape, of.spacing_um, canvas_size=canvas if options.quick else shape)
    scenes = [nuclei(stream(5, "kept", n), settings) for n in range(1 if options.quick else options.images)]
    rows = {"default": {}} | {
        f"t_start {t}, guidance {um:g} µm": {"t_start": t, "guidance_um": um}
        for t in _T_STARTS
        for um in (0.0, _guidance(of))
    }
    return {name: _kept(pipeline, scenes, how) for name, how in rows.items()}


def _guidance(of: DataSet) -> float:
    return 4 * of.spacing_um[-1]


def _kept(pipeline: SketchPipeline, scenes: list[Annotation], how: dict) -> dict:
    found: list[Faithfulness] = []
    for n, scene in enumerate(scenes):
        sketch = draw_sketch(scene, pipeline.sketch_settings[0], stream(0, "sketch", n))
        image = pipeline(sketches=sketch, generator=torch.Generator().manual_seed(n), **how).images[0]
        found.append(faithfulness(scene.labels, sketch, image, scene.spacing_um))
    whole = reduce(Faithfulness.__add__, found)
    return {
        "cells": len(whole.asked),
        "lost": round(whole.lost, 4),
        "phantoms": round(whole.phantoms_per_100, 2),
        "dim_contrast": round(whole.dim_contrast, 3),
    }


def _sketched(pipeline: SketchPipeline, of: DataSet, number: int, part: tuple[int, ...] | None) -> tuple[Array, Array]:
    """An image and its sketch, of its middle."""
    image, labels = read_image(of.pairs[number][0]), matched_slices(read_labels(of.pairs[number][1]))
    image, labels = (one[..., of.first_column :] for one in (image, labels))
    labels = one_piece(labels)[0]
    sketch = sketch_of_image(labels, image, pipeline.sketch_settings[0], spacing_um=of.spacing_um)
    if part is None:
        return image, sketch
    middle = tuple(slice(max(n - m, 0) // 2, max(n - m, 0) // 2 + m) for n, m in zip(image.shape, part, strict=True))
    return image[middle], sketch[middle]


def _part(of: DataSet, options: argparse.Namespace) -> tuple[int, ...] | None:
    if not options.quick:
        return None
    return (128, 128) if len(of.spacing_um) == 2 else (32, 64, 64)


def _metrics(pipeline: SketchPipeline, real: Array, made: Array) -> dict[str, float]:
    window = pipeline.windows[0]
    scale = window.high - window.low
    real, made = (np.clip((one - window.low) / scale, 0, 1) for one in (real.astype(float), made.astype(float)))
    return paired_metrics(real, made, data_range=1.0)


if __name__ == "__main__":
    main()
