"""What the camera makes of light: exposures, as integers."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.geometry.resample import fitted, resample
from cascade.optics.halo import fade
from cascade.optics.statistics import Statistics


def photograph_crops(
    images: npt.NDArray[Any], masks: npt.NDArray[Any], statistics: Statistics, pixel_um: float, rng: np.random.Generator
) -> npt.NDArray[Any]:
    """Add camera noise to textured crops, as `cascade prepare` leaves it in real ones: (N, H, W) float32 in [0, 1].

    The texture stage makes light without noise; noise is added at the data set's own pixels, fades out with the
    cell's halo, and is resampled to the crops' pixels, just as it is in crops of real images.

    images: (N, H, W) in [0, 1] after the window. masks: (N, H, W) bool.
    """
    window, spacing = statistics.window, statistics.spacing_um[-2:]
    reach = statistics.halo.radius_px * spacing[-1] / pixel_um
    noisy = np.empty(images.shape, np.float32)
    for n, (image, mask) in enumerate(zip(images, masks, strict=True)):
        light = resample(window.restore(image), (pixel_um,) * 2, spacing)
        noise = resample(statistics.noise.add(light, rng) - light, spacing, (pixel_um,) * 2)
        share = fade(ndimage.distance_transform_edt(~mask), reach)
        noisy[n] = window.stretch(window.restore(image) + share * fitted(noise, image.shape))
    return noisy


def digitise(image: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """Camera units as integers of the data set's dtype; a float data set is written as uint16."""
    kind = np.dtype(dtype if np.dtype(dtype).kind == "u" else "uint16")
    return np.clip(np.rint(image), 0, np.iinfo(kind).max).astype(kind)
