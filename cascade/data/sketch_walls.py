"""Membranes in real images: how thick and how soft they are, how bright the walls and the inside of every cell."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize, special
from skimage import segmentation

from cascade.data.calibrate import quantiles
from cascade.data.sketch_light import LitImage
from cascade.shapes.membranes import cells_beyond, membranes
from cascade.sketch.membranes import measured_walls
from cascade.sketch.rules import depth_um
from cascade.sketch.settings import SketchSettings

_REACH_PX = 14  # from a border
_BINS = 2  # a pixel
_WIDER = 2.0  # stray light: so many times wider than the blur, at least
_OFF, _BETTER = (
    0.03,
    0.8,
)  # it is there where walls without it are off by so much of the range, with it by so much of that
_BESIDE_PX = 3.0  # that walls may lie beside the borders of their labels
_SMOOTH_PX = 1.5  # over which light is smoothed to see where walls are
_SEEN_VX, _FEW = 30, 6  # of a wall between two cells, and walls
_PARTS = 50  # that the largest counts as


def on_ridges(lit: LitImage) -> LitImage:
    """The image with the borders of its cells moved onto the ridges of light within three pixels, by a watershed of the
    light: hand-drawn borders lie beside walls, and what is read there is too little."""
    spacing = np.asarray(lit.spacing_um)
    numbers = lit.place + 1  # what is outside is a cell, too
    depth = depth_um(numbers, lit.spacing_um)
    deepest = np.zeros(int(numbers.max()) + 1, np.float32)
    np.maximum.at(deepest, numbers, depth)
    reach = _BESIDE_PX * spacing.min()
    marks = np.where(depth >= np.minimum(reach, 0.5 * deepest)[numbers], numbers, 0)
    light = ndimage.gaussian_filter(lit.image, _SMOOTH_PX * spacing.min() / spacing) - lit.image.min()
    near = np.exp(-0.5 * (depth / (2 * reach)) ** 2)  # of ridges as bright the nearest
    return replace(lit, place=(segmentation.watershed(light * near, marks) - 1).astype(np.int32))


def wall_sums(lit: LitImage) -> npt.NDArray[np.float64]:
    """Light above the background by distance from the nearest border, its sum and the number of voxels, (2, bins)."""
    depth = depth_um(lit.place, lit.spacing_um)
    inside = lit.place > 0
    step = min(lit.spacing_um) / _BINS
    at = (depth[inside] / step).astype(int)
    near = at < _REACH_PX * _BINS
    light = (lit.image[inside] - lit.level)[near]
    return np.stack([np.bincount(at[near], weights, _REACH_PX * _BINS) for weights in (light, np.ones(near.sum()))])


def fitted_walls(sums: npt.NDArray[np.float64], pixel_um: float) -> SketchSettings:
    """Thickness, softness and stray light of membranes, whose light on that of the inside is a box blurred by a
    Gaussian, and where that is not enough a share of it by a wider one.

    As thin as two voxels at least, as `cascade.shapes.membranes` draws them.
    """
    light, count = sums
    seen = count > 20
    if seen.sum() < 7:
        return SketchSettings(structure="membranes", thickness_um=2 * pixel_um, softness_um=0.5 * pixel_um)
    distance = (np.flatnonzero(seen) + 0.5) * pixel_um / _BINS
    profile = light[seen] / count[seen]
    weight = np.sqrt(count[seen])
    scale = max(float(np.ptp(profile)), 1e-9)

    def misfit(parameters: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        height, base, thickness, softness, *wide = parameters
        found = base + height * _box(distance, thickness, softness)
        if wide:
            found = found + height * wide[0] * _box(distance, thickness, _WIDER * softness + wide[1])
        return np.asarray(weight * (found - profile / scale))

    low = [0.0, -np.inf, 2 * pixel_um, 0.05 * pixel_um]
    least = [0.0, -np.inf, 2 * pixel_um, 0.5 * pixel_um, 0.0, 0.0]
    most = _REACH_PX * pixel_um
    high = [np.inf, np.inf, most, most, 100.0, most]
    starts = [
        [1.0, profile[-1] / scale, t * pixel_um, s * pixel_um, 1.0, 2 * pixel_um]
        for t in (2.1, 4.0)
        for s in (0.6, 2.0)
    ]
    best, both = (
        min(
            (optimize.least_squares(misfit, one[:n], bounds=(low[:n], high[:n])) for one in starts),
            key=lambda found: found.cost,
        )
        for n, low in ((4, low), (6, least))
    )
    off = np.sqrt(2 * best.cost / (weight**2).sum())
    best = both if off > _OFF and both.cost < _BETTER * best.cost else best
    _, _, thickness, softness, *wide = (float(value) for value in best.x)
    own = SketchSettings(structure="membranes", thickness_um=thickness, softness_um=softness)
    return replace(own, glow=(wide[0],), glow_um=(_WIDER * softness + wide[1],)) if wide else own


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


def single_walls(
    lit: LitImage, settings: SketchSettings, walls: npt.NDArray[np.float64], insides: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Light of each wall between two cells above that of their insides, in that of all their walls, and how many voxels
    are seen of it, (2, P)."""
    beyond = cells_beyond(lit.place, lit.spacing_um, settings.thickness_um)
    at = (beyond > 0) & (lit.place > 0)
    count = len(walls) + 1
    one, other = np.minimum(lit.place, beyond)[at], np.maximum(lit.place, beyond)[at]
    pairs, number = np.unique(one.astype(np.int64) * count + other, return_inverse=True)
    sizes = np.bincount(number, minlength=len(pairs))
    light = np.bincount(number, lit.image[at] - lit.level, len(pairs)) / np.maximum(sizes, 1)
    own = np.stack([pairs // count, pairs % count]) - 1
    inside = insides[own].mean(0)
    whole = walls[own].mean(0) - inside
    seen = (sizes >= _SEEN_VX) & (whole > 0.1 * walls[own].mean(0))
    return np.stack([(light - inside) / np.where(seen, whole, 1), sizes])[:, seen]


def share_quantiles(singles: Sequence[npt.NDArray[np.float64]]) -> tuple[float, ...]:
    """Of `single_walls`, with a mean of 1; 1 where there are few."""
    light, sizes = np.concatenate(singles, 1)
    light = np.clip(light, 0, 4)
    if len(light) < _FEW or not light.any():
        return (1.0,)
    return quantiles(by_size(light / np.average(light, weights=sizes), sizes))


def by_size(values: npt.NDArray[np.float64], sizes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Values of cells or walls repeated by how much is seen of each: an image cuts most cells of a tissue, and what is
    cut off small says little."""
    return np.repeat(values, np.ceil(_PARTS * sizes / max(float(sizes.max(initial=0)), 1)).astype(int))


def are_membranes(lits: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]) -> bool:
    """Whether walls are brighter than what is inside, in most cells that have both."""
    walls, insides = (np.concatenate(part) for part in zip(*lits, strict=True))
    return bool((walls > insides).mean() > 0.5) if len(walls) else False
