"""From cells to an annotated image: placed, composed, and seen by the camera."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.annotation import Annotation, CellRecord, Sample, measured
from cascade.optics.camera import digitise
from cascade.optics.statistics import Statistics
from cascade.optics.vary import Microscope
from cascade.population.compositing import Cell, compose
from cascade.population.placement import UNPLACED, place
from cascade.population.reslicing import resliced
from cascade.population.scene import Scene
from cascade.rng import stream


def take_picture(
    cells: list[Cell], scene: Scene, statistics: Statistics, seed: int, index: int, *, counts: Mapping[str, int]
) -> Sample:
    """Place the cells, add their light to a background, and expose the camera."""
    cells = [cells[n] for n in large_first(cells)]
    corners = place(
        [cell.mask for cell in cells],
        scene.canvas,
        scene.clustering_probability,
        stream(seed, "placement", index),
        scene.room,
        scene.max_overlap,
    )
    light, labels, placed = compose(cells, corners, scene.canvas)
    labels = labels.astype(label_dtype(len(placed)))
    spacing = statistics.spacing_um
    records = [
        placed_record(cells[n], corners[n], label, centroid, size, spacing)
        for label, n, centroid, size in zip(range(1, len(placed) + 1), placed, *measured(labels, spacing), strict=True)
    ]
    annotation, microscope = Annotation(labels, spacing, tuple(records)), scene.microscope
    if microscope and microscope.slice_um is not None:
        annotation = resliced(annotation, microscope.slice_um)
        counts = {**counts, "cells between slices": len(records) - len(annotation.cells)}
    return Sample(
        image=expose(light, scene.level, statistics, seed, index, microscope),
        annotation=annotation,
        seed=seed,
        index=index,
        counts={**counts, "cells without room": int((corners == UNPLACED).any(1).sum())},
        microscope=microscope.record() if microscope else {},
    )


def expose(
    light: npt.NDArray[Any],
    level: float,
    statistics: Statistics,
    seed: int,
    index: int,
    microscope: Microscope | None = None,
) -> npt.NDArray[Any]:
    """What the camera makes of cells' light above background (Y, X) or (Z, Y, X), float32 camera units: glow, a
    background of that level, noise; integers of the data set's dtype.

    microscope: default the fitted one; level and light are those that the fitted one would show.
    """
    background, noise = statistics.background, statistics.noise
    if statistics.axial:
        light = statistics.axial.with_glow(light, statistics.spacing_um)
    if statistics.glow:
        light = statistics.glow.add(light, statistics.spacing_um, seed, index)
    if microscope:
        light, noise = microscope.light(light, statistics.spacing_um), microscope.noise(noise)
        background, level = microscope.field(level, statistics), microscope.level(level, statistics)
    signal = background.draw(light.shape, seed, index, level) + light
    return digitise(noise.add(signal, stream(seed, "noise", index)), statistics.dtype)


def placed_record(
    cell: Cell,
    corner: npt.NDArray[Any],
    label: int,
    centroid_um: tuple[float, ...],
    size: float,
    spacing_um: tuple[float, ...],
) -> CellRecord:
    """The record of a cell that has found its place: `corner` is where its first voxel lies."""
    origin = tuple(float(v * s) for v, s in zip(corner + cell.centre, spacing_um, strict=True))
    return replace(cell.record, label=label, centroid_um=centroid_um, size=size, origin_um=origin)


def large_first(cells: list[Cell]) -> npt.NDArray[Any]:
    """The order in which cells are placed: the large ones find room first."""
    return np.argsort([-cell.mask.sum() for cell in cells], kind="stable")


def label_dtype(num_cells: int) -> type[np.uint16 | np.uint32]:
    """The smaller of uint16 and uint32 that holds so many labels."""
    return np.uint16 if num_cells <= np.iinfo(np.uint16).max else np.uint32
