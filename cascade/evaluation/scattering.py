"""Wavelet scattering: features of images that nobody has trained, to judge what a trained network has made.

Filters, padding and order of operations are those of kymatio's `Scattering2D` (Andreux et al., JMLR 21, 2020, Section 2
and its source), so that figures can be compared with other people's; coefficients are Bruna & Mallat's (IEEE TPAMI 35,
2013, Eqs. 8-12).
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import fft

SCALES, ORIENTATIONS = 3, 6
_XI, _SIGMA, _SLANT = 0.75 * np.pi, 0.8, 4 / ORIENTATIONS  # of the finest Morlet wavelet: frequency, width, elongation
_LEAST = 1e-3  # of a coefficient's typical value: below that is nothing


def scattering(images: npt.NDArray[Any], *, batch_size: int = 16) -> npt.NDArray[np.float32]:
    """Spatial means (N, 127) of the scattering coefficients, orders 0 to 2, of images (N, H, W).

    Order 0 is the image's light, order 1 that of its detail by scale and orientation, |x ∗ ψ₁|, order 2 that of what
    the detail is gathered in, ||x ∗ ψ₁| ∗ ψ₂|, ψ₂ coarser than ψ₁; all local means, by a Gaussian of 3.2 pixels. Names
    are those of `names`. Raises ValueError for images of less than 16 pixels a side.

    >>> scattering(np.zeros((2, 32, 32))).shape
    (2, 127)
    """
    if images.ndim != 3 or min(images.shape[1:]) < 2 << SCALES:
        raise ValueError(f"images must be (N, H, W) of at least {2 << SCALES} pixels a side, got {images.shape}")
    parts = torch.from_numpy(np.asarray(images, np.float32)).split(batch_size)
    return torch.cat([_coefficients(part) for part in parts]).numpy() if len(images) else np.zeros((0, 127), np.float32)


def scattering_features(images: npt.NDArray[Any], like: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Logarithms of scattering coefficients (N, 127), each in units of its spread among those of other images.

    images, like: coefficients as of `scattering`. A set and the same set twice as bright differ in every feature by
    log 2 over that feature's spread, so a gain that is off is seen in units of how far gains differ within `like`.
    """
    least = _LEAST * np.median(like, 0) + np.finfo(np.float32).tiny
    reference = np.log(np.maximum(like, least))
    spread = reference.std(0)
    return (np.log(np.maximum(images, least)) - reference.mean(0)) / np.where(spread > 0, spread, 1)


def names() -> list[str]:
    """What each coefficient is: scale of ψ₁ (0 is the finest) and its orientation, and those of ψ₂.

    >>> names()[:2], names()[-1]
    (['light', '0.0'], '1.5 2.5')
    """
    turns = range(ORIENTATIONS)
    first = [f"{j}.{t}" for j in range(SCALES) for t in turns]
    second = [f"{j}.{t} {k}.{u}" for j, k in _pairs() for t in turns for u in turns]
    return ["light", *first, *second]


def _pairs() -> Iterator[tuple[int, int]]:
    """Scales of the two wavelets of second-order coefficients."""
    return ((j, k) for j in range(SCALES) for k in range(j + 1, SCALES))


