"""Membranes in real images: how thick and how soft they are, how bright the walls and the inside of every cell."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from cascade.data.sketch_light import LitImage
from cascade.shapes.membranes import membranes
from cascade.sketch.membranes import measured_walls
from cascade.sketch.rules import depth_um
from cascade.sketch.settings import SketchSettings

_REACH_PX = 12  # from a border
_BINS = 2  # a pixel


def wall_sums(lit: LitImage) -> npt.NDArray[np.float64]:
    """Light above the background by distance from the nearest border, its sum and the number of voxels, (2, bins)."""
    depth = depth_um(lit.place, lit.spacing_um)
    inside = lit.place > 0
    step = min(lit.spacing_um) / _BINS
    at = (depth[inside] / step).astype(int)
    near = at < _REACH_PX * _BINS
    light = (lit.image[inside] - lit.level)[near]
    return np.stack([np.bincount(at[near], weights, _REACH_PX * _BINS) for weights in (light, np.ones(near.sum()))])


def fitted_walls(sums: npt.NDArray[np.float64], pixel_um: float) -> tuple[float, float]:
    """Thickness and softness in µm of walls whose light is a box blurred by a Gaussian on that of the inside.

    As thin as two voxels at least, as `cascade.shapes.membranes` draws them.
    """
    light, count = sums
    seen = count > 20
    if seen.sum() < 5:
        return 2 * pixel_um, 0.5 * pixel_um
    distance = (np.flatnonzero(seen) + 0.5) * pixel_um / _BINS
    profile = light[seen] / count[seen]
    weight = np.sqrt(count[seen])
    scale = max(float(np.ptp(profile)), 1e-9)

    def misfit(parameters: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        height, base, thickness, softness = parameters
        return weight * (base + height * _box(distance, thickness, softness) - profile / scale)

    low = [0.0, -np.inf, 2 * pixel_um, 0.05 * pixel_um]
    high = [np.inf, np.inf, _REACH_PX * pixel_um, _REACH_PX * pixel_um]
    starts = [[1.0, profile[-1] / scale, t * pixel_um, s * pixel_um] for t in (2.1, 4.0) for s in (0.5, 2.0)]
    found = min((optimize.least_squares(misfit, s, bounds=(low, high)) for s in starts), key=lambda one: one.cost)
    return float(found.x[2]), float(found.x[3])


def _box(distance: npt.NDArray[np.float64], thickness: float, softness: float) -> npt.NDArray[np.float64]:
    scale = np.sqrt(2) * softness
    sides = special.erf((distance + 0.5 * thickness) / scale) - special.erf((distance - 0.5 * thickness) / scale)
    return np.asarray(0.5 * sides)


def walls_and_insides(
    lit: LitImage, settings: SketchSettings
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Light above the background of each cell's walls, and of what is inside them, (N,) each."""
    wall = membranes(lit.place, lit.spacing_um, settings.thickness_um)
    return measured_walls(lit.place, wall, lit.spacing_um, settings, lit.image - np.float32(lit.level))


def are_membranes(lits: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]) -> bool:
    """Whether walls are brighter than what is inside, in most cells that have both."""
    walls, insides = (np.concatenate(part) for part in zip(*lits, strict=True))
    return bool((walls > insides).mean() > 0.5) if len(walls) else False
