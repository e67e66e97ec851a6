"""Light of a stack that is far out of focus, spread by the microscope's double cone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

_SIGMAS = 3  # beyond that it is nothing
_ROWS = 32  # of the transform that are worked on at once


def spread_haze(
    light: npt.NDArray[Any], length_um: Sequence[float], slope: float, spacing_um: Sequence[float]
) -> npt.NDArray[Any]:
    """Light (Z, Y, X) as it is seen far out of focus, float32, in the same units.

    It is convolved with a kernel whose sum is 1: along z a Gaussian of σ `length_um[0]`; in each plane a Gaussian whose
    σ is `length_um[1]` in focus and grows by `slope` µm for each µm out of it, since all the light that enters the
    objective's cone is in every plane of it. There is none beyond the stack. It is smooth, and computed on blocks of
    pixels half as wide as the σ in focus.
    """
    sides = spacing_um[1:]
    blocks = [max(int((0.5 * length_um[1] / side - 1) // 2) * 2 + 1, 1) for side in sides]  # odd: they have a middle
    coarse = np.asarray(light, np.float32)
    for axis, n in enumerate(blocks, 1):
        if n > 1:
            coarse = np.add.reduceat(coarse, np.arange(0, light.shape[axis], n), axis) / np.float32(n)
    depth, planes = len(light), np.arange(2 * len(light))
    away_um = np.minimum(planes, 2 * depth - planes) * spacing_um[0]
    variance = cone_sigma(length_um[1], slope, away_um) ** 2
    height = np.exp(-0.5 * (away_um / length_um[0]) ** 2) * spacing_um[0] / (np.sqrt(2 * np.pi) * length_um[0])
    size, damping = [], []
    for axis, (n, side) in enumerate(zip(blocks, sides, strict=True), 1):
        margin = int(np.ceil(_SIGMAS * float(variance.max()) ** 0.5 / (n * side)))
        size.append(fft.next_fast_len(coarse.shape[axis] + margin + 1, real=True))
        waves = fft.fftfreq(size[-1], n * side) if axis == 1 else fft.rfftfreq(size[-1], n * side)
        blur = (n * side / 2) ** 2 if n > 1 else 0.0  # of blocks, and of lines between their middles
        damping.append(np.exp(-0.5 * np.multiply.outer(variance - blur, (2 * np.pi * waves) ** 2)).astype(np.float32))
    waves = fft.rfft2(coarse, size)
    for start in range(0, size[0], _ROWS):
        rows = slice(start, start + _ROWS)
        kernel = height.astype(np.float32)[:, None, None] * damping[0][:, rows, None] * damping[1][:, None]
        seen = fft.fft(waves[:, rows], 2 * depth, axis=0) * fft.fft(kernel, axis=0)
        waves[:, rows] = fft.ifft(seen, axis=0)[:depth]
    spread = np.roll(fft.irfft2(waves, size), 1, (1, 2))  # the padding holds what lies just before the first block
    for axis, n in enumerate(blocks, 1):
        spread = np.repeat(spread.take(range(coarse.shape[axis] + 2), axis), n, axis)
        spread = ndimage.uniform_filter1d(spread, n, axis) if n > 1 else spread
        spread = spread.take(range(n, n + light.shape[axis]), axis)
    return np.maximum(spread, 0)


def cone_sigma(focus_um: float, slope: float, away_um: Any) -> npt.NDArray[Any]:
    """σ in the plane, µm, of light that is so many µm out of focus."""
    return np.asarray(np.hypot(focus_um, slope * np.asarray(away_um)))


def haze_reach(length_um: Sequence[float], slope: float, spacing_um: Sequence[float], depth: int) -> int:
    """How many pixels in the plane the haze of a cell goes beyond it, in a stack of so many planes."""
    away_um = min((depth - 1) * spacing_um[0], _SIGMAS * length_um[0])
    return int(np.ceil(_SIGMAS * float(cone_sigma(length_um[1], slope, away_um)) / min(spacing_um[1:]))) + 1
