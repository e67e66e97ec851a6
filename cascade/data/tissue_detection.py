"""Cells between membranes that nobody labelled: rough labels of a raw tissue image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import feature, filters, segmentation
from skimage.morphology import local_maxima, reconstruction

from cascade.sketch.smooth import block_means, blurred

_SHEET_VX = 1.5  # of the coarsest axis: width of membranes that are looked for, a Gaussian's σ
_AROUND = 6.0  # of them: over which light is evened out
_SADDLE = 0.25  # relative depth of what parts two cells
_SMALL_VX = 2.0  # depth of cells, of the coarsest axis: less is a gap between two ridges


def detect_tissue(image: npt.NDArray[Any], spacing_um: Sequence[float]) -> npt.NDArray[np.int32]:
    """Labels, int32, of cells that fill a raw image (Y, X) or (Z, Y, X) and whose borders are bright; all 0 where no
    border can be seen.

    Membranes are where the light, evened out, is curved downwards most along some direction (the smallest eigenvalue of
    the Hessian, above Otsu's threshold); cells are what lies between them, parted where the distance to the next
    membrane falls by a quarter between two peaks; a watershed of the light then runs their borders along the ridges.
    Raises ValueError unless the image has two or three axes and as many spacings.

    >>> y, x = np.mgrid[:60, :90]
    >>> walls = sum(100 * np.exp(-0.5 * (((at + 15) % 30 - 15) / 1.5) ** 2) for at in (y, x))
    >>> int(detect_tissue(walls + np.random.default_rng(0).normal(size=walls.shape), (1.0, 1.0)).max())
    6
    """
    if image.ndim not in (2, 3) or len(spacing_um) != image.ndim:
        raise ValueError(f"an image has two or three axes and as many spacings, got {image.shape} and {spacing_um}")
    spacing = np.asarray(spacing_um, float)
    width = _SHEET_VX * spacing.max()
    light = np.asarray(image, np.float32)
    light = light - float(np.percentile(light, 1))
    smooth = ndimage.gaussian_filter(light, 0.5 * width / spacing)
    even = smooth / (blurred(smooth, (_AROUND * width / spacing).tolist()) + 0.05 * max(float(smooth.mean()), 1e-6))
    ridge = _ridges(even, width / spacing)
    if not ridge.max() > 0:
        return np.zeros(image.shape, np.int32)
    walls = ridge > filters.threshold_otsu(ridge[ridge > 0])
    bins = np.rint(spacing.max() / spacing).astype(int)  # depths need no finer voxels than the coarsest axis has
    thick = block_means(walls, bins.tolist()) > 0.5
    depth = ndimage.distance_transform_edt(~thick, sampling=spacing * bins).astype(np.float32)
    depth = ndimage.gaussian_filter(depth, 0.5 * width / (spacing * bins))
    deep = np.log(np.maximum(depth, 0.1 * width))
    peaks = local_maxima(reconstruction(deep - _SADDLE, deep)) & (depth > _SMALL_VX * spacing.max())
    places, count = ndimage.label(peaks, np.ones((3,) * image.ndim))
    if count < 2:
        return np.zeros(image.shape, np.int32)
    marks = np.kron(places, np.ones(bins, np.int32))[tuple(map(slice, image.shape))]
    return np.asarray(segmentation.watershed(even, marks), np.int32)


def _ridges(light: npt.NDArray[Any], sigma: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """How strongly light is curved downwards along the direction in which it is so most, 0 where it is not."""
    orders = [[a, b] for a in range(light.ndim) for b in range(a, light.ndim)]
    parts = []
    for a, b in orders:
        order = [int(axis == a) + int(axis == b) for axis in range(light.ndim)]
        parts.append(float(sigma[a] * sigma[b]) * ndimage.gaussian_filter(light, sigma, order=order, truncate=3))
    least = feature.hessian_matrix_eigvals(parts)[-1]
    return np.maximum(-least, 0).astype(np.float32)
