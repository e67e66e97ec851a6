"""Cells that nobody annotated, found roughly: to be counted, and to be kept out of the crops of annotated ones."""

import numpy as np
from scipy import ndimage
from skimage import measure, segmentation

from cascade.geometry.masks import largest_piece
from cascade.optics.foreground import background_field, background_mask


def with_unlabelled(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The labels of a plane (Y, X) of which some cells are annotated, and new ids for other cells, by their light.

    What is brighter than the background is cut into pieces about as large as the annotated cells (a watershed of the
    distance to its rim), each bounded where its light falls to half. Good enough for counts, densities and to mask
    neighbours; no crop is ever cut of such a cell. Annotated ids are left as they are, new ones follow the highest.

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
    signal -= background_field(image, background, 6 * radius)
    bright = signal > 6 * max(float(signal[background].std()), 1e-6)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(bright), 0.15 * radius)
    size = 2 * round(0.6 * radius) + 1
    peaks = (distance == ndimage.maximum_filter(distance, size)) & (distance > 0.3 * radius)
    pieces = segmentation.watershed(-distance, ndimage.label(peaks, np.ones((3, 3)))[0], mask=bright)
    found, highest = labels.astype(np.int32), int(labels.max())
    for region in measure.regionprops(pieces, intensity_image=signal):
        inside = region.image & (region.image_intensity > 0.5 * np.percentile(region.image_intensity[region.image], 75))
        window = region.slice
        if (known[window] & inside).sum() > 0.2 * inside.sum() or inside.sum() < 0.15 * np.pi * radius**2:
            continue
        highest += 1
        found[window][largest_piece(inside & ~known[window])] = highest
    return found
