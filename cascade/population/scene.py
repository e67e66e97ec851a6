"""One image: which cells it shows, where they lie, and what the camera makes of them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.optics.statistics import Statistics
from cascade.optics.vary import Microscope, draw_microscope
from cascade.population.room import Room, room_of
from cascade.population.settings import CascadeSettings
from cascade.rng import stream

_ENOUGH = 8  # annotated cells of an image, to draw the light and size of its cells from


@dataclass(frozen=True)
class Scene:
    """What is decided before there is any cell. room: where their centres may lie. like: the real image whose
    brightness it takes after. microscope: which sees it, None for the fitted one."""

    canvas: tuple[int, ...]
    room: Room
    num_cells: int
    like: int
    level: float
    clustering_probability: float
    max_overlap: float = 0.0
    microscope: Microscope | None = None


def plan_scene(
    statistics: Statistics, settings: CascadeSettings, seed: int, index: int, *, region: npt.NDArray[Any] | None = None
) -> Scene:
    """Decide what image `index` shows; settings left at None are drawn as in the real images, scaled to the canvas.

    region: where cell centres may lie, any non-zero voxel of an array as large as the canvas, which it then gives the
    size of; as seen along z, if cells lie in one layer. Raises ValueError for a canvas of another dimension or smaller
    than a cell, more cells than could ever lie on it, a region of another size, or an empty one.
    """
    canvas = _canvas(statistics, settings, region)
    rng = stream(seed, "scene", index)
    images = len(statistics.cells_per_image)
    like = int(stream(seed, "like", index // images).permutation(images)[index % images])  # each equally often
    p = settings.clustering_probability
    if p is None:
        p = statistics.image_clustering[like] if statistics.image_clustering else statistics.clustering_probability
    room, share = _room(statistics, canvas, region)
    if statistics.region_um is not None and region is None:
        room = room_like(statistics, canvas, like)
    count = settings.cells_per_image
    if count is None:
        count = max(round(statistics.cells_per_image[like] * share), 1)
    else:
        _check_room(statistics, count, canvas, settings.max_overlap)
    level = statistics.image_level[like] if statistics.image_level else float(rng.choice(statistics.background.levels))
    microscope = draw_microscope(settings.vary, seed, index, statistics.window, statistics.dtype, statistics.spacing_um)
    return Scene(canvas, room, int(count), like, level, float(p), settings.max_overlap, microscope)


def room_like(statistics: Statistics, canvas: tuple[int, ...], like: int) -> Room:
    """Where cells may lie on a canvas so that they lie as in real image `like`, if cells do not fill the images."""
    shift, shell = None, (0.0, 1.0)
    if statistics.region_shift_um:
        shift = np.minimum(np.array(canvas) / statistics.image_shape, 1) * statistics.region_shift_um[like]
    if statistics.region_shell:
        inner, outer = statistics.region_shell[like]
        shell = inner, outer
    own = statistics.region_um, statistics.middles_um
    return room_of(canvas, statistics.spacing_um, *own, shift_um=shift, shell=shell)


def _room(statistics: Statistics, canvas: tuple[int, ...], region: npt.NDArray[Any] | None) -> tuple[Room, float]:
    """Where cells may lie, and how much that is, as a share of the room of those of a real image: of the volume, or,
    if they lie in one layer, of the plane."""
    own, spacing = statistics.region_um, statistics.spacing_um
    room = room_of(canvas, spacing, own, statistics.middles_um, beyond=statistics.cut_by_border)
    flat = 0 if room.middles is None else 1
    if region is not None:
        if not (region > 0).any():
            raise ValueError("the region is empty: no cell can be placed in it")
        room = replace(room, region=(region > 0).any(0) if flat else region > 0, beyond=False)
    there = float(np.prod(statistics.image_shape[flat:]))
    if own is not None:
        axes_um = np.minimum(own, 0.5 * np.array(statistics.image_shape) * spacing)[flat:]  # as `room_of` has it
        ball = np.pi * (4 / 3 if len(axes_um) == 3 else 1)  # of radius 1
        there = float(ball * np.prod(axes_um) / np.prod(spacing[flat:]))
    here = np.prod(canvas[flat:]) if room.region is None else room.region.sum()
    return room, float(here) / there


def _canvas(statistics: Statistics, settings: CascadeSettings, region: npt.NDArray[Any] | None) -> tuple[int, ...]:
    canvas = settings.canvas_size or (statistics.image_shape if region is None else region.shape)
    canvas = tuple(int(n) for n in canvas)
    if len(canvas) != statistics.ndim:
        raise ValueError(f"canvas_size {canvas}: this model makes {statistics.ndim}D images, one size per axis")
    if region is not None and region.shape != canvas:
        raise ValueError(f"the region has shape {region.shape}, the canvas {canvas}: they must be equal")
    diameter = _diameter_um(statistics)
    sides = np.array(canvas[-2:]) * np.array(statistics.spacing_um[-2:])
    if sides.min() < diameter:
        least = "×".join(str(int(np.ceil(diameter / s))) for s in statistics.spacing_um[-2:])
        raise ValueError(f"canvas_size {canvas} is smaller than a cell: give at least {least} pixels, or many more")
    return canvas


def _diameter_um(statistics: Statistics, percentile: float = 50) -> float:
    """Of a disc with the area of a typical cell, or of one of another rank."""
    return float(2 * np.sqrt(np.percentile(statistics.cell_area_um2, percentile) / np.pi))


def _check_room(statistics: Statistics, count: int, canvas: tuple[int, ...], max_overlap: float) -> None:
    """Even if all cells were as small as the smallest: they may be cut by the border, so they share the canvas and half
    a cell around it; no packing is denser than without gaps."""
    extent = np.array(canvas) * statistics.spacing_um
    if statistics.middles_um:
        extent[0] = min(extent[0], statistics.image_shape[0] * statistics.spacing_um[0])
    size = np.array([_diameter_um(statistics, percentile=5)] * len(canvas))
    if statistics.axial is not None:
        size[0] *= statistics.axial.elongation[0]
    each = float(np.prod(size)) * np.pi / (4 if len(canvas) == 2 else 6)
    most = int(np.prod(extent + size) / each / (1 - max_overlap))
    if count > most:
        shape = "×".join(map(str, canvas))
        raise ValueError(
            f"cells_per_image {count} can never lie on a canvas of {shape}, which holds {most} at the very most: ask "
            "for fewer, or give a larger canvas_size"
        )


def real_cells(statistics: Statistics, like: int | None, count: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Numbers of `count` annotated cells, drawn from real image `like`, or with None from all.

    Where that image has fewer than eight annotated cells, those of the images most like it in number and light of
    their cells help out, so that few bright cells stay few bright cells.
    """
    image = np.array(statistics.cell_image)
    if like is None:
        return rng.choice(len(image), count, replace=len(image) < count)
    own = np.flatnonzero(image == like)
    if len(own) < _ENOUGH:
        rank = np.empty(len(statistics.cells_per_image), int)
        rank[_most_alike(statistics, like)] = np.arange(len(rank))
        nearest = np.argsort(rank[image], kind="stable")
        own = nearest[rank[image[nearest]] <= rank[image[nearest[min(_ENOUGH, len(nearest)) - 1]]]]
    return rng.choice(own, count, replace=len(own) < count)


