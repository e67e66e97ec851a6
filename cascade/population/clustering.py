"""How often cells touch, and the clustering probability that makes them touch as often."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, spatial

from cascade.geometry.masks import disc, label_boxes
from cascade.population.placement import UNPLACED, place

_SHARE = 0.6  # of a canvas that cells are simulated on
_LEAST_CELLS = 20  # that find room there


def touching_fraction(labels: npt.NDArray[Any], spacing_um: tuple[float, ...], gap_um: float) -> float:
    """Fraction of cells with another cell within `gap_um` of their outline: a measure of clustering."""
    ids, boxes = label_boxes(labels)
    margin = [int(np.ceil(gap_um / s)) + 1 for s in spacing_um]
    touching = 0
    for label, box in zip(ids, boxes, strict=True):
        window = tuple(slice(max(b.start - m, 0), b.stop + m) for b, m in zip(box, margin, strict=True))
        around = labels[window]
        own = around == label
        others = (around > 0) & ~own
        touching += bool(others.any()) and bool(
            (ndimage.distance_transform_edt(~own, spacing_um)[others] <= gap_um).any()
        )
    return touching / len(ids) if len(ids) else 0.0


def reached(probabilities: npt.NDArray[Any], simulated: Any, touching: float) -> float:
    """The least probability at which cells touch so often, between those that were tried; the greatest if at none.

    >>> reached(np.array([0, 0.5, 1]), [0, 0, 0.4], 0.0), reached(np.array([0, 0.5, 1]), [0, 0, 0.4], 0.2)
    (0.0, 0.75)
    """
    often = np.maximum.accumulate(simulated)
    n = int(np.searchsorted(often, touching))
    if n in (0, len(often)):
        return float(probabilities[min(n, len(often) - 1)])
    return float(np.interp(touching, often[n - 1 : n + 1], probabilities[n - 1 : n + 1]))


def fit_clustering(
    touching: float,
    radii_px: npt.NDArray[Any],
    density: float,
    gap_px: float,
    rng: np.random.Generator,
    canvas: int = 512,
) -> float:
    """The clustering probability whose random populations of discs touch as often as the real cells do.

    radii_px: sizes of real cells; density: cells per pixel. The touching fraction is simulated on a grid of p and
    the answer interpolated. Where few cells would find room all lengths are taken smaller.
    """
    smaller = min(np.sqrt(_SHARE * canvas * canvas / _LEAST_CELLS / np.mean(np.pi * radii_px**2)), 1.0)
    radii_px, density, gap_px = radii_px * smaller, density / smaller**2, gap_px * smaller
    count = max(int(density * canvas * canvas), 2)
    count = min(count, int(_SHARE * canvas * canvas / np.mean(np.pi * radii_px**2)))
    probabilities, simulated = np.linspace(0, 1, 6), []
    for p in probabilities:
        radii = rng.choice(radii_px, count)
        corners = place([disc(r) for r in radii], (canvas, canvas), float(p), rng)
        placed = (corners != UNPLACED).all(1)
        centres = corners[placed] + np.array([disc(r).shape[0] // 2 for r in radii[placed]])[:, None]
        gaps = spatial.distance.cdist(centres, centres) - radii[placed][:, None] - radii[placed][None]
        np.fill_diagonal(gaps, np.inf)
        simulated.append((gaps.min(1) <= gap_px).mean())
    return reached(probabilities, simulated, touching)
