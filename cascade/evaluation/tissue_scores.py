"""How well tissue is segmented: its three classes, its centroids, and its partition into cells that touch."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize, spatial
from skimage import metrics

from cascade.evaluation.labelled import LabelledImage
from cascade.evaluation.multiclass import MultiClassSegmenter
from cascade.evaluation.tissue import THRESHOLDS, cell_centres, classes_of, seeds_of, typical_voxel

TOLERANCE, CENTROID_TOLERANCE = 1.0, 5.0
"""How far background and membranes, and centroids, may be off (3D fluorescence microscopy data synthesis, section 4),
in voxels of which a typical cell is `CELL_VOXELS` across."""

_Array = npt.NDArray[Any]


def tissue_scores(
    segmenter: MultiClassSegmenter, test: Sequence[LabelledImage], predictions: Sequence[_Array]
) -> dict[str, float]:
    """IoU and Dice of background and membrane, precision, recall and F1 of centroids, and `partition_scores`.

    Tolerances, and the membranes of the truth, are measured in the `typical_voxel` of the test images, so that they are
    the same whatever was trained on. Hits and errors are summed over images. Raises ValueError for test images with
    less than two cells in all.
    """
    voxel_um = typical_voxel(test)
    counts = np.zeros((3, 3))
    for one in test:
        probabilities = segmenter.probabilities(one)
        truth = classes_of(one.labels, one.spacing_um, voxel_um)
        for n in range(2):
            found = probabilities[n] > THRESHOLDS[n]
            counts[n] += near(truth[n], found, one.spacing_um, TOLERANCE * voxel_um)
        centres = cell_centres(one.labels, one.spacing_um, voxel_um)[1]
        seeds = seeds_of(probabilities, one.spacing_um, segmenter.voxel_um(one))[1]
        counts[2] += matched(centres, seeds, CENTROID_TOLERANCE * voxel_um)
    scores = {}
    for name, (hits, missed, extra) in zip(("background", "membrane"), counts[:2], strict=True):
        scores[f"{name}_iou"] = _share(hits, hits + missed + extra)
        scores[f"{name}_dice"] = _share(2 * hits, 2 * hits + missed + extra)
    hits, missed, extra = counts[2]
    scores["centroid_precision"] = _share(hits, hits + extra)
    scores["centroid_recall"] = _share(hits, hits + missed)
    scores["centroid_f1"] = _share(2 * hits, 2 * hits + missed + extra)
    return scores | partition_scores([one.labels for one in test], predictions)


def near(truth: _Array, found: _Array, spacing_um: Sequence[float], tolerance_um: float) -> tuple[int, int, int]:
    """Voxels of the truth that something found is near, and that nothing is; voxels found that no truth is near. Both
    bool, of one shape; without tolerance true positives, false negatives and false positives.

    >>> truth, found = np.array([[1, 1, 0, 0, 0, 0]], bool), np.array([[0, 0, 1, 0, 0, 1]], bool)
    >>> near(truth, found, (1.0, 1.0), 0.0), near(truth, found, (1.0, 1.0), 1.0)
    ((0, 2, 2), (1, 1, 1))
    """
    hits = int((_distance(found, spacing_um)[truth] <= tolerance_um).sum())
    extra = int((_distance(truth, spacing_um)[found] > tolerance_um).sum())
    return hits, int(truth.sum()) - hits, extra


def matched(truth: _Array, found: _Array, tolerance_um: float) -> tuple[int, int, int]:
    """How many true points have a partner of their own within the tolerance, how many true ones and how many of those
    found have none; (N, axes) and (M, axes) in µm.

    >>> matched(np.array([[0.0], [9.0]]), np.array([[1.0], [0.5], [5.0]]), 2.0)
    (1, 1, 2)
    """
    if not len(truth) or not len(found):
        return 0, len(truth), len(found)
    close = spatial.distance.cdist(truth, found) <= tolerance_um
    hits = int(close[optimize.linear_sum_assignment(close, maximize=True)].sum())
    return hits, len(truth) - hits, len(found) - hits


def partition_scores(truths: Iterable[_Array], predictions: Iterable[_Array]) -> dict[str, float]:
    """Adapted Rand error, and variation of information in bits, of cells that are split and of cells that are merged;
    0 where the cells are the same. Means over images; what no true cell covers does not count.

    >>> truth = np.repeat([[1, 2]], 8, 1)
    >>> found = partition_scores([truth, truth], [np.ones_like(truth), np.arange(16)[None] // 4])
    >>> {name: round(value, 3) for name, value in found.items()}
    {'adapted_rand_error': 0.382, 'vi_split': 0.5, 'vi_merged': 0.5}
    """
    rows = []
    for truth, predicted in zip(truths, predictions, strict=True):
        if truth.any():
            error = metrics.adapted_rand_error(truth, predicted, ignore_labels=(0,))[0]
            rows.append((error, *metrics.variation_of_information(truth, predicted, ignore_labels=(0,))))
    if not rows:
        raise ValueError("no image has a labelled cell: there is nothing to measure against")
    names = ("adapted_rand_error", "vi_split", "vi_merged")
    return {name: float(value) for name, value in zip(names, np.mean(rows, 0), strict=True)}


def _distance(mask: _Array, spacing_um: Sequence[float]) -> _Array:
    """To the nearest voxel of a mask in µm, infinite where there is none."""
    return ndimage.distance_transform_edt(~mask, spacing_um) if mask.any() else np.full(mask.shape, np.inf)


def _share(part: float, whole: float) -> float:
    """1 where there is nothing, and nothing was found."""
    return float(part / whole) if whole else 1.0
