"""Cells that nobody annotated, found roughly: to be counted, and to be kept out of the crops of annotated ones."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import measure, segmentation

from cascade.geometry.masks import largest_piece
from cascade.optics.foreground import background_field, background_mask

# Lengths in radii of the annotated cells' median.
_FIELD = 6  # the background changes over three cells, not within one
_SMOOTH = 0.15  # of distances, so that a rough rim makes no second peak
_APART = 0.6  # so near there is one middle
_DEPTH = 0.3  # and it lies that deep within what is bright
_SMALLEST = 0.15  # of the median's area: less is no cell, or one that the border cuts

_CLEAR = 6  # standard deviations of the background: of a million pixels none is as bright by chance
_BRIGHT = 75  # percentile of a piece's light that stands for the cell's; nucleoli and rims are darker
_OUTLINE = 0.5  # of that light is left where blur puts the outline
_KNOWN = 0.2  # share of a piece that may be annotated: blur reaches that far over its outline


def with_unlabelled(image: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The labels of a plane (Y, X) of which some cells are annotated, and new ids for other cells, by their light.

    What is brighter than the background is cut into pieces about as large as the annotated cells (a watershed of the
    distance to its rim), each bounded where its light falls to half. Good enough for counts, densities and to mask
    neighbours; no crop is ever cut of such a cell. Annotated ids are left as they are, new ones follow the highest.
    (`cascade.data.detection.detect`, which knows no size, finds as many of the cells, and half as many again where
    there is none.)

    Raises ValueError if no cell is annotated: there is no size to go by.
    """
    sizes = np.bincount(labels.ravel())[1:]
    sizes = sizes[sizes > 0]
    if not len(sizes):
        raise ValueError("no cell is annotated in this plane")
    radius = float(np.sqrt(np.median(sizes) / np.pi))
    known = labels > 0
    background = background_mask(image, known)
    signal = ndimage.gaussian_filter(image.astype(np.float32), 1)
    signal -= background_field(image, background, _FIELD * radius)
    bright = signal > _CLEAR * max(float(signal[background].std()), 1e-6)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(bright), _SMOOTH * radius)
    size = 2 * round(_APART * radius) + 1
    peaks = (distance == ndimage.maximum_filter(distance, size)) & (distance > _DEPTH * radius)
    pieces = segmentation.watershed(-distance, ndimage.label(peaks, np.ones((3, 3)))[0], mask=bright)
    found, highest = labels.astype(np.int32), int(labels.max())
    for region in measure.regionprops(pieces, intensity_image=signal):
        light, window = region.image_intensity, region.slice
        inside = region.image & (light > _OUTLINE * np.percentile(light[region.image], _BRIGHT))
        annotated = (known[window] & inside).sum() > _KNOWN * inside.sum()
        if annotated or inside.sum() < _SMALLEST * np.pi * radius**2:
            continue
        highest += 1
        found[window][largest_piece(inside & ~known[window])] = highest
    return found
