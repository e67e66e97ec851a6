"""Cells between membranes that nobody labelled: rough labels of a raw tissue image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import segmentation
from skimage.morphology import local_minima, reconstruction

from cascade.sketch.smooth import blurred

_FINE_VX = 0.75, 0.975  # of the coarsest axis: σ of Gaussians that blur noise, before light is evened out and after
_AROUND_VX = 9.0  # light is evened out over it
_DYNAMIC = 0.04  # how far walls rise at least above the cells that they part, where 0.5 is the light around
_NOISES = 8.0  # and in standard deviations of the noise that is left


def detect_tissue(image: npt.NDArray[Any], spacing_um: Sequence[float]) -> npt.NDArray[np.int32]:
    """Labels, int32, of cells that fill a raw image (Y, X) or (Z, Y, X) and whose borders are bright; all 0 where no
    border can be seen.

    Light is evened out, and a watershed floods it from each basin that is deep enough, and deeper than its noise, so
    that borders run along the ridges.
    Raises ValueError unless the image has two or three axes and as many spacings.

    >>> y, x = np.mgrid[:60, :90]
    >>> walls = sum(100 * np.exp(-0.5 * (((at + 15) % 30 - 15) / 1.5) ** 2) for at in (y, x))
    >>> int(detect_tissue(walls + np.random.default_rng(0).normal(size=walls.shape), (1.0, 1.0)).max())
    6
    """
    if image.ndim not in (2, 3) or len(spacing_um) != image.ndim:
        raise ValueError(f"an image has two or three axes and as many spacings, got {image.shape} and {spacing_um}")
    spacing = np.asarray(spacing_um, float)
    voxels = spacing.max() / spacing
    first, second = (fine * voxels for fine in _FINE_VX)
    light = np.asarray(image, np.float32)
    smooth = ndimage.gaussian_filter(light - float(np.percentile(light, 1)), first)
    around = blurred(smooth, (_AROUND_VX * voxels).tolist()) + 0.05 * max(float(smooth.mean()), 1e-6)
    even = np.maximum(smooth / around, 0)
    relief = ndimage.gaussian_filter(even / (1 + even), second)
    left = np.prod((4 * np.pi * (first**2 + second**2)) ** -0.25)  # of white noise, by both
    noise = 0.25 * left * _noise(light) / max(float(np.median(around)), 1e-6)  # d/de e / (1 + e) = 1/4 at e = 1
    deepest = reconstruction(relief + max(_DYNAMIC, _NOISES * noise), relief, method="erosion")
    places, count = ndimage.label(local_minima(deepest), np.ones((3,) * image.ndim))
    if count < 2:
        return np.zeros(image.shape, np.int32)
    return np.asarray(segmentation.watershed(relief, places), np.int32)


def _noise(light: npt.NDArray[np.float32]) -> float:
    """Standard deviation of white noise: by differences along all axes, which hardly see anything else."""
    rest = light
    for axis in range(light.ndim):
        rest = np.diff(rest, axis=axis)
    return float(np.median(np.abs(rest))) / 0.6745 / 2 ** (light.ndim / 2) if rest.size else 0.0
