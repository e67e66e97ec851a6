"""Arrays from one voxel spacing to another."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage


def resample(
    array: npt.NDArray[Any], spacing_um: Sequence[float], target_spacing_um: Sequence[float], *, order: int = 1
) -> npt.NDArray[Any]:
    """Resample to another spacing, voxel corners aligned; `order` 0 keeps labels, 1 is linear.

    Where the target is coarser by more than 1.5 an intensity image (order > 0) is smoothed first, against aliasing.

    >>> resample(np.array([[1, 2]]), (1.0, 1.0), (0.5, 0.5), order=0).tolist()
    [[1, 1, 2, 2], [1, 1, 2, 2]]
    """
    zoom = np.asarray(spacing_um, float) / np.asarray(target_spacing_um, float)
    if np.allclose(zoom, 1, atol=1e-3):
        return array
    shape = np.maximum(np.round(np.array(array.shape) * zoom), 1).astype(int)
    scale = np.array(array.shape) / shape
    if order > 0:
        array = ndimage.gaussian_filter(array.astype(np.float32), np.where(scale > 1.5, 0.4 * scale, 0.0))
    matrix, offset = scale, 0.5 * scale - 0.5
    return ndimage.affine_transform(array, matrix, offset, tuple(shape), order=order, mode="nearest")


def at_slices(
    stack: npt.NDArray[Any], spacing_um: float, target_spacing_um: float, *, order: int = 1
) -> npt.NDArray[Any]:
    """A stack (Z, Y, X) as seen in slices of another distance, the first where it was; `order` 0 keeps labels.

    A slice shows what lies in it, not a mean over its distance to the next: nothing is smoothed.

    >>> at_slices(np.array([[[0.0]], [[2.0]], [[4.0]]]), 1.0, 1.5).ravel().tolist()
    [0.0, 3.0]
    """
    count = int((len(stack) - 1) * spacing_um / target_spacing_um + 1e-6) + 1
    places = np.minimum(np.arange(count) * (target_spacing_um / spacing_um), len(stack) - 1)
    if order == 0:
        return stack[np.rint(places).astype(int)]
    below = np.minimum(places.astype(int), max(len(stack) - 2, 0))
    above = np.minimum(below + 1, len(stack) - 1)
    share = (places - below).astype(np.float32)[:, None, None]
    return (1 - share) * stack[below] + share * stack[above]


def unresampled(
    planes: npt.NDArray[Any], spacing_um: Sequence[float], target_spacing_um: Sequence[float]
) -> npt.NDArray[Any]:
    """Planes (N, H, W) brought back from finer pixels: those whose linear interpolation comes nearest to them.

    `resample` to finer pixels blurs a little, and back once more; this is its inverse, by least squares. To finer or
    equal pixels it is `resample` itself.
    """
    zoom = np.asarray(spacing_um, float) / np.asarray(target_spacing_um, float)
    if zoom.max() > 1 - 1e-3:
        return np.stack([resample(plane, spacing_um, target_spacing_um) for plane in planes])
    back = []
    for size, z in zip(planes.shape[-2:], zoom, strict=True):
        coarse = max(round(size * z), 1)
        back.append(np.linalg.pinv(_interpolation(coarse, size)).astype(np.float32))
    return np.einsum("yh,nhw,xw->nyx", back[0], planes.astype(np.float32), back[1], optimize=True)


def fitted(planes: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Planes (…, H, W) cropped, or padded with zeros, by the odd pixel of rounding at their far ends."""
    pad = [(0, 0)] * (planes.ndim - 2) + [(0, max(n - m, 0)) for n, m in zip(shape, planes.shape[-2:], strict=True)]
    return np.pad(planes, pad)[..., : shape[0], : shape[1]]


def _interpolation(coarse: int, fine: int) -> npt.NDArray[Any]:
    """Linear interpolation of `coarse` pixels at the centres of `fine` ones over the same length, (fine, coarse)."""
    places = np.clip((np.arange(fine) + 0.5) * coarse / fine - 0.5, 0, coarse - 1)
    return np.maximum(1 - np.abs(places[:, None] - np.arange(coarse)), 0)
