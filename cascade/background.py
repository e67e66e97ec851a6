"""What a camera sees where there is no cell: level, slow field and noise, fitted from real images."""

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage, special

from cascade.rng import stream

_LAG = 4  # noise correlation is measured up to this many pixels
_BLOCK, _FAR = 64, 1 << 20  # of knots drawn at once; keeps names of blocks non-negative
_LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


@dataclass(frozen=True)
class Background:
    """Background level and field, camera units.

    levels: mean level of each real image. field_sd, field_px: spread and length in pixels of the slow field within
    an image; haze_sd, haze_px: those of the finer structure of out-of-focus light.
    """

    levels: list[float]
    field_sd: float
    field_px: float
    haze_sd: float
    haze_px: float

    @property
    def level(self) -> float:
        """The data set's reference level: the median over its images."""
        return float(np.median(self.levels))

    def draw(
        self,
        shape: tuple[int, ...],
        seed: int,
        index: int,
        level: float | None = None,
        origin: tuple[int, int] = (0, 0),
    ) -> np.ndarray:
        """The noise-free background of image `index`, (Y, X) or (Z, Y, X) float32: level, slow field, haze.

        level: default that of a random real image. The slow field is the same in every slice. origin: of this window
        (y, x) in the whole image: windows of one image, however cut, fit together.
        """
        if level is None:
            level = float(stream(seed, "background level", index).choice(self.levels))
        field = random_field(shape[-2:], self.field_px, (seed, "field", index), origin)
        background = np.full(shape, level, np.float32) + np.float32(self.field_sd) * field
        if self.haze_sd > 0:
            for z, plane in enumerate(background.reshape(-1, *shape[-2:])):
                plane += np.float32(self.haze_sd) * random_field(
                    shape[-2:], self.haze_px, (seed, "haze", index, z), origin
                )
        return background


