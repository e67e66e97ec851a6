"""What a network adds to sketches: real images against sketches with a camera's noise, and against painted ones.

    python benchmarks/plain.py [--images N] [--only DATA_SET]
    python benchmarks/plain.py --sketches FOLDER --like RAW --output_dir OUT

The simplest alternative to a DDPM: a sketch of real labels, blurred by a pixel, with white noise whose variance rises
linearly with the light as it does in the raw training images (of the root, in the columns that are trained on). Of
the middles of test images: PSNR, SSIM, MAE, ZNCC as in sketch.py; Kullback-Leibler divergence and Bhattacharyya
distance of grey values; `fid_scattering`, Fréchet distance of logarithms of scattering coefficients of 32² tiles,
`floor` that of two halves of the real tiles. With `--sketches`, what `cascade sketch` wrote in Cellpose's layout
becomes a data set of noisy sketches, for `cascade evaluate`. Prints one JSON object on its last line.
"""

import argparse
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import tifffile
import torch
from common import data_folder, machine
from scipy import ndimage
from sketch import DataSet, _metrics, _sketched, data_sets

from cascade.data.images import find_images
from cascade.data.spacing import stored_spacing
from cascade.evaluation.distribution import frechet_distance
from cascade.evaluation.images import bhattacharyya, histograms, kullback_leibler
from cascade.evaluation.scattering import scattering, scattering_features
from cascade.evenly import evenly
from cascade.export.tiff import write_tiff
from cascade.hub.embedded import NAMES
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.reading import read_image
from cascade.rng import stream

Array = np.ndarray
_PART = {2: (384, 384), 3: (24, 128, 128)}
_TILE, _BLUR_PX = 32, 1.0


def noise_of(images: list[Array]) -> tuple[float, float]:
    """Variance at no light, and what it rises by with each grey value: medians of squared steps between neighbours."""
    levels, variances = [], []
    for image in images:
        image = image.astype(float)
        step, level = np.diff(image), ndimage.gaussian_filter(image, [0] * (image.ndim - 2) + [2, 2])[..., 1:]
        edges = np.quantile(level, np.linspace(0, 0.98, 15))
        for low, high in pairwise(edges):
            part = step[(level >= low) & (level < high)]
            if len(part) > 500:  # a spread between quantiles: half a step of whole numbers is no noise
                levels.append(level[(level >= low) & (level < high)].mean())
                variances.append(((np.quantile(part, 0.84) - np.quantile(part, 0.16)) / 2) ** 2 / 2)
    gain, least = np.polyfit(levels, variances, 1)
    return float(least), float(gain)


def with_noise(sketch: Array, camera: tuple[float, float], seed: int) -> Array:
    """A sketch as a camera with this noise, see `noise_of`, would show it: blurred by a pixel, whole numbers."""
    smooth = ndimage.gaussian_filter(sketch.astype(float), [0] * (sketch.ndim - 2) + [_BLUR_PX] * 2)
    deviation = np.sqrt(np.maximum(camera[0] + camera[1] * smooth, 0))
    return np.maximum(np.rint(smooth + deviation * stream(seed, "plain").standard_normal(sketch.shape)), 0)


def noisy_data_set(sketches: Path, like: Path, output_dir: Path) -> dict:
    """Write a Cellpose-style folder of sketches with the noise of raw images, for their labels, to train on."""
    raw = [path for sequence in find_images(like, ()) for path in sequence]
    images = [read_image(raw[n]) for n in evenly(len(raw), 4)]
    camera, most = noise_of(images), np.iinfo(images[0].dtype).max
    shutil.copytree(sketches, output_dir)
    names = sorted(path for path in output_dir.rglob("*_masks.tif"))
    for n, masks in enumerate(names):
        path = masks.with_name(masks.name.replace("_masks", ""))
        sketch = tifffile.imread(path)
        noisy = np.minimum(with_noise(sketch, camera, n), most)
        write_tiff(path, noisy.astype(images[0].dtype), stored_spacing(path, sketch.ndim) or (1.0,) * sketch.ndim)
    return {"images": len(names), "camera": [round(one, 4) for one in camera]}


def compared(pipeline: SketchPipeline, of: DataSet, images: int) -> dict:
    """Every measure of sketches alone, with noise, and painted."""
    raw = [read_image(path) for path in of.raw[:4]] or [read_image(of.pairs[0][0])[..., : of.first_column]]
    least, gain = noise_of(raw)
    sets: dict[str, list[Array]] = {"real": [], "sketch": [], "noise": [], "painted": []}
    for n in evenly(len(of.pairs), images):
        image, sketch = _sketched(pipeline, of, n, _PART[len(of.spacing_um)])
        noisy = with_noise(sketch, (least, gain), n)
        made = pipeline(sketches=sketch, generator=torch.Generator().manual_seed(n)).images[0]
        for name, one in zip(sets, (image, sketch, noisy, made), strict=True):
            sets[name].append(one.astype(np.float32))
    coefficients = {name: scattering(_tiles(several)) for name, several in sets.items()}
    real = scattering_features(coefficients["real"], coefficients["real"])
    order = stream(0, "halves").permutation(len(real))
    halves = np.array_split(real[order], 2)
    found = {"images": len(sets["real"]), "camera": [round(least, 3), round(gain, 4)], "tiles": len(real)}
    found["floor"] = _distance(*halves)
    for name in ("sketch", "noise", "painted"):
        rows = [_metrics(pipeline, a, b) for a, b in zip(sets["real"], sets[name], strict=True)]
        p, q, _ = histograms(*(np.concatenate([one.ravel() for one in sets[key]]) for key in ("real", name)))
        found[name] = {
            key: round(float(np.mean([row[key] for row in rows])), 3) for key in ("psnr", "ssim", "mae", "zncc")
        }
        found[name] |= {"kld": round(kullback_leibler(p, q), 4), "bd": round(bhattacharyya(p, q), 4)}
        found[name]["fid_scattering"] = _distance(scattering_features(coefficients[name], coefficients["real"]), real)
    return found


def _distance(a: Array, b: Array) -> float | None:
    return round(frechet_distance(a, b), 2) if min(len(a), len(b)) > a.shape[1] else None


def _tiles(images: list[Array]) -> Array:
    """Planes in squares, (N, 32, 32)."""
    found = []
    for image in images:
        planes = image.reshape(-1, *image.shape[-2:])
        rows, columns = (n // _TILE for n in planes.shape[1:])
        cut = planes[:, : rows * _TILE, : columns * _TILE].reshape(-1, rows, _TILE, columns, _TILE)
        found.append(cut.swapaxes(2, 3).reshape(-1, _TILE, _TILE))
    return np.concatenate(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4, help="of each data set")
    parser.add_argument("--only", help="one data set")
    parser.add_argument("--sketches", type=Path, help="what cascade sketch wrote: add noise, and do nothing else")
    parser.add_argument("--like", type=Path, help="raw images whose noise it is")
    parser.add_argument("--output_dir", type=Path, help="of the noisy sketches")
    options = parser.parse_args()
    if options.sketches:
        print(json.dumps(noisy_data_set(options.sketches, options.like, options.output_dir)))
        return
    report = {}
    for name, of in data_sets(data_folder()).items():
        if of.model not in NAMES or not of.pairs or options.only not in (None, name):
            continue
        pipeline = SketchPipeline.from_pretrained(of.model)
        pipeline.set_progress_bar_config(disable=True)
        report[name] = compared(pipeline, of, options.images)
        print(name, json.dumps(report[name]), flush=True)
    print(json.dumps(report | {"machine": machine()}))


if __name__ == "__main__":
    main()