def _most_alike(statistics: Statistics, like: int) -> npt.NDArray[Any]:
    """Images by how much they are like image `like`: itself first."""
    image, light = np.array(statistics.cell_image), np.array(statistics.cell_brightness)
    typical = np.full(len(statistics.cells_per_image), np.nan)
    for n in np.unique(image):
        typical[n] = np.log(max(np.median(light[image == n]) - statistics.background.level, 1.0))
    distance = np.zeros(len(typical))
    for feature in (np.log(np.maximum(statistics.cells_per_image, 1)), typical):
        apart = np.abs(feature - feature[like]) / max(np.nanstd(feature), 1e-6)
        distance += np.where(np.isnan(apart), 1.0, apart)  # nothing is known: as far as images usually are
    distance[like] = -1
    return np.argsort(distance, kind="stable")


def draw_light(
    statistics: Statistics, area_um2: npt.NDArray[Any], like: int | None, rng: np.random.Generator
) -> npt.NDArray[Any]:
    """Light above background for cells of given areas, as bright as cells of like size in real image `like`.

    Real cells of that image (`real_cells`) are drawn and matched by the rank of their area, which keeps what size and
    brightness have to do with each other.
    """
    picked = real_cells(statistics, like, len(area_um2), rng)
    real_area = np.array(statistics.cell_area_um2)[picked]
    light = np.empty(len(area_um2))
    light[np.argsort(area_um2, kind="stable")] = light_of(statistics, picked)[np.argsort(real_area, kind="stable")]
    return light


def light_of(statistics: Statistics, cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Light above background of annotated cells, at least 1."""
    return np.maximum(np.array(statistics.cell_brightness)[cells] - statistics.background.level, 1.0)
