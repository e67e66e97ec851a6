"""Statistics of whole fields of view: how many cells, how they lie, how bright, on what background."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, spatial, stats

from cascade.optics.foreground import background_mask
from cascade.rng import stream

_BINS = 20  # of the pair correlation, and of the background's spectrum


@dataclass(frozen=True)
class FieldStatistics:
    """Of one data set; lengths in µm, intensities in camera units.

    cells_per_image: one value an image. size, nearest_neighbour, brightness: one value a cell: area or volume,
    distance between centroids, mean light above background. background_level, background_sd: one value an image.
    pair_correlation: density of neighbours at distances up to `pair_range_um` over that of a random scatter.
    background_spectrum: radially averaged power of the background, by spatial frequency from 0 to 1/2 per pixel.
    """

    cells_per_image: npt.NDArray[Any]
    size: npt.NDArray[Any]
    nearest_neighbour: npt.NDArray[Any]
    brightness: npt.NDArray[Any]
    background_level: npt.NDArray[Any]
    background_sd: npt.NDArray[Any]
    pair_correlation: npt.NDArray[Any]
    pair_range_um: float
    background_spectrum: npt.NDArray[Any]

    def scalars(self) -> dict[str, npt.NDArray[Any]]:
        """The statistics that are distributions, by name."""
        names = ("cells_per_image", "size", "nearest_neighbour", "brightness", "background_level", "background_sd")
        return {name: getattr(self, name) for name in names}


def field_statistics(
    images: Iterable[npt.NDArray[Any]],
    labels: Iterable[npt.NDArray[Any]],
    spacings_um: Iterable[tuple[float, ...]],
    pair_range_um: float,
) -> FieldStatistics:
    """Of fully annotated images, their labels and their voxel sizes, as many of each."""
    counts, sizes, nearest, brightness, levels, spreads, spectra = [], [], [], [], [], [], []
    pairs, expected = np.zeros(_BINS), np.zeros(_BINS)
    for image, label, spacing_um in zip(images, labels, spacings_um, strict=True):
        ids = np.unique(label)
        ids = ids[ids > 0]
        mask = background_mask(image, label > 0, 6)
        level = float(image[mask].mean())
        counts.append(len(ids))
        levels.append(level)
        spreads.append(float(image[mask].std()))
        spectra.append(_spectrum(image, mask, level))
        if not len(ids):
            continue
        centres = np.array(ndimage.center_of_mass(label > 0, label, ids)) * spacing_um
        sizes += (ndimage.sum_labels(label > 0, label, ids) * np.prod(spacing_um)).tolist()
        brightness += (ndimage.mean(image, label, ids) - level).tolist()
        if len(ids) > 1:
            distance = spatial.distance.squareform(spatial.distance.pdist(centres))
            nearest += (distance + np.diag(np.full(len(ids), np.inf))).min(1).tolist()
            edges = np.linspace(0, pair_range_um, _BINS + 1)
            pairs += np.histogram(distance[np.triu_indices(len(ids), 1)], edges)[0]
            expected += _random_pairs(np.array(label.shape) * spacing_um, edges) * len(ids) * (len(ids) - 1) / 2
    return FieldStatistics(
        cells_per_image=np.array(counts),
        size=np.array(sizes),
        nearest_neighbour=np.array(nearest),
        brightness=np.array(brightness),
        background_level=np.array(levels),
        background_sd=np.array(spreads),
        pair_correlation=pairs / np.maximum(expected, 1e-9),
        pair_range_um=pair_range_um,
        background_spectrum=_middle_spectrum(spectra),
    )


def field_distances(a: FieldStatistics, b: FieldStatistics) -> dict[str, float | None]:
    """How far `a` is from `b`: Wasserstein distances in units of the spread of `b`, mean absolute differences of the
    pair correlations, and of the spectra in decades. None where either has no value, or `b` no spread: of cells that
    are alone in their image there are no pairs, and a single image does not vary."""
    found = {name: in_spreads(values, b.scalars()[name]) for name, values in a.scalars().items()}
    paired = len(a.nearest_neighbour) and len(b.nearest_neighbour)
    found["pair_correlation"] = float(np.abs(a.pair_correlation - b.pair_correlation).mean()) if paired else None
    decades = np.abs(np.log10(a.background_spectrum / b.background_spectrum))
    known = ~np.isnan(decades)
    found["background_spectrum"] = float(decades[known].mean()) if known.any() else None
    return found


def in_spreads(
    values: npt.NDArray[Any], others: npt.NDArray[Any], spread: npt.NDArray[Any] | None = None
) -> float | None:
    """Wasserstein distance in standard deviations of `spread`, default `others`; None where either has no value, or
    that no spread."""
    spread = others if spread is None else spread
    if not len(values) or not len(others) or np.ptp(spread) == 0:
        return None
    return float(stats.wasserstein_distance(values, others) / spread.std())


def _random_pairs(extent: npt.NDArray[Any], edges: npt.NDArray[Any], draws: int = 40_000) -> npt.NDArray[Any]:
    """Probability that two points scattered at random over the image lie at distances between `edges`."""
    points = stream(0, "random pairs").uniform(0, extent, (2, draws, len(extent)))
    return np.histogram(np.linalg.norm(points[0] - points[1], axis=1), edges)[0] / draws


def _middle_spectrum(spectra: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The median by frequency, of the images that are large enough to have that one; none has, NaN."""
    found = np.array(spectra)
    known = ~np.isnan(found).all(0)
    middle = np.full(found.shape[1], np.nan)
    middle[known] = np.nanmedian(found[:, known], 0)
    return middle


def _spectrum(image: npt.NDArray[Any], mask: npt.NDArray[Any], level: float) -> npt.NDArray[Any]:
    """Power of the background by spatial frequency, from the plane with most of it; cells are set to the level."""
    if image.ndim == 3:
        z = int(np.argmax(mask.sum((1, 2))))
        image, mask = image[z], mask[z]
    residual = np.where(mask, image - level, 0)
    power = np.abs(np.fft.fft2(residual)) ** 2 / max(mask.sum(), 1)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(n) for n in residual.shape], indexing="ij"))
    rings = np.minimum((frequency * 2 * _BINS).astype(int), _BINS)
    return ndimage.mean(power, rings, np.arange(_BINS)) + 1e-12
