"""Free-form deformation of any shape by cubic B-splines on a lattice of control points."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.geometry.grid import SignedDistance

_MEAN_SQUARE = 151 / 315  # ∫ β³(t)² dt = β⁷(0): what is left of the coefficients' variance, along each axis


@dataclass(frozen=True, eq=False)
class BSplineField:
    """Displacement fields of B cells, each over its own box around the origin.

    u(x) = Σ_k c_k Π_i β³(t_i − k_i), where t_i runs from 0 to K_i − 1 across the box. Coefficients are mirrored at the
    border of the lattice, so that u has no slope across it, and outside u stays what it is there: u is smooth
    everywhere.
    """

    displacements_um: npt.NDArray[Any]
    """(B, K_0, …, K_{n−1}, n) in µm: the coefficients c_k, n = 2 or 3, at least two control points along each axis."""
    box_um: npt.NDArray[Any]
    """(B, n) or (n,), the edges of the boxes, which lie around the origin."""

    def __post_init__(self) -> None:
        coefficients = np.asarray(self.displacements_um)
        n = coefficients.shape[-1]
        if n not in (2, 3) or coefficients.ndim != n + 2 or min(coefficients.shape[1:-1]) < 2:
            raise ValueError(
                "displacements_um must be (B, K, K, 2) or (B, K, K, K, 3) with at least 2 control points along each "
                f"axis, got {coefficients.shape}"
            )
        box = np.broadcast_to(np.asarray(self.box_um, float), (len(coefficients), n))
        if not (np.isfinite(box).all() and (box > 0).all()):
            raise ValueError(f"box_um must be {n} lengths above 0, got {np.asarray(self.box_um).tolist()}")
        if not np.isfinite(coefficients).all():
            raise ValueError("displacements_um must be finite numbers")
        mirrored = np.pad(coefficients, [(0, 0), *[(1, 1)] * n, (0, 0)], "reflect")
        object.__setattr__(self, "displacements_um", coefficients)
        object.__setattr__(self, "box_um", box)
        object.__setattr__(self, "_mirrored", np.ascontiguousarray(mirrored, np.float64))

    def __len__(self) -> int:
        return len(self.displacements_um)

    def __call__(self, points_um: npt.NDArray[Any], cell: npt.NDArray[Any] | int = 0) -> npt.NDArray[Any]:
        """Displacements (P, n) in µm at points (P, n), each in the field of its own `cell` (P,), or all in one."""
        points = np.asarray(points_um, float)
        mirrored: npt.NDArray[Any] = self._mirrored  # type: ignore[attr-defined]
        n, inner = points.shape[1], self.displacements_um.shape[1:-1]
        strides = np.cumprod([1, *mirrored.shape[:0:-1][1:]])[::-1]  # of the cell, then of each axis, in control points
        base, weights = np.asarray(cell) * strides[0], []
        for axis in range(n):
            step = self.box_um[cell, axis] / (inner[axis] - 1)
            first, weight = _weights(points[:, axis] / step + 0.5 * (inner[axis] - 1), inner[axis])
            base = base + first * strides[1 + axis]
            weights.append(weight)
        table, moved = mirrored.reshape(-1, n), np.zeros_like(points)
        for tap in product(range(4), repeat=n):
            weight = np.prod([w[k] for w, k in zip(weights, tap, strict=True)], axis=0)
            moved += weight[:, None] * table[base + int(np.dot(tap, strides[1:]))]
        return moved

    def on_grids(self, axes_um: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Displacements (B, N_0, …, N_{n−1}, n) on one grid for each cell; axes_um[i]: (B, N_i) coordinates in µm.

        The same as at single points, as one matrix product for each axis.
        """
        field: npt.NDArray[Any] = self._mirrored  # type: ignore[attr-defined]
        for axis, places in enumerate(axes_um):
            count = self.displacements_um.shape[1 + axis]
            step = self.box_um[:, axis, None] / (count - 1)
            first, weight = _weights(np.asarray(places, float) / step + 0.5 * (count - 1), count)
            matrix = np.zeros((*first.shape, count + 2))
            for k in range(4):
                np.put_along_axis(matrix, (first + k)[..., None], weight[k][..., None], -1)
            rows = np.moveaxis(field, 1 + axis, 1)
            rows = (matrix @ rows.reshape(*rows.shape[:2], -1)).reshape(len(self), -1, *rows.shape[2:])
            field = np.moveaxis(rows, 1, 1 + axis)
        return field


def deformed(sdf: SignedDistance, displacements_um: npt.NDArray[Any], box_um: Sequence[float]) -> SignedDistance:
    """A shape looked at through a displacement field: sdf(x + u(x)).

    displacements_um: (K_0, …, K_{n−1}, n) in µm, the control points' own, on a lattice over the box (n,) around the
    origin. Its sign is exact; its size is a distance no more where the field stretches. A field that varies by more
    than the lattice's spacing folds space over: rasterised, such a shape can have several pieces. Raises ValueError
    for other shapes. A constant field is a shift:

    >>> from cascade.shapes.ellipsoid import ellipsoid
    >>> ball = ellipsoid(np.array([4.0, 4.0, 4.0]))
    >>> moved = deformed(ball, np.full((4, 4, 4, 3), (0.0, 0.0, 1.0)), (10.0, 10.0, 10.0))
    >>> moved(np.array([[0.0, 0.0, 3.0], [0.0, 0.0, -5.0]])).round(6).tolist()
    [0.0, 0.0]
    """
    field = BSplineField(np.asarray(displacements_um)[None], np.asarray(box_um, float))
    return lambda points: sdf(points + field(points))


def random_displacements(
    rng: np.random.Generator, control_points: Sequence[int], std_um: float, count: int | None = None
) -> npt.NDArray[Any]:
    """Coefficients (K_0, …, K_{n−1}, n) of a random field, or (count, K_0, …, n) of several.

    The displacement along each axis has mean 0 and the standard deviation `std_um` over the box (the coefficients'
    own is larger, since B-splines average them).

    >>> random_displacements(np.random.default_rng(0), (4, 4), 1.0, 5).shape
    (5, 4, 4, 2)
    """
    if not 0 <= std_um < np.inf:
        raise ValueError(f"std_um must be a length of 0 or more, got {std_um}")
    n = len(control_points)
    shape = (*control_points, n) if count is None else (count, *control_points, n)
    return rng.normal(0, std_um / _MEAN_SQUARE ** (n / 2), shape)


def _weights(t: npt.NDArray[Any], count: int) -> tuple[npt.NDArray[Any], list[npt.NDArray[Any]]]:
    """Where the four control points of each place begin in a mirrored row of `count`, and their four weights."""
    t = np.clip(t, 0, count - 1)
    first = np.minimum(t.astype(np.int64), count - 2)
    f = t - first
    g = 1 - f
    weights = [g**3 / 6, (4 - 6 * f * f + 3 * f**3) / 6, (4 - 6 * g * g + 3 * g**3) / 6, f**3 / 6]
    return first, weights
