"""Canvases too large for memory: composed tile by tile into OME-Zarr, from a bank of cells used again and again."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from tqdm.auto import tqdm

from cascade.export import ome_zarr
from cascade.export.records import SampleRecord
from cascade.optics.camera import digitise
from cascade.optics.statistics import Statistics
from cascade.population.bank import Use, draw_uses, turned, used
from cascade.population.compositing import Cell, compose, trim
from cascade.population.picture import label_dtype, large_first, placed_record
from cascade.population.placement import GAP_PX, UNPLACED, place
from cascade.population.scene import Scene
from cascade.rng import stream


def compose_tiles(
    bank: list[Cell], scene: Scene, statistics: Statistics, path: Path, seed: int, index: int, tile: int = 1024
) -> SampleRecord:
    """Place `scene.num_cells` cells and write image and labels as one OME-Zarr, holding one tile of planes at a time.

    Which cells of the bank are used, how and where, which labels they get and what is recorded of them is the same as
    for a canvas in memory (`take_picture`). Labels are uint32 beyond 65,535.

    Held in memory are one byte for each voxel, to find free sites, eight more for each of a region, and one tile.
    """
    if scene.max_overlap > 0:
        raise ValueError("canvases made of tiles know no overlap: leave max_overlap at 0")
    uses = draw_uses(bank, scene, statistics, seed, index)
    uses = [uses[n] for n in large_first([bank[use.cell] for use in uses])]
    masks = [turned(bank[use.cell], use.symmetry).mask for use in uses]
    draws, p = stream(seed, "placement", index), scene.clustering_probability
    corners = place(masks, scene.canvas, p, draws, scene.room)
    shown = np.flatnonzero((corners != UNPLACED).all(1))
    kind = digitise(np.zeros(1), statistics.dtype).dtype
    image, labels = ome_zarr.create(
        path, scene.canvas, statistics.spacing_um, kind, label_dtype(len(shown)), chunk=min(tile, 512)
    )
    sizes, sums = np.zeros(len(shown), np.int64), np.zeros((len(shown), len(scene.canvas)))
    for number, (window, cells, near) in enumerate(_tiles(bank, uses, corners, shown, scene, statistics, tile)):
        low = np.array([axis.start for axis in window])
        margin = _margin(statistics, scene.canvas)
        first = np.maximum(low - margin, 0)
        last = np.minimum([axis.stop + margin for axis in window], scene.canvas[-2:])
        leading = scene.canvas[:-2]
        offset = np.array([0] * len(leading) + first.tolist())
        light, local, placed = compose(cells, corners[near] - offset, (*leading, *(last - first)), trimmed=True)
        if statistics.axial:
            light = statistics.axial.with_glow(light, statistics.spacing_um)
        if statistics.glow:
            light = statistics.glow.add(light, statistics.spacing_um, seed, index, (int(first[0]), int(first[1])))
        inside = [slice(w.start - a, w.stop - a) for w, a in zip(window, first, strict=True)]
        inner: tuple[slice | EllipsisType, ...] = (..., *inside)
        light, local = light[inner], local[inner]
        light += statistics.background.draw(light.shape, seed, index, scene.level, (int(low[0]), int(low[1])))
        names = np.zeros(len(placed) + 1, labels[0].dtype)
        names[1:] = np.searchsorted(shown, near[placed]) + 1
        noisy = statistics.noise.add(light, stream(seed, "noise", index, number))
        image[0][(..., *window)] = digitise(noisy, statistics.dtype)
        named = names[local]
        labels[0][(..., *window)] = named
        _add_up(named, np.array([0] * len(leading) + low.tolist()), sizes, sums)
    kept = np.flatnonzero(sizes)
    if len(kept) < len(sizes):
        _renumber(labels[0], kept, tile)
    ome_zarr.downsample(image)
    ome_zarr.downsample(labels)
    spacing, level = statistics.spacing_um, statistics.background.level
    records = []
    for label, k in enumerate(kept, 1):
        n = shown[k]
        centroid = tuple(float(c * s) for c, s in zip(sums[k] / sizes[k], spacing, strict=True))
        size = float(sizes[k] * np.prod(spacing))
        records.append(placed_record(used(bank, uses[n], level), corners[n], label, centroid, size, spacing))
    counts = {"cells without room": scene.num_cells - len(shown)}
    return SampleRecord(index, seed, index, len(kept), spacing, counts, tuple(records))


def _margin(statistics: Statistics, canvas: tuple[int, ...]) -> int:
    """How far beyond a tile there is what changes it, in pixels."""
    spacing = statistics.spacing_um
    reach = statistics.axial.glow_reach(spacing, canvas[0]) if statistics.axial else 0
    return 4 * GAP_PX + (statistics.glow.reach(spacing) if statistics.glow else reach)


def _tiles(
    bank: list[Cell],
    uses: list[Use],
    corners: npt.NDArray[Any],
    shown: npt.NDArray[Any],
    scene: Scene,
    statistics: Statistics,
    tile: int,
) -> Iterator[tuple[tuple[slice, slice], list[Cell], npt.NDArray[Any]]]:
    """Each tile's window in y and x, with the cells in and around it, and which of `uses` they are."""
    reach = max(max(cell.mask.shape[-2:]) for cell in bank)
    end, margin = np.array(scene.canvas[-2:]), _margin(statistics, scene.canvas)
    plane = corners[shown][:, -2:]
    origins = [(y, x) for y in range(0, scene.canvas[-2], tile) for x in range(0, scene.canvas[-1], tile)]
    for y, x in tqdm(origins, desc="tiles", unit="tile"):
        low = np.array([y, x])
        high = np.minimum(low + tile, end)
        first, last = np.maximum(low - margin, 0), np.minimum(high + margin, end)
        near = shown[((plane < last + reach) & (plane + 2 * reach > first)).all(1)]  # cells, and those pressed on them
        level = statistics.background.level
        cells = [_shown(used(bank, uses[n], level), corners[n], scene.canvas) for n in near]
        yield (slice(y, int(high[0])), slice(x, int(high[1]))), cells, near


def _shown(cell: Cell, corner: npt.NDArray[Any], canvas: tuple[int, ...]) -> Cell:
    return replace(cell, mask=trim(cell.mask, corner, canvas))


def _add_up(
    labels: npt.NDArray[Any], origin: npt.NDArray[Any], sizes: npt.NDArray[Any], sums: npt.NDArray[Any]
) -> None:
    """Add a tile's voxels to the sizes (N,) of labels 1 … N and the sums (N, D) of their indices in the whole."""
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            places = np.argwhere(labels[box] == label) + [axis.start for axis in box] + origin
            sizes[label - 1] += len(places)
            sums[label - 1] += places.sum(0)


def _renumber(labels: Any, kept: npt.NDArray[Any], tile: int) -> None:
    """Close the gaps left by cells of which the border or others leave nothing, chunk by chunk."""
    names = np.zeros(int(kept[-1]) + 2 if len(kept) else 1, labels.dtype)
    names[kept + 1] = np.arange(1, len(kept) + 1)
    for y in range(0, labels.shape[-2], tile):
        for x in range(0, labels.shape[-1], tile):
            window = (..., slice(y, y + tile), slice(x, x + tile))
            labels[window] = names[np.minimum(labels[window], len(names) - 1)]