@dataclass(frozen=True)
class Noise:
    """Camera noise: variance = read_variance + gain · (signal − offset), correlated over a few pixels.

    Its marginal is a gamma distribution, which has a photon count's variance and skew; its spatial correlation is
    that of the real background, carried as a unit-energy kernel (K, K) on the last two axes. Slices are independent.
    """

    offset: float
    read_variance: float
    gain: float
    kernel: list[list[float]]

    def variance(self, signal: np.ndarray) -> np.ndarray:
        """Variance at a noise-free signal, both in camera units."""
        return self.read_variance + self.gain * np.maximum(signal - self.offset, 0)

    def gaussian(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """A unit-variance Gaussian field with the noise's spatial correlation, float32, slice by slice."""
        kernel = np.asarray(self.kernel, np.float32)
        white = rng.standard_normal(shape, dtype=np.float32)
        if kernel.size == 1:
            return white
        return ndimage.convolve(white, kernel.reshape((1,) * (len(shape) - 2) + kernel.shape), mode="wrap")

    def add(self, signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One noisy exposure of a noise-free image (Y, X) or stack (Z, Y, X), camera units, float32."""
        mean = np.maximum(signal - self.offset, 1e-3).astype(np.float32)
        variance = np.maximum(self.variance(signal), 1e-6).astype(np.float32)
        k = mean**2 / variance  # the gamma's shape
        z = self.gaussian(signal.shape, rng)
        # Wilson & Hilferty (1931): the cube root of a gamma variable is nearly normal, unless k is small.
        relative = np.maximum(1 - 1 / (9 * k) + z / (3 * np.sqrt(k)), 0) ** 3
        few = k < _FEW_COUNTS[1]
        dark = few & (self.read_variance > self.gain * mean)  # all read noise, which is Gaussian
        few &= ~dark
        relative[few] = _few_counts(k[few], z[few])
        relative[dark] = 1 + z[dark] / np.sqrt(k[dark])
        return (self.offset + mean * relative).astype(np.float32)


_FEW_COUNTS = (0.05, 4.0)


def _few_counts(k: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Gamma variables of mean 1 and shape k at the quantiles of standard normal z, read off a table."""
    low, high = _FEW_COUNTS
    shapes, normals = np.geomspace(low, high, 48), np.linspace(-5, 5, 161)
    table = np.cbrt(special.gammaincinv(shapes[:, None], special.ndtr(normals)) / shapes[:, None])
    places = np.log(np.clip(k, low, high) / low) / np.log(high / low) * (len(shapes) - 1), (z + 5) / 10 * 160
    return ndimage.map_coordinates(table.astype(np.float32), places, order=1, mode="nearest") ** 3


def background_mask(image: np.ndarray, cells: np.ndarray | None = None, margin_px: int = 4) -> np.ndarray:
    """Pixels that show background only: away from `cells`, and no brighter than the darkest mode of the image.

    `cells` (same shape, bool) may be incomplete: cells nobody annotated are left out by their brightness.
    """
    sigma = (0,) * (image.ndim - 2) + (2, 2)
    smooth = ndimage.gaussian_filter(image.astype(np.float32), sigma)
    mode = half_sample_mode(smooth[(slice(None, None, 2),) * image.ndim].ravel())
    below = mode - smooth[smooth < mode]
    spread = 1.5 * np.median(below) if below.size else 1.0  # median of a half-normal is 0.67 sigma
    mask = smooth < mode + 4 * spread + 1e-6
    if cells is not None and cells.any():
        near = ndimage.binary_dilation(cells, ndimage.generate_binary_structure(cells.ndim, 1), iterations=margin_px)
        mask &= ~near
    return mask if mask.sum() > 100 else smooth <= np.percentile(smooth, 20)


def background_field(image: np.ndarray, mask: np.ndarray, length_px: float) -> np.ndarray:
    """Local background level of a plane (Y, X): the mean over background pixels, Gaussian-weighted over `length_px`."""
    step = max(int(length_px // 6), 1)  # the field is smooth: work on blocks of pixels
    sums = _blocks(np.where(mask, image, 0).astype(np.float32), step)
    counts = _blocks(mask.astype(np.float32), step)
    sigma = length_px / step
    level = ndimage.gaussian_filter(sums, sigma, mode="reflect") + 1e-3 * float(image[mask].mean())
    coarse = level / (ndimage.gaussian_filter(counts, sigma, mode="reflect") + 1e-3)
    offset = 0.5 / step - 0.5  # pixel centres in units of blocks
    return ndimage.affine_transform(coarse, np.full(2, 1 / step), offset, image.shape, order=1, mode="nearest")


def _blocks(plane: np.ndarray, step: int) -> np.ndarray:
    """Means over step × step blocks; blocks cut by the border are filled up by reflection."""
    pad = [(0, -n % step) for n in plane.shape]
    plane = np.pad(plane, pad, mode="symmetric")
    return plane.reshape(plane.shape[0] // step, step, -1, step).mean((1, 3))


def fit_camera(
    images: list[np.ndarray], masks: list[np.ndarray], cells: list[np.ndarray], length_px: float
) -> tuple[Background, Noise]:
    """Background and camera noise of real images; `masks` as from `background_mask`, `length_px` of the slow field.

    cells: where annotated cells are, bool, as large as the images.

    Background pixels give levels, slow field and, through the covariance of what is left, the noise (lags below 2
    pixels) and the haze (what stays correlated beyond). How the noise grows with brightness comes from inside the
    cells, by the 3×3 Laplacian-of-noise estimator (Immerkær, CVIU 64, 1996), which does not see smooth structure; what
    it misses of correlated noise is calibrated on the background, where the variance is known.
    """
    covariance, pairs = np.zeros((2 * _LAG + 1,) * 2), np.zeros((2 * _LAG + 1,) * 2)
    spreads, levels, laplacians, known = [], [], [], []
    for plane, inside, within in _planes(images, masks, cells):
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


def _planes(images, masks, cells):
    """Planes with enough background; of stacks every fifth, and those with annotated cells."""
    for image, mask, cell in zip(images, masks, cells, strict=True):
        shape = (-1, *image.shape[-2:])
        for n, (plane, inside, within) in enumerate(zip(*(a.reshape(shape) for a in (image, mask, cell)), strict=True)):
            if (n % 5 == 0 or within.any()) and inside.sum() > 100:
                yield plane.astype(np.float32), inside, within


def _ring(covariance: np.ndarray, lag: int) -> float:
    """Mean covariance at a lag along the two axes."""
    return float(np.mean([covariance[_LAG + lag, _LAG], covariance[_LAG, _LAG + lag]]))


def random_field(shape: tuple[int, int], length_px: float, name: tuple, origin: tuple[int, int] = (0, 0)) -> np.ndarray:
    """A window of an endless Gaussian random field of unit variance and correlation length `length_px`, float32.

    White knots, 0.7 lengths apart, are smoothed and interpolated between. They are drawn in blocks, each from its own
    stream of `name` (seed, …), so that a field can be evaluated piece by piece.
    """
    step = max(0.7 * length_px, 1.0)
    sigma = length_px / step
    margin = int(np.ceil(4 * sigma)) + 2
    start = [int(np.floor(o / step)) - margin for o in origin]
    stop = [int(np.ceil((o + n) / step)) + margin + 1 for o, n in zip(origin, shape, strict=True)]
    knots = ndimage.gaussian_filter(_white(start, stop, name), sigma, truncate=4)
    knots *= 2 * np.sqrt(np.pi) * sigma  # a Gaussian of width σ keeps 1 / (4πσ²) of white noise's variance
    offset = np.array(origin) / step - start
    return ndimage.affine_transform(knots, np.full(2, 1 / step), offset, tuple(shape), order=3, mode="nearest")


def _white(start: list[int], stop: list[int], name: tuple) -> np.ndarray:
    """White noise at the integer places from `start` to `stop`, the same wherever they are asked for."""
    noise = np.empty([b - a for a, b in zip(start, stop, strict=True)], np.float32)
    first, last = [a // _BLOCK for a in start], [(b - 1) // _BLOCK for b in stop]
    for by in range(first[0], last[0] + 1):
        for bx in range(first[1], last[1] + 1):
            block = stream(*name, by + _FAR, bx + _FAR).standard_normal((_BLOCK, _BLOCK), dtype=np.float32)
            here, there = [], []
            for b, a, z in zip((by, bx), start, stop, strict=True):
                low, high = max(a, b * _BLOCK), min(z, (b + 1) * _BLOCK)
                here.append(slice(low - a, high - a))
                there.append(slice(low - b * _BLOCK, high - b * _BLOCK))
            noise[tuple(here)] = block[tuple(there)]
    return noise


def half_sample_mode(values: np.ndarray) -> float:
    """The mode of a sample, by repeatedly keeping its densest half (Bickel & Frühwirth, CSDA 50, 2006)."""
    values = np.sort(np.asarray(values, float).ravel())
    if len(values) > 50_000:
        values = values[stream(0, "half-sample mode").choice(len(values), 50_000, replace=False, shuffle=False)]
        values.sort()
    while len(values) > 3:
        half = (len(values) + 1) // 2
        start = int(np.argmin(values[half - 1 :] - values[: len(values) - half + 1]))
        values = values[start : start + half]
    return float(values.mean())


def _correlate(plane: np.ndarray) -> np.ndarray:
    """Sums of products at every lag up to _LAG, by FFT."""
    shape = [fft.next_fast_len(n + _LAG) for n in plane.shape]
    spectrum = np.abs(fft.rfft2(plane, shape)) ** 2
    full = fft.irfft2(spectrum, shape)
    lags = np.arange(-_LAG, _LAG + 1)
    return full[np.ix_(lags, lags)]


def _slope(levels: np.ndarray, variances: np.ndarray, level0: float, variance0: float) -> float:
    """Growth of variance per unit of level above the background: the median over cells, some of which are rough."""
    bright = levels > level0 + np.sqrt(variance0)
    slopes = (variances[bright] - variance0) / (levels[bright] - level0)
    return max(float(np.median(slopes)), 0.0) if len(slopes) else 0.0


def _kernel(covariance: np.ndarray) -> np.ndarray:
    """A kernel of unit energy whose autocorrelation is the given covariance, made positive semi-definite."""
    spectrum = np.maximum(fft.fft2(fft.ifftshift(covariance)).real, 0)
    kernel = fft.fftshift(fft.ifft2(np.sqrt(spectrum)).real)
    kernel[np.abs(kernel) < 0.02 * np.abs(kernel).max()] = 0
    kernel = kernel[_LAG - 1 : _LAG + 2, _LAG - 1 : _LAG + 2]
    return kernel / np.sqrt((kernel**2).sum())
