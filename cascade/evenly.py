"""A few of many, evenly apart."""

import numpy as np


def evenly(count: int, limit: int) -> list[int]:
    """At most `limit` of the indices 0 … count - 1, from the first to the last.

    >>> evenly(100, 4), evenly(3, 4)
    ([0, 33, 66, 99], [0, 1, 2])
    """
    return [int(n) for n in np.linspace(0, count - 1, min(limit, count))]
