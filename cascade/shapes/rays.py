"""Star-convex solids as their radii along fixed rays: measured on masks, and turned back into signed distances."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.geometry.grid import SignedDistance

ROWS, COLUMNS = 32, 64  # rays over the polar angle, between the poles, and around the axis


def rays() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Unit directions (ROWS · COLUMNS, 3) in z, y, x, and the share of the sphere that each stands for.

    >>> directions, share = rays()
    >>> directions.shape, round(float(share.sum()), 6)
    ((2048, 3), 1.0)
    """
    theta, phi = np.meshgrid(
        (np.arange(ROWS) + 0.5) * np.pi / ROWS, np.arange(COLUMNS) * 2 * np.pi / COLUMNS, indexing="ij"
    )
    directions = np.stack([np.cos(theta), np.sin(theta) * np.sin(phi), np.sin(theta) * np.cos(phi)], -1)
    share = np.sin(theta).ravel()
    return directions.reshape(-1, 3), share / share.sum()


def measured_radii(
    mask: npt.NDArray[Any], spacing_um: Sequence[float], *, align: bool
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Radii (ROWS · COLUMNS,) of a solid around its centroid, the centroid (3,) in µm, and the rays' frame (3, 3).

    A ray's radius is that of the cone which holds as much as lies along the ray: r³ / 3 = ∫ inside ρ² dρ. Of a
    star-convex solid that is its surface; of any other it is the best there is. align: the frame's rows are the
    principal axes, the longest first, each towards the longer tail; else they are z, y, x. mask: (Z, Y, X) bool, not
    empty.
    """
    spacing = np.asarray(spacing_um, float)
    points = np.argwhere(mask) * spacing
    centre = points.mean(0)
    frame = _principal_axes(points - centre) if align else np.eye(3)
    step = 0.5 * spacing.min()
    depth = np.arange(0.5 * step, np.linalg.norm(points - centre, axis=1).max() + spacing.max(), step)
    places = (centre + depth[:, None, None] * (rays()[0] @ frame)) / spacing
    inside = ndimage.map_coordinates(mask.astype(np.float32), places.reshape(-1, 3).T, order=1)
    held = depth**2 @ inside.reshape(len(depth), -1)
    return np.cbrt(3 * step * held), centre, frame


def star_solid(radii_um: npt.NDArray[Any], axes: npt.NDArray[Any] | None = None) -> SignedDistance:
    """Signed distance |p| − r(p / |p|) to a solid with these radii (ROWS · COLUMNS,), linear between the rays.

    Its sign is exact, its size is a distance along the ray only. axes: (3, 3), rows of the rays' frame.
    """
    table = np.asarray(radii_um, float).reshape(ROWS, COLUMNS)
    half = COLUMNS // 2  # across a pole lies the other side
    table = np.concatenate([np.roll(table[:1], half, 1), table, np.roll(table[-1:], half, 1)])
    table = np.concatenate([table, table[:, :1]], 1)
    frame = np.eye(3) if axes is None else np.asarray(axes, float)

    def sdf(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
        local = np.asarray(points, float) @ frame.T
        distance = np.linalg.norm(local, axis=1)
        theta = np.arccos(np.clip(local[:, 0] / np.maximum(distance, 1e-12), -1, 1))
        phi = np.arctan2(local[:, 1], local[:, 2]) % (2 * np.pi)
        places = [theta * (ROWS / np.pi) + 0.5, phi * (COLUMNS / (2 * np.pi))]
        return distance - ndimage.map_coordinates(table, places, order=1)

    return sdf


def _principal_axes(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A right-handed frame (3, 3): rows by falling variance of points (P, 3), each towards positive skewness."""
    axes = np.linalg.eigh(points.T @ points)[1][:, ::-1].T
    axes *= np.where(((points @ axes.T) ** 3).sum(0) < 0, -1, 1)[:, None]
    if np.linalg.det(axes) < 0:
        axes[2] *= -1
    return axes
