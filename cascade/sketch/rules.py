"""The rules by which the sketch DDPM papers draw: factors and amounts of light on the voxels of an annotation."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.draws import at_rank
from cascade.optics.field import random_field
from cascade.sketch.smooth import block_means, blurred, interpolated

_FINE = 6  # points along the length of a slow field
_MANY = 300_000  # points at which the depth in an organism is measured
_TAKEN = 1 << 24  # highest id that a table is made for

Spot = tuple[float, ...]
"""Centre and radius in µm."""


def numbered(labels: npt.NDArray[Any], ids: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Labels whose cells are called 1, 2, … in the order of their ids."""
    if not len(ids):
        return np.zeros(labels.shape, np.int32)
    if ids[-1] > _TAKEN:
        return np.where(labels > 0, np.searchsorted(ids, labels) + 1, 0).astype(np.int32)
    table = np.zeros(int(ids[-1]) + 1, np.int32)
    table[ids] = np.arange(1, len(ids) + 1)
    return np.asarray(np.take(table, labels))


def mean_intensity(
    labels: npt.NDArray[Any], image: npt.NDArray[Any], *, per_slice: bool = False
) -> npt.NDArray[np.float32]:
    """Each cell at its own mean in an image, 0 elsewhere: "homogeneously setting the intensity of each annotated cell
    to the mean intensity identified within the annotated region" (journal, HeLa 2D+t).

    per_slice: the mean of each slice for itself, which is a frame where a stack is a time series.

    >>> mean_intensity(np.array([[0, 1, 1, 2]]), np.array([[9.0, 1.0, 3.0, 7.0]])).tolist()
    [[0.0, 2.0, 2.0, 7.0]]
    """
    place = numbered(labels, np.unique(labels[labels > 0]))
    if per_slice:
        count = int(place.max(initial=0)) + 1
        slices = np.arange(len(labels)).reshape(-1, *(1,) * (labels.ndim - 1))
        place = np.where(place > 0, place + count * slices, 0)
    total = np.bincount(place.ravel(), image.ravel())
    means = total / np.maximum(np.bincount(place.ravel()), 1)
    means[0] = 0
    return np.asarray(means.astype(np.float32)[place])


