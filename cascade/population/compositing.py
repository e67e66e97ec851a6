"""Adding up the light of placed cells, and deciding whose every voxel is."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, spatial

from cascade.annotation import CellRecord
from cascade.geometry.masks import largest_piece, overlap_windows
from cascade.population.placement import GAP_PX, UNPLACED


@dataclass(frozen=True)
class Cell:
    """One cell in a box of voxels: `mask` bool and `signal` float32 (camera units above background), same shape.

    `signal` may reach beyond the mask: light that the microscope spreads around a cell. `centre` is where in the box,
    in voxels, the shape that it was cut from has its origin.
    """

    mask: npt.NDArray[Any]
    signal: npt.NDArray[Any]
    centre: tuple[float, ...]
    record: CellRecord = field(default_factory=CellRecord)
    """What its source knows of it; it has no label yet."""


def compose(
    cells: list[Cell], corners: npt.NDArray[Any], shape: tuple[int, ...], trimmed: bool = False
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], list[int]]:
    """Two canvases of a shape: the cells' light above background (camera units), and their labels.

    Returns light float32, labels int32 (1, 2, … in the order of `cells`, unplaced ones left out) and, per label,
    the index of its cell. Where cells overlap their light adds up, and the voxel is of the cell that it lies deepest
    in. Gaps of a voxel or two between cells close where their light adds up to no less than at the outline of the one
    that comes later (the smaller one, as `take_picture` orders them): one sees no gap there, and who annotates draws
    none.

    A cell of which the border or others leave nothing is left out, one that they cut into pieces keeps the largest;
    `trimmed` says that `trim` has seen to the border, and these are a window of a larger canvas.
    """
    light, labels = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    there = np.flatnonzero((corners != UNPLACED).all(1))
    masks = [cells[n].mask if trimmed else trim(cells[n].mask, corners[n], shape) for n in there]
    placed, shown = [], []
    for n, whole, own in zip(there, masks, _parted(masks, corners[there]), strict=True):
        window, box = overlap_windows(corners[n], whole.shape, shape)
        light[window] += cells[n].signal[box]
        if own[box].any():
            placed.append(int(n))
            shown.append(replace(cells[n], mask=whole))
            labels[window][own[box]] = len(placed)
    return light, _closed(labels, light, shown), placed


def _parted(masks: list[npt.NDArray[Any]], corners: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Masks without the voxels that lie deeper in another one, so that no two meet; each in one piece."""
    parts, depths = list(masks), {}
    for a, b in _meeting(masks, corners):
        in_a, in_b = overlap_windows(corners[b] - corners[a], masks[b].shape, masks[a].shape)
        both = masks[a][in_a] & masks[b][in_b]
        if not both.any():
            continue
        for n in (a, b):
            if n not in depths:
                depths[n] = ndimage.distance_transform_edt(np.pad(masks[n], 1))[(slice(1, -1),) * masks[n].ndim]
                parts[n] = masks[n].copy()
        first = depths[a][in_a] >= depths[b][in_b]
        parts[a][in_a] &= ~both | first
        parts[b][in_b] &= ~(both & first)
    return [largest_piece(part) if n in depths else part for n, part in enumerate(parts)]


def _meeting(masks: list[npt.NDArray[Any]], corners: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Pairs (P, 2) of masks whose boxes overlap, in order."""
    if len(masks) < 2:
        return np.zeros((0, 2), int)
    sizes = np.array([mask.shape for mask in masks])
    tree = spatial.cKDTree(corners + 0.5 * sizes)
    pairs = tree.query_pairs(float(sizes.max()), p=np.inf, output_type="ndarray")
    a, b = pairs.T
    meet = (corners[a] < corners[b] + sizes[b]) & (corners[b] < corners[a] + sizes[a])
    pairs = pairs[meet.all(1)]
    return pairs[np.lexsort(pairs.T[::-1])]


def _closed(labels: npt.NDArray[Any], light: npt.NDArray[Any], cells: list[Cell]) -> npt.NDArray[Any]:
    """Labels that meet where nothing dark is seen between two cells, see `compose`; `cells` in the labels' order."""
    across = (*(3 for _ in labels.shape[:-2]), 2 * GAP_PX + 1, 2 * GAP_PX + 1)
    highest = ndimage.maximum_filter(labels, across)
    nameless = np.where(labels == 0, len(cells) + 1, labels)
    between = (labels == 0) & (highest > 0) & (ndimage.minimum_filter(nameless, across) < highest)
    seen = np.zeros(len(cells) + 1, np.float32)
    for label in np.unique(highest[between]):
        seen[label] = _light_at_outline(cells[label - 1])
    between &= light >= seen[highest]
    face = ndimage.generate_binary_structure(labels.ndim, 1)
    for _ in range(GAP_PX):  # from both sides at once, so that they meet in the middle
        beside = ndimage.maximum_filter(labels, footprint=face)
        labels = np.where(between & (labels == 0), beside, labels)
    return labels


def _light_at_outline(cell: Cell) -> float:
    """Halfway between what is seen just inside and just outside of a cell's outline in its planes, camera units."""
    plane = ndimage.generate_binary_structure(2, 1).reshape((1,) * (cell.mask.ndim - 2) + (3, 3))
    mask, signal = np.pad(cell.mask, 1), np.pad(cell.signal, 1)
    inside, outside = mask & ~ndimage.binary_erosion(mask, plane), ndimage.binary_dilation(mask, plane) & ~mask
    return 0.5 * float(np.median(signal[inside]) + np.median(signal[outside]))


def trim(mask: npt.NDArray[Any], corner: npt.NDArray[Any], canvas_shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """What a canvas shows of a mask at `corner`: without what lies outside, and of that the largest piece."""
    here, there = overlap_windows(corner, mask.shape, canvas_shape)
    if all(h.stop - h.start == n for h, n in zip(here, mask.shape, strict=True)):
        return mask
    visible = np.zeros_like(mask)
    visible[there] = largest_piece(mask[there])
    return visible
