"""Membranes between cells of a label image."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt


def membranes(labels: npt.NDArray[Any], spacing_um: Sequence[float], thickness_um: float) -> npt.NDArray[Any]:
    """The membranes of cells, bool like `labels`: what lies within half a thickness of a border between two labels.

    labels: (Y, X) or (Z, Y, X), 0 outside the tissue, whose outer wall is a membrane too. A border runs half-way
    between voxels, so that membranes have the same thickness on both sides, rounded to voxels; at least one voxel on
    each side, since a membrane with holes is none. The distance is exact to half the difference between the spacings
    of the axes. Raises ValueError for a thickness that is no length above 0.

    >>> membranes(np.array([[1, 1, 1, 1, 2, 2, 2]]), (1.0, 1.0), 4.0).astype(int).tolist()
    [[0, 0, 1, 1, 1, 1, 0]]
    """
    if not 0 < thickness_um < np.inf:
        raise ValueError(f"thickness_um must be a length above 0, got {thickness_um}")
    spacing = np.asarray(spacing_um, float)
    reach = 0.5 * (thickness_um + spacing.min()) * (1 + 1e-9)
    sides = [range(-n, n + 1) for n in np.minimum(np.maximum(reach // spacing, 1), labels.shape).astype(int)]
    wall = np.zeros(labels.shape, bool)
    for offset in product(*sides):
        step = np.array(offset)
        beside = np.abs(step).sum() == 1
        if offset <= (0,) * len(offset) or not (beside or np.linalg.norm(step * spacing) <= reach):
            continue  # each pair of voxels once
        here = tuple(slice(max(-o, 0), n - max(o, 0)) for o, n in zip(offset, labels.shape, strict=True))
        there = tuple(slice(max(o, 0), n - max(-o, 0)) for o, n in zip(offset, labels.shape, strict=True))
        differ = labels[here] != labels[there]
        wall[here] |= differ
        wall[there] |= differ
    return wall
