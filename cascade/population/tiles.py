"""Canvases too large for memory: composed tile by tile into OME-Zarr, from a bank of cells used again and again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from cascade.export import ome_zarr
from cascade.optics.camera import digitise
from cascade.optics.statistics import Statistics
from cascade.population.bank import draw_uses, turned, used
from cascade.population.compositing import Cell, compose, trim
from cascade.population.picture import label_dtype, large_first
from cascade.population.placement import GAP_PX, UNPLACED, place
from cascade.population.scene import Scene
from cascade.rng import stream


def compose_tiles(
    bank: list[Cell], scene: Scene, statistics: Statistics, path: Path, seed: int, index: int, tile: int = 1024
) -> dict:
    """Place `scene.cells` cells and write image and labels as one OME-Zarr, holding one tile of planes at a time.

    Which cells of the bank are used, how and where, is the same as for a canvas in memory (`draw_uses`). Labels are
    1, 2, … in the order of placement, uint32 beyond 65,535.

    Held in memory are one byte for each voxel, to find free sites, eight more for each of a region, and one tile.
    Returns the sample's record, as `DataSetWriter.write` does.
    """
    if scene.max_overlap > 0:
        raise ValueError("canvases made of tiles know no overlap: leave max_overlap at 0")
    uses = draw_uses(bank, scene, statistics, seed, index)
    uses = [uses[n] for n in large_first([bank[use.cell] for use in uses])]
    masks = [turned(bank[use.cell], use.symmetry).mask for use in uses]
    corners = place(masks, scene.canvas, scene.clustering_probability, stream(seed, "placement", index), scene.region)
    shown = np.flatnonzero((corners != UNPLACED).all(1))
    kind = digitise(np.zeros(1), statistics.dtype).dtype
    image, labels = ome_zarr.create(
        path, scene.canvas, statistics.spacing_um, kind, label_dtype(len(shown)), chunk=min(tile, 512)
    )
    reach = max(max(cell.mask.shape[-2:]) for cell in bank)
    axial, end = statistics.axial, np.array(scene.canvas[-2:])
    margin = 4 * GAP_PX + (axial.glow_reach(statistics.spacing_um) if axial else 0)  # of what lies beyond a tile
    origins = [(y, x) for y in range(0, scene.canvas[-2], tile) for x in range(0, scene.canvas[-1], tile)]
    for number, (y, x) in enumerate(tqdm(origins, desc="tiles", unit="tile")):
        low = np.array([y, x])
        high = np.minimum(low + tile, end)
        first, last = np.maximum(low - margin, 0), np.minimum(high + margin, end)
        plane = corners[shown][:, -2:]
        near = shown[((plane < last + reach) & (plane + 2 * reach > first)).all(1)]  # cells, and those pressed on them
        cells = [_shown(used(bank, uses[n], statistics.background.level), corners[n], scene.canvas) for n in near]
        leading = scene.canvas[:-2]
        offset = np.array([0] * len(leading) + first.tolist())
        light, local, placed = compose(cells, corners[near] - offset, (*leading, *(last - first)), trimmed=True)
        if axial:
            light = axial.with_glow(light, statistics.spacing_um)
        inner = (..., *(slice(a, b) for a, b in zip(low - first, high - first, strict=True)))
        light, local = light[inner], local[inner]
        light += statistics.background.draw(light.shape, seed, index, scene.level, (y, x))
        names = np.zeros(len(placed) + 1, labels[0].dtype)
        names[1:] = np.searchsorted(shown, near[placed]) + 1
        window = (..., slice(y, int(high[0])), slice(x, int(high[1])))
        image[0][window] = digitise(statistics.noise.add(light, stream(seed, "noise", index, number)), statistics.dtype)
        labels[0][window] = names[local]
    ome_zarr.downsample(image)
    ome_zarr.downsample(labels)
    spacing, level = statistics.spacing_um, statistics.background.level
    rows = [
        {
            "label": label,
            "origin_um": [float(c * d) for c, d in zip(corners[n], spacing, strict=True)],
            **{k: v for k, v in used(bank, uses[n], level).info.items() if k not in ("outline", "solid")},
        }
        for label, n in enumerate(shown, 1)
    ]
    counts = {"cells without room": scene.cells - len(shown)}
    record = {"sample": index, "seed": seed, "index": index, "cells": len(shown), "spacing_um": list(spacing)}
    return record | {"counts": counts, "cell_records": rows}


def _shown(cell: Cell, corner: np.ndarray, canvas: tuple[int, ...]) -> Cell:
    return replace(cell, mask=trim(cell.mask, corner, canvas))
