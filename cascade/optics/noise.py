"""Camera noise: photons and read-out, correlated over a few pixels."""

from dataclasses import dataclass
from functools import lru_cache
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

    avalanche: a pixel's light is a Poisson number of exponentials, as in an electron-multiplying camera, of the same
    mean and variance (Basden et al., MNRAS 345, 2003): where few photons come, many pixels see none.
    """

    offset: float
    read_variance: float
    gain: float
    kernel: list[list[float]]
    read_sd: float = 0.0
    avalanche: bool = False

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
        relative[few] = _few_counts(k[few], z[few], self.avalanche)
        relative[dark] = 1 + z[dark] / np.sqrt(k[dark])
        noisy = self.offset + mean * relative
        if self.read_sd > 0:
            noisy += np.float32(self.read_sd) * self.gaussian(signal.shape, rng)
        return noisy.astype(np.float32)


_FEW_COUNTS = (0.05, 4.0)


_NORMALS = np.linspace(-5, 5, 161)


def _few_counts(k: npt.NDArray[Any], z: npt.NDArray[Any], avalanche: bool) -> npt.NDArray[Any]:
    """Variables of mean 1 and variance 1/k at the quantiles of standard normal z, read off a table: gamma variables, or
    Poisson numbers of exponentials."""
    low, high = _FEW_COUNTS
    table = np.cbrt(_quantiles(avalanche))
    places = np.log(np.clip(k, low, high) / low) / np.log(high / low) * (len(table) - 1), (z + 5) / 10 * 160
    return ndimage.map_coordinates(table.astype(np.float32), places, order=1, mode="nearest") ** 3


@lru_cache
def _quantiles(avalanche: bool) -> npt.NDArray[np.float64]:
    """Rows: k; columns: the quantiles of `_NORMALS`."""
    shapes = np.geomspace(*_FEW_COUNTS, 48)
    share = special.ndtr(_NORMALS)
    if not avalanche:
        return special.gammaincinv(shapes[:, None], share) / shapes[:, None]
    photons, light = np.arange(1, 80), np.linspace(0, 100, 8001)  # in units of one photon's mean
    rate = 2 * shapes[:, None]  # the sum of Poisson(λ) exponentials has mean λ and variance 2λ
    chance = np.exp(photons * np.log(rate) - rate - special.gammaln(photons + 1))
    below = np.exp(-rate) + chance @ special.gammainc(photons[:, None], light)
    return np.array([np.interp(share, row, light, left=0) / mean for row, mean in zip(below, rate[:, 0], strict=True)])
