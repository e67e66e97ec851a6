"""Simulators: speed beside the authors' code, and how real what they make is, fitted to raw images and to labels.

    python benchmarks/simulators.py [--quick] [--only organisms|like|realism]

Prints one JSON object on its last line. `organisms`: processor seconds (and those of the clock) and peak memory of one
annotation at the published settings, each in a process of its own, beside `reference_seconds` of the authors' code on
two CPU cores of another machine (null where none was measured). `like`: what is found in raw images, over what is
annotated, less one: counts, mean and spread of cells' radii. `realism`: Wasserstein distances in standard deviations of
the real images, simulated with `like` on raw images and with labels; beside it the floor, one half of the real cells
against the other, and the distance of what was fitted to. The last two need CASCADE_DATA with BBBC039, BBBC050 and
Fluo-N2DH-GOWT1, and for tissue tissue_labels and root_membrane; without it they are null.
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from common import data_folder, machine

from cascade.data.calibrate import nuclei_like, tissue_like
from cascade.data.detection import detect
from cascade.data.like import LEAST_CONTRAST
from cascade.data.measures import Measures, measure_labels
from cascade.data.ties import measure_ties
from cascade.evaluation.realism import realism, realism_floor
from cascade.evenly import evenly
from cascade.geometry.masks import one_piece
from cascade.reading import read_image, read_labels
from cascade.rng import stream
from cascade.simulators.nuclei import nuclei
from cascade.simulators.tissue import tissue

REFERENCE_S = {"celegans": 3.9, "tribolium": 89.6, "gowt1": 1.3, "hela": 1.8, "membranes_128": 5.5}
SPACING = {"BBBC039": (0.65, 0.65), "Fluo-N2DH-GOWT1": (0.24, 0.24), "BBBC050": (1.75, 0.8, 0.8)}
TRAIN_050, TEST_050 = [f"{n:02d}" for n in range(1, 10)], ["10", "11"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller run of everything, in under a minute")
    parser.add_argument("--only", choices=("organisms", "like", "realism"))
    options = parser.parse_args()
    data, quick = data_folder(), options.quick
    parts: dict[str, Callable[[], dict | None]] = {
        "organisms": lambda: organisms(quick),
        "like": lambda: like(data, quick) if data.is_dir() else None,
        "realism": lambda: realisms(data, quick) if data.is_dir() else None,
    }
    report = {name: part() for name, part in parts.items() if options.only in (None, name)}
    print(json.dumps(report | {"machine": machine()}))


def organisms(quick: bool) -> dict:
    """Seconds and GB of one annotation each; quick, all in one process, whose peak is that of the largest so far."""
    names = ["celegans", "tribolium", "gowt1", "hela", "zebrafish", "membranes_128", "meristem", "tissue"]
    names = names if not quick else [name for name in names if name not in ("zebrafish", "meristem", "tissue")]
    spawn = multiprocessing.get_context("spawn")
    found = {}
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=None if quick else 1) as own:
        for name, row in zip(names, own.map(_timed, names), strict=True):
            reference = REFERENCE_S.get(name)
            row["reference_seconds"] = reference
            row["speedup"] = round(reference / row["seconds"], 1) if reference else None
            found[name] = row
            print(name, row, flush=True)
    return found


def _timed(name: str) -> dict:
    make, asked = _maker(name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    times = []
    for n in range(1 if name in ("tribolium", "zebrafish", "meristem", "tissue") else 3):
        start, wall = time.process_time(), time.perf_counter()
        labels = make(np.random.default_rng(n))
        times.append((time.process_time() - start, time.perf_counter() - wall))
    seconds, wall = np.median(times, 0)
    return {
        "seconds": round(float(seconds), 3),
        "wall_seconds": round(float(wall), 3),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "import_gb": round(before, 2),
        "voxels": int(labels.size),
        "cells_asked": asked,
        "cells_placed": int(len(np.unique(labels)) - 1),
    }


def _maker(name: str) -> tuple[Callable[[np.random.Generator], np.ndarray], int | None]:
    """A simulator at the published settings, and how many cells are asked for."""
    from cascade.simulators.catalogue import ORGANISMS

    if name == "membranes_128":
        return _membranes, 100
    counts = {"celegans": 100, "tribolium": 3000, "gowt1": 30, "hela": 450, "zebrafish": 500}
    numbers = {"num_cells": (float(counts[name]),)} if name in counts else {}
    settings = ORGANISMS[name].settings_class()(**numbers)
    make = ORGANISMS[name].simulate()
    return lambda rng: make(rng, settings).labels, counts.get(name)


def _membranes(rng: np.random.Generator) -> np.ndarray:
    """Weighted Voronoi cells of a cube and their membranes."""
    from cascade.shapes.membranes import membranes
    from cascade.shapes.tessellation import weighted_voronoi

    whole = np.ones((128,) * 3, bool)
    labels = weighted_voronoi(whole, (1.0,) * 3, rng.uniform(0, 127, (100, 3)), rng.uniform(0.8, 1.2, 100))
    membranes(labels, (1.0,) * 3, 2.0)
    return labels


def _pairs(data: Path, name: str, sequences: list[str], truth: str, count: int) -> list[tuple[Path, Path]]:
    """Images and their labels, spread over the sequences."""
    found = []
    for sequence in sequences:
        for path in sorted((data / name / f"{sequence}_{truth}" / "SEG").glob("*.tif")):
            found.append((data / name / sequence / f"t{path.stem.removeprefix('man_seg')}.tif", path))
    return [found[n] for n in evenly(len(found), count)]


def like(data: Path, quick: bool) -> dict:
    """Found in raw images over annotated, less one."""
    sets = {
        "BBBC039 01": ("BBBC039", ["01"], "GT", 1 if quick else 25),
        "GOWT1 01": ("Fluo-N2DH-GOWT1", ["01"], "ST", 1 if quick else 24),
        "BBBC050 01-09": ("BBBC050", TRAIN_050, "ST", 1 if quick else 54),
    }
    found = {}
    for key, (name, sequences, truth, count) in sets.items():
        pairs, spacing = _pairs(data, name, sequences, truth, count), SPACING[name]
        start = time.perf_counter()
        seen = [detect(read_image(image), spacing) for image, _ in pairs]
        seconds = time.perf_counter() - start
        real = [read_labels(labels).astype(np.int64) for _, labels in pairs]
        counts = np.array([[len(np.unique(a)) - 1, len(np.unique(b)) - 1] for a, b in zip(seen, real, strict=True)])
        mine, own = (np.concatenate([_radii(one, spacing) for one in some]) for some in (seen, real))
        found[key] = {
            "images": len(pairs),
            "seconds_per_image": round(seconds / len(pairs), 2),
            "found": int(counts[:, 0].sum()),
            "annotated": int(counts[:, 1].sum()),
            "count_error": round(float(counts[:, 0].sum() / counts[:, 1].sum() - 1), 3),
            "count_error_per_image": round(float(np.mean(np.abs(counts[:, 0] / counts[:, 1] - 1))), 3),
            "radius_error": round(float(mine.mean() / own.mean() - 1), 3),
            "radius_sd_error": round(float(mine.std() / own.std() - 1), 3),
        }
        print(key, found[key], flush=True)
    return found


def _radii(labels: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    sizes = np.bincount(labels.ravel())[1:] * np.prod(spacing)
    sizes = sizes[sizes > 0]
    return np.sqrt(sizes / np.pi) if labels.ndim == 2 else np.cbrt(0.75 * sizes / np.pi)


def realisms(data: Path, quick: bool) -> dict:
    """Simulated from raw images and from labels of the first sequences, compared with labels of the second."""
    sets = {
        "GOWT1 01_ST": ("Fluo-N2DH-GOWT1", ["01"], ["01"], "ST", 48),
        "BBBC039 02": ("BBBC039", ["01"], ["02"], "GT", 40),
        "BBBC050 10-11": ("BBBC050", TRAIN_050, TEST_050, "ST", 12),
    }
    found = {}
    for key, (name, train, test, truth, most) in sets.items():
        if quick and name != "BBBC039":
            continue
        spacing, looked = SPACING[name], 3 if quick else 24
        pairs = _pairs(data, name, train, truth, looked)
        shape = tuple(np.median([read_image(image).shape for image, _ in pairs], 0).astype(int))
        real = _measured([path for _, path in _pairs(data, name, test, truth, 6 if quick else most)], spacing)
        row: dict = {"floor": _rounded(realism_floor(real))}
        for way in ("labels",) if quick else ("raw", "labels"):
            start = time.perf_counter()
            if way == "raw":
                images = [read_image(image) for image, _ in pairs]
                labels = [detect(image, spacing) for image in images]
                seen: dict = {"images": images, "least_contrast": LEAST_CONTRAST}
            else:
                labels, seen = [one_piece(read_labels(path))[0] for _, path in pairs], {}
            measured = measure_labels(labels, spacing, **seen)
            settings = nuclei_like(measured, shape, spacing, ties=measure_ties(labels, **seen))
            seconds = time.perf_counter() - start
            scenes = 4 if quick else 48
            made = measure_labels((nuclei(stream(7, key, n), settings).labels for n in range(scenes)), spacing)
            row[f"fitted to, {way}"] = _rounded(realism(measured, real))
            row[way] = _rounded(realism(made, real)) | {"fit_seconds": round(seconds, 1)}
        found[key] = row
        print(key, row, flush=True)
    for key, name in {} if quick else {"tissue_labels": "tissue_masks", "root_membrane": "root_masks"}.items():
        labels = one_piece(read_labels(data / key / f"{name}.tif"))[0]
        spacing = tuple(json.loads((data / key / "dataset.json").read_text())["spacing_um"])
        real = measure_labels([labels], spacing)
        start = time.perf_counter()
        settings = tissue_like(real, labels.shape, spacing)
        seconds = time.perf_counter() - start
        made = tissue(stream(7, key), settings, foreground=labels > 0).labels
        row = {
            "floor": _rounded(realism_floor(real)),
            "labels": _rounded(realism(measure_labels([made], spacing), real)) | {"fit_seconds": round(seconds, 1)},
            "cells": [int(real.cells_per_image[0]), int(made.max())],
        }
        found[key] = row
        print(key, row, flush=True)
    return found


def _measured(paths: list[Path], spacing: tuple[float, ...]) -> Measures:
    return measure_labels((one_piece(read_labels(path))[0] for path in paths), spacing)


def _rounded(distances: dict[str, float | None]) -> dict[str, float | None]:
    return {name: round(value, 3) for name, value in distances.items() if value is not None}


if __name__ == "__main__":
    main()
