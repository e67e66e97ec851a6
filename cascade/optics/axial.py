"""How light and size of a cell go along z."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.optics.haze import haze_reach, spread_haze

_MIDDLE_HALF = 0.957  # the mean of √(1 − u²) over |u| < 1/2: an ellipsoid's diameter at relative height u


@dataclass(frozen=True)
class Axial:
    """Cells along z. Relative height u is 0 in a cell's middle plane and 1 at its top and bottom.

    elongation: mean and spread of (height / diameter of the middle plane), in µm/µm, of cells of `diameter_um`.
    profile: light at relative heights `u` as a fraction of the middle plane's; beyond u = 1 it is out-of-focus light.
    section: diameter of outlines cut in the middle half of cells (of cells in one layer of all outlines), as a fraction
        of the middle plane's.
    glow, glow_um: share of the light that cells give to what lies around them, and how far it spreads (a Gaussian's σ).
    haze, haze_um, haze_slope: the same of light that is far out of focus, with σ along z and in the plane in focus, and
        by how many µm the latter grows for each µm out of it, see `spread_haze`.
    """

    elongation: tuple[float, float]
    u: list[float]
    profile: list[float]
    diameter_um: float = 0.0
    section: float = _MIDDLE_HALF
    glow: float = 0.0
    glow_um: float = 0.0
    haze: float = 0.0
    haze_um: tuple[float, float] = (0.0, 0.0)
    haze_slope: float = 0.0

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
        """Cells' light above background (Z, Y, X) float32, and between and around them no less than stray light.

        It does not add up: what was measured of cells' light, in them and around them, had the stray light in it.
        """
        return light if self.glow == self.haze == 0 else np.maximum(light, self.stray(light, spacing_um))

    def stray(self, light: npt.NDArray[Any], spacing_um: tuple[float, ...]) -> npt.NDArray[Any]:
        """Glow and haze of cells' light (Z, Y, X), float32."""
        parts = []
        if self.glow > 0:
            parts.append(np.float32(self.glow) * spread_light(light, self.glow_um, spacing_um))
        if self.haze > 0:
            parts.append(np.float32(self.haze) * spread_haze(light, self.haze_um, self.haze_slope, spacing_um))
        return np.sum(parts, 0) if parts else np.zeros_like(light)

    def glow_reach(self, spacing_um: tuple[float, ...], depth: int) -> int:
        """How many pixels in the plane the glow of a cell goes beyond it, in a stack of so many planes."""
        near = int(np.ceil(_GLOW_SIGMAS * self.glow_um / min(spacing_um[-2:]))) + 1 if self.glow else 0
        return max(near, haze_reach(self.haze_um, self.haze_slope, spacing_um, depth) if self.haze else 0)


_GLOW_SIGMAS = 3  # beyond that it is nothing


def spread_light(
    light: npt.NDArray[Any], length_um: float | tuple[float, ...], spacing_um: Sequence[float]
) -> npt.NDArray[Any]:
    """Light convolved with a Gaussian of σ `length_um`, or one σ an axis."""
    sigma = np.asarray(length_um) / np.array(spacing_um)
    return ndimage.gaussian_filter(light, sigma, mode="constant", truncate=_GLOW_SIGMAS)
