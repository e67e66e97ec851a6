"""Outlines of cells, brought into the multiview model's frame and back to micrometres."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.geometry.grid import signed_distance

_RADIUS = 0.45  # an outline's area in the frame is that of a disc of this radius
_REACH = 0.9  # … unless it would reach beyond this


@dataclass(frozen=True)
class FramedOutlines:
    """B outlines in the frame [−1, 1]², centred on their centroids.

    maps: (B, S, S) float32 distance maps in [−1, 1], negative inside. unit_um: (B,) µm per half-width of the frame.
    """

    maps: npt.NDArray[Any]
    unit_um: npt.NDArray[Any]


def diameters_um(masks: npt.NDArray[Any], pixel_um: float) -> npt.NDArray[Any]:
    """Of discs with the areas of masks (B, H, W), in µm."""
    return 2 * np.sqrt(masks.sum((1, 2)) / np.pi) * pixel_um


def heights_um(masks: npt.NDArray[Any], pixel_um: float, elongation: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Bounds (B,) on the heights of solids with the outlines (B, H, W) and elongations (B,), µm."""
    reach = []
    for mask in masks:
        places = np.argwhere(mask)
        reach.append(np.sqrt(((places - places.mean(0)) ** 2).sum(1)).max() + 1)
    return 2 * elongation * pixel_um * np.array(reach)


def silhouettes_of_slices(masks: npt.NDArray[Any], height: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Outlines read as cross-sections at relative heights `height` (B,), made the silhouettes of the whole cells.

    An annotation shows a cell where the slice happens to cut it. At height u an ellipsoid's cross-section is √(1 − u²)
    of its silhouette's size; u is taken no nearer to the top than 0.8. Masks (B, H, W) bool in and out, about their
    centroids; what would leave the crop grows less.
    """
    last = np.array(masks.shape[1:]) - 2  # one pixel stays free
    grown = np.empty_like(masks)
    for n, (mask, u) in enumerate(zip(masks, height, strict=True)):
        scale = np.sqrt(1 - min(abs(float(u)), 0.8) ** 2)
        inside = np.argwhere(mask)
        centre = inside.mean(0)
        reach = np.maximum([centre - inside.min(0), inside.max(0) - centre], 1e-3)
        scale = max(scale, min(1.0, float((reach / np.maximum([centre - 1, last - centre], 1e-3)).max())))
        distance = signed_distance(mask, (1, 1))
        grown[n] = ndimage.affine_transform(distance, [scale, scale], centre * (1 - scale), order=1, mode="nearest") < 0
    return grown


def frame_outlines(masks: npt.NDArray[Any], pixel_um: float, size: int, *, truncation: float = 0.25) -> FramedOutlines:
    """Frame binary masks (B, H, W) of one piece each; raises ValueError for an empty mask."""
    maps, units = [], []
    axis = (np.arange(size) + 0.5) * (2 / size) - 1
    for n, mask in enumerate(masks):
        if not mask.any():
            raise ValueError(f"outline {n} is empty: draw it again")
        distance = ndimage.gaussian_filter(signed_distance(mask, (1, 1)), 0.5)
        centre = np.argwhere(mask).mean(0)
        reach = np.sqrt(((np.argwhere(mask) - centre) ** 2).sum(1)).max() + 0.5
        unit = max(np.sqrt(mask.sum() / np.pi) / _RADIUS, reach / _REACH)  # pixels per half-width
        rows, columns = centre[0] + unit * axis, centre[1] + unit * axis
        there = np.meshgrid(rows, columns, indexing="ij")
        sampled = ndimage.map_coordinates(distance, there, order=1, mode="nearest")
        maps.append(np.clip(sampled / (unit * truncation), -1, 1))
        units.append(unit * pixel_um)
    return FramedOutlines(np.stack(maps).astype(np.float32), np.array(units))
