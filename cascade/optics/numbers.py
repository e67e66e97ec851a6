"""Numbers that a file holds, and whether they can be what they are said to be."""

import math

import numpy as np


def check_dtype(name: str) -> None:
    """Raise ValueError unless numpy has numbers of this name."""
    try:
        known = isinstance(name, str) and np.dtype(name).kind in "uif"
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"dtype must be a numpy type of numbers, such as uint16, got {name!r}")


def check_rows(name: str, rows: object) -> None:
    """Raise ValueError unless a list holds rows of finite numbers, all as long as the first."""
    if not isinstance(rows, list | tuple) or not rows:
        raise ValueError(f"{name} must be rows of finite numbers, got {str(rows)[:60]}")
    for row in rows:
        check_numbers(f"each row of {name}", row, count=len(rows[0]) if isinstance(rows[0], list | tuple) else None)


def check_numbers(
    name: str,
    values: object,
    *,
    count: int | None = None,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    whole: bool = False,
) -> None:
    """Raise ValueError unless a list holds finite numbers, at least one, or `count` of them, all within bounds.

    >>> check_numbers("spacing_um", [0.5, -0.1], above=0)
    Traceback (most recent call last):
    ...
    ValueError: spacing_um must be finite numbers above 0, got [0.5, -0.1]
    """
    numbers = list(values) if isinstance(values, list | tuple) else []
    kind = int if whole else int | float
    sound = all(isinstance(n, kind) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)
    sound = sound and all(least <= n <= most and n > above for n in numbers)
    if not sound or not numbers or len(numbers) != (len(numbers) if count is None else count):
        bounds = [f"above {above:g}"] if above > -math.inf else []
        bounds += [f"of {least:g} or more"] if least > -math.inf and most == math.inf else []
        bounds += [f"from {least:g} to {most:g}"] if least > -math.inf and most < math.inf else []
        what = " ".join(["whole numbers" if whole else "finite numbers", *bounds])
        wanted = what if count is None else f"{count} {what}"
        raise ValueError(f"{name} must be {wanted}, got {str(values)[:60]}")
