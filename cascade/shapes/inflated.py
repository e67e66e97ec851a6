"""Outlines inflated to solids: as thick at a place as the outline is deep there, without any network."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.geometry.grid import SignedDistance, signed_distance
from cascade.shapes.ellipsoid import ellipse_of_outline, ellipsoid

RELIEF = 0.3
"""How much higher or lower than without relief a solid may be at a place, at most, as a share of its height."""

_SMOOTH = 0.1  # of the largest depth, σ: a depth has a crest from every corner of a pixel
_WAVELENGTH = (0.75, 2.0)  # of the relief, in mean radii of the outline
_WAVES = 24
_SIGMAS = 2  # of the relief, at most


def inflated_outline(
    mask: npt.NDArray[Any], pixel_um: float, elongation: float, rng: np.random.Generator | None = None
) -> SignedDistance:
    """The solid whose silhouette along z is the outline (H, W) bool about its centroid, at its thickest about
    `elongation` times as tall as that silhouette's mean diameter.

    Its half height at a place is that of an ellipse: √(1 − s²) of the largest, with s = 1 − depth / largest depth in
    the outline, smoothed a little. Of a disc this is an ellipsoid; a bent sausage has elliptic cross-sections, and its
    thin parts are flat. With `rng` its height has a relief, another above and below, that is as rough as the outline
    itself: by the spread of its distance from the ellipse of equal moments. A line along z meets the solid once or
    never. The sign of the signed distance is exact; its size is (k − 1) times the outline's mean radius, with
    k = √(z² / height² + s²). Raises ValueError for an empty outline.

    >>> disc = np.hypot(*np.mgrid[-15:16, -15:16]) < 12
    >>> surface = inflated_outline(disc, 0.5, 2.0)(np.array([[12.0, 0, 0], [0, 6, 0], [6, 0, 5.2]]))
    >>> bool(np.abs(surface).max() < 0.4)  # of a radius of 6 and a height of 24, in pixels of 0.5
    True
    """
    mask = np.asarray(mask, bool)
    if not mask.any():
        raise ValueError("the outline is empty: draw it again")
    mask = np.pad(mask, 1 + max(mask.shape) // 8)  # or it would have no depth at the border of its crop
    depth = -signed_distance(mask, (1, 1))
    depth = ndimage.gaussian_filter(depth, _SMOOTH * depth.max(), mode="nearest")
    share = 1 - depth / depth.max()
    middle = np.argwhere(mask).mean(0)
    radius = np.sqrt(mask.sum() / np.pi) * pixel_um
    corner = np.array(mask.shape)[:, None] - 1
    strength, waves, phases = 0.0, np.zeros((0, 3)), np.zeros(0)
    if rng is not None:
        strength = min(_roughness(mask), RELIEF / _SIGMAS)
        waves = rng.normal(size=(_WAVES, 3))
        waves *= 2 * np.pi / rng.uniform(*_WAVELENGTH, (_WAVES, 1)) / np.linalg.norm(waves, axis=1, keepdims=True)
        phases = rng.uniform(0, 2 * np.pi, _WAVES)

    def sdf(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
        places = np.asarray(points, float) / (elongation * radius, radius, radius)
        at = (places[:, 1:] * (radius / pixel_um) + middle).T
        away = np.linalg.norm(at - np.clip(at, 0, corner), axis=0)  # beyond the crop
        s = ndimage.map_coordinates(share, at, order=1, mode="nearest") + away / depth.max()
        height = np.abs(places[:, 0])
        if strength:
            # Of the point of the surface above or below, so that the relief is one along a line; none on the outline.
            above = np.sqrt(np.maximum(1 - s * s, 0))
            near = np.flatnonzero((above > 0) & (height < 1 + 2 * RELIEF))
            surface = np.stack([np.copysign(above[near], places[near, 0]), places[near, 1], places[near, 2]], 1)
            relief = np.sqrt(2 / _WAVES) * np.cos(surface @ waves.T + phases).sum(1)
            height[near] /= 1 + strength * np.clip(relief, -_SIGMAS, _SIGMAS)
        return radius * (np.hypot(height, s) - 1)

    return sdf


def _roughness(mask: npt.NDArray[Any]) -> float:
    """Spread of an outline's distance from the ellipse of equal moments, in mean radii."""
    semi, directions = ellipse_of_outline(mask, 1.0)
    edge = np.argwhere(mask & ~ndimage.binary_erosion(mask)) - np.argwhere(mask).mean(0)
    return float(ellipsoid(semi, directions)(edge).std() / np.sqrt(semi.prod()))
