"""The README's picture of the three painters: the same annotation, painted by each.

python docs/site/painters.py PICTURE.png [NAME=FOLDER …], a folder instead of an embedded model.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from cascade import CascadePipeline, CascadeSettings, ConditionalGANPipeline, SketchPipeline
from cascade.hub.embedded import NAMES, embedded

CANVAS, CELLS, SEED, ZOOM, GAP, TITLE = (32, 128, 128), 14, 7, 2, 6, 18
PAINTERS = {
    "nuclei3d": (CascadePipeline, "the cascade"),
    "sketch3d": (SketchPipeline, "a DDPM from a sketch"),
    "nuclei3d-gan": (ConditionalGANPipeline, "a conditional GAN"),
}


def main() -> None:
    picture, *given = sys.argv[1:]
    folders = {name: str(embedded(name)) for name in PAINTERS if name in NAMES}
    folders |= dict(one.split("=", 1) for one in given)
    cascade = CascadePipeline.from_pretrained(folders["nuclei3d"])
    how = CascadeSettings(canvas_size=CANVAS, cells_per_image=CELLS)
    drawn = cascade(num_images=1, settings=how, generator=torch.Generator().manual_seed(SEED)).samples[0]
    columns = [_column("annotation", _coloured(drawn.annotation.labels), drawn.annotation.spacing_um)]
    for name, (pipeline, title) in PAINTERS.items():
        painter = pipeline.from_pretrained(folders[name])
        image = drawn.image if name == "nuclei3d" else painter.paint(drawn.annotation, SEED, 0).image
        columns.append(_column(title, _grey(image), drawn.annotation.spacing_um))
    width = sum(one.width for one in columns) + GAP * (len(columns) - 1)
    whole = Image.new("RGB", (width, columns[0].height), "white")
    left = 0
    for one in columns:
        whole.paste(one, (left, 0))
        left += one.width + GAP
    whole.save(Path(picture), optimize=True)


def _grey(image: np.ndarray) -> np.ndarray:
    """The middle ninety-nine hundredths, in (Z, Y, X, 3)."""
    low, high = np.quantile(image, [0.005, 0.998])
    light = np.clip((image.astype(np.float32) - low) / (high - low), 0, 1) ** 0.7
    return np.repeat(np.uint8(255 * light)[..., None], 3, -1)


def _coloured(labels: np.ndarray) -> np.ndarray:
    palette = np.random.default_rng(1).integers(90, 256, (int(labels.max()) + 1, 3)).astype(np.uint8)
    palette[0] = 0
    return palette[labels]


def _column(title: str, stack: np.ndarray, spacing_um: tuple[float, ...]) -> Image.Image:
    """A plane in the middle, and below it a section along z, in true proportion."""
    plane = stack[len(stack) // 2]
    section = ndimage.zoom(stack[:, stack.shape[1] // 2], (spacing_um[0] / spacing_um[-1], 1, 1), order=0)
    shown = np.repeat(np.repeat(np.concatenate([plane, section]), ZOOM, 0), ZOOM, 1)
    column = Image.new("RGB", (shown.shape[1], shown.shape[0] + TITLE), "white")
    ImageDraw.Draw(column).text((2, 2), title, fill="black")
    column.paste(Image.fromarray(shown), (0, TITLE))
    return column


if __name__ == "__main__":
    main()
