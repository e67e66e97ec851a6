"""The light that a microscope spreads around a cell in its plane."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Halo:
    """Light outside a cell's outline as a fraction of that just inside the nearest rim, at 1, 2, … pixels from it.

    >>> Halo([0.5, 0.25]).at(np.array([1, 1.5, 2, 3])).tolist()
    [0.5, 0.375, 0.25, 0.0]
    """

    profile: list[float]

    @property
    def radius_px(self) -> int:
        """Beyond this distance a cell leaves no light."""
        return len(self.profile)

    def at(self, distance_px: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The profile at a distance to the nearest pixel inside, linear in between, 0 beyond its end."""
        steps = np.arange(len(self.profile) + 1)
        return np.interp(distance_px, steps + 1, [*self.profile, 0.0]).astype(np.float32)


def fade(distance: npt.NDArray[Any], reach: float) -> npt.NDArray[Any]:
    """What is kept of a cell's light at a distance from it: all within two thirds of `reach`, nothing beyond it."""
    return np.clip(3 - 3 * distance / (reach + 1), 0, 1)