def random_intensity(
    labels: npt.NDArray[Any], quantiles: Sequence[float], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Each cell at a light of its own, drawn from quantiles: "nuclei illumination is randomly chosen" (journal, C.
    elegans, T. castaneum, stem cells, HeLa). What a cell gets depends on rng and its id, not on the others."""
    ids = np.unique(labels[labels > 0])
    values = at_rank(quantiles, ranks(rng, ids, 1)[:, 0])
    return np.append(0, values).astype(np.float32)[numbered(labels, ids)]


def ranks(rng: np.random.Generator, ids: npt.NDArray[Any], columns: int) -> npt.NDArray[np.float64]:
    """(N, columns) in [0, 1): numbers of a cell that depend on rng and its id alone."""
    if not len(ids):
        return np.zeros((0, columns))
    if ids[-1] > _TAKEN:  # a few cells with ids such as 10**9: by their order
        return rng.random((len(ids), columns))
    return np.asarray(rng.random((int(ids[-1]) + 1, columns))[ids])


def axial_decay(depth_um: npt.NDArray[Any], lost_per_um: float) -> npt.NDArray[np.float64]:
    """What is left of the light at depths along z: "signal intensity linearly decays along the z direction" (journal,
    D. rerio).

    >>> axial_decay(np.array([0.0, 10.0, 200.0]), 0.01).tolist()
    [1.0, 0.9, 0.0]
    """
    return np.maximum(1 - lost_per_um * np.asarray(depth_um, float), 0)


def radial_decay(foreground: npt.NDArray[Any], spacing_um: Sequence[float], lost: float) -> npt.NDArray[np.float32]:
    """What is left of the light in an organism, bool, which loses `lost` of it at its deepest place: "linearly
    decreasing the simulated intensity signal towards the organism center" (journal, A. thaliana); 1 outside.

    >>> radial_decay(np.array([[0, 1, 1, 1, 1, 1, 0]], bool), (1.0, 1.0), 0.5)[0, 1:4].round(3).tolist()
    [1.0, 0.75, 0.5]
    """
    return np.asarray(1 - np.float32(lost) * organism_depth(foreground, spacing_um), np.float32)


def organism_depth(foreground: npt.NDArray[Any], spacing_um: Sequence[float]) -> npt.NDArray[np.float32]:
    """How deep each voxel lies in the organism: 0 at its surface and outside, 1 at its deepest place.

    The border of the image is no surface. Of large organisms the depth is measured on every few voxels.
    """
    step = max(int(np.ceil((foreground.size / _MANY) ** (1 / foreground.ndim))), 1)
    spacing = np.asarray(spacing_um, float)
    steps = np.ones(foreground.ndim, int) if step == 1 else np.rint(step * spacing.max() / spacing).astype(int)
    steps = np.minimum(steps, foreground.shape)
    blocks = steps.tolist()
    coarse = block_means(foreground, blocks) > 0.5
    if coarse.all() or not coarse.any():
        return np.zeros(foreground.shape, np.float32)
    depth = ndimage.distance_transform_edt(coarse, spacing * steps)
    least = float(depth[coarse].min())
    most = max(float(depth.max()) - least, 1e-9)
    depth = np.clip((depth - least) / most, 0, 1).astype(np.float32)
    return interpolated(depth, foreground.shape, blocks)


def organism(labels: npt.NDArray[Any], spacing_um: Sequence[float], reach_um: float) -> npt.NDArray[np.bool_]:
    """What cells without a given organism fill: the voxels from which, going on for `reach_um`, one cannot leave the
    neighbourhood of cells (a closing by a ball). Of large images on every few voxels."""
    steps = np.minimum([max(int(reach_um / s / _FINE), 1) for s in spacing_um], labels.shape)
    spacing = np.asarray(spacing_um, float) * steps
    cells = np.pad(block_means(labels > 0, steps.tolist()) > 0.25, 1)
    near = ndimage.distance_transform_edt(~cells, spacing) <= reach_um if cells.any() else cells
    beyond = ~np.pad(near[(slice(1, -1),) * near.ndim], 1, mode="edge")
    inner = ndimage.distance_transform_edt(~beyond, spacing) > reach_um if beyond.any() else ~beyond
    closed = (inner | cells)[(slice(1, -1),) * near.ndim]
    return interpolated(closed.astype(np.float32), labels.shape, steps.tolist()) > 0.5


def depth_um(place: npt.NDArray[np.int32], spacing_um: Sequence[float]) -> npt.NDArray[np.float32]:
    """Distance of each voxel's middle from the rim of its cell in µm, which runs half-way between voxels; 0 outside.

    place: cells called 1, 2, …; the border of the image is no rim.
    """
    depth = np.zeros(place.shape, np.float32)
    for box, own, found in _depths(place, spacing_um):
        depth[box][own] = found
    return depth


def relative_depth(place: npt.NDArray[np.int32], spacing_um: Sequence[float]) -> npt.NDArray[np.float32]:
    """How deep each voxel lies in its cell: 0 at the rim, 1 at its deepest place, 0 outside of cells."""
    depth = np.zeros(place.shape, np.float32)
    for box, own, found in _depths(place, spacing_um):
        least = found.min()
        depth[box][own] = (found - least) / max(found.max() - least, 1e-6)
    return depth


def relative_height(place: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """How near each voxel of a stack lies to the middle plane of its cell: 0 at the cell's ends along z, 1 in its
    middle, 0 outside of cells. Of cells that the stack's first or last plane cuts the middle is their widest plane;
    those that both cut have no end.

    >>> relative_height(np.array([0, 1, 1, 1, 1, 1, 0, 2], np.int32).reshape(8, 1, 1)).ravel().tolist()
    [0.0, 0.0, 0.5, 1.0, 0.5, 0.0, 0.0, 1.0]
    """
    height, last = np.zeros(place.shape, np.float32), len(place) - 1
    for number, box in enumerate(ndimage.find_objects(place), 1):
        if box is None:
            continue
        own = place[box] == number
        low, high = box[0].start, box[0].stop - 1
        areas, middle = own.sum((1, 2)), 0.5 * (low + high)
        if high == last:
            middle = high - float(areas[::-1].argmax())
        elif low == 0:
            middle = float(areas.argmax())
        up, down = high - middle, middle - low
        if high == last and low == 0:
            up = down = np.inf
        elif high == last or low == 0:
            up = down = max(up, down)
        z = np.arange(low, high + 1) - middle
        found = 1 - np.abs(z) / np.maximum(np.where(z > 0, up, down), 1e-6)
        height[box] += own * found.clip(0, 1).astype(np.float32)[:, None, None]
    return height


def _depths(
    place: npt.NDArray[np.int32], spacing_um: Sequence[float]
) -> Iterator[tuple[tuple[slice, ...], npt.NDArray[np.bool_], npt.NDArray[Any]]]:
    """Of every cell a box, its mask in it, and the depths of its voxels in µm."""
    half = 0.5 * min(spacing_um)
    for number, box in enumerate(ndimage.find_objects(place), 1):
        if box is None:
            continue
        wide = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        own = place[wide] == number
        found = np.full(own.shape, 2 * half) if own.all() else ndimage.distance_transform_edt(own, sampling=spacing_um)
        yield wide, own, found[own] - half


def rim(depth: npt.NDArray[Any], profile: Sequence[float]) -> npt.NDArray[np.float32]:
    """Relative light at relative depths, by its values at evenly spaced ones: cells are darker towards their rim.

    >>> rim(np.array([0.0, 0.25, 1.0]), (0.5, 1.0, 1.0)).tolist()
    [0.5, 0.75, 1.0]
    """
    return at_rank(profile, depth).astype(np.float32)


def dark_spots(
    factor: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    spacing_um: Sequence[float],
    spots: Iterable[tuple[int, Spot, float]],
) -> None:
    """Darken discs or balls within their cells, in place: "barely illuminated nucleoli are simulated by randomly
    placing 0–2 small dark circles within each nuclei" (journal, stem cells).

    factor: relative light, float, like labels. spots: (id of the cell, centre and radius in µm, light that is left).
    """
    for label, (*centre, radius), left in spots:
        sides = []
        for c, s, n in zip(centre, spacing_um, labels.shape, strict=True):
            start = min(max(int(np.ceil((c - radius) / s)), 0), n)
            sides.append(slice(start, min(max(int((c + radius) / s) + 1, start), n)))
        axes = [np.arange(side.start, side.stop) * s - c for side, s, c in zip(sides, spacing_um, centre, strict=True)]
        squared = sum(np.square(axis) for axis in np.ix_(*axes))
        box = tuple(sides)
        factor[box][(squared <= radius**2) & (labels[box] == label)] *= left


def overlap_darkening(cover: npt.NDArray[Any], share: float) -> npt.NDArray[np.float32]:
    """Factor on the light where `cover` cells lie on a pixel: "overlapping regions were darkened by 10% per additional
    cell involved in the overlap" (journal, cervical cells).

    >>> overlap_darkening(np.array([0, 1, 2, 3]), 0.25).tolist()
    [1.0, 1.0, 0.75, 0.5]
    """
    more = np.maximum(np.asarray(cover, np.float32) - 1, 0)
    return np.maximum(1 - np.float32(share) * more, 0)


def slow_field(
    shape: Sequence[int], spacing_um: Sequence[float], length_um: float, seed: int
) -> npt.NDArray[np.float32]:
    """A Gaussian random field (Y, X) of unit variance: "varying background illumination … was generated by adding
    indications within the sketches" (journal, S4). Of stacks it is the same in every slice."""
    plane, spacing = shape[-2:], spacing_um[-2:]
    steps = [max(int(length_um / s / _FINE), 1) for s in spacing]
    counts = tuple(-(-n // step) for n, step in zip(plane, steps, strict=True))
    coarse = random_field(counts, max(length_um / spacing[-1] / steps[-1], 0.5), (seed, "sketch field"))
    return interpolated(coarse, plane, steps)


def stray_light(
    light: npt.NDArray[Any],
    spacing_um: Sequence[float],
    shares: Sequence[float],
    lengths_um: Sequence[float],
    axial: float = 1.0,
) -> npt.NDArray[np.float32]:
    """Light that cells cast around them: shares of it, each spread by a Gaussian, `axial` times as far along z."""
    if light.ndim == 3:
        spacing_um = (spacing_um[0] / axial, *spacing_um[1:])
    found = np.zeros(light.shape, np.float32)
    for share, length in zip(shares, lengths_um, strict=True):
        if share > 0:
            found += np.float32(share) * blurred(light, [length / s for s in spacing_um])
    return found
