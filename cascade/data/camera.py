"""Fitting background and camera noise to real images."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from cascade.optics.background import Background
from cascade.optics.foreground import background_field
from cascade.optics.noise import Noise

_LAG = 4  # noise correlation is measured up to this many pixels


_LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


def fit_camera(
    images: list[npt.NDArray[Any]], masks: list[npt.NDArray[Any]], covers: list[npt.NDArray[Any]], length_px: float
) -> tuple[Background, Noise]:
    """Background and camera noise of real images; `masks` as from `background_mask`, `length_px` of the slow field.

    covers: where annotated cells are, bool, as large as the images.

    Background pixels give levels, slow field and, through the covariance of what is left, the noise (lags below 2
    pixels) and the haze (what stays correlated beyond). How the noise grows with brightness comes from inside the
    cells, by the 3×3 Laplacian-of-noise estimator (Immerkær, CVIU 64, 1996), which does not see smooth structure; what
    it misses of correlated noise is calibrated on the background, where the variance is known.
    """
    covariance, pairs = np.zeros((2 * _LAG + 1,) * 2), np.zeros((2 * _LAG + 1,) * 2)
    spreads, levels, laplacians, known = [], [], [], []
    for plane, inside, within in _planes(images, masks, covers):
        field = background_field(plane, inside, length_px)
        residual = np.where(inside, plane - field, 0)
        inside = inside & (np.abs(residual) < 10 * residual[inside].std() + 1e-6)
        residual = np.where(inside, residual, 0)
        spreads.append(field[inside].std())
        covariance += _correlate(residual)
        pairs += _correlate(inside.astype(np.float32))
        laplacian = ndimage.convolve(plane, _LAPLACIAN) ** 2 / 36
        known.append((plane[inside].mean(), laplacian[inside].mean()))
        pieces, count = ndimage.label(ndimage.binary_erosion(within, iterations=2))
        levels.append(ndimage.mean(plane, pieces, np.arange(count) + 1))
        laplacians.append(ndimage.mean(laplacian, pieces, np.arange(count) + 1))
    covariance /= np.maximum(pairs, 1)
    haze = max(float(_ring(covariance, 2)), 0.0)
    decay = float(np.clip(_ring(covariance, _LAG) / haze, 0.01, 0.95)) if haze > 0 else 0.5
    # exp(−d²/4ℓ²) is the correlation of white noise smoothed by a Gaussian of length ℓ.
    haze_px = float(np.sqrt((_LAG**2 - 2**2) / (-4 * np.log(decay))))
    camera = covariance - haze
    lags = np.abs(np.arange(-_LAG, _LAG + 1))
    camera[np.maximum(lags[:, None], lags[None]) >= 2] = 0
    variance = float(camera[_LAG, _LAG])

    level, seen = np.mean(known, axis=0)
    offset = float(min(image.min() for image in images))
    gain = float(_slope(np.concatenate(levels), np.concatenate(laplacians), level, seen) * variance / max(seen, 1e-9))
    if gain * (level - offset) > variance:  # the darkest pixels are dark by read noise, too small to tell otherwise
        offset = float(level - variance / gain)
    background = Background(
        levels=[float(image[mask].mean()) for image, mask in zip(images, masks, strict=True)],
        field_sd=float(np.median(spreads)),
        field_px=float(length_px),
        haze_sd=float(np.sqrt(haze)),
        haze_px=haze_px,
    )
    read_variance = max(float(variance - gain * (level - offset)), 0.0)
    return background, Noise(offset, read_variance, gain, _kernel(camera).tolist())


def _planes(
    images: list[npt.NDArray[Any]], masks: list[npt.NDArray[Any]], covers: list[npt.NDArray[Any]]
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]]:
    """Planes with enough background; of stacks every fifth, and those with annotated cells."""
    for image, mask, cover in zip(images, masks, covers, strict=True):
        shape = (-1, *image.shape[-2:])
        for n, (plane, inside, within) in enumerate(
            zip(*(a.reshape(shape) for a in (image, mask, cover)), strict=True)
        ):
            if (n % 5 == 0 or within.any()) and inside.sum() > 100:
                yield plane.astype(np.float32), inside, within


def _ring(covariance: npt.NDArray[Any], lag: int) -> float:
    """Mean covariance at a lag along the two axes."""
    return float(np.mean([covariance[_LAG + lag, _LAG], covariance[_LAG, _LAG + lag]]))


def _correlate(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Sums of products at every lag up to _LAG, by FFT."""
    shape = [fft.next_fast_len(n + _LAG) for n in plane.shape]
    spectrum = np.abs(fft.rfft2(plane, shape)) ** 2
    full = fft.irfft2(spectrum, shape)
    lags = np.arange(-_LAG, _LAG + 1)
    return full[np.ix_(lags, lags)]


def _slope(levels: npt.NDArray[Any], variances: npt.NDArray[Any], level0: float, variance0: float) -> float:
    """Growth of variance per unit of level above the background: the median over cells, some of which are rough."""
    bright = levels > level0 + np.sqrt(variance0)
    slopes = (variances[bright] - variance0) / (levels[bright] - level0)
    return max(float(np.median(slopes)), 0.0) if len(slopes) else 0.0


def _kernel(covariance: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A kernel of unit energy whose autocorrelation is the given covariance, made positive semi-definite."""
    spectrum = np.maximum(fft.fft2(fft.ifftshift(covariance)).real, 0)
    kernel = fft.fftshift(fft.ifft2(np.sqrt(spectrum)).real)
    kernel[np.abs(kernel) < 0.02 * np.abs(kernel).max()] = 0
    kernel = kernel[_LAG - 1 : _LAG + 2, _LAG - 1 : _LAG + 2]
    return kernel / np.sqrt((kernel**2).sum())
