"""Fitting the light that lies between cells of planes, and telling where there is least of it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.data.camera import LAG, correlate, ring
from cascade.optics.axial import spread_light
from cascade.optics.foreground import background_field
from cascade.optics.glow import Glow

_REACH = 0.45  # of a cell's diameter: σ of how far light goes
_THIRDS = (33, 67)  # percentiles: places with least and most light around
_MAX_SHARE = 0.4  # more is no glow but cells that nobody annotated
_FEW_PX = 300  # places that do not tell
_OUTLIER = 6  # standard deviations: debris is no stray light


def around(
    image: npt.NDArray[Any], mask: npt.NDArray[Any], length_um: float, spacing_um: tuple[float, ...]
) -> npt.NDArray[Any]:
    """The light of all that is not background, spread over `length_um`, camera units; shapes (Y, X) or (Z, Y, X).

    mask: where there is background only.
    """
    light = np.where(mask, 0, np.maximum(image - np.median(image[mask]), 0)).astype(np.float32)
    return spread_light(light, length_um, spacing_um)


def least_lit(spread: npt.NDArray[Any], mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The third of a mask's pixels that has least light around, by `around`; at least a hundred pixels."""
    quiet: npt.NDArray[Any] = mask & (spread <= np.percentile(spread[mask], _THIRDS[0]))
    return quiet if quiet.sum() > 100 else mask


def fit_glow(
    images: list[npt.NDArray[Any]],
    masks: list[npt.NDArray[Any]],
    diameter_um: float,
    field_px: float,
    spacing_um: tuple[float, ...],
) -> Glow | None:
    """Stray light of planes (Y, X), from how background pixels with most cells around differ from those with least.

    By how much brighter they are in the median; and by how much more they covary at two and at four pixels, where
    camera noise does not, once a smooth field of `field_px` is taken off: stray light's structure is taken to be
    proportional to it. Medians over images, since few have no debris. None where nothing is seen.
    """
    length_um, found = _REACH * diameter_um, []
    for image, mask in zip(images, masks, strict=True):
        spread = around(image, mask, length_um, spacing_um)
        low, high = np.percentile(spread[mask], _THIRDS)
        parts = [mask & (spread <= low), mask & (spread >= high)]
        if min(part.sum() for part in parts) < _FEW_PX or high <= low:
            continue
        residual = np.where(mask, image - background_field(image, mask, field_px), 0)
        seen = []
        for part in parts:
            own = residual[part]
            part &= np.abs(residual) < _OUTLIER * 1.5 * np.median(np.abs(own))
            covariance = correlate(np.where(part, residual, 0)) / np.maximum(correlate(part.astype(np.float32)), 1)
            light = spread[part]
            seen.append(
                [np.median(image[part]), np.median(light), (light**2).mean(), *(ring(covariance, n) for n in (2, LAG))]
            )
        found.append(np.subtract(seen[1], seen[0]))
    if not found:
        return None
    rows = np.array(found)
    share = float(np.clip(np.median(rows[:, 0] / np.maximum(rows[:, 1], 1e-6)), 0, _MAX_SHARE))
    near, far = (float(np.median(rows[:, n] / np.maximum(rows[:, 2], 1e-6))) for n in (3, 4))
    if share == 0:
        return None
    if near <= 0:
        return Glow(share, length_um)
    decay = float(np.clip(far / near, 0.01, 0.95))
    # exp(−d²/4ℓ²) is the correlation of white noise smoothed by a Gaussian of length ℓ.
    length_px = float(np.sqrt((LAG**2 - 2**2) / (-4 * np.log(decay))))
    return Glow(share, length_um, float(np.sqrt(near * np.exp(1 / length_px**2))) / share, length_px)
