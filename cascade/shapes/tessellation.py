"""Weighted Voronoi tessellation of any foreground, for cells that fill a tissue."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

_TOP, _LEAF = 4096, 64  # voxels of the blocks that halving begins and ends with
_WINDOW = 256  # blocks of the first kind that are worked on at once: about a million voxels


def weighted_voronoi(
    foreground: npt.NDArray[Any],
    spacing_um: Sequence[float],
    centres_um: npt.NDArray[Any],
    weights: npt.NDArray[Any],
) -> npt.NDArray[Any]:
    """The cell j + 1 of each voxel x of a foreground that has the least ‖x − x_j‖ / γ_j (cGAN paper, Eq. 3); 0 outside.

    foreground: (Y, X) or (Z, Y, X) bool, its first voxel's centre the origin. centres_um: (J, n) points x_j in µm;
    weights: (J,) numbers γ_j above 0, larger for larger cells. Returns int32. Of equal distances the first cell wins.
    A cell can come in several pieces, which `cascade.geometry.islands` mends; one whose centre lies between voxels
    can have none. Raises ValueError for centres and weights of other shapes or values.

    The foreground is cut into blocks, which are halved again and again. Of a block with the centre c and the half
    diagonal R, j can own a voxel only if (‖c − x_j‖ − R) / γ_j ≤ min_k (‖c − x_k‖ + R) / γ_k. A k-d tree finds all such
    cells of the first blocks, the halves inherit them and drop most, and the last blocks compare those that are left.

    >>> centres = np.array([[0.0, 0.0], [0.0, 6.0]])
    >>> weighted_voronoi(np.ones((1, 7), bool), (1.0, 1.0), centres, np.array([1.0, 2.0])).tolist()
    [[1, 1, 1, 2, 2, 2, 2]]
    """
    foreground, spacing = np.asarray(foreground, bool), np.asarray(spacing_um, float)
    centres, gamma = _checked(foreground, spacing, centres_um, weights)
    top = _block_edges(foreground.shape, spacing)
    leaf = top.copy()
    axes = []  # along which the blocks are halved, one after the other
    while leaf.prod() > _LEAF:
        axes.append(int(np.argmax(np.where(leaf > 1, leaf * spacing, 0))))
        leaf[axes[-1]] //= 2
    labels = np.zeros(-(-np.array(foreground.shape) // leaf) * leaf, np.int32)
    blocks, tree = _blocks_with(foreground, top), cKDTree(centres)
    for first in range(0, len(blocks), _WINDOW):
        corners = blocks[first : first + _WINDOW] * top
        block, cell = _near(corners, top, spacing, centres, gamma, tree)
        edges = top.copy()
        for axis in axes:
            edges[axis] //= 2
            step = np.zeros_like(edges)
            step[axis] = edges[axis]
            block, cell = np.concatenate([block, block + len(corners)]), np.concatenate([cell, cell])
            corners = np.concatenate([corners, corners + step])
            block, cell = _pruned(block, cell, _middles(corners, edges, spacing), centres, gamma)
        _fill(labels, corners, leaf, spacing, block, cell, centres, gamma)
    labels = np.ascontiguousarray(labels[tuple(slice(n) for n in foreground.shape)])
    labels[~foreground] = 0
    return labels


def _checked(
    foreground: npt.NDArray[Any], spacing: npt.NDArray[Any], centres_um: npt.NDArray[Any], weights: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    n = foreground.ndim
    if n not in (2, 3) or spacing.shape != (n,) or not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise ValueError(
            f"foreground must be (Y, X) or (Z, Y, X) with one spacing above 0 for each axis, got shape "
            f"{foreground.shape} and spacing {spacing.tolist()}"
        )
    centres, gamma = np.asarray(centres_um, float), np.asarray(weights, float)
    if centres.ndim != 2 or centres.shape[1] != n or not len(centres) or not np.isfinite(centres).all():
        raise ValueError(f"centres_um must be one or more finite points (J, {n}), got shape {centres.shape}")
    if gamma.shape != (len(centres),) or not (np.isfinite(gamma).all() and (gamma > 0).all()):
        raise ValueError(f"weights must be {len(centres)} numbers above 0, one for each centre, got {gamma.tolist()}")
    return centres, gamma


def _block_edges(shape: tuple[int, ...], spacing: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Edges of the first blocks in voxels: powers of two, of about the same length in µm."""
    edges = np.ones(len(shape), int)
    while edges.prod() < _TOP and (edges < shape).any():
        edges[np.argmin(np.where(edges < shape, edges * spacing, np.inf))] *= 2
    return edges


