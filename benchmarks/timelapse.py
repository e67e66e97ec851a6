"""A time-lapse painted as one volume: is a cell's texture in one frame that of the frame before, as in real sequences?

    python benchmarks/timelapse.py --volume FOLDER [--planes FOLDER] [--frames N] [--output_dir DIR]

Consecutive frames of Fluo-N2DH-GOWT1 `01`, cells detected, each at its mean in the sketch. `volume` is a DDPM from
sketches trained with `--time_as_depth true`, `planes` one of single frames. Of each cell, moved by whole pixels so that
its middle stays where it is, the correlation of what is left of the image when the sketch is taken away, smoothed by
--blur_px, between frames that are so far apart: `real`; `volume`, painted as one; `planes`, painted frame by frame; and
`same_noise`, the same with one noise for all frames, the best simple alternative. Prints one JSON object on its last
line.

Needs CASCADE_DATA with Fluo-N2DH-GOWT1.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from common import data_folder, machine
from scipy import ndimage
from tifffile import imwrite

from cascade.data.detection import detect
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.reading import read_image
from cascade.sketch.draw import sketch_of_image

Array = np.ndarray
_LAGS = (1, 2, 4, 8)
_OVERLAP = 0.6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volume", help="a model of frames as one volume")
    parser.add_argument("--planes", help="a model of single frames")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=512, help="of the part of each frame")
    parser.add_argument("--blur_px", type=float, default=1.5, help="so that a camera's noise does not count")
    parser.add_argument("--output_dir", type=Path, help="keep the sequences here")
    options = parser.parse_args()
    frames = sorted((data_folder() / "Fluo-N2DH-GOWT1" / "01").glob("*.tif"))[: options.frames]
    middle = slice(512 - options.size // 2, 512 + options.size // 2)
    real = np.stack([read_image(path)[middle, middle] for path in frames])
    if not options.volume and not options.planes:
        parser.error("give --volume, --planes or both")
    first = SketchPipeline.from_pretrained(options.volume or options.planes)
    spacing, settings = first.spacing_um[-2:], first.sketch_settings[0]
    labels = [detect(image, spacing) for image in real]
    sketch = np.stack(
        [sketch_of_image(found, image, settings, spacing_um=spacing) for found, image in zip(labels, real, strict=True)]
    )

    def seed() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    sequences = {"real": real}
    if options.volume:
        sequences["volume"] = first(sketches=sketch, generator=seed()).images[0]
    if options.planes:
        planes = SketchPipeline.from_pretrained(options.planes)
        sequences["planes"] = np.stack(planes(sketches=list(sketch), generator=seed()).images)
        sequences["same_noise"] = np.stack([planes(sketches=[one], generator=seed()).images[0] for one in sketch])
    pairs = {lag: tracked(labels, lag) for lag in _LAGS}
    report: dict = {"cells": {lag: len(found) for lag, found in pairs.items()}}
    for name, sequence in sequences.items():
        rest = ndimage.gaussian_filter(sequence.astype(np.float32) - sketch, (0, options.blur_px, options.blur_px))
        report[name] = {lag: correlation(rest, lag, found) for lag, found in pairs.items()}
        if options.output_dir:
            options.output_dir.mkdir(parents=True, exist_ok=True)
            imwrite(options.output_dir / f"{name}.tif", sequence)
    print(json.dumps(report | {"frames": len(real), "machine": machine()}))


def tracked(labels: list[Array], lag: int) -> list[tuple[int, Array, tuple[int, int]]]:
    """Cells that are found again `lag` frames later: frame, the part that they share, and how far they moved."""
    found = []
    for t in range(len(labels) - lag):
        before, after = labels[t], labels[t + lag]
        for label in np.unique(before[before > 0]):
            cell = before == label
            candidates = np.bincount(after[cell], minlength=2)
            candidates[0] = 0
            again = after == candidates.argmax()
            if candidates.max() == 0 or (cell & again).sum() < _OVERLAP * max(cell.sum(), again.sum()):
                continue
            moved = np.rint(np.subtract(ndimage.center_of_mass(again), ndimage.center_of_mass(cell))).astype(int)
            shared = ndimage.binary_erosion(cell & np.roll(again, -moved, (0, 1)), iterations=4)
            if shared.sum() >= 200:
                found.append((t, shared, (int(moved[0]), int(moved[1]))))
    return found


def correlation(rest: Array, lag: int, pairs: list[tuple[int, Array, tuple[int, int]]]) -> float:
    """Of what a cell shows in two frames, the mean over cells."""
    found = []
    for t, shared, moved in pairs:
        after = np.roll(rest[t + lag], (-moved[0], -moved[1]), (0, 1))
        found.append(np.corrcoef(rest[t][shared], after[shared])[0, 1])
    return round(float(np.mean(found)), 3)


if __name__ == "__main__":
    main()
