"""Where each voxel lies in the specimen, as the conditional GAN is told it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.gan.painting import ALPHA, BETA, check_scalings
from cascade.sketch.smooth import block_means, interpolated

_MANY = 1 << 21  # voxels of which every distance is measured


def position(
    foreground: npt.NDArray[Any],
    spacing_um: Sequence[float],
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
) -> npt.NDArray[np.float32]:
    """f_pos of every voxel, in (−1, 1) (3D microscopy synthesis by conditional GAN, Eq. 1):

    .. math:: \\tanh(d/\\alpha) \\text{ in the specimen}, \\quad \\tanh(-d/\\beta) \\text{ outside}

    where d is the distance to the specimen's boundary, which runs half-way between voxels.

    foreground: the specimen, bool (Y, X) or (Z, Y, X). spacing_um: voxel size; distances, and so α and β, count in
    voxels of the last axis, along every axis. The border of the image is no boundary: of a specimen that fills it, all
    is 1. Of large images distances are measured on every few voxels; on which side a voxel lies is exact. Raises
    ValueError for α or β that are no number above 0, and as many spacings as there are no axes.

    >>> position(np.array([[0, 0, 1, 1, 1]], bool), (1.0, 1.0), alpha=1.0, beta=2.0).astype(float).round(3).tolist()
    [[-0.635, -0.245, 0.462, 0.905, 0.987]]
    """
    check_scalings(alpha, beta)
    if len(spacing_um) != foreground.ndim:
        raise ValueError(f"the foreground has {foreground.ndim} axes, and there are {len(spacing_um)} spacings")
    inside = foreground.astype(bool)
    if inside.all() or not inside.any():
        return np.full(inside.shape, 1 if inside.all() else -1, np.float32)
    spacing = np.asarray(spacing_um, float) / spacing_um[-1]
    away = _signed(inside, spacing)
    least = np.float32(0.5 * spacing.min())
    away = np.where(inside, np.maximum(away, least), np.minimum(away, -least))
    return np.tanh(away / np.where(inside, np.float32(alpha), np.float32(beta)), dtype=np.float32)


def _signed(inside: npt.NDArray[np.bool_], spacing: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Distance to the boundary, below 0 outside, in voxels of the last axis."""
    step = max(int(np.ceil((inside.size / _MANY) ** (1 / inside.ndim))), 1)
    steps = np.ones(inside.ndim, int) if step == 1 else np.rint(step * spacing.max() / spacing).astype(int)
    steps = np.minimum(steps, inside.shape)
    coarse = inside if step == 1 else block_means(inside, steps.tolist()) > 0.5
    if coarse.all() or not coarse.any():  # a speck that blocks do not show
        coarse, steps = inside, np.ones(inside.ndim, int)
    voxel = spacing * steps
    half = 0.5 * voxel.min()
    depth = ndimage.distance_transform_edt(coarse, voxel) - half
    outside = ndimage.distance_transform_edt(~coarse, voxel) - half
    found = np.where(coarse, depth, -outside).astype(np.float32)
    return found if step == 1 else interpolated(found, inside.shape, steps.tolist())