@torch.inference_mode()
def _coefficients(images: torch.Tensor) -> torch.Tensor:
    """(B, 127) of images (B, H, W)."""
    shape = (images.shape[-2], images.shape[-1])
    psi, weights = _filters(shape)
    pad = [(n - m) // 2 for n, m in zip(_padded(shape), shape, strict=True) for _ in range(2)]
    x = torch.nn.functional.pad(images[:, None], (pad[2], pad[3], pad[0], pad[1]), mode="reflect")
    spectrum = torch.fft.fft2(x)  # (B, 1, H', W')
    orders = [(x * weights[0]).sum((-2, -1))]
    detail = [torch.fft.ifft2(_folded(spectrum * psi[j], 1 << j)).abs() for j in range(SCALES)]
    orders += [(one * weights[j]).sum((-2, -1)) for j, one in enumerate(detail)]
    for j, k in _pairs():
        again = torch.fft.fft2(detail[j])[:, :, None] * _kept(psi[k], 1 << j)  # (B, 6, 6, H', W')
        second = torch.fft.ifft2(_folded(again, 1 << (k - j))).abs()
        orders.append((second * weights[k]).sum((-2, -1)).flatten(1))
    return torch.cat(orders, 1)


def _folded(spectrum: torch.Tensor, step: int) -> torch.Tensor:
    """The spectrum of every `step`-th pixel."""
    *rest, height, width = spectrum.shape
    return spectrum.reshape(*rest, step, height // step, step, width // step).mean((-4, -2))


def _kept(spectrum: torch.Tensor, step: int) -> torch.Tensor:
    """A filter's spectrum up to the highest frequency that there is where only every `step`-th pixel is left."""
    for axis in (-2, -1):
        half = spectrum.shape[axis] // (2 * step)
        low, high = spectrum.narrow(axis, 0, half), spectrum.narrow(axis, spectrum.shape[axis] - half, half)
        spectrum = torch.cat([low, high], axis)
    return spectrum


def _padded(shape: tuple[int, int]) -> tuple[int, int]:
    step = 1 << SCALES
    height, width = (((n + step) // step + 1) * step for n in shape)
    return height, width


@lru_cache(maxsize=8)
def _filters(shape: tuple[int, int]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Spectra of the wavelets, (6, H', W') by scale, and for each scale what every pixel counts in the local means."""
    wavelets, smooth = filter_bank(_padded(shape))
    weights = []
    for j in range(SCALES):
        seen = np.zeros([n >> j for n in _padded(shape)])
        step = 1 << (SCALES - j)  # means are looked at every 2^J pixels, those of the padding are left out
        seen[tuple(slice(step, n - step, step) for n in seen.shape)] = 1
        low = _kept(torch.from_numpy(smooth), 1 << j).numpy()
        weights.append(torch.from_numpy(fft.ifft2(fft.fft2(seen / seen.sum()) * low).real.astype(np.float32)))
    return [torch.from_numpy(one.astype(np.float32)) for one in wavelets], weights


def filter_bank(shape: tuple[int, int]) -> tuple[list[npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    """Spectra of the Morlet wavelets, (6, H, W) for each scale, and of the Gaussian (H, W) that takes local means.

    Both are real; wavelets have no mean, the Gaussian's spectrum is 1 at frequency 0.
    """
    angles = [(ORIENTATIONS // 2 - 1 - n) * np.pi / ORIENTATIONS for n in range(ORIENTATIONS)]
    wavelets = [np.stack([_morlet(shape, _SIGMA * 2**j, angle, _XI / 2**j) for angle in angles]) for j in range(SCALES)]
    return wavelets, fft.fft2(_gabor(shape, _SIGMA * 2 ** (SCALES - 1), 0.0, 0.0, 1.0)).real


def _morlet(shape: tuple[int, int], sigma: float, angle: float, frequency: float) -> npt.NDArray[np.float64]:
    wave, bell = (_gabor(shape, sigma, angle, xi, _SLANT) for xi in (frequency, 0.0))
    return fft.fft2(wave - wave.sum() / bell.sum() * bell).real


def _gabor(
    shape: tuple[int, int], sigma: float, angle: float, frequency: float, slant: float
) -> npt.NDArray[np.complex128]:
    """A wave of a frequency (radians per pixel) under a Gaussian, `slant` times as narrow along the wave as across it;
    periodic, with its middle at pixel 0."""
    total = np.zeros(shape, np.complex128)
    cos, sin = np.cos(angle), np.sin(angle)
    for ny in range(-2, 3):
        for nx in range(-2, 3):
            y, x = np.mgrid[ny * shape[0] : (ny + 1) * shape[0], nx * shape[1] : (nx + 1) * shape[1]]
            along, across = y * cos + x * sin, x * cos - y * sin
            total += np.exp(-(along**2 + (slant * across) ** 2) / (2 * sigma**2) + 1j * frequency * along)
    return total * slant / (2 * np.pi * sigma**2)
