"""Bodies of cells: ellipsoids, deformed by B-splines, on the voxels of a window around each cell's centre."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.geometry.grid import Grid, SignedDistance
from cascade.shapes.deformation import BSplineField, random_displacements
from cascade.shapes.ellipsoid import ellipsoid, random_axes

FEWEST_VOXELS = 4  # of a cell: in less, no shape can be seen
_ROOM = 1.3  # of a window, in half-widths of the cell: what a cell loses to neighbours it gains elsewhere
_SURE = 2.0  # voxels of the shortest semi-axis from which an ellipsoid is in one piece whatever its place
_TOGETHER = 1 << 21  # points of windows that are evaluated at a time


@dataclass(frozen=True, eq=False)
class Body:
    """One cell, before it lies anywhere.

    depth: float32 on an odd number of voxels along each axis, the cell's centre in the middle: 1 on the surface, and
    the lower, the deeper inside. voxels: how many the cell has; its mask are the deepest of the window. sdf: roughly
    the same shape as a signed distance in µm, to keep others away.
    """

    depth: npt.NDArray[Any]
    mask: npt.NDArray[Any]
    voxels: int
    sdf: SignedDistance
    reach_um: tuple[float, float]
    """Radii of the largest ball inside the cell, and of the smallest around it."""

    @property
    def half(self) -> npt.NDArray[Any]:
        """Voxels from the window's middle to its border, (n,)."""
        return np.array(self.depth.shape) // 2


def deepest(depth: npt.NDArray[Any], voxels: int) -> npt.NDArray[Any]:
    """Mask of the `voxels` lowest values; fewer where not so many are finite."""
    flat = depth.ravel()
    mask = np.zeros(depth.shape, bool)
    lowest = np.argpartition(flat, voxels - 1)[:voxels] if voxels < flat.size else np.arange(flat.size)
    mask.ravel()[lowest[np.isfinite(flat[lowest])]] = True
    return mask


def in_one_piece(mask: npt.NDArray[Any]) -> bool:
    """Whether a mask is one piece by its faces alone, and not empty."""
    return bool(ndimage.label(mask)[1] == 1)


def random_frames(rng: np.random.Generator, count: int, ndim: int, *, upright: bool = False) -> npt.NDArray[Any]:
    """Random frames (count, n, n), whose rows are the axes of a cell; upright: the first of three is z."""
    if not upright or ndim == 2:
        return random_axes(rng, ndim, count)
    frames = np.zeros((count, 3, 3))
    frames[:, 0, 0] = 1
    frames[:, 1:, 1:] = random_axes(rng, 2, count)
    return frames


