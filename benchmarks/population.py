"""Populations: speed of placement, and statistics of generated fields of view against the real ones.

    python benchmarks/population.py [--quick] [--generated DIR]

Prints one JSON object on its last line. `wasserstein` needs CASCADE_DATA with BBBC039 and BBBC050; without it, it is
null. For each statistic it gives the distance of generated images to the real test images in units of their spread,
and the same for the real training images as the floor. --generated takes the data sets that
`benchmarks/generation.py --output_dir DIR` made; else images are made of a smaller bank of cells.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from common import data_folder, machine

from cascade import CascadePipeline, embedded
from cascade.data.frames import find_frames
from cascade.evaluation.population import field_distances, field_statistics
from cascade.evenly import evenly
from cascade.geometry.masks import ellipsoid_region
from cascade.population.placement import UNPLACED, place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller run of everything, in under a minute")
    parser.add_argument("--generated", type=Path, help="data sets to compare, by model name")
    options = parser.parse_args()
    quick, generated = options.quick, options.generated
    report = placement(quick)
    data = data_folder()
    report["wasserstein"] = realism(data, quick, generated) if data.is_dir() else None
    report["machine"] = machine()
    print(json.dumps(report))


def nuclei(count: int, diameter: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Ellipses about `diameter` pixels wide in boxes of their own."""
    masks = []
    for _ in range(count):
        a, b = rng.uniform(0.4, 0.6, 2) * diameter
        half = int(np.ceil(max(a, b)))
        y, x = np.mgrid[-half : half + 1, -half : half + 1]
        angle = rng.uniform(0, np.pi)
        v, u = y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)
        masks.append((v / a) ** 2 + (u / b) ** 2 <= 1)
    return masks


def placement(quick: bool) -> dict:
    """Seconds to place cells, half of them clustered; none may be left over."""
    rng = np.random.default_rng(0)
    found = {"growth_2d_s": {}}
    for count, side in ((100, 648), (1000, 2048), (10_000, 8192))[: 2 if quick else 3]:
        masks = nuclei(count, 35, rng)
        start = time.perf_counter()
        corners = place(masks, (side, side), 0.5, np.random.default_rng(1))
        found["growth_2d_s"][count] = round(time.perf_counter() - start, 3)
        assert not (corners == UNPLACED).any(), "cells were left over"
    found["place_2d_1000_s"] = found["growth_2d_s"][1000]
    found["place_2d_10000_s"] = found["growth_2d_s"].get(10_000)
    ball = ellipsoid_region((17, 35, 35), (1, 1, 1), (8, 17, 17))
    start = time.perf_counter()
    corners = place([ball] * 500, (64, 512, 512), 0.5, np.random.default_rng(1))
    found["place_3d_500_s"] = round(time.perf_counter() - start, 3)
    found["place_3d_500_left_over"] = int((corners == UNPLACED).any(1).sum())
    return found


def realism(data: Path, quick: bool, generated: Path | None) -> dict:
    sets = {
        "nuclei2d": ("BBBC039", "gt", ["01"], ["02"], (0.65, 0.65), 60.0, 2 if quick else 24),
        "nuclei3d": (
            "BBBC050", "st", [f"{n:02d}" for n in range(1, 10)], ["10", "11"], (1.75, 0.8, 0.8), 40.0,
            0 if quick else 12,
        ),
    }  # fmt: skip
    found = {}
    for name, (folder, truth, train, test, spacing, reach, count) in sets.items():
        if not count:
            continue
        real = {
            part: _real(data / folder, truth, sequences, spacing, reach, 24)
            for part, sequences in (("train", train), ("test", test))
        }
        if generated is not None:
            made = _real(generated / name, "gt", None, spacing, reach, count)
        else:
            pipeline = CascadePipeline.from_pretrained(embedded(name))
            pipeline.set_progress_bar_config(disable=True)
            bank = pipeline.cells(40 if quick else 200, seed=1)
            samples = pipeline(num_images=count, bank=bank, generator=torch.Generator().manual_seed(0)).samples
            made = field_statistics([s.image for s in samples], [s.labels for s in samples], [spacing] * count, reach)
        found[name] = {
            "images": count,
            "generated": _rounded(field_distances(made, real["test"])),
            "real_floor": _rounded(field_distances(real["train"], real["test"])),
        }
    return found


def _rounded(distances: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 3) for name, value in distances.items()}


def _real(folder: Path, truth: str, sequences: list[str] | None, spacing, reach: float, count: int):
    frames, _ = find_frames(folder, truth, sequences)
    some = [frames[n] for n in evenly(len(frames), count)]
    return field_statistics([f.image() for f in some], [f.labels() for f in some], [spacing] * len(some), reach)


if __name__ == "__main__":
    main()
