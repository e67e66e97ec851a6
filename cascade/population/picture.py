"""From placed cells to an annotated image, as the camera sees it."""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from cascade.optics.camera import digitise
from cascade.optics.statistics import Statistics
from cascade.population.compositing import Cell, compose
from cascade.population.placement import UNPLACED, place
from cascade.population.scene import Scene
from cascade.rng import stream


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
