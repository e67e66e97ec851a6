"""A few of many, evenly apart."""

import numpy as np


def evenly(count: int, limit: int) -> list[int]:
    """At most `limit` of the indices 0 … count - 1, from the first to the last.

    >>> evenly(10, 4), evenly(2, 4)
    ([0, 3, 6, 9], [0, 1])
    """
    return [int(n) for n in np.linspace(0, count - 1, min(limit, count))]
