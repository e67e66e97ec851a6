"""How well a segmentation finds the cells of its ground truth."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Overlap:
    """Which predicted cell covers which true one, in one image.

    pairs: (P, 2) positions in `true_sizes` (T,) and `predicted_sizes` (S,); shared: (P,) voxels they have in common.
    """

    pairs: npt.NDArray[Any]
    shared: npt.NDArray[Any]
    true_sizes: npt.NDArray[Any]
    predicted_sizes: npt.NDArray[Any]

    @property
    def iou(self) -> npt.NDArray[Any]:
        """Of each pair, (P,)."""
        union = self.true_sizes[self.pairs[:, 0]] + self.predicted_sizes[self.pairs[:, 1]] - self.shared
        return self.shared / union


def overlap(truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> Overlap:
    """Overlap of two label images of the same shape; ids need not be consecutive. Raises ValueError otherwise."""
    if truth.shape != predicted.shape:
        raise ValueError(f"the truth has shape {truth.shape}, the prediction {predicted.shape}")
    (true_ids, true_index), (ids, index) = (np.unique(a, return_inverse=True) for a in (truth, predicted))
    each = (true_index.ravel(), index.ravel())
    table = sparse.coo_array((np.ones(truth.size, np.int64), each), (len(true_ids), len(ids))).tocsr()
    true_sizes, sizes = table.sum(1)[true_ids > 0], table.sum(0)[ids > 0]
    cells = table[true_ids > 0][:, ids > 0].tocoo()
    order = np.lexsort((cells.col, cells.row))
    pairs = np.stack([cells.row, cells.col], 1)[order]
    return Overlap(pairs, cells.data[order], true_sizes, sizes)


@dataclass(frozen=True)
class SegmentationScores:
    """Of a set of images. seg: the Cell Tracking Challenge's, over all true cells. ap: by IoU threshold, TP / (TP + FP
    + FN), mean over images. found: by IoU threshold, the share of all true cells that a predicted one matches, which
    also says something where not all cells are annotated (DDPM from sketches, journal, S7 Fig.). f1: at IoU 0.5, over
    all cells. dice: of foreground against background, over all voxels."""

    seg: float
    ap: dict[float, float]
    found: dict[float, float]
    f1: float
    dice: float

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        ap = {f"ap_{threshold:g}": value for threshold, value in self.ap.items()}
        found = {f"found_{threshold:g}": value for threshold, value in self.found.items()}
        return {"seg": self.seg, **ap, **found, "f1": self.f1, "dice": self.dice}


def score(truths: Iterable[npt.NDArray[Any]], predictions: Iterable[npt.NDArray[Any]]) -> SegmentationScores:
    """Scores of predicted label images against true ones, image by image in the same order.

    SEG (Maška et al., Bioinformatics 30, 2014): the Jaccard index of a true cell and the predicted one that covers more
    than half of it, 0 where there is none, averaged over true cells. An empty prediction scores 0. Raises ValueError
    if no image has a true cell: nothing could be measured.

    >>> truth = np.array([[1, 1, 0, 2, 2]])
    >>> found = score([truth], [np.array([[7, 7, 7, 0, 0]])])
    >>> round(found.seg, 3), found.ap[0.5], found.found[0.5], round(found.f1, 3)
    (0.333, 0.5, 0.5, 0.667)
    """
    jaccard: list[float] = []
    precision: dict[float, list[float]] = {threshold: [] for threshold in THRESHOLDS}
    matched = dict.fromkeys(THRESHOLDS, 0)
    num_cells, both, voxels = 0, 0, 0
    for truth, predicted in zip(truths, predictions, strict=True):
        one = overlap(truth, predicted)
        iou, count = one.iou, len(one.true_sizes) + len(one.predicted_sizes)
        covers = one.shared > 0.5 * one.true_sizes[one.pairs[:, 0]]
        jaccard += iou[covers].tolist() + [0.0] * (len(one.true_sizes) - int(covers.sum()))
        for threshold, values in precision.items():
            hits = _matched(one, iou, threshold)
            matched[threshold] += hits
            values.append(hits / (count - hits) if count else 1.0)
        num_cells += count
        both += int(((truth > 0) & (predicted > 0)).sum())
        voxels += int((truth > 0).sum() + (predicted > 0).sum())
    if not jaccard:
        raise ValueError("no image has a labelled cell: there is nothing to measure against")
    return SegmentationScores(
        seg=float(np.mean(jaccard)),
        ap={threshold: float(np.mean(values)) for threshold, values in precision.items()},
        found={threshold: hits / len(jaccard) for threshold, hits in matched.items()},
        f1=2 * matched[0.5] / num_cells,
        dice=2 * both / voxels,
    )


def _matched(one: Overlap, iou: npt.NDArray[Any], threshold: float) -> int:
    """True cells with a partner of their own of at least this IoU, as many as can be."""
    good = one.pairs[iou >= threshold]
    graph = sparse.coo_array((np.ones(len(good)), good.T), (len(one.true_sizes), len(one.predicted_sizes))).tocsr()
    return int((csgraph.maximum_bipartite_matching(graph) >= 0).sum()) if len(good) else 0
