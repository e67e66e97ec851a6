"""Pictures of crops and samples, for people to look at before they read numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image
from skimage import segmentation, transform

from cascade.annotation import Sample
from cascade.evenly import evenly
from cascade.optics.window import Window

_SIDE = 2048  # pixels of a picture's panel: more cannot be looked at, and takes gigabytes to draw

_LIGHTS = np.array([[0.2, 1, 0.2], [1, 0.2, 1], [0.2, 0.6, 1], [1, 0.8, 0.1]])  # of channels that are shown together
_COLOURS = np.array(
    [
        [1, 0.35, 0.3],
        [0.3, 0.8, 1],
        [0.6, 1, 0.3],
        [1, 0.8, 0.2],
        [1, 0.45, 0.9],
        [0.45, 0.55, 1],
        [0.3, 1, 0.75],
    ]
)


def crop_sheet(
    images: Sequence[npt.NDArray[Any]],
    masks: Sequence[npt.NDArray[Any]],
    window: Window,
    path: str | Path,
    *,
    rows: int = 6,
    columns: int = 12,
) -> None:
    """A contact sheet of crops with their outlines; images in camera units, (N, H, W) each."""
    pick = evenly(len(images), rows * columns)
    count = len(pick)
    figure = Figure(figsize=(columns * 1.1, -(-count // columns) * 1.1))
    axes = np.atleast_1d(figure.subplots(-(-count // columns), columns)).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, n in zip(axes, pick, strict=False):
        ax.imshow(window.stretch(images[n]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ax.contour(masks[n], [0.5], colors="#ff5050", linewidths=0.6)
    figure.subplots_adjust(0, 0, 1, 1, 0.03, 0.03)
    figure.savefig(path, dpi=110)


def image_grid(images: npt.NDArray[Any], path: str | Path, columns: int = 16) -> None:
    """Images (N, H, W) in [0, 1] side by side, each pixel doubled."""
    count, height, width = images.shape
    rows = -(-count // columns)
    sheet = np.ones((rows * (height + 1), columns * (width + 1)), np.float32)
    for n, image in enumerate(np.clip(images, 0, 1)):
        y, x = divmod(n, columns)
        sheet[y * (height + 1) : y * (height + 1) + height, x * (width + 1) : x * (width + 1) + width] = image
    write_png(path, np.kron(sheet, np.ones((2, 2), np.float32)))


def sample_preview(sample: Sample, path: str | Path) -> None:
    """Write `sample_picture` as a PNG."""
    write_png(path, sample_picture(sample))


def sample_picture(sample: Sample) -> npt.NDArray[Any]:
    """A sample as a person would look at it, (Y, X, 3) in [0, 1], each view twice: the image, and the image with its
    label outlines; without an image once, every cell in a colour. Several channels lie over each other, each in a
    colour.

    2D: the plane. 3D: sections xy, xz and yz through the middle of the most populated planes, at their true
    proportions, and the maximum projection along z. Of planes of more than 2048 pixels along a side every second,
    third, … is shown.
    """
    factor = -(-max(sample.labels.shape[-2:]) // _SIDE)
    labels = sample.labels[..., factor // 2 :: factor, factor // 2 :: factor]
    shown = [_stretched(_reduced(channel, factor, labels.shape)) for channel in sample.channels]
    shown = shown or [np.zeros(labels.shape, np.float32)]
    if labels.ndim == 2:
        panels = [(_lit(shown), labels)]
    else:
        z, y, x = (int(np.argmax((labels > 0).sum(tuple({0, 1, 2} - {axis})))) for axis in range(3))
        dz, dy, dx = np.array(sample.spacing_um) * [1, factor, factor]
        panels = [
            (_lit([one[z] for one in shown]), labels[z]),
            (_stretch_rows(_lit([one[:, y] for one in shown]), dz / dx), _stretch_rows(labels[:, y], dz / dx)),
            (_stretch_rows(_lit([one[:, :, x] for one in shown]), dz / dy), _stretch_rows(labels[:, :, x], dz / dy)),
            (_lit([one.max(0) for one in shown]), labels.max(0)),
        ]
    zoom = max(int(np.ceil(420 / max(panels[0][1].shape))), 1)
    if sample.image is None:
        return _beside([_enlarge(coloured_labels(label), zoom) for _, label in panels])
    rows = [_beside([_enlarge(light, zoom) for light, _ in panels])]
    rows.append(_beside([_outlined(_enlarge(light, zoom), _enlarge(label, zoom)) for light, label in panels]))
    return _below(rows) if len(panels) > 1 else _beside(rows)


def outlined_sheet(
    pictures: Sequence[tuple[npt.NDArray[Any] | None, npt.NDArray[Any]]], path: str | Path, *, columns: int = 3
) -> None:
    """Images with the outlines of their labels, `columns` side by side; of stacks the slice with most cells.

    pictures: (image, labels), of one shape each; image None where there are labels only, each then in a colour.
    """
    panels = []
    for image, labels in pictures:
        z = int(np.argmax((labels > 0).sum((1, 2)))) if labels.ndim == 3 else 0
        plane = labels[z] if labels.ndim == 3 else labels
        zoom = max(int(np.ceil(420 / max(plane.shape))), 1)
        if image is None:
            panels.append(_enlarge(coloured_labels(plane), zoom))
            continue
        low, high = np.percentile(image, [1, 99.7])
        grey = Window(float(low), float(max(high, low + 1)), 0.5).stretch(image[z] if image.ndim == 3 else image)
        panels.append(_outlined(_enlarge(_lit([grey]), zoom), _enlarge(plane, zoom)))
    rows = [_beside(panels[start : start + columns]) for start in range(0, len(panels), columns)]
    width = max(row.shape[1] for row in rows)
    write_png(
        path, _below([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=1) for row in rows])
    )


def write_png(path: str | Path, image: npt.NDArray[Any]) -> None:
    """A grey (H, W) or colour (H, W, 3) image in [0, 1] as an 8-bit PNG."""
    Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(path)


def coloured_labels(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Labels (Y, X) as a picture (Y, X, 3) in [0, 1]: every cell in a colour, dark where it meets another one."""
    colour = np.where((labels > 0)[..., None], _COLOURS[labels % len(_COLOURS)], 0.0)
    for axis in (0, 1):
        rows = np.moveaxis(labels, axis, 0)
        met = (rows[1:] != rows[:-1]) & (rows[1:] > 0) & (rows[:-1] > 0)
        np.moveaxis(colour, axis, 0)[1:][met] = 0
    return colour


