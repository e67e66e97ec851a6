"""Ellipsoids: the simplest solids that fit an outline."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from cascade.geometry.grid import SignedDistance


def ellipsoid(semi_axes_um: npt.NDArray[Any], axes: npt.NDArray[Any] | None = None) -> SignedDistance:
    """Signed distance to a centred ellipsoid with semi-axes (n,) along the rows of `axes` (n, n), default z, y, x.

    n is 3, or 2 for an ellipse. Its sign is exact; its size is the first-order distance k (k − 1) / |p / semi-axes²|
    with k = |p / semi-axes|, exact for a ball and close to the surface. Raises ValueError for semi-axes that are not
    lengths above 0.

    >>> sdf = ellipsoid(np.array([6.0, 4.0, 4.0]))
    >>> sdf(np.array([[6.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 5.0]])).tolist()
    [0.0, -4.0, 1.0]
    """
    semi = np.asarray(semi_axes_um, float)
    if semi.shape not in ((2,), (3,)) or not (np.isfinite(semi).all() and (semi > 0).all()):
        raise ValueError(f"semi_axes_um must be 2 or 3 lengths above 0, got {semi.tolist()}")
    frame = np.eye(len(semi)) if axes is None else np.asarray(axes, float)

    def sdf(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
        scaled = np.asarray(points, float) @ (frame / semi[:, None]).T
        k = np.sqrt(np.einsum("pi,pi->p", scaled, scaled))
        scaled /= semi
        slope = np.sqrt(np.einsum("pi,pi->p", scaled, scaled))
        return np.where(slope > 0, k * (k - 1) / np.maximum(slope, 1e-12), -semi.min())

    return sdf


def random_axes(rng: np.random.Generator, ndim: int, count: int) -> npt.NDArray[Any]:
    """Right-handed frames (count, ndim, ndim) in random directions, uniform over all rotations; ndim is 2 or 3.

    >>> frames = random_axes(np.random.default_rng(0), 3, 5)
    >>> bool(np.allclose(frames @ frames.transpose(0, 2, 1), np.eye(3)))
    True
    """
    if ndim == 3:
        return np.asarray(Rotation.random(count, rng=rng).as_matrix())
    angle = rng.uniform(0, 2 * np.pi, count)
    return np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(count, 2, 2)


def ellipsoid_of_outline(mask: npt.NDArray[Any], pixel_um: float, elongation: float) -> SignedDistance:
    """The ellipsoid whose silhouette along z has the outline's area and second moments, `elongation` times as tall as
    that silhouette's mean diameter; for outlines (H, W) bool."""
    semi, directions = ellipse_of_outline(mask, pixel_um)
    axes = np.zeros((3, 3))
    axes[0, 0] = 1
    axes[1:, 1:] = directions
    return ellipsoid(np.array([elongation * np.sqrt(semi.prod()), *semi]), axes)


def ellipse_of_outline(mask: npt.NDArray[Any], pixel_um: float) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Semi-axes (2,) in µm and directions, the rows of (2, 2), of the ellipse with the area and second moments of an
    outline (H, W) bool."""
    places = np.argwhere(mask) * pixel_um
    moments, directions = np.linalg.eigh(np.cov(places.T) + np.eye(2) * pixel_um**2 / 12)
    semi = 2 * np.sqrt(moments)  # a filled ellipse has the variance a² / 4
    return semi * np.sqrt(mask.sum() * pixel_um**2 / np.pi / semi.prod()), directions.T
