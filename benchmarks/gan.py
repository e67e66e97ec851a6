"""Conditional GAN: how near to real images from annotations of several kinds, how fast, and what α does.

    python benchmarks/gan.py [--quick] [--model NAME=FOLDER …] [--only table|speed|alpha|painters …] [--images N]

Prints one JSON object on its last line. `nrmse`, `ssim`, `zncc` per experiment of the paper's Table 1, in units of the
model's window: membranes of the part of a root that was not trained on, with labels (manual) and with cells found in
the image (automatic), and of an ovule, resampled and brought to the window; nuclei of BBBC050 10 and 11 with labels,
found cells, and ellipsoids at their places (simulated), each as bright as it is. `profiles`: correlation of the central
xz slices' profiles, and how far their spectra are apart in decades (Figs. 7, 9, 11). `megavoxels_per_minute`, with
threads as given, and `tiles`, a painting in tiles against the same without. `alpha`: at α of 10 to 1000 (Figs. 15, 16)
mean light in cells, the same metrics, and SEG of cells that `detect` finds in the painting. `painters`: of the same
annotations, each model there is: seconds per megavoxel, PSNR, ZNCC, FID of features that no one trained, and SEG of
`detect`.

Needs CASCADE_DATA with root_membrane, ovule_membrane and BBBC050. Models that are not there are left out.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from common import data_folder, machine
from scipy import ndimage

from cascade.annotation import Annotation
from cascade.data.detection import detect
from cascade.data.tissue_detection import detect_tissue
from cascade.evaluation.distribution import frechet_distance
from cascade.evaluation.images import paired_metrics
from cascade.evaluation.profiles import profile_agreement
from cascade.evaluation.scattering import scattering, scattering_features
from cascade.evaluation.segmentation import score
from cascade.evenly import evenly
from cascade.generation.load import load
from cascade.geometry.slices import matched_slices
from cascade.hub.embedded import NAMES, embedded
from cascade.hub.folders import model_folder
from cascade.optics.window import Window
from cascade.pipelines.conditional_gan import ConditionalGANPipeline
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.reading import read_image, read_labels

Array = np.ndarray
MEMBRANES, NUCLEI = "membrane3d-gan", "nuclei3d-gan"
TRAINED_COLUMNS = 120  # of the root
WIDEST_UM = 22.0  # cells that nuclei3d's crops have room for
ALPHAS = (10.0, 50.0, 100.0, 500.0, 1000.0)

_RANGE = Window(90.0, 1500.0)  # camera units in which painters of BBBC050 are compared, all of them


@dataclass(frozen=True)
class Pair:
    """A real image and an annotation of it."""

    image: Array
    annotation: Annotation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small parts of one image each, in under a minute")
    parser.add_argument("--model", nargs="+", default=[], help="NAME=FOLDER, instead of the embedded ones")
    parser.add_argument("--images", type=int, default=4, help="of BBBC050")
    parser.add_argument("--only", nargs="+", choices=("table", "speed", "alpha", "painters"))
    options = parser.parse_args()
    if not data_folder().is_dir():
        parser.error(f"{data_folder()} is not there: set CASCADE_DATA to the folder of the data sets")
    models = _there(dict(one.split("=", 1) for one in options.model))
    parts = {"table": table, "speed": speed, "alpha": alpha, "painters": painters}
    report: dict = {}
    for name, run in parts.items():
        if options.only is None or name in options.only:
            report |= run(models, options)
            print(name, json.dumps(report, default=str), flush=True)
    print(json.dumps(report | {"models": sorted(models), "machine": machine()}))


def table(models: dict[str, str], options: argparse.Namespace) -> dict:
    """Table 1."""
    found: dict[str, list[dict[str, float]]] = {}
    for experiment, (model, pairs) in _experiments(options).items():
        if model not in models:
            continue
        pipeline = _pipeline(models[model])
        for n, pair in enumerate(pairs(pipeline)):
            made = pipeline(pair.annotation, generator=torch.Generator().manual_seed(n)).images[0]
            row = in_window(pipeline.window, pair.image, made)
            row |= profile_agreement(pair.image, made, pipeline.spacing_um)
            found.setdefault(experiment, []).append(row)
    means = {name: {key: _mean([row[key] for row in rows]) for key in rows[0]} for name, rows in found.items()}
    found_by = {key: {name: row[key] for name, row in means.items()} for key in ("nrmse", "ssim", "zncc")}
    sections = ("profile_zncc", "spectrum_decades")
    return found_by | {"profiles": {name: {key: row[key] for key in sections} for name, row in means.items()}}


def speed(models: dict[str, str], options: argparse.Namespace) -> dict:
    """Of a painting of 64 slices."""
    name = next((one for one in (MEMBRANES, NUCLEI) if one in models), None)
    if name is None:
        return {}
    pipeline, rates = _pipeline(models[name]), {}
    for side in (64,) if options.quick else (64, 128, 256):
        labels = np.zeros((64, side, side), np.uint16)
        labels[8:-8, 8:-8, 8:-8] = 1
        annotation = Annotation.of_labels(labels, pipeline.spacing_um)
        pipeline(annotation)
        start = time.perf_counter()
        pipeline(annotation)
        rates[side] = round(60 * labels.size / 1e6 / (time.perf_counter() - start), 1)
    side = max(rates)
    scene = Annotation.of_labels((np.indices((24, side, side)) // 16 % 3).sum(0).astype(np.uint16), pipeline.spacing_um)
    whole, tiled = (
        pipeline(scene, generator=torch.Generator().manual_seed(0), **how).images[0]
        for how in ({}, {"tile_size": (24, side - 16, side - 16)})
    )
    window = pipeline.window
    apart = np.abs(tiled - whole).max() / (window.high - window.low)
    return {"megavoxels_per_minute": rates[side], "rates": rates, "tiles": {"difference": round(float(apart), 5)}}


def alpha(models: dict[str, str], options: argparse.Namespace) -> dict:
    """Quality levels, of nuclei: their embryos have an outside."""
    if NUCLEI not in models:
        return {}
    pipeline, levels = _pipeline(models[NUCLEI]), {}
    pairs = list(_nuclei("manual", options))
    for level in ALPHAS[::2] if options.quick else ALPHAS:
        rows, truths, seen = [], [], []
        for n, pair in enumerate(pairs):
            generator = torch.Generator().manual_seed(n)
            made = pipeline(pair.annotation, level, generator=generator).images[0]
            inside = pair.annotation.labels > 0
            rows.append(in_window(pipeline.window, pair.image, made) | {"light": float(made[inside].mean())})
            truths.append(pair.annotation.labels)
            seen.append(detect(made, pipeline.spacing_um))
        own = {key: _mean([row[key] for row in rows]) for key in ("nrmse", "ssim", "zncc", "light")}
        levels[f"{level:g}"] = own | {"seg": round(score(truths, seen).seg, 3)}
    truths = [pair.annotation.labels for pair in pairs]
    real = score(truths, [detect(pair.image, pipeline.spacing_um) for pair in pairs]).seg
    return {"alpha": levels | {"real": {"seg": round(real, 3)}}}


def painters(models: dict[str, str], options: argparse.Namespace) -> dict:
    """Whoever paints nuclei in stacks, on the same annotations: those whose cells fit into the cascade's crops."""
    pairs, rows = [pair for pair in _nuclei("manual", options) if _widest(pair.annotation) <= WIDEST_UM], {}
    real = _planes([pair.image for pair in pairs])
    for name in ("nuclei3d", "sketch3d", NUCLEI):
        if name not in models or (options.quick and name == "nuclei3d"):
            continue
        paint = _painter(name, models[name])
        start, made = time.perf_counter(), []
        for n, pair in enumerate(pairs):
            made.append(np.asarray(paint(pair.annotation, 0, n).image, np.float32))
        seconds = time.perf_counter() - start
        metrics = [in_window(_RANGE, pair.image, image) for pair, image in zip(pairs, made, strict=True)]
        truths = [pair.annotation.labels for pair in pairs]
        found = score(
            truths, [detect(image, pair.annotation.spacing_um) for pair, image in zip(pairs, made, strict=True)]
        )
        rows[name] = {
            "seconds_per_megavoxel": round(seconds / sum(image.size for image in made) * 1e6, 2),
            "psnr": _mean([row["psnr"] for row in metrics]),
            "zncc": _mean([row["zncc"] for row in metrics]),
            "fid_scattering": _fid(_planes(made), real),
            "structure_seg": round(found.seg, 3),
        }
    return {"painters": rows}


