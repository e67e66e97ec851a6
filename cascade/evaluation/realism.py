"""How far simulated populations are from real ones, statistic by statistic, in units of the real spread."""

import numpy as np

from cascade.data.measures import Measures
from cascade.evaluation.population import in_spreads
from cascade.rng import stream

STATISTICS = {
    "size": "radius_um",
    "elongation": "elongation",
    "solidity": "solidity",
    "axial_elongation": "axial_elongation",
    "nearest_neighbour": "nearest_um",
    "touching": "touching",
    "cells_per_image": "cells_per_image",
}
"""By name, what is compared of `Measures`."""


def realism(made: Measures, real: Measures) -> dict[str, float | None]:
    """Wasserstein distances of what was made to the real, each in standard deviations of the real; by name.

    None where either has no value, or the real ones no spread, as in planes, which have no elongation along z.

    >>> values = np.array([1.0, 2.0, 3.0])
    >>> real = Measures(**dict.fromkeys(Measures.__dataclass_fields__, values))
    >>> made = Measures(**dict.fromkeys(Measures.__dataclass_fields__, values + values.std()))
    >>> realism(real, real)["size"], round(realism(made, real)["touching"], 6)
    (0.0, 1.0)
    """
    return _distances(made, real, real)


def realism_floor(real: Measures, *, seed: int = 0, draws: int = 20) -> dict[str, float | None]:
    """What chance alone gives: the distance of one random half of the real cells to the other, mean over draws."""
    rng = stream(seed, "realism floor")
    found = [_distances(*real.halves(rng), real) for _ in range(draws)]
    floor: dict[str, float | None] = {}
    for name in STATISTICS:
        values = [one[name] for one in found]
        known = [value for value in values if value is not None]
        floor[name] = float(np.mean(known)) if known else None
    return floor


def _distances(a: Measures, b: Measures, spread: Measures) -> dict[str, float | None]:
    return {
        name: in_spreads(getattr(a, field), getattr(b, field), getattr(spread, field))
        for name, field in STATISTICS.items()
    }