def _reduced(image: npt.NDArray[Any], factor: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Means of `factor`² pixels, as many as `shape` says; one after the other, so that stacks are not copied whole."""
    if factor == 1:
        return image
    planes = image.reshape(-1, *image.shape[-2:])
    means = [transform.downscale_local_mean(plane, (factor, factor))[: shape[-2], : shape[-1]] for plane in planes]
    return np.stack(means).reshape(shape).astype(np.float32)


def _stretched(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    low, high = np.percentile(image, [1, 99.7])
    return Window(float(low), float(max(high, low + 1)), 0.7).stretch(image)


def _lit(channels: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Planes (Y, X) in [0, 1] as a picture (Y, X, 3): one in grey, several over each other, each in a colour."""
    if len(channels) == 1:
        return channels[0][..., None].repeat(3, -1)
    lights = [one[..., None] * _LIGHTS[n % len(_LIGHTS)] for n, one in enumerate(channels)]
    return np.asarray(np.clip(np.sum(lights, 0), 0, 1))


def _outlined(picture: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    colour = picture.copy()
    edge = segmentation.find_boundaries(labels, mode="inner")
    colour[edge] = _COLOURS[labels[edge] % len(_COLOURS)]
    return colour


def _enlarge(plane: npt.NDArray[Any], zoom: int) -> npt.NDArray[Any]:
    return plane.repeat(zoom, 0).repeat(zoom, 1)


def _stretch_rows(plane: npt.NDArray[Any], ratio: float) -> npt.NDArray[Any]:
    """Repeat rows so that a section along z has its true proportions."""
    rows = np.minimum((np.arange(round(len(plane) * ratio)) / ratio).astype(int), len(plane) - 1)
    return plane[rows]


def _beside(images: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    height = max(len(image) for image in images)
    padded = [np.pad(image, ((0, height - len(image)), (0, 6), (0, 0)), constant_values=1) for image in images]
    return np.concatenate(padded, 1)


def _below(images: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate([np.pad(image, ((0, 6), (0, 0), (0, 0)), constant_values=1) for image in images])