def _widest(annotation: Annotation) -> float:
    """The width of the widest cell, in µm, across z."""
    boxes = [box[1:] for box in ndimage.find_objects(annotation.labels) if box is not None]
    return max((side.stop - side.start) * annotation.spacing_um[-1] for box in boxes for side in box)


def _painter(name: str, model: str):
    """paint(annotation, seed, index)."""
    if name == "nuclei3d":
        from cascade.population.settings import CascadeSettings

        cascade = load(model_folder(model))
        cascade.set_progress_bar_config(disable=True)
        return lambda annotation, seed, index: cascade.paint(annotation, seed, index, CascadeSettings())
    pipeline = SketchPipeline.from_pretrained(model) if name == "sketch3d" else _pipeline(model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.paint


def _experiments(options: argparse.Namespace) -> dict:
    """Model and pairs of each."""
    return {
        "membrane_manual": (MEMBRANES, lambda pipeline: [root(options.quick, found=False)]),
        "membrane_automatic": (MEMBRANES, lambda pipeline: [root(options.quick, found=True)]),
        "membrane_ovule": (MEMBRANES, lambda pipeline: [_ovule(pipeline, options)]),
        "nuclei_manual": (NUCLEI, lambda pipeline: _nuclei("manual", options)),
        "nuclei_automatic": (NUCLEI, lambda pipeline: _nuclei("automatic", options)),
        "nuclei_simulated": (NUCLEI, lambda pipeline: _nuclei("simulated", options)),
    }


def root(quick: bool, *, found: bool) -> Pair:
    """Columns that were not trained on, with their labels or with cells found in them."""
    folder = data_folder() / "root_membrane"
    image, labels = (read(folder / name) for read, name in ((read_image, "root.tif"), (read_labels, "root_masks.tif")))
    labels = matched_slices(labels)
    part = np.s_[:24, :64, TRAINED_COLUMNS:184] if quick else np.s_[:, :, TRAINED_COLUMNS:]
    spacing = (0.25, 0.1625, 0.1625)
    own = detect_tissue(image[part], spacing) if found else labels[part]
    return Pair(image[part], Annotation.of_labels(own.astype(np.uint16), spacing))


def _ovule(pipeline: ConditionalGANPipeline, options: argparse.Namespace) -> Pair:
    """At the model's voxel size, its dark and bright ends where the window's are."""
    folder = data_folder() / "ovule_membrane"
    scale = np.divide((0.235, 0.15, 0.15), pipeline.spacing_um)
    image = ndimage.zoom(read_image(folder / "membrane.tif").astype(np.float32), scale, order=1)
    labels = ndimage.zoom(read_labels(folder / "membrane_masks.tif"), scale, order=0)
    low, high = np.quantile(image, [0.001, 0.9995])
    window = pipeline.window
    image = window.low + (image - low) / (high - low) * (window.high - window.low)
    part = np.s_[:24, :64, :64] if options.quick else np.s_[:]
    return Pair(image[part], Annotation.of_labels(labels[part].astype(np.uint16), pipeline.spacing_um))


def _nuclei(kind: str, options: argparse.Namespace) -> Iterator[Pair]:
    folder, spacing = data_folder() / "BBBC050", (1.75, 0.8, 0.8)
    paths = [path for one in ("10", "11") for path in sorted((folder / f"{one}_ST" / "SEG").glob("man_seg*.tif"))]
    for n in evenly(len(paths), 1 if options.quick else options.images):
        path = paths[n]
        image = read_image(path.parents[2] / path.parents[1].name[:2] / f"t{path.stem.removeprefix('man_seg')}.tif")
        labels = read_labels(path) if kind == "manual" else detect(image, spacing)
        if kind == "simulated":
            labels = _ellipsoids(labels)
        yield Pair(image, _as_bright(labels.astype(np.uint16), image, spacing))


def _ellipsoids(labels: Array) -> Array:
    """Each cell an ellipsoid at its centroid, as large and as long along each axis as cells are in the middle."""
    ids = np.unique(labels[labels > 0])
    spreads = np.array([np.std(np.nonzero(labels == one), axis=1) for one in ids])
    radii = np.sqrt(5) * np.median(spreads, 0)
    made = np.zeros_like(labels)
    places = np.indices(labels.shape)
    for one, centre in zip(ids, ndimage.center_of_mass(labels > 0, labels, ids), strict=True):
        inside = sum(((p - c) / r) ** 2 for p, c, r in zip(places, centre, radii, strict=True)) <= 1
        made[inside & (made == 0)] = one
    return made


def _as_bright(labels: Array, image: Array, spacing: tuple[float, ...]) -> Annotation:
    """With each cell's brightness as it is in its middle plane."""
    annotation = Annotation.of_labels(labels, spacing)
    cells = []
    for cell in annotation.cells:
        z = round(cell.centroid_um[0] / spacing[0])
        own = image[z][labels[z] == cell.label]
        light = own if own.size else image[labels == cell.label]
        cells.append(replace(cell, brightness=float(light.mean())))
    return replace(annotation, cells=tuple(cells))


def _there(given: dict[str, str]) -> dict[str, str]:
    """Models that can be loaded, by name."""
    here = (MEMBRANES, NUCLEI, "nuclei3d", "sketch3d")
    return {name: str(embedded(name)) for name in here if name in NAMES} | given


@cache
def _pipeline(model: str) -> ConditionalGANPipeline:
    pipeline = ConditionalGANPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def in_window(window: Window, real: Array, made: Array) -> dict[str, float]:
    """Metrics of a painting against the real image, both in the window, linear."""
    linear = replace(window, gamma=1.0)
    return paired_metrics(linear.stretch(real), linear.stretch(made), data_range=1.0)


def _planes(images: list[Array], size: int = 96) -> Array:
    """Middle parts of every other slice, in decades, so that dim cells count."""
    planes = [plane for image in images for plane in image[::2]]
    parts = [p[tuple(slice((n - size) // 2, (n + size) // 2) for n in p.shape)] for p in planes if min(p.shape) >= size]
    return scattering(np.log10(np.maximum(np.stack(parts).astype(np.float32), 1.0)))


def _fid(made: Array, real: Array) -> float | None:
    """None where there are fewer planes than features."""
    if min(len(made), len(real)) <= real.shape[1]:
        return None
    own, other = scattering_features(made, real), scattering_features(real, real)
    return round(frechet_distance(own, other), 2)


def _mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 3)


if __name__ == "__main__":
    main()
