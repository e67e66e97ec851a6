"""Gaussian blur whose time does not grow with its width."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

_FINE = 4  # points along a standard deviation that are enough


def blurred(light: npt.NDArray[Any], sigma: Sequence[float], *, truncate: float = 3.5) -> npt.NDArray[np.float32]:
    """Light convolved with a Gaussian of so many voxels an axis, reflected at the borders, float32.

    Where it is wide, means of blocks are convolved and interpolated between; what both add to the width is taken off.

    >>> point = np.zeros((1, 257), np.float32)
    >>> point[0, 128] = 1
    >>> wide = blurred(point, (0, 32))
    >>> round(float(wide.sum()), 2), round(float(np.sqrt((wide[0] * (np.arange(257) - 128) ** 2).sum())))
    (1.0, 32)
    """
    steps = [max(int(s / _FINE), 1) for s in sigma]
    light = np.asarray(light, np.float32)
    shape = light.shape
    more = [int(truncate * s) + step if n % step else 0 for s, step, n in zip(sigma, steps, shape, strict=True)]
    if any(more):  # blocks that the border cuts would shift its mirror
        light = np.pad(light, [(0, m) for m in more], "symmetric")
    coarse = block_means(light, steps)
    left = [np.sqrt(max((s / step) ** 2 - (0.25 if step > 1 else 0), 0)) for s, step in zip(sigma, steps, strict=True)]
    coarse = ndimage.gaussian_filter(coarse, left, mode="reflect", truncate=truncate)
    return interpolated(coarse, shape, steps)


def block_means(array: npt.NDArray[Any], steps: Sequence[int]) -> npt.NDArray[np.float32]:
    """Means over blocks of `steps` voxels; blocks that the border cuts are filled up by reflection."""
    found = np.asarray(array, np.float32)
    for axis, step in enumerate(steps):
        if step == 1:
            continue
        pad = [(0, 0)] * found.ndim
        pad[axis] = (0, -found.shape[axis] % step)
        found = np.pad(found, pad, "symmetric")
        shape = found.shape
        found = found.reshape(*shape[:axis], shape[axis] // step, step, *shape[axis + 1 :]).mean(axis + 1)
    return found


def interpolated(coarse: npt.NDArray[Any], shape: Sequence[int], steps: Sequence[int]) -> npt.NDArray[np.float32]:
    """Blocks' values on the voxels of an array of `shape`, linearly between the blocks' middles."""
    found = coarse
    for axis, (count, step) in enumerate(zip(shape, steps, strict=True)):
        if step == 1:
            continue
        at = np.clip((np.arange(count) + 0.5) / step - 0.5, 0, found.shape[axis] - 1)
        low = np.minimum(at.astype(int), max(found.shape[axis] - 2, 0))
        part = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(found.ndim)])
        high = np.minimum(low + 1, found.shape[axis] - 1)
        start = np.take(found, low, axis)
        found = start + part * (np.take(found, high, axis) - start)
    return np.asarray(found, np.float32)
