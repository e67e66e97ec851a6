"""Slices of a label stack that are numbered otherwise than those around them."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

_MOST = 0.5  # share of voxels


def renumbered_slices(labels: npt.NDArray[Any]) -> list[int]:
    """Slices of a stack (Z, Y, X) that agree with neither neighbour in most labelled voxels, although the neighbours
    agree with each other: each cell in them has another id than above and below."""

    def agreeing(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
        known = (a > 0) & (b > 0)
        return float((a == b)[known].mean()) if known.any() else 1.0

    beside = np.array([agreeing(a, b) for a, b in pairwise(labels)])
    odd = np.flatnonzero((beside[:-1] < _MOST) & (beside[1:] < _MOST)) + 1
    return [int(z) for z in odd if agreeing(labels[z - 1], labels[z + 1]) > _MOST]


def matched_slices(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The stack with its `renumbered_slices` numbered as the slice before, each piece by the cell that it lies on most;
    as it is where there are none, and planes. Otherwise such a slice is a wall from end to end.

    >>> labels = np.array([[[1, 1, 2]], [[7, 7, 8]], [[1, 1, 2]]])
    >>> matched_slices(labels)[1].tolist()
    [[1, 1, 2]]
    """
    odd = renumbered_slices(labels) if labels.ndim == 3 and len(labels) > 2 else []
    if not odd:
        return labels
    found = labels.copy()
    for z in odd:
        for number in np.unique(labels[z][labels[z] > 0]):
            here = labels[z] == number
            before = found[z - 1][here]
            if before.any():
                ids, counts = np.unique(before[before > 0], return_counts=True)
                found[z][here] = ids[counts.argmax()]
    return found
