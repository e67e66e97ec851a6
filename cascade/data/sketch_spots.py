"""Nucleoli in real images: dark spots deep inside cells, how large and how dark they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.data.sketch_light import LitImage, Shade

# Lengths are in radii of the cell.
_BLUR = 0.06  # before spots are looked for
_DEEP = 0.2  # relative depth from which on
_SMALL_PX = 5.0  # radius of cells in which spots cannot be told from noise
_DARK, _CLEAR = 0.4, 4.0  # what is missing of the light in a spot, at least; and in standard deviations of the noise
_LEAST, _MOST = 0.07, 0.35  # radius of spots
_BRIGHT = 0.25  # of the median contrast: cells that are dimmer are left out


@dataclass(frozen=True, eq=False)
class Spots:
    """Of one image. counts: of each cell that was looked at; radii in those of the cell; light that is left."""

    counts: list[int]
    radii: list[float]
    light: list[float]
    mask: npt.NDArray[np.bool_]


def find_spots(lit: LitImage, above: npt.NDArray[np.float32], shade: Shade) -> Spots:
    """Spots whose light, blurred a little, is less than 0.6 of what the shade says, and clearly so against the noise.

    Their radius is that at half of their depth, and their light is corrected for the blur.
    """
    spacing, n = np.array(lit.spacing_um), lit.place.ndim
    counts: list[int] = []
    radii: list[float] = []
    light: list[float] = []
    mask = np.zeros(lit.place.shape, bool)
    contrasts = lit.contrasts(above)
    expected = lit.light(contrasts, shade)
    usual = float(np.median(contrasts)) if len(contrasts) else 0.0
    for number, box in enumerate(ndimage.find_objects(lit.place), 1):
        if box is None or abs(contrasts[number - 1]) < _BRIGHT * abs(usual):
            continue
        own = lit.place[box] == number
        radius = (own.sum() * spacing.prod() / (np.pi if n == 2 else 4 / 3 * np.pi)) ** (1 / n)
        if radius < _SMALL_PX * spacing[-1]:
            continue
        sigma = np.maximum(_BLUR * radius / spacing, 0.5)
        found = _in_cell(above[box], expected[box], own, lit.depth[box], sigma)
        if found is None:
            continue
        share, noise = found
        dark = own & (lit.depth[box] > _DEEP) & (share < 1 - max(_DARK, _CLEAR * noise))
        pieces, _ = ndimage.label(dark)
        kept = 0
        for piece, place in enumerate(ndimage.find_objects(pieces), 1):
            least = float(share[place][pieces[place] == piece].min())
            half, _ = ndimage.label(own & (share < 0.5 * (1 + least)))
            spot = half == half[pieces == piece].max()
            size = float(spot.sum() * spacing.prod())
            own_radius = (size / (np.pi if n == 2 else 4 / 3 * np.pi)) ** (1 / n) / radius
            if _LEAST <= own_radius <= _MOST and lit.depth[box][spot].min() > 0:
                kept += 1
                radii.append(own_radius)
                light.append(_unblurred(least, own_radius * radius, sigma * spacing, n))
                mask[box] |= spot
        counts.append(kept)
    return Spots(counts, radii, light, mask)


def _in_cell(
    above: npt.NDArray[Any],
    expected: npt.NDArray[Any],
    own: npt.NDArray[Any],
    depth: npt.NDArray[Any],
    sigma: npt.NDArray[Any],
) -> tuple[npt.NDArray[Any], float] | None:
    """Light in that expected of a cell, blurred within it, and the standard deviation of its noise."""
    weight = ndimage.gaussian_filter(own.astype(float), sigma)
    smooth = ndimage.gaussian_filter(np.where(own, above, 0), sigma)
    wanted = ndimage.gaussian_filter(np.where(own, expected, 0), sigma)
    deep = own & (depth > _DEEP) & (np.abs(wanted) > 1e-6)
    if not deep.any() or not (weight[deep] > 0).all():
        return None
    share = np.where(own & (np.abs(wanted) > 1e-6), smooth / np.where(np.abs(wanted) > 1e-6, wanted, 1), 1.0)
    rest = (above - smooth / np.maximum(weight, 1e-6))[deep]
    kept = np.sqrt(np.prod(1 / (2 * np.sqrt(np.pi) * sigma)))  # of white noise's standard deviation, after the blur
    return share, float(rest.std() * min(kept, 1) / max(abs(float(expected[deep].mean())), 1e-6))


def _unblurred(least: float, radius_um: float, sigma_um: npt.NDArray[Any], ndim: int) -> float:
    """What is left of the light in a spot of which a blurred image shows `least`."""
    seen = 1 - np.exp(-0.5 * radius_um**2 / float(np.mean(sigma_um**2)))
    return float(np.clip(1 - (1 - least) / max(seen ** (ndim / 2), 0.2), 0, 1))


def count_quantiles(counts: Sequence[int], number: int = 17) -> tuple[float, ...]:
    """Quantiles that, rounded, are drawn as often as these counts are found.

    >>> count_quantiles([0, 1, 2], 2)
    (-0.5, 2.5)
    """
    if not len(counts) or not any(counts):
        return (0.0,)
    shares = np.bincount(counts) / len(counts)
    edges = np.arange(len(shares) + 1) - 0.5
    below = np.concatenate([[0], np.cumsum(shares)])
    rank = np.linspace(0, 1, number)
    rank[-1] = 1
    return tuple(round(float(v), 3) for v in np.interp(rank, below, edges))
