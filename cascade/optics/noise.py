"""Camera noise: photons and read-out, correlated over a few pixels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, special


@dataclass(frozen=True)
class Noise:
    """Camera noise: variance = read_variance + gain · (signal − offset) + read_sd², correlated over a few pixels.

    Its marginal is a gamma distribution, which has a photon count's variance and skew, and never falls below the
    offset, plus Gaussian read-out noise of `read_sd`, which does. Its spatial correlation is that of the real
    background, carried as a unit-energy kernel (K, K) on the last two axes. Slices are independent.
    """

    offset: float
    read_variance: float
    gain: float
    kernel: list[list[float]]
    read_sd: float = 0.0

    def variance(self, signal: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Variance at a noise-free signal, both in camera units."""
        return self.read_sd**2 + self._skewed(signal)

    def _skewed(self, signal: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Variance of the gamma distribution."""
        return self.read_variance + self.gain * np.maximum(signal - self.offset, 0)

    def gaussian(self, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
        """A unit-variance Gaussian field with the noise's spatial correlation, float32, slice by slice."""
        kernel = np.asarray(self.kernel, np.float32)
        white = rng.standard_normal(shape, dtype=np.float32)
        if kernel.size == 1:
            return white
        return ndimage.convolve(white, kernel.reshape((1,) * (len(shape) - 2) + kernel.shape), mode="wrap")

    def add(self, signal: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
        """One noisy exposure of a noise-free image (Y, X) or stack (Z, Y, X), camera units, float32."""
        mean = np.maximum(signal - self.offset, 1e-3).astype(np.float32)
        variance = np.maximum(self._skewed(signal), 1e-6).astype(np.float32)
        k = mean**2 / variance  # the gamma's shape
        z = self.gaussian(signal.shape, rng)
        # Wilson & Hilferty (1931): the cube root of a gamma variable is nearly normal, unless k is small.
        relative = np.maximum(1 - 1 / (9 * k) + z / (3 * np.sqrt(k)), 0) ** 3
        few = k < _FEW_COUNTS[1]
        dark = few & (self.read_variance > self.gain * mean)  # all read noise, which is Gaussian
        few &= ~dark
        relative[few] = _few_counts(k[few], z[few])
        relative[dark] = 1 + z[dark] / np.sqrt(k[dark])
        noisy = self.offset + mean * relative
        if self.read_sd > 0:
            noisy += np.float32(self.read_sd) * self.gaussian(signal.shape, rng)
        return noisy.astype(np.float32)


_FEW_COUNTS = (0.05, 4.0)


def _few_counts(k: npt.NDArray[Any], z: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Gamma variables of mean 1 and shape k at the quantiles of standard normal z, read off a table."""
    low, high = _FEW_COUNTS
    shapes, normals = np.geomspace(low, high, 48), np.linspace(-5, 5, 161)
    table = np.cbrt(special.gammaincinv(shapes[:, None], special.ndtr(normals)) / shapes[:, None])
    places = np.log(np.clip(k, low, high) / low) / np.log(high / low) * (len(shapes) - 1), (z + 5) / 10 * 160
    return ndimage.map_coordinates(table.astype(np.float32), places, order=1, mode="nearest") ** 3
