"""How well does a statistical shape model know shapes that it has not seen, and are its samples like the real ones?

    python benchmarks/shape_model.py [--quick] [--picture modes.png]

Needs CASCADE_DATA with tissue_labels. Each cell is left out once: its radii are fitted by the modes of all others, and
the solid is compared with its voxels. Prints one JSON object on its last line.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import tifffile
from common import data_folder, machine
from scipy import ndimage, stats

from cascade.shapes.modes import picture_of_modes
from cascade.shapes.rays import measured_radii, rays, star_solid
from cascade.shapes.statistical import shape_model_of

MODES = (10, 30, 60, 120, 240, None)


def iou(mask: np.ndarray, radii: np.ndarray, centre: np.ndarray, frame: np.ndarray) -> float:
    """Of a mask and the solid of radii, on the mask's voxels."""
    made = (star_solid(radii, frame)(np.indices(mask.shape).reshape(3, -1).T - centre) < 0).reshape(mask.shape)
    return float((made & mask).sum() / (made | mask).sum())


def statistics(radii: np.ndarray) -> dict[str, np.ndarray]:
    """Radius of the ball of equal volume, longest over shortest principal axis, and surface roughness, for each."""
    directions, share = rays()
    volume = radii**3 @ share
    found: dict[str, list[float]] = {"radius": list(np.cbrt(volume)), "elongation": [], "roughness": []}
    neighbour = np.roll(radii.reshape(-1, 32, 64), 1, 2).reshape(radii.shape)
    for r, beside in zip(radii, neighbour, strict=True):
        heavy = share * r**5  # ∫ x xᵀ over the solid, but for a constant
        moments = np.einsum("p,pi,pj->ij", heavy, directions, directions)
        first = np.einsum("p,pi->i", share * r**4, directions) * 0.75 / (share @ r**3)
        moments = moments * 0.6 / (share @ r**3) - np.outer(first, first)
        values = np.linalg.eigvalsh(moments)
        found["elongation"].append(float(np.sqrt(values[2] / max(values[0], 1e-9))))
        found["roughness"].append(float(np.abs(r - beside) @ share / (share @ r)))
    return {name: np.array(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="every eighth cell is left out, not each")
    parser.add_argument("--picture", type=Path, help="where a picture of the modes goes")
    args = parser.parse_args()
    labels = tifffile.imread(data_folder() / "tissue_labels" / "tissue_masks.tif")
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    masks = [np.pad(labels[box] == n, 2) for n, box in enumerate(ndimage.find_objects(labels), 1)]
    report: dict[str, object] = {"machine": machine(), "cells": len(masks)}
    for align in (True, False):
        start = time.perf_counter()
        found = [measured_radii(mask, (1.0, 1.0, 1.0), align=align) for mask in masks]
        radii = np.array([one[0] for one in found])
        model = shape_model_of(radii)
        name = "principal axes" if align else "as they lie"
        grown = np.cumsum(model.variances) / model.variances.sum()
        print(f"{name}: fitted in {time.perf_counter() - start:.1f} s")
        scores: dict[str, list[float]] = {str(n or "all"): [] for n in MODES} | {"radii": []}
        for n in range(0, len(masks), 8 if args.quick or not align else 1):
            others = shape_model_of(np.delete(radii, n, 0))
            scores["radii"].append(iou(masks[n], *found[n]))
            for modes in MODES:
                known = others.fitted(radii[n], num_modes=modes)
                scores[str(modes or "all")].append(iou(masks[n], known, *found[n][1:]))
        report[name] = {
            "explained": {n: round(float(grown[n - 1]), 4) for n in (1, 2, 3, 5, 10, 20, 50, 100, 200)},
            "left out, IoU": {modes: round(float(np.mean(values)), 4) for modes, values in scores.items()},
            "left out, IoU, worst twentieth": {m: round(float(np.quantile(v, 0.05)), 4) for m, v in scores.items()},
            "left out, cells": len(scores["radii"]),
        }
        if align:
            real = statistics(radii)
            rng = np.random.default_rng(0)
            distances = {}
            for modes in (30, 100, None):
                drawn = model.draw(rng, len(radii), num_modes=modes)
                made = statistics(np.array([model.radii(weights) for weights in drawn]))
                distances[str(modes or "all")] = {
                    key: round(float(stats.wasserstein_distance(real[key], made[key]) / real[key].std()), 3)
                    for key in real
                }
            halves = rng.permutation(len(radii))
            distances["one half against the other"] = {
                key: round(float(stats.wasserstein_distance(v[halves[::2]], v[halves[1::2]]) / v.std()), 3)
                for key, v in real.items()
            }
            report["samples, Wasserstein distance over spread"] = distances
            if args.picture:
                picture_of_modes(model, args.picture)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
