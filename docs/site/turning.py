"""The README's moving picture: a generated stack turns, and its labels with it.

python docs/site/turning.py FOLDER PICTURE.webp, the folder as `cascade generate` writes it; the README's is of `--model
nuclei3d --canvas_size 56 208 208 --cells_per_image 45 --bank 20 --seed 4`.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.color import hsv2rgb

from cascade.reading import read_image, read_labels

FRAMES, SIDE, GAP, MARGIN, MILLISECONDS = 40, 320, 6, 4, 90


def main() -> None:
    folder, picture = map(Path, sys.argv[1:])
    spacing = json.loads((folder / "dataset.json").read_text())["spacing_um"]
    image = read_image(next(iter(sorted((folder / "01").glob("t*.tif"))))).astype(np.float32)
    labels = read_labels(next(iter(sorted((folder / "01_GT/SEG").glob("*.tif")))))
    low, high = np.quantile(image[labels == 0], 0.97), np.quantile(image[labels > 0], 0.995)
    around = tuple(slice(max(one.start - MARGIN, 0), one.stop + MARGIN) for one in ndimage.find_objects(labels > 0)[0])
    image, labels = image[around], labels[around]
    light = np.clip((image - low) / (high - low), 0, 1)
    zoom = np.divide(spacing, spacing[-1])
    light, labels = ndimage.zoom(light, zoom, order=1), ndimage.zoom(labels, zoom, order=0)
    side = int(np.hypot(*light.shape[::2])) + 1
    light, labels = (np.pad(one, [((side - n) // 2,) * 2 if axis != 1 else (0, 0) for axis, n in enumerate(one.shape)])
                     for one in (light, labels))  # fmt: skip
    colours = _colours(int(labels.max()))
    frames = [_frame(light, labels, colours, 360 * n / FRAMES) for n in range(FRAMES)]
    frames[0].save(picture, save_all=True, append_images=frames[1:], duration=MILLISECONDS, loop=0, quality=45)


def _frame(light: np.ndarray, labels: np.ndarray, colours: np.ndarray, angle: float) -> Image.Image:
    """The brightest along the line of sight, and beside it the nearest label, darker the farther it is."""
    turned = ndimage.rotate(light, angle, (0, 2), reshape=False, order=1)
    shown = ndimage.rotate(labels, angle, (0, 2), reshape=False, order=0)
    left = np.repeat((turned.max(0) ** 0.7)[..., None], 3, -1)
    first = (shown > 0).argmax(0)
    right = colours[np.take_along_axis(shown, first[None], 0)[0]] * (1 - 0.7 * first / len(shown))[..., None]
    pictures = [Image.fromarray(np.uint8(255 * np.clip(one, 0, 1))) for one in (left, right)]
    pictures = [one.resize((round(SIDE * one.width / one.height), SIDE), Image.Resampling.LANCZOS) for one in pictures]
    frame = Image.new("RGB", (2 * pictures[0].width + GAP, SIDE), "white")
    frame.paste(pictures[0], (0, 0))
    frame.paste(pictures[1], (pictures[0].width + GAP, 0))
    return frame


def _colours(count: int) -> np.ndarray:
    """Of labels, black for none, (count + 1, 3)."""
    hue = np.arange(count) * 0.618 % 1
    rgb = hsv2rgb(np.stack([hue, np.full(count, 0.55), np.ones(count)], -1)[None])[0]
    return np.concatenate([np.zeros((1, 3)), rgb])


if __name__ == "__main__":
    main()
