"""From brush strokes, or labels that someone loads, to the labels of cells that can be painted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import measure

from cascade.app.settings import MAX_CELLS, MAX_PAINTED

COLOURS = ("#ff5a4d", "#4dccff", "#99ff4d", "#ffcc33", "#ff73e6", "#7388ff")
"""Of the brush."""
MIN_PIXELS = 12
"""Smaller strokes are slips of the hand."""
_PURE = 40.0  # distance in RGB: further from every colour lie the soft edges of a stroke


def labels_of_drawing(layers: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[np.uint16], int]:
    """Cells of a drawing, and how many strokes were too small for one.

    Each connected region of one colour is a cell: strokes of one colour that touch are one cell, of two colours two.
    A closed outline is filled. layers: (Y, X, 4) uint8 RGBA, the last one on top; what is half transparent is no
    stroke. Regions of less than `MIN_PIXELS` are left out. Raises ValueError where no cell is drawn, or too many are.

    >>> layer = np.zeros((40, 40, 4), np.uint8)
    >>> layer[5:15, 5:15] = layer[20:35, 20:35] = (255, 90, 77, 255)
    >>> labels, slips = labels_of_drawing([layer])
    >>> np.unique(labels).tolist(), slips
    ([0, 1, 2], 0)
    """
    if not layers or any(one.ndim != 3 or one.shape[2] != 4 for one in layers):
        raise ValueError("nothing is drawn: paint a cell with the brush, or load a mask")
    check_size(layers[0].shape[:2], "the drawing")
    colours = np.zeros(layers[0].shape[:2], np.uint8)
    for layer in layers:
        found = _colours_of(layer)
        colours = np.where(found > 0, found, colours)
    regions = measure.label(colours, connectivity=1)
    sizes = np.bincount(regions.ravel())
    small = sizes < MIN_PIXELS
    small[0] = False
    regions[small[regions]] = 0
    if not regions.any():
        why = "the strokes are too small for a cell" if small.any() else "nothing is drawn"
        raise ValueError(f"{why}: paint a cell with the brush, or load a mask")
    labels = _numbered(regions)
    check_count(int(labels.max()), "the drawing")
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        part = labels[box]
        part[ndimage.binary_fill_holes(part == label) & (part == 0)] = label
    return labels, int(small.sum())


def cells_of_mask(labels: npt.NDArray[Any], what: str = "the mask") -> npt.NDArray[np.uint16]:
    """Labels that someone loads, numbered 1, 2, …: every id is a cell, as it is.

    Raises ValueError for stacks, for labels without a cell, with ids in several pieces, with too many cells or pixels.
    """
    if labels.ndim != 2:
        raise ValueError(f"{what} is a stack {labels.shape}; the page paints planes: load one slice")
    check_size(labels.shape, what)
    numbered = _numbered(labels, what)
    if not numbered.any():
        raise ValueError(f"{what} holds no cell: every pixel is 0")
    pieces, count = measure.label(numbered, connectivity=2, return_num=True)
    if count > numbered.max():
        owners = [int(numbered[pieces == piece][0]) for piece in range(1, count + 1)] if count <= MAX_CELLS else []
        split = sorted({owner for owner in owners if owners.count(owner) > 1})
        ids = np.unique(labels[labels > 0])
        named = f", id {ids[split[0] - 1]} for one" if split else ""
        raise ValueError(f"{what} has ids in several pieces{named}: give every piece an id of its own")
    return numbered


def check_size(shape: tuple[int, ...], what: str) -> None:
    """Raises ValueError for a plane of more than `MAX_PAINTED` pixels."""
    if int(np.prod(shape)) > MAX_PAINTED:
        shown = "×".join(map(str, shape))
        raise ValueError(
            f"{what} has {shown} pixels, and the page paints up to {MAX_PAINTED / 1e6:g} million: crop it, or use "
            "cascade generate --annotations"
        )


def check_count(cells: int, what: str) -> None:
    """Raises ValueError for more than `MAX_CELLS` cells."""
    if cells > MAX_CELLS:
        raise ValueError(
            f"{what} holds {cells} cells, and the page paints up to {MAX_CELLS}: crop it, or use cascade generate "
            "--annotations"
        )


def _colours_of(layer: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Of each pixel the number of its stroke's colour in `COLOURS`, from 1; soft edges take the nearest stroke's."""
    palette = np.array([[int(one[n : n + 2], 16) for n in (1, 3, 5)] for one in COLOURS], np.float32)
    drawn = layer[..., 3] >= 128
    found = np.zeros(drawn.shape, np.uint8)
    if not drawn.any():
        return found
    distance = np.linalg.norm(layer[drawn][:, None, :3].astype(np.float32) - palette, axis=2)
    pure = np.zeros(drawn.shape, bool)
    pure[drawn] = distance.min(1) < _PURE
    found[drawn] = distance.argmin(1) + 1
    if pure.any() and not pure[drawn].all():
        nearest = ndimage.distance_transform_edt(~pure, return_distances=False, return_indices=True)
        found = np.where(drawn, found[tuple(nearest)], 0).astype(np.uint8)
    return found


def _numbered(labels: npt.NDArray[Any], what: str = "the drawing") -> npt.NDArray[np.uint16]:
    ids, place = np.unique(labels, return_inverse=True)
    cells = int((ids > 0).sum())
    check_count(cells, what)
    return (place.reshape(labels.shape) + int(cells == len(ids))).astype(np.uint16)
