"""How often cells touch, and the clustering probability that makes them touch as often."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, spatial

from cascade.geometry.masks import disc, label_boxes
from cascade.population.placement import UNPLACED, place


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
    the answer interpolated.
    """
    count = max(int(density * canvas * canvas), 2)
    count = min(count, int(0.6 * canvas * canvas / np.mean(np.pi * radii_px**2)))
    probabilities, simulated = np.linspace(0, 1, 6), []
    for p in probabilities:
        radii = rng.choice(radii_px, count)
        corners = place([disc(r) for r in radii], (canvas, canvas), float(p), rng)
        placed = (corners != UNPLACED).all(1)
        centres = corners[placed] + np.array([disc(r).shape[0] // 2 for r in radii[placed]])[:, None]
        gaps = spatial.distance.cdist(centres, centres) - radii[placed][:, None] - radii[placed][None]
        np.fill_diagonal(gaps, np.inf)
        simulated.append((gaps.min(1) <= gap_px).mean())
    return float(np.clip(np.interp(touching, np.maximum.accumulate(simulated), probabilities), 0, 1))
