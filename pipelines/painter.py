"""Any annotation, painted cell by cell with the texture stage."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.annotation import Annotation, CellRecord, Sample
from cascade.geometry.grid import signed_distance
from cascade.geometry.masks import overlap_windows
from cascade.geometry.resample import fitted, resample
from cascade.optics.vary import draw_microscope
from cascade.pipelines.stages import Stages, paint_slices
from cascade.population.cells import Slices
from cascade.population.compositing import Cell
from cascade.population.picture import expose
from cascade.population.reslicing import resliced
from cascade.population.scene import draw_light
from cascade.population.settings import CascadeSettings
from cascade.rng import stream

_SAME_SPACING = 0.02  # relative difference of voxel sizes that rounding makes


def paint_annotation(
    stages: Stages, annotation: Annotation, seed: int, index: int, settings: CascadeSettings
) -> Sample:
    """Give the cells of an annotation texture and light, and the whole a background and a camera.

    A cell is as bright as its record says, else as cells of like size in a real image are. Labels stay as they are,
    unless `vary` changes the distance of slices: where a cell's texture does not show its mask, three times over, the
    last one is taken, and counted.

    Raises ValueError for an annotation of another dimension or voxel size than the model's images, or cells larger than
    its crops.
    """
    statistics = stages.statistics
    check_annotation(stages, annotation)
    boxes = ndimage.find_objects(annotation.labels.astype(np.int32))
    masks = [annotation.labels[boxes[cell.label - 1]] == cell.label for cell in annotation.cells]
    slices = [_slices(stages, mask) for mask in masks]

    # 1. Light: the records', or drawn as in a real image
    like = int(stream(seed, "like", index).integers(len(statistics.cells_per_image)))
    area_um2 = np.array([one.masks.sum((1, 2)).max() for one in slices]) * stages.pixel_um**2
    light = draw_light(statistics, area_um2, like, stream(seed, "light", index)) if len(slices) else np.zeros(0)
    level = statistics.background.level
    for n, known in enumerate(annotation.cells):
        if known.brightness is not None:
            light[n] = max(known.brightness - level, 1.0)

    # 2. Texture
    painted, counts = paint_slices(stages, slices, light, list(annotation.cells), seed, index, settings)

    # 3. All cells' light where their labels are, seen by the camera
    canvas = np.zeros(annotation.labels.shape, np.float32)
    records: list[CellRecord] = []
    for cell, one, mask, record in zip(painted, slices, masks, annotation.cells, strict=True):
        if cell is not None:
            first = np.array([axis.start for axis in boxes[record.label - 1]]) - _before(one, mask)
            middle = 0.5 * (np.array(one.voxels.shape[-mask.ndim :]) - 1)
            _add(canvas, cell, first + np.rint(middle - np.array(cell.centre)).astype(int))
        records.append(record if cell is None else cell.record)
    shown = float(stream(seed, "scene", index).choice(statistics.background.levels))
    microscope = draw_microscope(settings.vary, seed, index, statistics.window, statistics.dtype, statistics.spacing_um)
    image = expose(canvas, shown, statistics, seed, index, microscope)
    annotation = replace(annotation, cells=tuple(records))
    if microscope is None:
        return Sample(image, annotation, seed, index, counts)
    if microscope.slice_um is not None:
        annotation = resliced(annotation, microscope.slice_um)
        counts = {**counts, "cells between slices": len(records) - len(annotation.cells)}
    return Sample(image, annotation, seed, index, counts, microscope.record())


def check_annotation(stages: Stages, annotation: Annotation) -> None:
    """Raises ValueError for an annotation of another dimension or voxel size than the model's images, or cells larger
    than its crops."""
    spacing_um = stages.statistics.spacing_um
    check_spacing(annotation, spacing_um)
    crop_um = stages.mask.config.crop_size * stages.pixel_um
    for label, box in enumerate(ndimage.find_objects(annotation.labels.astype(np.int32)), 1):
        wide = [axis.stop - axis.start for axis in box[-2:]] if box else [0, 0]
        if any(n > side - 4 for n, side in zip(wide, _sides(stages), strict=True)):
            wide_um = max(np.array(wide) * spacing_um[-2:])
            raise ValueError(f"cell {label} is {wide_um:.3g} µm wide, and this model paints crops of {crop_um:.3g} µm")


def _sides(stages: Stages) -> list[int]:
    """Of a crop along y and x, in the annotation's pixels."""
    crop_um = stages.mask.config.crop_size * stages.pixel_um
    return [round(crop_um / side_um) for side_um in stages.statistics.spacing_um[-2:]]


def check_spacing(annotation: Annotation, spacing_um: tuple[float, ...]) -> None:
    """Raises ValueError for an annotation of another dimension or voxel size than a model's images."""
    if annotation.ndim != len(spacing_um):
        raise ValueError(f"this model paints {len(spacing_um)}D annotations, got a {annotation.ndim}D one")
    if not np.allclose(annotation.spacing_um, spacing_um, rtol=_SAME_SPACING):
        raise ValueError(
            f"this model paints voxels of {spacing_um} µm, the annotation has {annotation.spacing_um}: resample its "
            "labels, or simulate them at the model's spacing_um"
        )


def _slices(stages: Stages, mask: npt.NDArray[Any]) -> Slices:
    """A cell's mask in its box, (Y, X) or (Z, Y, X), as planes at the texture's pixels, itself in their middle; in 3D
    with as many empty planes again, for the light beyond its top and bottom."""
    spacing, pixel_um, size = stages.statistics.spacing_um[-2:], stages.pixel_um, stages.mask.config.crop_size
    planes = mask[None] if mask.ndim == 2 else mask
    extra = len(planes) // 2 + 1 if mask.ndim == 3 else 0
    sides = zip(_sides(stages), planes.shape[1:], strict=True)
    room = [(extra, extra), *(((side - n) // 2, side - n - (side - n) // 2) for side, n in sides)]
    voxels = np.pad(planes, room)
    masks = np.zeros((len(voxels), size, size), bool)
    for z in np.flatnonzero(voxels.any((1, 2))):
        plane = voxels[z]
        if not np.allclose(spacing, pixel_um, rtol=1e-3):
            plane = resample(signed_distance(plane, (1, 1)), spacing, (pixel_um,) * 2) < 0
        masks[z] = fitted(plane, (size, size))
    height = (np.arange(len(voxels)) - 0.5 * (len(voxels) - 1)) / (0.5 * len(planes))
    return Slices(masks, voxels, height)


def _before(slices: Slices, mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """How many voxels the slices of a cell begin before its box, along each of its axes."""
    missing = np.array(slices.voxels.shape[-mask.ndim :]) - mask.shape
    return missing // 2


def _add(canvas: npt.NDArray[Any], cell: Cell, corner: npt.NDArray[Any]) -> None:
    """Add a cell's light to the canvas, its first voxel at `corner`; what lies outside is cut off."""
    window, box = overlap_windows(corner, cell.signal.shape, canvas.shape)
    canvas[window] += cell.signal[box]
