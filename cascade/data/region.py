"""Fitting where in real images the cells lie: an ellipsoid, its middle, and how large and hollow it is in each."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.data.axial import Census
from cascade.rng import stream

_HOLLOW = np.linspace(0, 0.9, 10)  # shares of the outer radius that the inner one may be
_FEW, _MANY = 4, 200  # cells, to tell how far from their middle they lie; chance does little to more
_DRAWS = 400  # of shells with so many cells, to tell what chance makes of them
_AS_MANY = 0.3  # spread of the logarithm of the numbers of cells of images that are alike
_ROUNDS = 20


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


def fit_shells(
    found: list[Census], region_um: tuple[float, ...] | None, one_layer: bool, seed: int
) -> list[list[float]]:
    """Between which two ellipsoids the cells of each image lie, [inner, outer], as factors on the semi-axes of that of
    all; none where they fill the image.

    Embryos grow, and cells of later ones surround a cavity; of few cells none lies in the middle. What is looked at is
    how far from their mean cells lie, in units of the semi-axes: the square of the mean distance over the mean square
    is 15/16 in a ball and 1 on a sphere. How likely that is with each inner radius is told by simulated shells of as
    many cells, and what images with about as many cells have in common is the prior (empirical Bayes, found by
    expectation and maximisation); the mean of the posterior is taken. The outer radius follows from the mean square,
    and is drawn towards that of images with about as many cells, as far as it is uncertain.
    """
    flat = int(one_layer)
    told = [n for n, seen in enumerate(found) if len(seen.centres_um) >= _FEW]
    if region_um is None or len(told) < 2:
        return []
    rng, axes_um = stream(seed, "shells"), np.maximum(region_um[flat:], 1e-3)
    counts = np.array([min(len(found[n].centres_um), _MANY) for n in told])
    known = {int(count): _simulated(int(count), len(axes_um), rng) for count in np.unique(counts)}
    evidence, size, sizes, spreads = np.zeros((len(told), len(_HOLLOW))), np.zeros(len(told)), [], []
    for k, n in enumerate(told):
        ratios, simulated = known[int(counts[k])]
        ratio, size[k] = _seen(found[n].centres_um[:, flat:] / axes_um)
        evidence[k] = -0.5 * ((ratio - ratios.mean(1)) / ratios.std(1)) ** 2 - np.log(ratios.std(1))
        sizes.append(simulated.mean(1))
        spreads.append(simulated.std(1) / simulated.mean(1))
    alike = np.exp(-0.5 * (np.log(counts[:, None] / counts) / _AS_MANY) ** 2)
    alike /= alike.sum(1, keepdims=True)
    likely = np.exp(evidence - evidence.max(1, keepdims=True))
    posterior = likely / likely.sum(1, keepdims=True)
    for _ in range(_ROUNDS):
        posterior = (alike @ posterior) * likely
        posterior /= posterior.sum(1, keepdims=True)
    hollow = posterior @ _HOLLOW
    outer = np.log(size / [np.interp(h, _HOLLOW, one) for h, one in zip(hollow, sizes, strict=True)])
    chance = np.square([np.interp(h, _HOLLOW, one) for h, one in zip(hollow, spreads, strict=True)])
    usual = (alike / chance) @ outer / (alike / chance).sum(1)
    real = max(float(np.average((outer - usual) ** 2 - chance, weights=1 / chance)), 0.0)
    outer = np.exp(usual + real / (real + chance) * (outer - usual))
    shells = np.tile(np.median([hollow * outer, outer], 1), (len(found), 1))
    shells[told] = np.stack([hollow * outer, outer], 1)
    return [[round(float(share), 3) for share in shell] for shell in shells]


def _simulated(count: int, ndim: int, rng: np.random.Generator) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """`_seen` of shells with an outer radius of 1 and each of the inner ones, (10, draws) each."""
    directions = rng.standard_normal((_DRAWS, count, ndim))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    share = rng.random((_DRAWS, count, 1))
    radii = (share + (1 - share) * _HOLLOW[:, None, None, None] ** ndim) ** (1 / ndim)
    ratio, size = _seen(radii * directions)
    return ratio, size


def _seen(points: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Of points (…, N, n): the squared mean distance from their middle over the mean squared one, and the root of the
    latter."""
    squares = ((points - points.mean(-2, keepdims=True)) ** 2).sum(-1)
    return np.sqrt(squares).mean(-1) ** 2 / squares.mean(-1), np.sqrt(squares.mean(-1))
