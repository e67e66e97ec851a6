"""Whether raw images show cells that are bright, or bright membranes between dark ones; and how either is found."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import filters, measure

from cascade.data.detection import detect
from cascade.data.tissue_detection import detect_tissue
from cascade.evenly import evenly
from cascade.reading import read_image
from cascade.sketch.settings import Structure
from cascade.sketch.smooth import block_means, blurred

FIND: dict[Structure, Callable[[npt.NDArray[Any], Sequence[float]], npt.NDArray[Any]]] = {
    "cells": detect,
    "membranes": detect_tissue,
}
"""Labels of an image and its spacing."""

_FILES = 3  # of a data set
_PLANES = 5  # of a stack
_BINS = (1, 2, 4)  # of pixels, since membranes are as fine as may be
_FINE_PX, _AROUND_PX = 1.5, 12.0  # noise is blurred, light evened out
_SMALLEST_PX = 30
_ENCLOSED = 0.85  # dark share of what is enclosed: real membranes 0.93 to 1, the most crowded nuclei 0.69
_FEWEST = 0.01  # share of the planes that is enclosed, or nothing can be told
_THIN = 1.5  # depth of what is bright over that of what is dark: real membranes 0.96, a ground around dark cells 2.6


def structure_of_files(paths: Sequence[Path], channel: str | None = None) -> Structure:
    """What the raw images of a data set show, by a few of them."""
    return shown_structure(read_image(paths[n], channel) for n in evenly(len(paths), _FILES))


def shown_structure(images: Iterable[npt.NDArray[Any]]) -> Structure:
    """What raw images (Y, X) or (Z, Y, X) show, by what is enclosed: bright cells lie in the dark, each by itself, and
    membranes, which are thinner, enclose dark cells. Dark cells on a bright ground are cells.

    Planes whose light was evened out are parted in bright and dark (Otsu) at three sizes of pixels; of all that lies
    inside, the border of the plane apart, the dark share is looked at, and how deep both are.

    >>> y, x = np.mgrid[:90, :90] % 30 - 15
    >>> noise = np.random.default_rng(0).normal(size=y.shape)
    >>> shown_structure([100 * (y**2 + x**2 < 90) + noise]), shown_structure([100 * (np.maximum(y, x) > 11) + noise])
    ('cells', 'membranes')
    """
    enclosed, deep = np.zeros(2), np.zeros(2)
    looked = 0
    for image in images:
        light = np.asarray(image, np.float32)
        stack = light[None] if light.ndim == 2 else light
        inner = stack[len(stack) // 5 : len(stack) - len(stack) // 5]
        for plane in (inner[n] - np.percentile(stack, 1) for n in evenly(len(inner), _PLANES)):
            for bins in _BINS:
                coarse = block_means(plane, (bins, bins))
                if min(coarse.shape) < 2 * _AROUND_PX or not np.ptp(coarse) > 0:
                    continue
                shares, depths = _parted(coarse)
                enclosed += shares
                deep += shares.sum() * depths
                looked += 1
    in_dark = enclosed[0] >= _ENCLOSED * max(enclosed.sum(), _FEWEST * looked)
    return "membranes" if looked and in_dark and deep[1] < _THIN * deep[0] else "cells"


def _parted(plane: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Of dark and bright: the share of a plane in regions that its border does not cut, and how deep it is on average,
    in pixels."""
    smooth = ndimage.gaussian_filter(plane, _FINE_PX)
    even = smooth / (np.maximum(blurred(smooth, (_AROUND_PX, _AROUND_PX)), 0) + 0.05 * abs(float(smooth.mean())) + 1e-6)
    bright = even > filters.threshold_otsu(even)
    shares, depths = [], []
    for region in (~bright, bright):
        labels = measure.label(region, connectivity=1)
        sizes = np.bincount(labels.ravel())
        sizes[[0, *np.unique(labels[[0, -1]]), *np.unique(labels[:, [0, -1]])]] = 0
        shares.append(float(sizes[sizes > _SMALLEST_PX].sum()) / plane.size)
        depths.append(float(ndimage.distance_transform_edt(region)[region].mean()))
    return np.array(shares), np.array(depths)
