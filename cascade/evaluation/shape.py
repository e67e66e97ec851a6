"""Statistics of outlines, and how much outlines repeat each other."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage import measure, segmentation

from cascade.evaluation.solids import cells_of, solid_statistics


@dataclass(frozen=True)
class OutlineStatistics:
    """One value per outline: area in pixels, solidity (area / convex area), eccentricity."""

    area: npt.NDArray[Any]
    solidity: npt.NDArray[Any]
    eccentricity: npt.NDArray[Any]


def outline_statistics(masks: npt.NDArray[Any]) -> OutlineStatistics:
    """Of masks (N, H, W) bool with one piece each."""
    regions = [measure.regionprops(mask.astype(np.uint8))[0] for mask in masks]
    return OutlineStatistics(
        area=np.array([r.area for r in regions]),
        solidity=np.array([r.solidity for r in regions]),
        eccentricity=np.array([r.eccentricity for r in regions]),
    )


def outline_ratios(drawn: npt.NDArray[Any], real: npt.NDArray[Any]) -> dict[str, float]:
    """For a card: how many drawn outlines show a cell, and their means over real ones'; both (N, H, W) bool, a mask
    that is empty is no outline."""
    usable, known = (masks[masks.any((1, 2))] for masks in (drawn, real))
    ratios = {"share of usable outlines": len(usable) / len(drawn)}
    if len(usable) and len(known):
        a, b = outline_statistics(usable), outline_statistics(known)
        ratios["mean area, drawn / real"] = float(a.area.mean() / b.area.mean())
        ratios["mean solidity, drawn / real"] = float(a.solidity.mean() / b.solidity.mean())
    return ratios


def cell_shapes(labels: list[npt.NDArray[Any]], spacings_um: list[tuple[float, ...]]) -> dict[str, npt.NDArray[Any]]:
    """One value per cell of label images, each of a voxel size, that does not touch the border: of planes area in µm²,
    solidity and eccentricity; of stacks volume in µm³, sphericity and elongation (`solid_statistics`)."""
    tables = [_shapes(one, spacing) for one, spacing in zip(labels, spacings_um, strict=True)]
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _shapes(labels: npt.NDArray[Any], spacing_um: tuple[float, ...]) -> dict[str, npt.NDArray[Any]]:
    if len(spacing_um) == 3:
        found = solid_statistics(cells_of(labels), spacing_um)
        return {name: getattr(found, name) for name in ("volume", "sphericity", "elongation")}
    inside = segmentation.clear_border(labels)
    table = measure.regionprops_table(inside, properties=("area", "solidity", "eccentricity"))
    return table | {"area": table["area"] * np.prod(spacing_um)}


def nearest_iou(masks: npt.NDArray[Any], others: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
    """IoU (N,) of each mask (N, H, W) with the most similar one of `others`, default the rest of `masks`.

    Masks are compared as they lie, so centred crops should be given.
    """
    a = masks.reshape(len(masks), -1).astype(np.float32)
    b = a if others is None else others.reshape(len(others), -1).astype(np.float32)
    both = a @ b.T
    iou = both / np.maximum(a.sum(1)[:, None] + b.sum(1)[None] - both, 1)
    if others is None:
        np.fill_diagonal(iou, 0)
    return iou.max(1)
