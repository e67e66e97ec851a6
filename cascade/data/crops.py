"""One annotated cell per crop: centred, resampled, its neighbours replaced by what its own light would leave there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import measure

from cascade.geometry.grid import signed_distance
from cascade.geometry.masks import one_piece
from cascade.optics.foreground import background_field, background_mask
from cascade.optics.halo import Halo, fade

_REACH = 12  # pixels around a cell in which its halo is measured


@dataclass(frozen=True)
class Plane:
    """One annotated plane with its local background: `image` and `field` in camera units, `labels` integer."""

    image: npt.NDArray[Any]  # (Y, X) float32
    labels: npt.NDArray[Any]  # (Y, X) int32, every id one connected piece
    field: npt.NDArray[Any]  # (Y, X) float32
    split: int  # ids that lay in several pieces, of which the largest was kept
    chosen: frozenset[int] | None  # the ids that crops are cut of; None: all

    @property
    def signal(self) -> npt.NDArray[Any]:
        """Light above the local background."""
        return self.image - self.field


def plane_of(
    image: npt.NDArray[Any], labels: npt.NDArray[Any], length_px: float, chosen: list[int] | None = None
) -> Plane:
    """Prepare an annotated plane (Y, X): every id one piece, background estimated over `length_px`."""
    labels, split = one_piece(labels)
    field = background_field(image, background_mask(image, labels > 0), length_px)
    return Plane(image.astype(np.float32), labels, field, split, None if chosen is None else frozenset(chosen))


def fit_halo(planes: list[Plane], max_cells: int = 400) -> Halo:
    """The mean halo of a data set's cells, measured where no other annotated cell is near.

    The median over cells leaves out neighbours that nobody annotated.
    """
    profiles = []
    for plane in planes:
        signal = plane.signal
        for region in measure.regionprops(plane.labels):
            if plane.chosen is not None and region.label not in plane.chosen:
                continue
            window = _window(region.bbox, plane.labels.shape, _REACH)
            own = plane.labels[window] == region.label
            distance, edge = _from_rim(signal[window], own)
            others = (plane.labels[window] > 0) & ~own
            free = ndimage.distance_transform_edt(~others) > distance + 4 if others.any() else ~own
            rings = np.rint(distance).astype(int)
            places = [free & (rings == d) for d in range(1, _REACH + 1)]
            if all(ring.sum() > 5 for ring in places) and edge[own].mean() > 0:
                profiles.append([np.median(signal[window][ring]) / np.mean(edge[ring]) for ring in places])
        if len(profiles) >= max_cells:
            break
    if not profiles:
        return Halo([0.3, 0.1, 0.03])
    median = np.minimum.accumulate(np.maximum(np.median(profiles, 0), 0))
    below = np.flatnonzero(median < max(0.015, 1.2 * median[-1]))
    return Halo([float(v) for v in median[: max(int(below[0]) if len(below) else _REACH, 2)]])


@dataclass(frozen=True)
class Crop:
    """One cell, centred: `image` camera units float32 on a flat background, `mask` bool, both (size, size)."""

    image: npt.NDArray[Any]
    mask: npt.NDArray[Any]
    label: int
    area_um2: float
    brightness: float  # mean over the mask, camera units


def cut_crops(
    plane: Plane, spacing_um: Sequence[float], size: int, pixel_um: float, halo: Halo, level: float
) -> tuple[list[Crop], dict[str, int]]:
    """Crops of every whole cell of a plane, and how many cells were left out and why.

    Inside the outline a crop shows the image. Outside, it shows the cell's own halo: the image where it is no
    brighter than the fitted halo allows, else the halo, fading into the data set's background `level`. A network
    that sees one outline therefore never learns to invent cells that nobody outlined.
    """
    crops, skipped = [], {"cut by the border": 0, "larger than the crop": 0, "smaller than 12 pixels": 0}
    signal, shape = plane.signal, plane.labels.shape
    noise = _spread(signal[plane.labels == 0])
    scale = np.array([pixel_um / spacing_um[0], pixel_um / spacing_um[1]])  # source pixels per crop pixel
    for region in measure.regionprops(plane.labels):
        if plane.chosen is not None and region.label not in plane.chosen:
            continue
        y0, x0, y1, x1 = region.bbox
        if region.area < 12:
            skipped["smaller than 12 pixels"] += 1
            continue
        if _cut(region.bbox, shape):
            skipped["cut by the border"] += 1
            continue
        if max((y1 - y0) / scale[0], (x1 - x0) / scale[1]) > size - 4:
            skipped["larger than the crop"] += 1
            continue
        window = _window(region.bbox, shape, halo.radius_px + 2)
        own = plane.labels[window] == region.label
        own = ndimage.binary_fill_holes(own)
        light = _own_light(signal[window], own, plane.labels[window], halo, noise)
        centre = np.array([0.5 * (y0 + y1 - 1) - window[0].start, 0.5 * (x0 + x1 - 1) - window[1].start])
        offset = centre - 0.5 * (size - 1) * scale
        if np.allclose(scale, 1, atol=1e-3):
            offset = np.floor(offset)  # pixels stay what they are; the cell is centred to half a pixel
        image = ndimage.affine_transform(light, scale, offset, (size, size), order=1, mode="constant")
        distance = signed_distance(np.pad(own, 2), (1, 1))[2:-2, 2:-2]
        if not np.allclose(scale, 1, atol=1e-3):  # no staircase where finer, no lost corners where coarser
            distance = ndimage.gaussian_filter(distance, np.clip(0.5 * scale, 0.7, None))
        mask = _of_area(
            ndimage.affine_transform(distance, scale, offset, (size, size), order=1, mode="constant", cval=9),
            own.sum() / float(np.prod(scale)),
        )
        crops.append(
            Crop(
                image=image + level,
                mask=mask,
                label=region.label,
                area_um2=float(region.area * spacing_um[0] * spacing_um[1]),
                brightness=float(signal[window][own].mean() + level),
            )
        )
    return crops, skipped


def longer_sides_um(plane: Plane, spacing_um: Sequence[float]) -> list[float]:
    """The longer side of the box around every whole cell that `cut_crops` would cut, µm."""
    regions = [r for r in measure.regionprops(plane.labels) if plane.chosen is None or r.label in plane.chosen]
    boxes = [r.bbox for r in regions if r.area >= 12 and not _cut(r.bbox, plane.labels.shape)]
    return [max((y1 - y0) * spacing_um[0], (x1 - x0) * spacing_um[1]) for y0, x0, y1, x1 in boxes]


def _cut(bbox: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Does the border cut a cell?"""
    y0, x0, y1, x1 = bbox
    return min(y0, x0) == 0 or y1 == shape[0] or x1 == shape[1]


