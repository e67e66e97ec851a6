"""Telling background from cells in real images."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.rng import stream


def background_mask(
    image: npt.NDArray[Any], known: npt.NDArray[Any] | None = None, margin_px: int = 4
) -> npt.NDArray[Any]:
    """Pixels that show background only: away from `known` cells, and no brighter than the darkest mode of the image.

    `known` (same shape, bool) may be incomplete: cells nobody annotated are left out by their brightness.
    """
    sigma = (0,) * (image.ndim - 2) + (2, 2)
    smooth = ndimage.gaussian_filter(image.astype(np.float32), sigma)
    mode = half_sample_mode(smooth[(slice(None, None, 2),) * image.ndim].ravel())
    below = mode - smooth[smooth < mode]
    spread = 1.5 * np.median(below) if below.size else 1.0  # median of a half-normal is 0.67 sigma
    mask = smooth < mode + 4 * spread + 1e-6
    if known is not None and known.any():
        near = ndimage.binary_dilation(known, ndimage.generate_binary_structure(known.ndim, 1), iterations=margin_px)
        mask &= ~near
    return mask if mask.sum() > 100 else smooth <= np.percentile(smooth, 20)


def background_field(image: npt.NDArray[Any], mask: npt.NDArray[Any], length_px: float) -> npt.NDArray[Any]:
    """Local background level of a plane (Y, X): the mean over background pixels, Gaussian-weighted over `length_px`."""
    step = max(int(length_px // 6), 1)  # the field is smooth: work on blocks of pixels
    sums = _blocks(np.where(mask, image, 0).astype(np.float32), step)
    counts = _blocks(mask.astype(np.float32), step)
    sigma = length_px / step
    level = ndimage.gaussian_filter(sums, sigma, mode="reflect") + 1e-3 * float(image[mask].mean())
    coarse = level / (ndimage.gaussian_filter(counts, sigma, mode="reflect") + 1e-3)
    offset = 0.5 / step - 0.5  # pixel centres in units of blocks
    return ndimage.affine_transform(coarse, np.full(2, 1 / step), offset, image.shape, order=1, mode="nearest")


def _blocks(plane: npt.NDArray[Any], step: int) -> npt.NDArray[Any]:
    """Means over step × step blocks; blocks cut by the border are filled up by reflection."""
    pad = [(0, -n % step) for n in plane.shape]
    plane = np.pad(plane, pad, mode="symmetric")
    return plane.reshape(plane.shape[0] // step, step, -1, step).mean((1, 3))


def half_sample_mode(values: npt.NDArray[Any]) -> float:
    """The mode of a sample, by repeatedly keeping its densest half (Bickel & Frühwirth, CSDA 50, 2006)."""
    values = np.sort(np.asarray(values, float).ravel())
    if len(values) > 50_000:
        values = values[stream(0, "half-sample mode").choice(len(values), 50_000, replace=False, shuffle=False)]
        values.sort()
    while len(values) > 3:
        half = (len(values) + 1) // 2
        start = int(np.argmin(values[half - 1 :] - values[: len(values) - half + 1]))
        values = values[start : start + half]
    return float(values.mean())
