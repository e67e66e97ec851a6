"""Fitting the light that lies between cells, and telling where there is least of it."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

from cascade.data.camera import LAG, correlate, ring, whole_blocks
from cascade.optics.axial import Axial, spread_light
from cascade.optics.foreground import background_field
from cascade.optics.glow import Glow
from cascade.optics.haze import spread_haze

_REACH = 0.45  # of a cell's diameter: σ of how far light goes
_THIRDS = (33, 67)  # percentiles: places with least and most light around
_MAX_SHARE = 0.4  # more is no glow but cells that nobody annotated
_FEW_PX, _FEW_VX = 300, 100  # places that do not tell
_OUTLIER = 6  # standard deviations: debris is no stray light

_HALO_PX = 6  # that blur makes just outside of outlines
_GLOW_OF_GLOW = 0.6  # glow is smoother than cells: so much of it is left when it is spread once more
_Places = npt.NDArray[Any] | tuple[int, npt.NDArray[Any]]  # of a stack, bool: (Z, Y, X), or a slice and its (Y, X)

_CELL = 0.4  # of annotated cells' light: brighter voxels are cells, annotated or not
_AWAY_VX = 4  # from cells: beyond their halo
_BLOCK = 0.25  # of a cell's diameter: side of the blocks of voxels that are looked at
_NEAR = (1 / 3, 2 / 3, 1)  # σ in diameters of cells: of glow
_FAR = (2, 4, 8)  # and of haze along z; 8 are more than stacks are high
_FOCUS = (0.2, 0.5, 1, 2)  # in the plane, in focus
_SLOPES = (0, 0.2, 0.35, 0.5)  # and by how many µm it grows for each µm out of focus
_MANY_BLOCKS = 20_000  # of a stack that are looked at


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
    length_um, rises, seen = _REACH * diameter_um, [], []
    for image, mask in zip(images, masks, strict=True):
        spread = around(image, mask, length_um, spacing_um)
        low, high = np.percentile(spread[mask], _THIRDS)
        parts = [mask & (spread <= low), mask & (spread >= high)]
        if min(part.sum() for part in parts) >= _FEW_PX and high > low:
            seen.append((image, mask, spread, parts))
            dark, lit = ((np.median(image[part]), np.median(spread[part])) for part in parts)
            rises.append((lit[0] - dark[0]) / (lit[1] - dark[1]))
    share = float(np.clip(np.median(rises), 0, _MAX_SHARE)) if rises else 0.0
    if share == 0:
        return None
    near, far = np.median([_structure(*one, share, field_px) for one in seen], 0)
    if near <= 0:
        return Glow(share, length_um)
    decay = float(np.clip(far / near, 0.01, 0.95))
    # exp(−d²/4ℓ²) is the correlation of white noise smoothed by a Gaussian of length ℓ.
    length_px = float(np.sqrt((LAG**2 - 2**2) / (-4 * np.log(decay))))
    return Glow(share, length_um, float(np.sqrt(near * np.exp(1 / length_px**2))) / share, length_px)


def _structure(
    image: npt.NDArray[Any],
    mask: npt.NDArray[Any],
    spread: npt.NDArray[Any],
    parts: list[npt.NDArray[Any]],
    share: float,
    field_px: float,
) -> npt.NDArray[Any]:
    """By how much more the pixels of the second part covary than those of the first, at two and at four pixels, for
    each unit of squared light around."""
    smooth = image - np.float32(share) * spread
    residual = np.where(mask, smooth - background_field(smooth, mask, field_px), 0)
    found = []
    for part in parts:
        kept = part & (np.abs(residual) < _OUTLIER * 1.5 * np.median(np.abs(residual[part])))
        covariance = correlate(np.where(kept, residual, 0)) / np.maximum(correlate(kept.astype(np.float32)), 1)
        found.append([ring(covariance, 2), ring(covariance, LAG), (spread[kept] ** 2).mean()])
    near, far, light = np.subtract(found[1], found[0])
    return np.array([near, far]) / light


def beyond_halo(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Away from every cell, bool, same shape: beyond the light just outside their outlines."""
    apart = ndimage.generate_binary_structure(labels.ndim, 1)
    return ~ndimage.binary_dilation(labels > 0, apart, iterations=_HALO_PX)


