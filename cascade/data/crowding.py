"""How often cells touch in annotated stacks, as the clustering probability at which simulated ones touch as often."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.data.crops import Plane
from cascade.data.frames import Annotated
from cascade.evenly import evenly
from cascade.geometry.masks import ellipsoid_region
from cascade.optics.axial import Axial
from cascade.population.clustering import reached, touching_fraction
from cascade.population.compositing import Cell, compose
from cascade.population.placement import place
from cascade.population.room import Room

_MANY = 24  # images looked at
_EDGE_PX = 2.0  # standard deviation of the blur of simulated cells' edges


def clustering_of_stacks(
    images: list[Annotated],
    planes: list[Plane],
    counts: list[int],
    axial: Axial,
    shape: tuple[int, ...],
    spacing_um: tuple[float, ...],
    rooms: Callable[[int], Room],
    gap_um: float,
    rng: np.random.Generator,
) -> list[float]:
    """The clustering probability of each annotated frame: that at which cells touch in a plane of simulated stacks as
    often as in annotated ones, found for the third of frames with few cells, the middle one and that with many. counts:
    cells of each frame, were its image of that shape. rooms: where cells of a frame, by its number, lie.

    Simulated are ellipsoids with blurred edges, as many and as large as the frame's own, each frame twice; the plane is
    the annotated one, or where whole stacks are annotated the one that shows most.
    """
    frames = [frame for image in images for frame in image.frames]
    pooled = np.concatenate([areas_px(plane.labels) for plane in planes])
    probabilities, fitted = np.linspace(0, 1, 6), np.zeros(len(frames))
    by_count = np.argsort(counts, kind="stable")
    for group in np.array_split(by_count, 3 if len(frames) >= _MANY else 1):
        seen, stacks = [], []
        for n in group[evenly(len(group), _MANY)]:
            labels, z = frames[n].labels(), frames[n].z
            plane = labels if z is not None else labels[_fullest(labels)]
            seen.append(touching_fraction(plane, spacing_um[-2:], gap_um))
            own = areas_px(plane)
            areas = rng.choice(own if len(own) >= 8 else pooled, counts[n]) * spacing_um[-2] * spacing_um[-1]
            diameters = 2 * np.sqrt(areas / np.pi) / axial.section
            heights = diameters * axial.elongations(diameters)
            cells = [_soft_ellipsoid(h, d, spacing_um) for h, d in zip(heights, diameters, strict=True)]
            stacks.append((z, [cell for cell in cells if cell.mask.any()], rooms(n)))
        simulated = [
            np.mean([_touching(*stack, p, shape, spacing_um, gap_um, rng) for stack in 2 * stacks])
            for p in probabilities
        ]
        fitted[group] = reached(probabilities, simulated, float(np.mean(seen)))
    return fitted.round(3).tolist()


def _touching(
    z: int | None,
    cells: list[Cell],
    room: Room,
    probability: float,
    shape: tuple[int, ...],
    spacing_um: tuple[float, ...],
    gap_um: float,
    rng: np.random.Generator,
) -> float:
    """How often cells touch in a plane of one simulated stack."""
    corners = place([cell.mask for cell in cells], shape, float(probability), rng, room)
    labels = compose(cells, corners, shape)[1]
    plane = labels[min(z, shape[0] - 1) if z is not None else _fullest(labels)]
    return touching_fraction(plane, spacing_um[-2:], gap_um)


def _fullest(labels: npt.NDArray[Any]) -> int:
    return int(np.argmax((labels > 0).sum((1, 2))))


def _soft_ellipsoid(height_um: float, diameter_um: float, spacing_um: tuple[float, ...]) -> Cell:
    size, margin = np.array([height_um, diameter_um, diameter_um]), int(2 * _EDGE_PX)
    mask = ellipsoid_region(tuple(int(n) for n in np.ceil(size / spacing_um)), spacing_um, 0.5 * size)
    mask = np.pad(mask, [(0, 0), (margin, margin), (margin, margin)])
    return Cell(mask, ndimage.gaussian_filter(mask.astype(np.float32), (0, _EDGE_PX, _EDGE_PX)), ())


def areas_px(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Of each of the labels that there are."""
    sizes = np.bincount(labels.ravel())[1:]
    return sizes[sizes > 0]
