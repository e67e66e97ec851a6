"""Several channels painted as one: does a stain know of the other where it is painted, as in a real tissue?

    python benchmarks/channels.py --write FOLDER
    python benchmarks/channels.py --model FOLDER [--alone NUCLEI STAIN] [--output_dir DIR]

The stained colon tissue that comes with scikit-image, its colours parted into two channels, haematoxylin, which shows
nuclei, and DAB, which shows membranes (Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23, 2001). --write writes its
columns below 352 to learn from, `model` is a DDPM from sketches trained on them with `--channels 2`, and `alone` one of
each channel by itself. Of the columns from 384 on, which no training saw: sketches are the image without all that is
finer than --rough_px. `psnr` and `zncc` of each channel, painted and real; `shared`: the correlation, between the two
channels, of what lies beside the sketch, `real`, painted as `one`, and painted `alone`; there and where the same noise
is given to both. Prints one JSON object on its last line.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from common import machine
from scipy import ndimage
from skimage.color import rgb2hed
from skimage.data import immunohistochemistry
from tifffile import imwrite

from cascade.evaluation.images import paired_metrics
from cascade.pipelines.sketch_ddpm import SketchPipeline

Array = np.ndarray
_LEARNED, _TESTED = slice(0, 352), slice(384, 512)  # columns
_UNITS = 20_000.0  # of one unit of absorbance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="write what is learned from here")
    parser.add_argument("--model", help="a model of both channels")
    parser.add_argument("--alone", nargs=2, help="models of each channel by itself")
    parser.add_argument("--rough_px", type=float, default=3.0)
    parser.add_argument("--t_start", type=int, default=400)
    parser.add_argument("--output_dir", type=Path, help="keep what was painted here")
    options = parser.parse_args()
    tissue = stains()
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        imwrite(options.write / "tissue.tif", tissue[..., _LEARNED], metadata={"axes": "CYX"}, imagej=True)
    if options.model:
        real = tissue[..., _TESTED].astype(np.float32)
        print(json.dumps(measured(real, options) | {"t_start": options.t_start, "machine": machine()}))


def stains() -> Array:
    """Haematoxylin and DAB of the tissue, (2, Y, X) uint16."""
    parted = rgb2hed(immunohistochemistry())[..., [0, 2]]
    return np.clip(np.moveaxis(parted, -1, 0) * _UNITS, 0, 65535).astype(np.uint16)


def measured(real: Array, options: argparse.Namespace) -> dict:
    """Of an image (2, Y, X) and what is painted of its rough sketch."""
    rough = np.stack([ndimage.gaussian_filter(one, options.rough_px) for one in real])
    whole = SketchPipeline.from_pretrained(options.model)
    how = {"t_start": options.t_start, "sigma": 0.0, "guidance_um": 0.0}

    def painted(model: SketchPipeline, sketch: Array, seed: int) -> Array:
        return model(sketches=sketch, generator=torch.Generator().manual_seed(seed), **how).images[0]

    made = {"real": real, "one": painted(whole, rough, 0)}
    if options.alone:
        models = [SketchPipeline.from_pretrained(name) for name in options.alone]
        made["alone"] = np.stack([painted(m, one, n) for n, (m, one) in enumerate(zip(models, rough, strict=True))])
        made["same_noise"] = np.stack([painted(m, one, 0) for m, one in zip(models, rough, strict=True)])
    found: dict = {"psnr": {}, "zncc": {}, "shared": {}}
    for name, image in made.items():
        beside = (image - rough).reshape(2, -1)
        found["shared"][name] = round(float(np.corrcoef(beside)[0, 1]), 3)
        if name != "real":
            shown = [[w.stretch(one) for w, one in zip(whole.windows, of, strict=True)] for of in (real, image)]
            metrics = [paired_metrics(a, b, data_range=1.0) for a, b in zip(*shown, strict=True)]
            found["psnr"][name] = [round(one["psnr"], 2) for one in metrics]
            found["zncc"][name] = [round(one["zncc"], 3) for one in metrics]
        if options.output_dir:
            options.output_dir.mkdir(parents=True, exist_ok=True)
            imwrite(options.output_dir / f"{name}.tif", image.astype(np.float32), metadata={"axes": "CYX"})
    return found


if __name__ == "__main__":
    main()
