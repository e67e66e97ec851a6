"""The finest texture of cells, which an autoencoder's few latents cannot carry: measured, and given back as noise."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage


@dataclass(frozen=True)
class Grain:
    """Relative spread of the texture that is missing after decoding, and its correlation length in pixels.

    After a window with gamma = 1/2, texture that is proportional to a cell's light stays proportional to its value,
    so one number holds for faint and bright cells.
    """

    sd: float = 0.0
    length_px: float = 0.0

    def add(self, images: npt.NDArray[Any], noise: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Images (S, H, W) in [0, 1] with grain made of unit-variance white noise of the same shape."""
        if self.sd == 0:
            return images
        if self.length_px > 0:
            noise = ndimage.gaussian_filter(noise, (0, self.length_px, self.length_px), mode="wrap")
            impulse = np.zeros(noise.shape[-2:], np.float32)
            impulse[0, 0] = 1
            noise = noise / np.sqrt((ndimage.gaussian_filter(impulse, self.length_px, mode="wrap") ** 2).sum())
        return np.clip(images * (1 + np.float32(self.sd) * noise), 0, 1).astype(np.float32)
