"""Fitting where in real images the cells lie: an ellipsoid, and its middle."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.data.axial import Census


def fit_region(found: list[Census], extent_um: npt.NDArray[Any], one_layer: bool) -> tuple[float, ...] | None:
    """Semi-axes of the ellipsoid that cell centres fill, µm, or None where they fill the image.

    A solid ellipsoid has the variance a² / 5 along its semi-axis a in 3D and a² / 4 in 2D, a full box L² / 12. A layer
    fills an ellipse, and the height of the stack.
    """
    flat = int(one_layer)
    spreads = [seen.centres_um[:, flat:].std(0) for seen in found if len(seen.centres_um) >= 8]
    if not spreads:
        return None
    spread = np.median(spreads, 0)
    if (spread[-2:] > 0.8 * extent_um[-2:] / np.sqrt(12)).any():
        return None
    axes = np.sqrt(2 + len(spread)) * spread
    return tuple(float(a) for a in [*0.5 * extent_um[:flat], *axes])


def fit_shifts(
    found: list[Census],
    shape: tuple[int, ...],
    region_um: tuple[float, ...] | None,
    spacing_um: tuple[float, ...],
) -> list[list[float]]:
    """How far the middle of each image's cells lies from the image's, µm an axis; none where they fill the image.

    The mean of an image's cells is drawn towards that of all images, by as much as it is uncertain: cells are few, and
    spread over the ellipsoid with a variance of a² / 5 along its semi-axis a (in a plane a² / 4).
    """
    told = [(n, len(seen.centres_um)) for n, seen in enumerate(found) if len(seen.centres_um)]
    if region_um is None or len(told) < 2:
        return []
    middle = 0.5 * (np.array(shape) - 1) * spacing_um
    means = np.array([found[n].centres_um.mean(0) - middle for n, _ in told])
    chance = np.maximum(np.square(region_um), 1e-6) / (2 + len(shape)) / np.array([count for _, count in told])[:, None]
    usual = np.average(means, axis=0, weights=1 / chance[:, 0])
    real = np.maximum(((means - usual) ** 2).mean(0) - chance.mean(0), 0)
    shifts = np.tile(usual, (len(found), 1))
    shifts[[n for n, _ in told]] += real / (real + chance) * (means - usual)
    return [[round(float(um), 3) for um in shift] for shift in shifts]
