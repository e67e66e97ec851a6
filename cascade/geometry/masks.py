"""Binary masks and label images: boxes, pieces, windows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import measure


def tight_box(mask: npt.NDArray[Any]) -> tuple[slice, ...]:
    """The smallest box that holds a mask; the whole of an empty one."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8)) or [None]
    return box if box is not None else tuple(slice(0, n) for n in mask.shape)


def ellipsoid_region(
    shape: tuple[int, ...],
    spacing_um: Sequence[float],
    semi_axes_um: Sequence[float] | npt.NDArray[Any],
    shift_um: Sequence[float] | npt.NDArray[Any] | None = None,
) -> npt.NDArray[Any]:
    """An ellipsoid on the canvas, bool: where the cells of an embryo or a spheroid lie.

    shift_um: of its middle from the canvas's, an entry an axis; default centred.
    """
    shifts = np.zeros(len(shape)) if shift_um is None else shift_um
    axes = [
        (((np.arange(n) - 0.5 * (n - 1)) * side - shift) / axis) ** 2
        for n, side, axis, shift in zip(shape, spacing_um, semi_axes_um, shifts, strict=True)
    ]
    inside = [np.flatnonzero(axis <= 1) for axis in axes]
    region = np.zeros(shape, bool)
    if all(map(len, inside)):
        box = tuple(slice(int(part[0]), int(part[-1]) + 1) for part in inside)
        within = [axis[part] for axis, part in zip(axes, box, strict=True)]
        region[box] = sum(np.meshgrid(*within, indexing="ij", sparse=True)) <= 1
    return region


def disc(radius: float) -> npt.NDArray[Any]:
    r = int(np.ceil(radius))
    y, x = np.ogrid[-r : r + 1, -r : r + 1]
    return y * y + x * x <= radius * radius


def overlap_windows(
    corner: Sequence[float] | npt.NDArray[Any], size: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of the canvas and of the box that lie on each other."""
    here, there = [], []
    for c, n, limit in zip(corner, size, shape, strict=True):
        start, stop = max(int(c), 0), min(int(c) + n, limit)
        stop = max(stop, start)
        here.append(slice(start, stop))
        there.append(slice(start - int(c), stop - int(c)))
    return tuple(here), tuple(there)


def largest_piece(mask: npt.NDArray[Any], *, corners: bool = True) -> npt.NDArray[Any]:
    """The largest connected piece of a mask, bool, same shape; an empty mask stays empty.

    corners: whether pixels that touch by a corner (or in 3D, an edge) only are connected.

    >>> largest_piece(np.array([[1, 1, 0, 1], [0, 0, 1, 0]], bool)).astype(int).tolist()
    [[1, 1, 0, 1], [0, 0, 1, 0]]
    >>> largest_piece(np.array([[1, 1, 0, 1], [0, 0, 1, 0]], bool), corners=False).astype(int).tolist()
    [[1, 1, 0, 0], [0, 0, 0, 0]]
    """
    pieces, count = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, mask.ndim if corners else 1))
    if count <= 1:
        return mask
    return np.asarray(pieces == np.argmax(np.bincount(pieces.ravel())[1:]) + 1)


def label_boxes(labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], list[tuple[slice, ...]]]:
    boxes = ndimage.find_objects(labels)
    ids = [i + 1 for i, box in enumerate(boxes) if box is not None]
    return np.array(ids, int), [box for box in boxes if box is not None]


def one_piece(labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int]:
    """Keep the largest connected piece of every id; also returns how many ids had several."""
    labels = labels.astype(np.int32)
    pieces = measure.label(labels, connectivity=labels.ndim)
    regions = measure.regionprops(pieces)
    owner = np.array([0] + [int(labels[tuple(r.coords[0])]) for r in regions])
    sizes = np.array([0] + [r.area for r in regions])
    order = np.lexsort((-sizes, owner))  # by id, the largest piece first
    keep = np.zeros(len(owner), bool)
    first = np.unique(owner[order], return_index=True)[1]
    keep[order[first]] = True
    keep[0] = False
    return np.where(keep[pieces], labels, 0), len(owner) - 1 - int(keep.sum())
