"""Ellipsoids: the simplest solids that fit an outline."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.geometry.grid import SignedDistance


def ellipsoid(semi_axes_um: npt.NDArray[Any], axes: npt.NDArray[Any] | None = None) -> SignedDistance:
    """Signed distance to a centred ellipsoid with semi-axes (3,) along the rows of `axes` (3, 3), default z, y, x.

    Its sign is exact; its size is the first-order distance k (k − 1) / |p / semi-axes²| with k = |p / semi-axes|, exact
    for a ball and close to the surface.

    >>> sdf = ellipsoid(np.array([6.0, 4.0, 4.0]))
    >>> sdf(np.array([[6.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 5.0]])).tolist()
    [0.0, -4.0, 1.0]
    """
    semi = np.asarray(semi_axes_um, float)
    frame = np.eye(3) if axes is None else np.asarray(axes, float)

    def sdf(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
        local = np.asarray(points, float) @ frame.T
        k = np.linalg.norm(local / semi, axis=1)
        slope = np.linalg.norm(local / semi**2, axis=1)
        return np.where(slope > 0, k * (k - 1) / np.maximum(slope, 1e-12), -semi.min())

    return sdf


def ellipsoid_of_outline(mask: npt.NDArray[Any], pixel_um: float, elongation: float) -> SignedDistance:
    """The ellipsoid whose silhouette along z has the outline's area and second moments, `elongation` times as tall as
    that silhouette's mean diameter; for outlines (H, W) bool."""
    places = np.argwhere(mask) * pixel_um
    moments, directions = np.linalg.eigh(np.cov(places.T) + np.eye(2) * pixel_um**2 / 12)
    semi = 2 * np.sqrt(moments)  # a filled ellipse has the variance a² / 4
    semi *= np.sqrt(mask.sum() * pixel_um**2 / np.pi / semi.prod())
    axes = np.zeros((3, 3))
    axes[0, 0] = 1
    axes[1:, 1:] = directions.T
    return ellipsoid(np.array([elongation * np.sqrt(semi.prod()), *semi]), axes)