def _blocks_with(foreground: npt.NDArray[Any], edges: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Places (B, n) of the blocks that hold foreground."""
    for axis, edge in enumerate(edges):
        foreground = np.logical_or.reduceat(foreground, np.arange(0, foreground.shape[axis], edge), axis=axis)
    return np.argwhere(foreground)


def _middles(corners: npt.NDArray[Any], edges: npt.NDArray[Any], spacing: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Midpoints of blocks in µm (B, n), and behind them their half diagonal (B, n + 1)."""
    half = 0.5 * (edges - 1) * spacing
    return np.column_stack([corners * spacing + half, np.full(len(corners), np.linalg.norm(half))])


def _near(
    corners: npt.NDArray[Any],
    edges: npt.NDArray[Any],
    spacing: npt.NDArray[Any],
    centres: npt.NDArray[Any],
    gamma: npt.NDArray[Any],
    tree: cKDTree,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Pairs (block, cell) of all cells that can own a voxel of a block, by block, then by cell."""
    middles = _middles(corners, edges, spacing)
    distance, nearest = tree.query(middles[:, :-1])
    half = middles[:, -1]
    reach = gamma.max() * (distance + half) / gamma[nearest] + half
    found = tree.query_ball_point(middles[:, :-1], reach * (1 + 1e-9) + 1e-9, return_sorted=True)
    block = np.repeat(np.arange(len(corners)), [len(cells) for cells in found])
    return _pruned(block, np.concatenate(found).astype(np.int64), middles, centres, gamma)


def _pruned(
    block: npt.NDArray[Any],
    cell: npt.NDArray[Any],
    middles: npt.NDArray[Any],
    centres: npt.NDArray[Any],
    gamma: npt.NDArray[Any],
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The pairs without those in which another cell is nearer wherever in the block."""
    distance, half = np.linalg.norm(middles[block, :-1] - centres[cell], axis=1), middles[block, -1]
    best = np.minimum.reduceat((distance + half) / gamma[cell], np.searchsorted(block, np.arange(len(middles))))
    keep = (distance - half) / gamma[cell] <= best[block] * (1 + 1e-9)
    return block[keep], cell[keep]


def _fill(
    labels: npt.NDArray[Any],
    corners: npt.NDArray[Any],
    edges: npt.NDArray[Any],
    spacing: npt.NDArray[Any],
    block: npt.NDArray[Any],
    cell: npt.NDArray[Any],
    centres: npt.NDArray[Any],
    gamma: npt.NDArray[Any],
) -> None:
    """Write the nearest of its cells into each voxel of each block, the blocks with equally many cells at once.

    With δ from a block's midpoint c, ‖x − x_j‖² = ‖δ‖² + 2 δ·(c − x_j) + ‖c − x_j‖²: one matrix product, in single
    precision. Voxels in which two cells are as near as its rounding are looked at again in double precision.
    """
    n = len(edges)
    inner = np.stack(np.meshgrid(*[np.arange(e) for e in edges], indexing="ij"), -1).reshape(-1, n)
    delta = (inner - 0.5 * (edges - 1)) * spacing
    terms = np.vstack([(delta**2).sum(1), 2 * delta.T, np.ones(len(delta))]).astype(np.float32)  # (n + 2, L)
    middles = _middles(corners, edges, spacing)
    starts = np.searchsorted(block, np.arange(len(corners) + 1))
    counts = np.diff(starts)
    tiled = labels.reshape([side for size, e in zip(labels.shape, edges, strict=True) for side in (size // e, e)])
    inside = (corners < labels.shape).all(1)
    for count in np.unique(counts[inside]):
        chosen = np.flatnonzero((counts == count) & inside)
        cells = cell[starts[chosen, None] + np.arange(count)]  # (G, C)
        nearest = np.broadcast_to(cells[:, :1], (len(chosen), len(delta)))
        if count > 1:
            away = middles[chosen, None, :-1] - centres[cells]
            square = gamma[cells, None] ** -2
            factors = np.concatenate([np.ones_like(square), away, (away**2).sum(-1, keepdims=True)], -1) * square
            rounding = 4e-6 * (factors[..., -1] + square[..., 0] * middles[0, -1] ** 2).max(1)
            products = (factors.reshape(-1, n + 2).astype(np.float32) @ terms).reshape(*cells.shape, -1)
            place, unsure = _least(products, rounding.astype(np.float32))
            nearest = np.take_along_axis(cells, place, 1)
            g, voxel = np.nonzero(unsure)
            points = (corners[chosen[g]] + inner[voxel]) * spacing
            exact = np.linalg.norm(points[:, None] - centres[cells[g]], axis=2) / gamma[cells[g]]
            nearest[g, voxel] = cells[g, exact.argmin(1)]
        where = [part for at in (corners[chosen] // edges).T for part in (at, slice(None))]
        tiled[tuple(where)] = nearest.reshape(-1, *edges) + 1


def _least(values: npt.NDArray[Any], rounding: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Place (G, L) of the least of values (G, C, L), and whether the next one is as near as `rounding` (G,)."""
    least, place = values[:, 0].copy(), np.zeros((len(values), values.shape[2]), np.int64)
    second = np.full_like(least, np.inf)
    for c in range(1, values.shape[1]):
        np.minimum(second, np.maximum(least, values[:, c]), out=second)
        place[values[:, c] < least] = c
        np.minimum(least, values[:, c], out=least)
    return place, second - least <= rounding[:, None]
