"""How light and size of a cell go along z."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

_MIDDLE_HALF = 0.957  # the mean of √(1 − u²) over |u| < 1/2: an ellipsoid's diameter at relative height u


@dataclass(frozen=True)
class Axial:
    """Cells along z. Relative height u is 0 in a cell's middle plane and 1 at its top and bottom.

    elongation: mean and spread of (height / diameter of the middle plane), in µm/µm, of cells of `diameter_um`.
    profile: light at relative heights `u` as a fraction of the middle plane's; beyond u = 1 it is out-of-focus light.
    section: diameter of outlines cut in the middle half of cells, as a fraction of the middle plane's.
    glow, glow_um: share of the light that cells give to what lies around them, and how far it spreads (a Gaussian's σ).
    """

    elongation: tuple[float, float]
    u: list[float]
    profile: list[float]
    diameter_um: float = 0.0
    section: float = _MIDDLE_HALF
    glow: float = 0.0
    glow_um: float = 0.0

    def elongations(self, diameters_um: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Mean elongation of cells whose middle planes have these diameters.

        Where cells appear taller than wide it is the microscope that blurs them, by as much whatever their size:
        height = diameter + blur. Flat ones are taken to be flat in proportion.
        """
        mean = self.elongation[0]
        if mean <= 1 or self.diameter_um <= 0:
            return np.full(len(diameters_um), mean)
        blur_um = (mean - 1) * self.diameter_um
        return np.clip(1 + blur_um / np.maximum(diameters_um, 1e-6), 0.5 * mean, 1.5 * mean)

    def at(self, u: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Relative light at relative heights |u|; 0 beyond the measured range."""
        return np.interp(np.abs(u), self.u, self.profile, right=0.0)

    def with_glow(self, light: npt.NDArray[Any], spacing_um: tuple[float, ...]) -> npt.NDArray[Any]:
        """Cells' light above background (Z, Y, X) float32, and between and around them no less than their glow.

        It does not add up: what was measured of cells' light, in them and around them, had the glow in it.
        """
        if self.glow == 0:
            return light
        return np.maximum(light, np.float32(self.glow) * spread_light(light, self.glow_um, spacing_um))

    def glow_reach(self, spacing_um: tuple[float, ...]) -> int:
        """How many pixels in the plane the glow of a cell goes beyond it."""
        return int(np.ceil(_GLOW_SIGMAS * self.glow_um / min(spacing_um[-2:]))) + 1 if self.glow else 0


_GLOW_SIGMAS = 3  # beyond that it is nothing


def spread_light(light: npt.NDArray[Any], length_um: float, spacing_um: Sequence[float]) -> npt.NDArray[Any]:
    sigma = length_um / np.array(spacing_um)
    return ndimage.gaussian_filter(light, sigma, mode="constant", truncate=_GLOW_SIGMAS)
