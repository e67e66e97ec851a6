"""Fitting background and camera noise to real images."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage, signal

from cascade.optics.background import Background
from cascade.optics.foreground import background_field
from cascade.optics.noise import Noise
from cascade.rng import stream

LAG = 4
"""Noise correlation is measured up to this many pixels."""


_SHARES = 41  # of the variance that may be read-out noise, which are tried
_DARKEST = (1.0, 5.0, 50.0)  # percentiles of the background's pixels
_GROUPS, _FEW_BLOCKS = 20, 30  # of hazy places, by their light
_BLOCK = (1, 8, 8)  # voxels of each
_SOME = 500  # pixels of a plane that are looked at for it
_LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_SEEN = signal.correlate2d(_LAPLACIAN, _LAPLACIAN)  # what it answers to noise of a given covariance, lag by lag


def fit_camera(
    images: list[npt.NDArray[Any]],
    masks: list[npt.NDArray[Any]],
    covers: list[npt.NDArray[Any]],
    length_px: float,
    strays: list[npt.NDArray[Any]] | None = None,
    hazy: list[npt.NDArray[Any]] | None = None,
) -> tuple[Background, Noise]:
    """Background and camera noise of real images; `masks` where there is background, `length_px` of the slow field.

    covers: where annotated cells are, bool, as large as the images. strays: light there that is not background. hazy:
    places away from cells of stacks, bool, whose light is smooth.

    Background pixels give levels, slow field and, through the covariance of what is left, the noise (lags below 2
    pixels) and the haze (what stays correlated beyond). How the noise grows with brightness comes from hazy places, or,
    where they are about equally bright, from inside the cells, by the 3×3 Laplacian-of-noise estimator (Immerkær, CVIU
    64, 1996), which does not see smooth structure; what it misses of correlated noise follows from the covariance. Of
    the background's noise, read-out takes the share at which the darkest pixels are as dark as real ones.
    """
    covariance, pairs = np.zeros((2 * LAG + 1,) * 2), np.zeros((2 * LAG + 1,) * 2)
    spreads, levels, laplacians, known, pixels = [], [], [], [], []
    strays = strays or [np.zeros(image.shape, np.float32) for image in images]
    for plane, inside, within, stray in _planes(images, masks, covers, strays):
        field = background_field(plane - stray, inside, length_px)
        residual = np.where(inside, plane - stray - field, 0)
        inside = inside & (np.abs(residual) < 10 * residual[inside].std() + 1e-6)
        residual = np.where(inside, residual, 0)
        spreads.append(field[inside].std())
        pixels.append(np.stack([plane[inside], (field + stray)[inside]])[:, :: max(inside.sum() // _SOME, 1)])
        covariance += correlate(residual)
        pairs += correlate(inside.astype(np.float32))
        laplacian = _rough(plane)
        known.append((plane[inside].mean(), laplacian[inside].mean()))
        pieces, count = ndimage.label(ndimage.binary_erosion(within, iterations=2))
        levels.append(ndimage.mean(plane, pieces, np.arange(count) + 1))
        laplacians.append(ndimage.mean(laplacian, pieces, np.arange(count) + 1))
    covariance /= np.maximum(pairs, 1)
    haze = max(float(ring(covariance, 2)), 0.0)
    decay = float(np.clip(ring(covariance, LAG) / haze, 0.01, 0.95)) if haze > 0 else 0.5
    # exp(−d²/4ℓ²) is the correlation of white noise smoothed by a Gaussian of length ℓ.
    haze_px = float(np.sqrt((LAG**2 - 2**2) / (-4 * np.log(decay))))
    camera = covariance - haze
    lags = np.abs(np.arange(-LAG, LAG + 1))
    camera[np.maximum(lags[:, None], lags[None]) >= 2] = 0
    variance = float(camera[LAG, LAG])

    level, seen = np.mean(known, axis=0)
    share = float((_SEEN * camera[LAG - 2 : LAG + 3, LAG - 2 : LAG + 3]).sum())
    missed = variance * 36 / share if share > 0 else 1.0  # a background that was cut off has no noise
    line = _hazy_line(images, hazy, seen) if hazy else None
    if line is None:
        line = _slope(np.concatenate(levels), np.concatenate(laplacians), level, seen), seen
    else:
        line = line[0], float(np.polyval(line, level))
    gain, variance = missed * line[0], missed * line[1]
    background = Background(
        levels=[float((image - stray)[mask].mean()) for image, mask, stray in zip(images, masks, strays, strict=True)],
        field_sd=float(np.median(spreads)),
        field_px=float(length_px),
        haze_sd=float(np.sqrt(haze)),
        haze_px=haze_px,
    )
    seen = _fit_read_out(np.concatenate(pixels, 1), level, variance, gain, background.haze_sd)
    return background, replace(seen, kernel=_kernel(camera).tolist()) if share > 0 else seen


def _fit_read_out(pixels: npt.NDArray[Any], level: float, variance: float, gain: float, haze_sd: float) -> Noise:
    """Noise of a known variance at the background's level, shared between photons and read-out, and the photons'
    distribution, so that the darkest and the middle pixels are as dark as real ones: `pixels` are real values and the
    light that is thought to be there, (2, N)."""
    values, light = pixels
    wanted, tried = np.percentile(values, _DARKEST), []
    for avalanche in (False, True):
        for read in variance * np.linspace(0, 1, _SHARES):
            offset = float(level - (variance - read) / gain) if gain > 0 else float(values.min())
            noise = Noise(offset, 0.0, gain, [[1.0]], float(np.sqrt(read)), avalanche)
            rng = stream(0, "read-out noise")
            drawn = noise.add(light + haze_sd * rng.standard_normal(len(light)), rng)
            tried.append((float(np.abs(np.percentile(drawn, _DARKEST) - wanted).sum()), noise))
    return min(tried, key=lambda one: one[0])[1]


def _planes(
    images: list[npt.NDArray[Any]],
    masks: list[npt.NDArray[Any]],
    covers: list[npt.NDArray[Any]],
    strays: list[npt.NDArray[Any]],
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]]:
    """Planes with enough background; of stacks every fifth, and those with annotated cells."""
    for image, *others in zip(images, masks, covers, strays, strict=True):
        shape = (-1, *image.shape[-2:])
        for n, (plane, inside, within, stray) in enumerate(
            zip(*(a.reshape(shape) for a in (image, *others)), strict=True)
        ):
            if (n % 5 == 0 or within.any()) and inside.sum() > 100:
                yield plane.astype(np.float32), inside, within, np.where(inside, stray, 0)


def ring(covariance: npt.NDArray[Any], lag: int) -> float:
    """Mean covariance at a lag along the two axes."""
    return float(np.mean([covariance[LAG + lag, LAG], covariance[LAG, LAG + lag]]))


def correlate(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Sums of products at every lag up to LAG, by FFT."""
    shape = [fft.next_fast_len(n + LAG) for n in plane.shape]
    spectrum = np.abs(fft.rfft2(plane, shape)) ** 2
    full = fft.irfft2(spectrum, shape)
    lags = np.arange(-LAG, LAG + 1)
    return full[np.ix_(lags, lags)]


