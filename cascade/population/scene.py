"""One image: which cells it shows, where they lie, and what the camera makes of them."""

from dataclasses import dataclass

import numpy as np

from cascade.geometry.masks import ellipsoid_region
from cascade.optics.statistics import Statistics
from cascade.rng import stream

_ENOUGH = 8  # annotated cells of an image, to draw the light and size of its cells from


@dataclass(frozen=True)
class Scene:
    """What is decided before there is any cell. region: where cell centres may lie, bool, or None for everywhere.
    like: the real image whose brightness it takes after."""

    canvas: tuple[int, ...]
    region: np.ndarray | None
    cells: int
    like: int
    level: float
    clustering_probability: float
    max_overlap: float = 0.0


def plan_scene(
    statistics: Statistics,
    seed: int,
    index: int,
    canvas_size: tuple[int, ...] | None = None,
    cells_per_image: int | None = None,
    clustering_probability: float | None = None,
    region: np.ndarray | None = None,
    max_overlap: float = 0.0,
) -> Scene:
    """Decide what image `index` shows; arguments left at None are drawn as in the real images, scaled to the canvas.

    region: where cell centres may lie, any non-zero voxel of an array as large as the canvas, which it then gives the
    size of. Raises ValueError for a canvas of another dimension, a region of another size, or a probability outside
    [0, 1], an overlap outside [0, 1), a region that is empty, or no cell.
    """
    if region is not None and canvas_size is None:
        canvas_size = region.shape
    canvas = tuple(canvas_size or statistics.image_shape)
    if len(canvas) != statistics.ndim or min(canvas) < 1:
        raise ValueError(f"canvas_size {canvas}: this model makes {statistics.ndim}D images, one size per axis")
    if clustering_probability is not None and not 0 <= clustering_probability <= 1:
        raise ValueError(f"clustering_probability must be in [0, 1], got {clustering_probability}")
    if not 0 <= max_overlap < 1:
        raise ValueError(f"max_overlap must be in [0, 1), got {max_overlap}")
    if cells_per_image is not None and cells_per_image < 1:
        raise ValueError(f"cells_per_image must be at least 1, got {cells_per_image}")
    rng = stream(seed, "scene", index)
    images = len(statistics.cells_per_image)
    like = int(stream(seed, "like", index // images).permutation(images)[index % images])  # each equally often
    p = clustering_probability
    if p is None:
        p = statistics.image_clustering[like] if statistics.image_clustering else statistics.clustering_probability
    own, room = statistics.region_um, float(np.prod(statistics.image_shape))  # room: voxels the real cells share
    if own is not None:
        ball = np.pi * (4 / 3 if statistics.ndim == 3 else 1)  # of radius 1
        room = float(ball * np.prod(own) / np.prod(statistics.spacing_um))
    if region is not None:
        if region.shape != canvas:
            raise ValueError(f"the region has shape {region.shape}, the canvas {canvas}: they must be equal")
        region = region > 0
        if not region.any():
            raise ValueError("the region is empty: no cell can be placed in it")
    elif own is not None:
        axes_um = np.minimum(own, 0.5 * np.array(canvas) * statistics.spacing_um)
        region = ellipsoid_region(canvas, statistics.spacing_um, axes_um)
    share = (np.prod(canvas) if region is None else float(region.sum())) / room
    count = max(round(statistics.cells_per_image[like] * share), 1) if cells_per_image is None else cells_per_image
    level = float(rng.choice(statistics.background.levels))
    return Scene(canvas, region, int(count), like, level, float(p), max_overlap)


def real_cells(statistics: Statistics, like: int | None, count: int, rng: np.random.Generator) -> np.ndarray:
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


def _most_alike(statistics: Statistics, like: int) -> np.ndarray:
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


def draw_light(statistics: Statistics, area_um2: np.ndarray, like: int | None, rng: np.random.Generator) -> np.ndarray:
    """Light above background for cells of given areas, as bright as cells of like size in real image `like`.

    Real cells of that image (`real_cells`) are drawn and matched by the rank of their area, which keeps what size and
    brightness have to do with each other.
    """
    picked = real_cells(statistics, like, len(area_um2), rng)
    real_area = np.array(statistics.cell_area_um2)[picked]
    light = np.empty(len(area_um2))
    light[np.argsort(area_um2, kind="stable")] = light_of(statistics, picked)[np.argsort(real_area, kind="stable")]
    return light


def light_of(statistics: Statistics, cells: np.ndarray) -> np.ndarray:
    """Light above background of annotated cells, at least 1."""
    return np.maximum(np.array(statistics.cell_brightness)[cells] - statistics.background.level, 1.0)
