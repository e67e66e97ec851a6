"""What goes together in images: how large, how bright and how crowded cells are, by how many there are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.stats import rankdata

from cascade.data.measures import FEW_WHOLE, contrasts, touching_ids, whole_ids
from cascade.data.sketch_decay import shared_variance
from cascade.draws import scores

_FEWEST = 8  # images
_CLEAR = 3.0  # standard errors of a correlation over images: less is chance
_SLIGHT = 0.1  # share of the variance: less may be chance


@dataclass(frozen=True, kw_only=True)
class Ties:
    """Correlations with the number of cells of an image, as normal scores, and shares of what is left of the variance
    that lie between images: see `NucleiSettings`."""

    radius_by_number: float = 0.0
    radius_shared: float = 0.0
    touching_by_number: float = 0.0
    brightness_by_number: float = 0.0
    brightness_shared: float = 0.0


def measure_ties(
    labels: Sequence[npt.NDArray[Any]],
    images: Iterable[npt.NDArray[Any]] | None = None,
    *,
    least_contrast: float = 0.0,
) -> Ties:
    """Of label images (Y, X) or (Z, Y, X), every id one piece; images: as many, for brightness. What is not clear, and
    all of less than eight images with cells, is 0. least_contrast: see `measure_labels`.

    >>> measure_ties([np.eye(9, dtype=int)] * 9) == Ties()
    True
    """
    numbers, touching = [], []
    sizes: list[npt.NDArray[Any]] = []
    lights: list[npt.NDArray[Any]] = []
    pictures = iter(images) if images is not None else None
    for plane in labels:
        picture = next(pictures) if pictures is not None else None
        ids, voxels = np.unique(plane, return_counts=True)
        ids, voxels = ids[ids > 0], voxels[ids > 0]
        if not len(ids):
            continue
        numbers.append(len(ids))
        touching.append(len(touching_ids(plane)) / len(ids))
        some = np.isin(ids, whole_ids(plane))
        some = some if some.mean() >= FEW_WHOLE else np.ones_like(some)
        if picture is not None:
            lights.append(np.atleast_1d(ndimage.mean(picture, plane, ids)))
            clear = contrasts(plane, picture, ids) >= least_contrast
            some = some & clear if least_contrast and (some & clear).any() else some
        sizes.append(voxels[some].astype(float))
    if len(numbers) < _FEWEST:
        return Ties()
    count = np.array(numbers)
    before = np.array([count[count < one].sum() + count[count == one].sum() / 2 for one in count])
    radius = _tie(sizes, scores(before / count.sum()))
    brightness = _tie(lights, scores(before / count.sum())) if lights else (0.0, 0.0)
    crowded = _correlation(_scores(np.array(touching)), _scores(count))
    return Ties(
        radius_by_number=radius[0],
        radius_shared=radius[1],
        touching_by_number=crowded if _is_clear(crowded, len(count)) else 0.0,
        brightness_by_number=brightness[0],
        brightness_shared=brightness[1],
    )


def _tie(values: list[npt.NDArray[Any]], number: npt.NDArray[Any]) -> tuple[float, float]:
    """Correlation of cells' values with their image's score, and the share between images of the variance left."""
    image = np.repeat(np.arange(len(values)), [len(own) for own in values])
    own = _scores(np.concatenate(values))
    means = np.array([own[image == n].mean() for n in np.unique(image)])
    by = _correlation(own, number[image])
    if not _is_clear(_correlation(means, number[np.unique(image)]), len(means)):
        by = 0.0
    shared = shared_variance(own - by * number[image], image)
    return by, shared if shared >= _SLIGHT else 0.0


def _scores(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return scores((rankdata(values) - 0.5) / len(values))


def _correlation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    return round(float(np.corrcoef(a, b)[0, 1]), 3) if np.ptp(a) and np.ptp(b) else 0.0


def _is_clear(correlation: float, count: int) -> bool:
    return bool(abs(correlation) * np.sqrt(count - 2) > _CLEAR * np.sqrt(max(1 - correlation**2, 0.0)))
