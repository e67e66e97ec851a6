"""Quantities drawn from quantiles: one number is a constant, two are a uniform range, many a distribution."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special


def draw(rng: np.random.Generator, quantiles: Sequence[float], size: int) -> npt.NDArray[Any]:
    """`size` values, float64, of the distribution whose evenly spaced quantiles these are.

    Each value is the linear interpolation of the quantiles at a uniformly random rank.

    >>> draw(np.random.default_rng(0), (3.0,), 2).tolist()
    [3.0, 3.0]
    >>> values = draw(np.random.default_rng(0), (0.0, 1.0, 10.0), 10_000)
    >>> [round(float(np.quantile(values, q)), 1) for q in (0.25, 0.5)]
    [0.5, 1.0]
    """
    return at_rank(quantiles, rng.random(size))


def at_rank(quantiles: Sequence[float], rank: float | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What a share `rank` of the distribution is smaller than.

    >>> at_rank((3.0,), 0.5).tolist(), at_rank((1.0, 2.0, 4.0), 0.75).tolist()
    (3.0, 3.0)
    """
    count = max(len(quantiles), 2)
    return np.asarray(np.interp(rank, np.linspace(0, 1, count), np.broadcast_to(quantiles, count)))


def scores(rank: float | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Normal scores of ranks, 0 and 1 among them.

    >>> scores(np.array([0.5, 0.975])).round(2).tolist()
    [0.0, 1.96]
    """
    return np.asarray(special.ndtri(np.clip(rank, 1e-9, 1 - 1e-9)))


def tied(
    rank: npt.NDArray[Any], *, by: float = 0.0, cause: float = 0.5, shared: float = 0.0, image: float = 0.0
) -> npt.NDArray[Any]:
    """Ranks of an image's cells (N,) that are not each by itself: as normal scores their correlation with the rank
    `cause` is `by`, and of what is left of their variance a share is the whole image's, whose own score is `image`.

    >>> rank = np.array([0.1, 0.9])
    >>> tied(rank).tolist(), tied(rank, by=-1.0, cause=0.9).round(3).tolist(), tied(rank, shared=1.0).tolist()
    ([0.1, 0.9], [0.1, 0.1], [0.5, 0.5])
    """
    if not by and not shared:
        return rank
    left = np.sqrt(1 - by**2)
    return np.asarray(
        special.ndtr(by * scores(cause) + left * (np.sqrt(shared) * image + np.sqrt(1 - shared) * scores(rank)))
    )


def check_quantiles(
    name: str,
    quantiles: Sequence[float],
    *,
    above: float | None = None,
    least: float = -math.inf,
    most: float = math.inf,
) -> None:
    """Raises ValueError unless these are one or more finite numbers that do not fall, in the bounds.

    above: they are larger than so much; least, most: they may be as small, as large.

    >>> check_quantiles("radius_um", (6.0, 4.0), above=0)
    Traceback (most recent call last):
    ValueError: radius_um must be numbers that do not fall: one, a range of two, or quantiles; got 6 4
    """
    shown = " ".join(f"{value:g}" for value in quantiles) or "none"
    if not quantiles or not all(map(math.isfinite, quantiles)) or list(quantiles) != sorted(quantiles):
        raise ValueError(f"{name} must be numbers that do not fall: one, a range of two, or quantiles; got {shown}")
    if above is not None and quantiles[0] <= above:
        raise ValueError(f"{name} must be above {above:g}, got {shown}")
    if quantiles[0] < least or quantiles[-1] > most:
        bounds = (
            f"from {least:g}"
            if most == math.inf
            else f"up to {most:g}"
            if least == -math.inf
            else (f"from {least:g} to {most:g}")
        )
        raise ValueError(f"{name} must be {bounds}, got {shown}")
