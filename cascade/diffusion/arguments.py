"""Checks of what a pipeline is called with."""

import math

import numpy as np
import numpy.typing as npt
import torch


def check_count(name: str, value: int | None, least: int = 1) -> None:
    """Raise ValueError unless `value` is a whole number from `least` on, or None where the caller chooses.

    >>> check_count("num_masks", 0)
    Traceback (most recent call last):
    ...
    ValueError: num_masks must be a whole number from 1 on, got 0
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number from {least} on, got {value!r}")


def check_number(name: str, value: float, above: float = -math.inf) -> None:
    """Raise ValueError unless `value` is finite and above a bound."""
    if not (math.isfinite(value) and value > above):
        wanted = "a finite number" if above == -math.inf else f"a finite number above {above:g}"
        raise ValueError(f"{name} must be {wanted}, got {value}")


def check_finite(name: str, values: npt.ArrayLike) -> None:
    """Raise ValueError, with its place, if an array holds NaN or an infinite value."""
    bad = np.argwhere(~np.isfinite(np.asarray(values, float)))
    if len(bad):
        place = ", ".join(map(str, bad[0]))
        raise ValueError(f"{name} must be finite, got {np.asarray(values)[tuple(bad[0])]} at [{place}]")


def check_generator(generator: torch.Generator | None) -> None:
    """Raise TypeError unless `generator` is a torch generator, or None."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator, got {generator!r}: torch.Generator().manual_seed(…) makes one"
        )
