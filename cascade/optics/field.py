"""Endless Gaussian random fields, the same wherever they are evaluated."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.rng import stream

_BLOCK, _FAR = 64, 1 << 20  # of knots drawn at once; keeps names of blocks non-negative

StreamName = tuple[int, *tuple[int | str, ...]]
"""A seed, and what is drawn with it."""


def random_field(
    shape: tuple[int, ...],
    length_px: float,
    name: tuple[int, *tuple[int | str, ...]],
    *,
    origin: tuple[int, int] = (0, 0),
) -> npt.NDArray[Any]:
    """A window (Y, X) of an endless Gaussian random field of unit variance and correlation length `length_px`, float32.

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


def _white(start: list[int], stop: list[int], name: StreamName) -> npt.NDArray[Any]:
    """White noise at the integer places from `start` to `stop`, the same wherever they are asked for."""
    noise = np.empty([b - a for a, b in zip(start, stop, strict=True)], np.float32)
    first, last = [a // _BLOCK for a in start], [(b - 1) // _BLOCK for b in stop]
    for by in range(first[0], last[0] + 1):
        for bx in range(first[1], last[1] + 1):
            block = stream(name[0], *name[1:], by + _FAR, bx + _FAR).standard_normal((_BLOCK, _BLOCK), dtype=np.float32)
            here, there = [], []
            for b, a, z in zip((by, bx), start, stop, strict=True):
                low, high = max(a, b * _BLOCK), min(z, (b + 1) * _BLOCK)
                here.append(slice(low - a, high - a))
                there.append(slice(low - b * _BLOCK, high - b * _BLOCK))
            noise[tuple(here)] = block[tuple(there)]
    return noise
