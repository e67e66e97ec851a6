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
from cascade.shapes.membranes import membranes
from cascade.sketch.membranes import measured_walls, walls_between
from cascade.sketch.rules import depth_um
from cascade.sketch.settings import SketchSettings

_REACH_PX = 14  # from a border
_BINS = 2  # a pixel
_WIDER = 2.0  # stray light: so many times wider than the blur, at least
_OFF = 0.03  # of the range: stray light is there where walls without it are off by more,
_BETTER = 0.8  # and with it by less than so much of that
_BESIDE_PX = 3.0  # that walls may lie beside the borders of their labels
_SMOOTH_PX = 1.5  # over which light is smoothed to see where walls are
_SEEN_VX, _FEW = 30, 6  # of a wall between two cells, and walls
_PARTS = 50  # that the largest counts as
_PLAIN, _MOST = 0.25, 3.0  # share of a cell's walls that is not its inside, to tell of single ones, and their most


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
    """Light above the background by distance from the nearest border, its sum and the number of voxels, (2, bins).

    Of the clearest half of the walls, each between two cells: a border that somebody drew where no wall is seen does
    not tell how soft walls are.
    """
    bins, half, place = _REACH_PX * _BINS, 0.5 * min(lit.spacing_um), lit.place
    found: dict[tuple[int, int], npt.NDArray[np.float64]] = {}
    for number, box in enumerate(ndimage.find_objects(place), 1):
        if box is None:
            continue
        wide = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        own = place[wide] == number
        if own.all():
            continue
        depth, nearest = ndimage.distance_transform_edt(own, sampling=lit.spacing_um, return_indices=True)
        at = ((depth - half) * _BINS / min(lit.spacing_um)).astype(int)
        near = own & (at < bins)
        beyond = place[wide][tuple(nearest)][near]
        light = lit.image[wide][near] - lit.level
        for other in np.unique(beyond):
            part = at[near][beyond == other]
            own_light = light[beyond == other]
            one = np.stack([np.bincount(part, w, bins) for w in (own_light, np.ones(len(part)))]).astype(np.float64)
            pair = (min(number, int(other)), max(number, int(other)))
            found[pair] = found[pair] + one if pair in found else one
    if not found:
        return np.zeros((2, bins))
    sums = np.stack(list(found.values()), 1)  # (2, walls, bins)
    wall, deep = (sums[..., part].sum(-1) for part in (slice(0, 4), slice(bins // 2, bins)))
    both = (wall[1] > _SEEN_VX) & (deep[1] > _SEEN_VX)
    bright, dim = (part[0] / np.maximum(part[1], 1) for part in (wall, deep))
    clear = np.where(both & (bright > 0), (bright - dim) / np.where(bright > 0, bright, 1), -np.inf)
    order = np.argsort(-clear, kind="stable")
    size = np.where(both, sums[1].sum(-1), 0)[order]
    chosen = order[np.cumsum(size) - size <= 0.5 * size.sum()]
    return np.asarray(sums[:, chosen].sum(1) if both.any() else sums.sum(1))


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
    least = [0.0, -np.inf, 2 * pixel_um, pixel_um, 0.0, 0.0]
    most = _REACH_PX * pixel_um
    high = [np.inf, np.inf, most, most, 100.0, most]
    starts = [
        [1.0, profile[-1] / scale, t * pixel_um, s * pixel_um, 1.0, 2 * pixel_um]
        for t in (2.1, 4.0)
        for s in (1.1, 2.0)
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


def shares_of_walls(
    lit: LitImage, settings: SketchSettings, walls: npt.NDArray[np.float64], insides: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Light of each wall between two cells above that of their insides, in that of all their walls, and how many voxels
    are seen of it, (2, P)."""
    beyond, number, pairs = walls_between(lit.place, lit.spacing_um, settings.thickness_um)
    upright = np.zeros(lit.place.shape, bool)  # seen in a slice: a microscope blurs what lies in one
    for axis in (-1, -2):
        for by in (1, -1):
            upright |= (np.roll(lit.place, by, axis) != lit.place) & (beyond >= 0)
    number = number[upright[beyond >= 0]]
    sizes = np.bincount(number, minlength=len(pairs))
    light = np.bincount(number, lit.image[upright] - lit.level, len(pairs)) / np.maximum(sizes, 1)
    own = pairs - 1
    inside = insides[own].mean(1)
    whole = walls[own].mean(1) - inside
    seen = (own[:, 0] >= 0) & (sizes >= _SEEN_VX) & (whole > _PLAIN * walls[own].mean(1))
    return np.asarray(np.stack([(light - inside) / np.where(seen, whole, 1), sizes])[:, seen], np.float64)


def share_quantiles(singles: Sequence[npt.NDArray[np.float64]]) -> tuple[float, ...]:
    """Of `shares_of_walls`; 1 where there are few."""
    light, sizes = np.concatenate(singles, 1)
    light = np.clip(light, 0, _MOST)
    if len(light) < _FEW or not light.any():
        return (1.0,)
    return quantiles(by_size(light, sizes))


def by_size(values: npt.NDArray[np.float64], sizes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Values of cells or walls repeated by how much is seen of each: an image cuts most cells of a tissue, and what is
    cut off small says little."""
    return np.repeat(values, np.ceil(_PARTS * sizes / max(float(sizes.max(initial=0)), 1)).astype(int))


def are_membranes(lits: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]) -> bool:
    """Whether walls are brighter than what is inside, in most cells that have both."""
    walls, insides = (np.concatenate(part) for part in zip(*lits, strict=True))
    return bool((walls > insides).mean() > 0.5) if len(walls) else False
