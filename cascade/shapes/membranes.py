"""Membranes between cells of a label image."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

_Window = tuple[slice, ...]


def membranes(labels: npt.NDArray[Any], spacing_um: Sequence[float], thickness_um: float) -> npt.NDArray[Any]:
    """The membranes of cells, bool like `labels`: what lies within half a thickness of a border between two labels.

    labels: (Y, X) or (Z, Y, X), 0 outside the tissue, whose outer wall is a membrane too. A border runs half-way
    between voxels, so that membranes have the same thickness on both sides, rounded to voxels; at least one voxel on
    each side, since a membrane with holes is none. The distance is exact to half the difference between the spacings
    of the axes. Raises ValueError for a thickness that is no length above 0.

    >>> membranes(np.array([[1, 1, 1, 1, 2, 2, 2]]), (1.0, 1.0), 4.0).astype(int).tolist()
    [[0, 0, 1, 1, 1, 1, 0]]
    """
    wall = np.zeros(labels.shape, bool)
    for here, there in _pairs(labels.shape, spacing_um, thickness_um):
        differ = labels[here] != labels[there]
        wall[here] |= differ
        wall[there] |= differ
    return wall


def cells_beyond(labels: npt.NDArray[Any], spacing_um: Sequence[float], thickness_um: float) -> npt.NDArray[np.int64]:
    """On the voxels of `membranes` the label on the other side, the nearest one, and -1 elsewhere.

    >>> cells_beyond(np.array([[1, 1, 1, 1, 2, 2, 2]]), (1.0, 1.0), 4.0).tolist()
    [[-1, -1, 2, 2, 1, 1, -1]]
    """
    found = np.full(labels.shape, -1, np.int64)
    for pair in _pairs(labels.shape, spacing_um, thickness_um):
        for here, there in (pair, pair[::-1]):
            free = (found[here] < 0) & (labels[here] != labels[there])
            found[here][free] = labels[there][free]
    return found


def _pairs(
    shape: tuple[int, ...], spacing_um: Sequence[float], thickness_um: float
) -> Iterator[tuple[_Window, _Window]]:
    """Windows of voxels that are no further apart than membranes are thick, the nearest first; each pair once."""
    if not 0 < thickness_um < np.inf:
        raise ValueError(f"thickness_um must be a length above 0, got {thickness_um}")
    spacing = np.asarray(spacing_um, float)
    reach = 0.5 * (thickness_um + spacing.min()) * (1 + 1e-9)
    sides = [range(-n, n + 1) for n in np.minimum(np.maximum(reach // spacing, 1), shape).astype(int)]
    for offset in sorted(product(*sides), key=lambda step: float(np.linalg.norm(step * spacing))):
        beside = np.abs(offset).sum() == 1
        if offset <= (0,) * len(offset) or not (beside or np.linalg.norm(offset * spacing) <= reach):
            continue
        yield (
            tuple(slice(max(-o, 0), n - max(o, 0)) for o, n in zip(offset, shape, strict=True)),
            tuple(slice(max(o, 0), n - max(-o, 0)) for o, n in zip(offset, shape, strict=True)),
        )