def glow_share(light: npt.NDArray[Any], free: _Places, length_um: float, spacing_um: Sequence[float]) -> float:
    """Light at the `free` places of a stack (Z, Y, X) as a share of the cells' light around them: how much it differs
    between the third that has most around it and the third that has least. By medians, since not every cell is
    annotated. What is seen around is both, cells and glow."""
    lit, here = spread_light(light, length_um, spacing_um)[free], light[free]
    if len(here) < _FEW_VX:
        return 0.0
    low, high = np.percentile(lit, _THIRDS)
    rise = [float(np.median(v[lit >= high]) - np.median(v[lit <= low])) for v in (here, lit)]
    share = float(np.clip(rise[0] / max(rise[1], 1e-3), 0, _MAX_SHARE))
    return share / (1 - _GLOW_OF_GLOW * share)


def cell_light(
    image: npt.NDArray[Any], mask: npt.NDArray[Any], cover: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The light above background of a stack's cells, and voxels away from them, (Z, Y, X) float32 and bool.

    mask: background voxels. cover: annotated ones, which tell how bright a cell is; the others are found by that.
    """
    light = np.asarray(image, np.float32) - np.float32(image[mask].mean())
    smooth = ndimage.gaussian_filter(light, (0.7, 1.2, 1.2))
    typical = np.median(smooth[cover]) if cover.any() else np.percentile(smooth, 99)
    cells = ndimage.binary_dilation(ndimage.binary_opening(smooth > _CELL * typical))
    return np.where(cells, np.maximum(light, 0), 0), ~ndimage.binary_dilation(cells, iterations=_AWAY_VX)


def fit_haze(
    axial: Axial,
    images: list[npt.NDArray[Any]],
    masks: list[npt.NDArray[Any]],
    covers: list[npt.NDArray[Any]],
    spacing_um: tuple[float, ...],
) -> Axial:
    """Glow and haze of stacks (Z, Y, X): cells' light spread near and far that together explain best what is seen away
    from cells, by non-negative least squares over blocks of voxels; as `axial` is where nothing is explained, or the
    size of cells is unknown."""
    if axial.diameter_um <= 0:
        return axial
    factor = [max(round(_BLOCK * axial.diameter_um / side), 1) for side in spacing_um]
    sides = tuple(side * n for side, n in zip(spacing_um, factor, strict=True))
    near_um, far_um, focus_um = (np.multiply(part, axial.diameter_um).tolist() for part in (_NEAR, _FAR, _FOCUS))
    cones = list(product(far_um, focus_um, _SLOPES))
    seen, spread = [], []
    for image, mask, cover in zip(images, masks, covers, strict=True):
        light, away = cell_light(image, mask, cover)
        free = whole_blocks(away.astype(np.float32), factor) == 1
        if free.sum() < _FEW_PX:
            continue
        some = np.flatnonzero(free)[:: int(np.ceil(free.sum() / _MANY_BLOCKS))]
        values, coarse = whole_blocks(np.asarray(image, np.float32), factor).ravel()[some], whole_blocks(light, factor)
        lit = [spread_light(coarse, um, sides).ravel()[some] for um in near_um]
        lit += [spread_haze(coarse, (z, focus), slope, sides).ravel()[some] for z, focus, slope in cones]
        unit = max(float(light[cover].mean()) if cover.any() else float(light.max()), 1.0)
        seen.append((values - values.mean()) / unit)
        spread.append((np.stack(lit, 1) - np.mean(lit, 1)) / unit)
    if not seen:
        return axial
    y, columns = np.concatenate(seen), np.concatenate(spread)
    fits = []
    for n, m in product(range(len(near_um)), range(len(cones))):
        shares, miss = optimize.nnls(columns[:, [n, len(near_um) + m]], y)
        fits.append((miss, near_um[n], cones[m], shares))
    _, glow_um, (z_um, plane_um, slope), (glow, haze) = min(fits, key=lambda fit: fit[0])
    if glow == haze == 0:
        return axial
    axial = replace(axial, glow=float(glow), glow_um=glow_um)
    return replace(axial, haze=float(haze), haze_um=(z_um, plane_um), haze_slope=slope)