def ellipsoid_bodies(
    rng: np.random.Generator,
    semi_axes_um: npt.NDArray[Any],
    frames: npt.NDArray[Any],
    spacing_um: tuple[float, ...],
    *,
    deformation: float | npt.NDArray[Any] = 0.0,
    control_points: int = 8,
) -> list[Body]:
    """Bodies of ellipses or ellipsoids with semi-axes (B, n) along the rows of frames (B, n, n).

    deformation: standard deviation of the B-spline displacements, in radii of the ball of equal size, of all cells or
    (B,) of each. control_points: of the splines, along each axis of a box about 2.6 times as wide as the cell; few of
    them stretch and bend it, many make its outline uneven. Whatever the deformation does, a body has as many voxels as
    its ellipsoid; where it would tear it into pieces, it is halved.
    Raises ValueError for cells of less than `FEWEST_VOXELS` voxels.
    """
    count, ndim = semi_axes_um.shape
    radius = semi_axes_um.prod(1) ** (1 / ndim)
    unit = np.pi if ndim == 2 else 4 / 3 * np.pi
    voxels = np.rint(unit * radius**ndim / np.prod(spacing_um)).astype(int)
    if count and voxels.min() < FEWEST_VOXELS:
        raise ValueError(
            f"a cell of radius {radius.min():.3g} µm is too small for voxels of "
            f"{' × '.join(f'{s:g}' for s in spacing_um)} µm: it must have {FEWEST_VOXELS} of them; give larger cells, "
            "or a smaller `spacing_um`"
        )
    most = np.broadcast_to(deformation, count) * radius
    moves = random_displacements(rng, (control_points,) * ndim, 1.0, count) * most.reshape(-1, *[1] * (ndim + 1))
    extent = np.sqrt(np.einsum("bi,bij->bj", semi_axes_um**2, frames**2)) + 2 * most[:, None]
    half = np.ceil(_ROOM * extent / spacing_um).astype(int) + 1
    found: list[Body | None] = [None] * count
    for some in _batches(half):
        widest = half[some].max(0)
        for n, depth in zip(
            some, _depths(semi_axes_um[some], frames[some], moves[some], widest, spacing_um), strict=True
        ):
            window = tuple(slice(w - h, w + h + 1) for w, h in zip(widest, half[n], strict=True))
            depth, move = np.ascontiguousarray(depth[window]), moves[n : n + 1]
            mask = deepest(depth, voxels[n])
            sure = not move.any() and semi_axes_um[n].min() > _SURE * max(spacing_um)
            while not sure and not in_one_piece(mask):
                move = 0.5 * move if np.abs(move).max() > 0.01 * radius[n] else 0 * move
                depth = _depths(semi_axes_um[n : n + 1], frames[n : n + 1], move, half[n], spacing_um)[0]
                mask = deepest(depth, voxels[n])
            sdf = ellipsoid(semi_axes_um[n], frames[n])
            reach = (float(semi_axes_um[n].min()), float(semi_axes_um[n].max() + 2 * most[n]))
            found[n] = Body(depth, mask, int(voxels[n]), sdf, reach)
    return [body for body in found if body is not None]


def _batches(half: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Indices of cells with windows of much the same size, few enough to be evaluated together."""
    order = np.argsort(half.prod(1), kind="stable")
    start = 0
    for stop in range(1, len(order) + 1):
        if stop == len(order) or (stop + 1 - start) * (2 * half[order[start : stop + 1]].max(0) + 1).prod() > _TOGETHER:
            yield order[start:stop]
            start = stop


def _depths(
    semi_axes_um: npt.NDArray[Any],
    frames: npt.NDArray[Any],
    moves_um: npt.NDArray[Any],
    half: npt.NDArray[Any],
    spacing_um: tuple[float, ...],
) -> npt.NDArray[Any]:
    """Σ (x / semi-axis)² (B, N_0, …) of the deformed ellipsoids, 1 on their surfaces, on windows of so many voxels to
    each side of the centre."""
    count, ndim = semi_axes_um.shape
    axes = Grid.centred(tuple(2 * half + 1), spacing_um).axes_um()
    if not moves_um.any():
        form = np.einsum("bi,bij,bik->bjk", semi_axes_um**-2, frames, frames).astype(np.float32)
        sparse = np.meshgrid(*axes, indexing="ij", sparse=True)
        depth = np.zeros((count, *2 * half + 1), np.float32)
        for i, j in combinations_with_replacement(range(ndim), 2):
            depth += form[:, i, j].reshape(-1, *[1] * ndim) * ((1 + (i != j)) * sparse[i] * sparse[j])
        return depth
    places = [np.broadcast_to(axis, (count, len(axis))) for axis in axes]
    box = 2 * (half + 1) * np.array(spacing_um)
    points = BSplineField(moves_um, box).on_grids(places).astype(np.float32)
    for axis, place in enumerate(np.meshgrid(*axes, indexing="ij", sparse=True)):
        points[..., axis] += place
    local = points.reshape(count, -1, ndim) @ np.swapaxes(frames / semi_axes_um[..., None], 1, 2).astype(np.float32)
    return np.einsum("bpi,bpi->bp", local, local).reshape(count, *2 * half + 1)