def _rough(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Variance of white noise, pixel by pixel, as seen by the Laplacian."""
    return np.asarray(ndimage.convolve(plane, _LAPLACIAN) ** 2 / 36)


def _hazy_line(
    images: list[npt.NDArray[Any]], hazy: list[npt.NDArray[Any]], variance0: float
) -> tuple[float, float] | None:
    """Variance against light of blocks of pixels without structure, slope and intercept; they are grouped by what the
    planes above and below show there, whose noise is their own. None where groups differ by less than the noise."""
    found = []
    for image, places in zip(images, hazy, strict=True):
        planes = image.astype(np.float32)
        light, rough = (whole_blocks(part, _BLOCK) for part in (planes, np.stack([_rough(plane) for plane in planes])))
        free = whole_blocks(places.astype(np.float32), _BLOCK) == 1
        kept = free[:-2] & free[1:-1] & free[2:]
        found.append(np.stack([0.5 * (light[:-2] + light[2:]), light[1:-1], rough[1:-1]])[:, kept])
    expected, light, rough = np.concatenate(found, 1)
    if len(expected) < _GROUPS * _FEW_BLOCKS:
        return None
    groups = np.array_split(np.argsort(expected), _GROUPS)
    lit, seen = (np.array([values[group].mean() for group in groups]) for values in (light, rough))
    if lit[-1] - lit[0] < np.sqrt(variance0) or seen.min() <= 0:
        return None
    slope, intercept = np.polyfit(lit, seen, 1, w=1 / seen)
    return (float(slope), float(intercept)) if slope > 0 else None


def whole_blocks(stack: npt.NDArray[Any], factor: Sequence[int]) -> npt.NDArray[Any]:
    """Means over blocks of a stack (Z, Y, X), of `factor` voxels; what is left over at the ends is cut off."""
    kept = stack[tuple(slice(0, n - n % f) for n, f in zip(stack.shape, factor, strict=True))]
    shape = [part for n, f in zip(kept.shape, factor, strict=True) for part in (n // f, f)]
    return kept.reshape(shape).mean((1, 3, 5))


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
    kernel = kernel[LAG - 1 : LAG + 2, LAG - 1 : LAG + 2]
    return kernel / np.sqrt((kernel**2).sum())
