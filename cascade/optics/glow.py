"""The light that cells of a plane give to what lies around them, beyond their halo."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.optics.axial import spread_light
from cascade.optics.field import random_field

_SIGMAS = 3  # beyond that it is nothing, see `spread_light`


@dataclass(frozen=True)
class Glow:
    """Stray light of planes: cells' light, spread by a Gaussian, and its roughness.

    share, length_um: of the cells' light, and σ of how far it spreads. roughness, roughness_px: spread of the stray
    light's fine structure, as a share of it, and the correlation length of that in pixels.
    """

    share: float
    length_um: float
    roughness: float = 0.0
    roughness_px: float = 1.0

    def add(
        self,
        light: npt.NDArray[Any],
        spacing_um: tuple[float, ...],
        seed: int,
        index: int,
        origin: tuple[int, int] = (0, 0),
    ) -> npt.NDArray[Any]:
        """Cells' light above background (Y, X) of image `index`, no less than the stray light, and its structure.

        Light does not add up: what was measured of cells had the stray light in it. origin: of this window (y, x) in
        the whole image: windows of one image fit together.
        """
        stray = np.float32(self.share) * spread_light(light, self.length_um, spacing_um)
        seen = np.maximum(light, stray)
        if self.roughness > 0:
            field = random_field(light.shape, self.roughness_px, (seed, "stray light", index), origin=origin)
            seen += np.float32(self.roughness) * stray * field
        return seen

    def reach(self, spacing_um: tuple[float, ...]) -> int:
        """How many pixels the stray light of a cell goes beyond it."""
        return int(np.ceil(_SIGMAS * self.length_um / min(spacing_um))) + 1