def _of_area(distance: npt.NDArray[Any], pixels: float) -> npt.NDArray[Any]:
    """The inside of an outline, given by its distance, at the level where it has its area: smoothing draws it in."""
    count = min(max(round(pixels), 1), distance.size)
    return distance <= np.partition(distance.ravel(), count - 1)[count - 1]


def _own_light(
    signal: npt.NDArray[Any], own: npt.NDArray[Any], labels: npt.NDArray[Any], halo: Halo, noise: float
) -> npt.NDArray[Any]:
    """The light above background that comes from one cell, (h, w) float32."""
    distance, edge = _from_rim(signal, own)
    expected = edge * halo.at(distance)
    foreign = (labels > 0) & ~own
    around = _mean_where(~own & ~foreign, signal, 3)
    outside = np.where(foreign | (around > 1.6 * expected + 2 * noise), expected, signal)
    return np.where(own, signal, outside * fade(distance, halo.radius_px)).astype(np.float32)


def _from_rim(signal: npt.NDArray[Any], own: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Distance to a cell, and the mean light just inside its rim where that is nearest, both (h, w)."""
    distance, nearest = ndimage.distance_transform_edt(~own, return_indices=True)
    return distance, _mean_where(own, signal, 5)[tuple(nearest)]


def _mean_where(where: npt.NDArray[Any], signal: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Mean over the pixels `where` of a square of `size`, (h, w)."""
    total = ndimage.uniform_filter(np.where(where, signal, 0).astype(np.float32), size)
    return total / np.maximum(ndimage.uniform_filter(where.astype(np.float32), size), 1e-3)


def _spread(values: npt.NDArray[Any]) -> float:
    return float(1.48 * np.median(np.abs(values - np.median(values)))) if values.size else 0.0


def _window(bbox: tuple[int, ...], shape: tuple[int, ...], margin: int) -> tuple[slice, ...]:
    ndim = len(shape)
    return tuple(
        slice(max(lo - margin, 0), min(hi + margin, n))
        for lo, hi, n in zip(bbox[:ndim], bbox[ndim:], shape, strict=True)
    )
