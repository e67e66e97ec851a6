"""Does a textured crop show the cell that its mask says?"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.filters import threshold_otsu

from cascade.geometry.masks import largest_piece


def otsu_alignment(images: npt.NDArray[Any], masks: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """IoU (N,) between each crop's mask and what Otsu's threshold segments in it, largest piece, holes filled.

    images: (N, H, W) of any scale. masks: (N, H, W) bool. A crop without contrast scores 0.

    >>> mask = np.pad(np.ones((4, 4), bool), 2)
    >>> otsu_alignment(np.stack([100.0 * mask, np.roll(100.0 * mask, 2, 0)]), np.stack([mask, mask])).round(2).tolist()
    [1.0, 0.33]
    """
    scores = np.zeros(len(images))
    for n, (image, mask) in enumerate(zip(images, masks, strict=True)):
        if image.min() == image.max():
            continue
        found = ndimage.binary_fill_holes(largest_piece(image > threshold_otsu(image), corners=False))
        scores[n] = (found & mask).sum() / max((found | mask).sum(), 1)
    return scores
