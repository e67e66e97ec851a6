"""Voxel grids in micrometres: the only place that converts between indices, units and axis orders.

Arrays are (Y, X) or (Z, Y, X). Spacings, origins and points are micrometres in the same order as the array's
axes. Only `to_xyz` leaves that order, for mesh files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

SignedDistance = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]  # (P, D) points in µm -> (P,) µm, negative inside


@dataclass(frozen=True)
class Volume:
    """An array with its physical size: bool is a mask, integer instance labels, float32 an intensity in [0, 1]."""

    array: npt.NDArray[Any]
    spacing_um: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.array.ndim not in (2, 3) or len(self.spacing_um) != self.array.ndim:
            raise ValueError(
                f"a Volume is (Y, X) or (Z, Y, X) with one spacing per axis, "
                f"got shape {self.array.shape} and spacing {self.spacing_um}"
            )


@dataclass(frozen=True)
class Grid:
    """Voxel centres `origin_um + index * spacing_um`.

    >>> Grid.centred((3, 5), (2.0, 0.5)).origin_um
    (-2.0, -1.0)
    >>> Grid.covering((4.0, 3.0), (2.0, 0.5)).shape
    (3, 7)
    """

    shape: tuple[int, ...]
    spacing_um: tuple[float, ...]
    origin_um: tuple[float, ...]

    @classmethod
    def centred(cls, shape: tuple[int, ...], spacing_um: tuple[float, ...]) -> "Grid":
        """The grid whose middle lies at the origin of space."""
        origin = tuple(-0.5 * (n - 1) * s for n, s in zip(shape, spacing_um, strict=True))
        return cls(tuple(shape), tuple(spacing_um), origin)

    @classmethod
    def covering(cls, extent_um: tuple[float, ...], spacing_um: tuple[float, ...]) -> "Grid":
        """The smallest centred grid with an odd number of voxels per axis that covers ±extent/2."""
        shape = tuple(2 * int(np.ceil(0.5 * e / s)) + 1 for e, s in zip(extent_um, spacing_um, strict=True))
        return cls.centred(shape, spacing_um)

    def axes_um(self) -> list[npt.NDArray[Any]]:
        """Voxel-centre coordinates along each axis, float32."""
        return [
            (o + s * np.arange(n)).astype(np.float32)
            for n, s, o in zip(self.shape, self.spacing_um, self.origin_um, strict=True)
        ]

    def points_um(self) -> npt.NDArray[Any]:
        """All voxel centres, (P, D) float32, in C order."""
        return np.stack(np.meshgrid(*self.axes_um(), indexing="ij"), -1).reshape(-1, len(self.shape))


def voxelize(sdf: SignedDistance, grid: Grid, chunk: int = 1 << 20) -> Volume:
    """Sample a signed distance on a grid: True where a voxel's centre lies inside.

    Evaluates at most `chunk` points at once, so that memory does not grow with the grid.

    >>> ball = voxelize(lambda p: np.linalg.norm(p, axis=1) - 3, Grid.covering((6, 6, 6), (0.5, 0.5, 0.5)))
    >>> round(float(ball.array.sum() * 0.5**3 / (4 / 3 * np.pi * 3**3)), 1)
    1.0
    """
    points = grid.points_um()
    inside = np.concatenate([np.asarray(sdf(points[i : i + chunk])) < 0 for i in range(0, len(points), chunk)])
    return Volume(inside.reshape(grid.shape), grid.spacing_um)


def signed_distance(mask: npt.NDArray[Any], spacing_um: Sequence[float]) -> npt.NDArray[Any]:
    """Euclidean distance to the outline of a mask, µm, negative inside, zero half-way between the two sides.

    Exact to half the difference between the spacings of the axes, so exact for square pixels.
    A mask that is empty or full has no outline: the distance is then ±inf.

    >>> signed_distance(np.array([[0, 1, 1, 0, 0]]), (1.0, 1.0)).tolist()
    [[0.5, -0.5, -0.5, 0.5, 1.5]]
    """
    mask = np.asarray(mask, bool)
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    if mask.all():
        return np.full(mask.shape, -np.inf, np.float32)
    half = 0.5 * float(np.min(spacing_um))
    outside = ndimage.distance_transform_edt(~mask, spacing_um)
    inside = ndimage.distance_transform_edt(mask, spacing_um)
    return np.where(mask, half - inside, outside - half).astype(np.float32)


def to_xyz(points_zyx: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Array order (z, y, x) to the (x, y, z) that mesh files and viewers expect; its own inverse."""
    return np.ascontiguousarray(np.asarray(points_zyx)[..., ::-1])
