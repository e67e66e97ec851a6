"""One image: which cells it shows, where they lie, and what the camera makes of them."""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from cascade.data.crops import fade
from cascade.data.statistics import Statistics
from cascade.grid import fitted, resample
from cascade.population import UNPLACED, Cell, compose, ellipsoid_region, place
from cascade.rng import stream

_ENOUGH = 8  # annotated cells of an image, to draw the light and size of its cells from


@dataclass(frozen=True)
class Sample:
    """One annotated image. image: the data set's dtype, camera units; labels: uint16, or uint32 beyond 65,535 cells."""

    image: np.ndarray
    labels: np.ndarray
    spacing_um: tuple[float, ...]
    cells: list[dict]
    """One record per label, in order: label, centroid_um, area_um2 or volume_um3, brightness, alignment (of its texture
    with its mask), outline (H, W) bool at outline_pixel_um; in 3D also the residual of its views, and `solid`, its
    signed distance around `origin_um`."""
    seed: int
    index: int
    counts: dict[str, int] = field(default_factory=dict)
    """What was drawn again or left out, and how often."""


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


def take_picture(
    cells: list[Cell], scene: Scene, statistics: Statistics, seed: int, index: int, counts: dict[str, int]
) -> Sample:
    """Place the cells, add their light to a background, and expose the camera."""
    cells = [cells[n] for n in large_first(cells)]
    spacing = statistics.spacing_um
    corners = place(
        [cell.mask for cell in cells],
        scene.canvas,
        scene.clustering_probability,
        stream(seed, "placement", index),
        scene.region,
        scene.max_overlap,
    )
    background = statistics.background.draw(scene.canvas, seed, index, scene.level)
    light, labels, placed = compose(cells, corners, scene.canvas)
    if statistics.axial:
        light = statistics.axial.with_glow(light, spacing)
    image = digitise(statistics.noise.add(background + light, stream(seed, "noise", index)), statistics.dtype)
    records = _records(labels, [cells[n] for n in placed], corners[placed], spacing)
    counts = counts | {"cells without room": int((corners == UNPLACED).any(1).sum())}
    return Sample(image, labels.astype(label_dtype(len(placed))), spacing, records, seed, index, counts)


def large_first(cells: list[Cell]) -> np.ndarray:
    """The order in which cells are placed: the large ones find room first."""
    return np.argsort([-cell.mask.sum() for cell in cells], kind="stable")


def photograph_crops(
    images: np.ndarray, masks: np.ndarray, statistics: Statistics, pixel_um: float, rng: np.random.Generator
) -> np.ndarray:
    """Add camera noise to textured crops, as `cascade prepare` leaves it in real ones: (N, H, W) float32 in [0, 1].

    The texture stage makes light without noise; noise is added at the data set's own pixels, fades out with the
    cell's halo, and is resampled to the crops' pixels, just as it is in crops of real images.

    images: (N, H, W) in [0, 1] after the window. masks: (N, H, W) bool.
    """
    window, spacing = statistics.window, statistics.spacing_um[-2:]
    reach = statistics.halo.radius_px * spacing[-1] / pixel_um
    noisy = np.empty(images.shape, np.float32)
    for n, (image, mask) in enumerate(zip(images, masks, strict=True)):
        light = resample(window.restore(image), (pixel_um,) * 2, spacing)
        noise = resample(statistics.noise.add(light, rng) - light, spacing, (pixel_um,) * 2)
        share = fade(ndimage.distance_transform_edt(~mask), reach)
        noisy[n] = window.stretch(window.restore(image) + share * fitted(noise, image.shape))
    return noisy


def digitise(image: np.ndarray, dtype: str) -> np.ndarray:
    """Camera units as integers of the data set's dtype; a float data set is written as uint16."""
    kind = np.dtype(dtype if np.dtype(dtype).kind == "u" else "uint16")
    return np.clip(np.rint(image), 0, np.iinfo(kind).max).astype(kind)


def label_dtype(cells: int) -> type:
    """The smaller of uint16 and uint32 that holds so many labels."""
    return np.uint16 if cells <= np.iinfo(np.uint16).max else np.uint32


def _records(labels: np.ndarray, cells: list[Cell], corners: np.ndarray, spacing_um) -> list[dict]:
    ids = np.arange(1, len(cells) + 1)
    centroids = ndimage.center_of_mass(labels > 0, labels, ids) if len(ids) else []
    sizes = np.bincount(labels.ravel(), minlength=len(cells) + 1)[1:]
    size_name = "area_um2" if labels.ndim == 2 else "volume_um3"
    return [
        {
            "label": int(label),
            "centroid_um": _scaled(centroid, spacing_um),
            "origin_um": _scaled(corner + cell.centre, spacing_um),
            size_name: float(size * np.prod(spacing_um)),
            **cell.info,
        }
        for label, centroid, size, cell, corner in zip(ids, centroids, sizes, cells, corners, strict=True)
    ]


def _scaled(voxels, spacing_um) -> tuple[float, ...]:
    return tuple(float(v * s) for v, s in zip(voxels, spacing_um, strict=True))
