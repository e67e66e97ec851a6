"""Label images whose cells lie in pieces, mended without a gap: islands go to the neighbour around them."""

from typing import Any

import numpy as np
import numpy.typing as npt
from skimage import measure


def islands_to_neighbours(labels: npt.NDArray[Any], *, fewest: int = 1) -> tuple[npt.NDArray[Any], int]:
    """Every cell in one piece, connected by faces, and how many voxels were left to none.

    A cell keeps its largest piece. Each other piece becomes part of the neighbour with which it shares most faces; a
    piece among islands alone waits until one of them has found its cell. Voxels without any way to a cell, in a part
    of the foreground that holds no cell's largest piece, become 0 and are counted. labels: (Y, X) or (Z, Y, X)
    integers; ids stay, and none is lost but for cells of less than `fewest` voxels, which are islands, too.

    >>> islands_to_neighbours(np.array([[1, 1, 2, 1, 2, 2, 0, 1]]))
    (array([[1, 1, 1, 2, 2, 2, 0, 0]]), 1)
    """
    pieces = measure.label(labels, connectivity=1)
    count = int(pieces.max(initial=0))
    held = np.bincount(labels.ravel())[1:]
    if count == np.count_nonzero(held) and not ((held > 0) & (held < fewest)).any():
        return labels, 0
    owner = np.zeros(count + 1, labels.dtype)
    owner[pieces.ravel()] = labels.ravel()
    sizes = np.bincount(pieces.ravel())
    order = np.lexsort((-sizes[1:], owner[1:])) + 1  # by id, the largest piece first
    settled = np.zeros(count + 1, bool)
    settled[order[np.unique(owner[order], return_index=True)[1]]] = True
    settled[0] = False
    settled &= sizes >= fewest
    loose = np.argwhere((~settled)[pieces] & (labels != 0))
    island, other, faces = _contacts(pieces, loose)
    owner[~settled] = 0
    while True:
        ready = ~settled[island] & settled[other]
        if not ready.any():
            break
        pairs, which = np.unique(np.stack([island[ready], owner[other[ready]]]), axis=1, return_inverse=True)
        shared = np.bincount(which.ravel(), faces[ready])
        best = np.lexsort((-shared, pairs[0]))
        found, first = np.unique(pairs[0, best], return_index=True)
        owner[found] = pairs[1, best[first]]
        settled[found] = True
    mended = labels.copy()
    mended[tuple(loose.T)] = owner[pieces[tuple(loose.T)]]
    return mended, int(sizes[1:][~settled[1:]].sum())


def _contacts(
    pieces: npt.NDArray[Any], voxels: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Which pieces, whose voxels (V, n) are given, share how many faces with which others."""
    own, found = pieces[tuple(voxels.T)], []
    for axis in range(pieces.ndim):
        for step in (-1, 1):
            beside = voxels.copy()
            beside[:, axis] += step
            there = (beside[:, axis] >= 0) & (beside[:, axis] < pieces.shape[axis])
            pair = np.stack([own[there], pieces[tuple(beside[there].T)]])
            found.append(pair[:, (pair[1] != pair[0]) & (pair[1] > 0)])
    pairs, faces = np.unique(np.concatenate(found, axis=1), axis=1, return_counts=True)
    return pairs[0], pairs[1], faces
