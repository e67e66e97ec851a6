"""Pictures of crops and samples, for people to look at before they read numbers."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from cascade.intensity import Window


def crop_sheet(images, masks, window: Window, path: str | Path, rows: int = 6, columns: int = 12) -> None:
    """A contact sheet of crops, each above itself with its outline; images in camera units, (N, H, W) each."""
    count = min(rows * columns, len(images))
    pick = np.linspace(0, len(images) - 1, count).astype(int)
    figure = Figure(figsize=(columns * 1.1, -(-count // columns) * 1.1))
    axes = np.atleast_1d(figure.subplots(-(-count // columns), columns)).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, n in zip(axes, pick, strict=False):
        ax.imshow(window.stretch(images[n]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ax.contour(masks[n], [0.5], colors="#ff5050", linewidths=0.6)
    figure.subplots_adjust(0, 0, 1, 1, 0.03, 0.03)
    figure.savefig(path, dpi=110)


def image_grid(images: np.ndarray, path: str | Path, columns: int = 16) -> None:
    """Images (N, H, W) in [0, 1] side by side, one pixel to one pixel and then doubled."""
    count, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.ones((rows * (height + 1), columns * (width + 1)), np.float32)
    for n, image in enumerate(np.clip(images, 0, 1)):
        y, x = divmod(n, columns)
        sheet[y * (height + 1) : y * (height + 1) + height, x * (width + 1) : x * (width + 1) + width] = image
    write_png(path, np.kron(sheet, np.ones((2, 2), np.float32)))


def write_png(path: str | Path, image: np.ndarray) -> None:
    """A grey (H, W) or colour (H, W, 3) image in [0, 1] as an 8-bit PNG."""
    Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(path)
