"""How cells extend and lie along z, read from stacks of which single slices are annotated."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import feature, measure

from cascade.data.glow import beyond_halo, glow_share
from cascade.optics.axial import _MIDDLE_HALF, Axial
from cascade.optics.foreground import background_mask

_U = np.linspace(0, 2, 21)  # relative heights at which the profile is kept
_TIPS = (0.7, 1.1)  # relative heights between which a profile goes over from inside the cell to outside it
_FEW = 10  # cells cut by slices, fewer do not tell
_FEW_WHOLE = 3  # whole cells, whose heights are seen
_SMALLEST_VX = 12  # of smaller cells neither height nor diameter means much; crops are not cut of them, either
_SMOOTH_VX = (0.7, 1, 1)  # sigma along z, y, x that takes noise off before peaks are looked for
_SD_OF_IQR = 0.741  # a normal variable's standard deviation by its interquartile range, 1 / 1.349
_SD_OF_QUARTER = 0.674  # from its median to its quartile, in standard deviations

# Light through a cell is the mean over a column in the middle of it, where the light of neighbours hardly reaches.
_COLUMN = 0.25  # half width of that of whole cells, of their diameter
_DISC, _DISC_PX = 0.5, 1.5  # radius of that of outlines, of their radius, and pixels at least
_HALF = 0.5  # of a peak's light: where it is left, a cell ends
_HALF_LIT = 0.8  # relative height of that of cells in a layer: 1 of evenly lit ones, 0.71 where light falls as 1 − u²
_RISE = 0.1  # of a peak's light: where it rises by so much again, the next cell begins
_CLIMB = 2  # slices looked at either way on the way to a peak: noise makes steps of one

_SECTION = 0.25  # of a cell's height, to either side of its middle: its middle half, to which _MIDDLE_HALF belongs
_MIDDLE = 0.125  # and its middle quarter, in which outlines are as wide as the cell but for 1 %
_MAX_TALL_CUT_MORE = 1.25  # 1 + v where heights vary by half of their mean; a few wrong middles must not give more
_MOST_CUT = 0.8  # relative height at which a layer's cells are taken to be cut at most: there is little outline beyond
_SPREAD = (0.05, 0.3)  # of heights, relative: cells are never all alike, and misjudged tips look like more

_GLOW_REACH = 2 / 3  # of a cell's diameter

# A ball of radius r answers strongest to a Laplacian of Gaussian of sigma r / √3 (Lindeberg, IJCV 30, 1998).
_DOG_RATIO = 1.6  # of the two Gaussians whose difference is nearest to it (Marr & Hildreth, 1980)
_DOG_SIGMA = 0.85  # of the smaller one in sigmas of the Laplacian, which lies between both
_APART = 0.8  # sigmas to either side within which there is one blob
_FAINT = 0.35  # of the annotated cells' lower quartile: fainter blobs are noise or nucleoli
_LEAN = 5  # cells that the whole data set counts for, beside those that the slice itself shows


@dataclass(frozen=True)
class Census:
    """What an image tells of its cells: their number, centres, and of single annotated slices the heights of cut."""

    num_cells: int
    centres_um: npt.NDArray[Any]  # (N, 3), the ones that could be told apart
    relative_height: dict[int, float]  # u of the annotated slice in each cell, by label
    middles_um: list[float] = field(default_factory=list)  # of annotated cells, above the first slice


@dataclass(frozen=True)
class _Followed:
    """Annotated cells of one stack, followed up and down to where they are brightest; lengths in µm."""

    image: npt.NDArray[Any]  # (Z, Y, X) smoothed, background subtracted
    free: npt.NDArray[Any]  # (Y, X) bool, pixels of the annotated slice that are away from annotated cells
    z: int  # the annotated slice
    num_cells: int  # that the annotated slice shows
    labels: list[int]
    middles: list[float]  # slice in the middle of each cell
    offsets: npt.NDArray[Any]  # (C,) annotated slice minus middle
    diameters: npt.NDArray[Any]  # (C,) in the annotated slice
    columns: list[npt.NDArray[Any]]  # light per slice through each cell, (Z,)
    peaks: list[tuple[int, int, int]]  # brightest voxel column position of each cell


def measure_axial(
    stacks: Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any]]], spacing_um: Sequence[float]
) -> tuple[Axial, list[Census]] | None:
    """The same as `fit_axial`, read off where whole stacks (Z, Y, X) are annotated; None below three cells."""
    ratios, diameters, columns, found, glows = [], [], [], [], []
    for image, labels in stacks:
        regions = [r for r in measure.regionprops(labels) if r.area >= _SMALLEST_VX]
        centres = np.array([r.centroid for r in regions]).reshape(-1, 3) * np.array(spacing_um)
        middles = [0.5 * (r.bbox[0] + r.bbox[3] - 1) * spacing_um[0] for r in regions]
        found.append(Census(len(regions), centres, {}, middles))
        if not regions:
            continue
        light = image.astype(np.float32) - np.median(image[background_mask(image, labels > 0)])
        areas = [r.image.reshape(len(r.image), -1).sum(1).max() * spacing_um[1] * spacing_um[2] for r in regions]
        own = (2 * np.sqrt(np.array(areas) / np.pi)).tolist()
        length = _GLOW_REACH * float(np.median(own))
        glows.append(glow_share(ndimage.gaussian_filter(light, _SMOOTH_VX), beyond_halo(labels), length, spacing_um))
        for region, diameter in zip(regions, own, strict=True):
            slices = len(region.image)
            ratios.append(slices * spacing_um[0] / diameter)
            cy, cx = (round(c) for c in region.centroid[1:])
            r = max(int(_COLUMN * diameter / spacing_um[1]), 1)
            column = light[:, max(cy - r, 0) : cy + r + 1, max(cx - r, 0) : cx + r + 1].mean((1, 2))
            columns.append((column, region.bbox[0] + 0.5 * (slices - 1), 0.5 * slices))
        diameters += own
    if len(ratios) < _FEW_WHOLE:
        return None
    spread = _SD_OF_IQR * float(np.subtract(*np.percentile(ratios, [75, 25])))
    elongation, diameter = (float(np.median(ratios)), spread), float(np.median(diameters))
    profile, glow = _profile(columns)[0], float(np.median(glows))
    return Axial(elongation, _U.tolist(), profile, diameter, glow=glow, glow_um=_GLOW_REACH * diameter), found


def fit_axial(
    stacks: Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any], int, int]],
    spacing_um: Sequence[float],
    one_layer: bool = False,
) -> tuple[Axial, list[Census]] | None:
    """Fit from stacks with one annotated slice each: (image (Z, Y, X), labels (Y, X), z, cells in that slice).

    The last is how many cells the slice shows, annotated or not: the number of labels, or more.

    An annotated slice cuts each of its cells at a height that is uniform between bottom and top (stereology; no
    annotation along z is needed): the slice's distance o to the cell's middle, taken between the places where half of
    its light is left, is a quarter of the height h on average. Tall cells are cut more often, so E|o| = E[h²] / 4E[h]
    and E[o²] = E[h³] / 12E[h]; for log-normal heights of relative variance v, 1 + v = ¾ E[o²] / E|o|², and the mean of
    h is 4E|o| / (1 + v).
    Any cell taller than 2x is as likely as another to be cut within x of its middle: those have all cells' diameters.
    one_layer: stacks less high than cells are wide, of which a slice cuts all cells alike: how high they are at least
    tells the part in which more than half of their light is left, and how wide, what an ellipsoid is cut there.

    Returns the fit and what was found in every stack, or None if fewer than ten cells are annotated.
    """
    followed = [_follow(image, labels, z, count, spacing_um) for image, labels, z, count in stacks]
    offsets = np.abs(np.concatenate([f.offsets for f in followed]))
    if len(offsets) < _FEW:
        return None
    found = np.concatenate([f.diameters for f in followed])
    columns, middles = [c for f in followed for c in f.columns], [m for f in followed for m in f.middles]
    tall_cut_more = np.clip(0.75 * (offsets**2).mean() / max(offsets.mean() ** 2, 1e-6), 1, _MAX_TALL_CUT_MORE)
    height = max(4 * float(offsets.mean() / tall_cut_more), spacing_um[0])
    if one_layer:
        height = max(height, 2 * spacing_um[0] * float(np.median(list(map(_reach, columns, middles)))) / _HALF_LIT)
    outlines, diameter = _diameters(found, offsets, height, one_layer)
    profile, spread = _profile([(*each, 0.5 * height / spacing_um[0]) for each in zip(columns, middles, strict=True)])
    elongation, length = height / diameter, _GLOW_REACH * diameter
    glow = float(np.median([glow_share(f.image, (f.z, f.free), length, spacing_um) for f in followed]))
    axial = Axial((elongation, elongation * spread), _U.tolist(), profile, diameter, outlines / diameter, glow, length)
    return axial, _count(followed, diameter, height, spacing_um)


def _diameters(
    found: npt.NDArray[Any], offsets: npt.NDArray[Any], height: float, one_layer: bool
) -> tuple[float, float]:
    """Mean diameters of the outlines that teach shapes, and of cells' middle planes.

    Those outlines are from the middle half of cells; of a layer, whose cells may all be cut elsewhere, all of them, and
    what an ellipsoid cut so far from its middle has there tells that.
    """
    if one_layer:
        u = np.minimum(2 * offsets / height, _MOST_CUT)
        return float(found.mean()), float((found / np.sqrt(1 - u * u)).mean())
    near, middle = (offsets < part * height for part in (_SECTION, _MIDDLE))
    outlines = float(found[near].mean() if near.any() else found.mean())
    diameter = float(found[middle].mean()) if middle.sum() >= _FEW else outlines
    return outlines, max(diameter, outlines / _MIDDLE_HALF)


def _follow(
    image: npt.NDArray[Any], labels: npt.NDArray[Any], z: int, count: int, spacing_um: Sequence[float]
) -> _Followed:
    image = ndimage.gaussian_filter(image.astype(np.float32), _SMOOTH_VX)
    image -= np.median(image[background_mask(image)])
    regions = measure.regionprops(labels)
    middles, diameters, columns, peaks = [], [], [], []
    for region in regions:
        radius = np.sqrt(region.area * spacing_um[1] * spacing_um[2] / np.pi)
        cy, cx = region.centroid
        y, x = np.ogrid[: image.shape[1], : image.shape[2]]
        reach = max(_DISC * radius, _DISC_PX * spacing_um[1])
        disc = ((y - cy) * spacing_um[1]) ** 2 + ((x - cx) * spacing_um[2]) ** 2 <= reach**2
        column = image[:, disc].mean(1)
        peak = _uphill(column, z)
        middles.append(_middle(column, peak))
        diameters.append(2 * radius)
        columns.append(column)
        peaks.append((peak, round(cy), round(cx)))
    ids = [int(region.label) for region in regions]
    offsets = (z - np.array(middles)) * spacing_um[0]
    return _Followed(image, beyond_halo(labels), z, count, ids, middles, offsets, np.array(diameters), columns, peaks)


def _uphill(column: npt.NDArray[Any], start: int) -> int:
    while True:
        window = np.arange(max(start - _CLIMB, 0), min(start + _CLIMB + 1, len(column)))
        best = int(window[np.argmax(column[window])])
        if best == start:
            return start
        start = best


def _middle(column: npt.NDArray[Any], peak: int) -> float:
    """Between the places above and below where half of the peak's light is left; the peak is often off the middle.

    Where light rises again before that, by a tenth of the peak's, the next cell begins: then the valley counts.
    """
    ends = []
    for side in (column[peak::-1], column[peak:]):
        below = np.flatnonzero(side < _HALF * side[0])
        rising = np.flatnonzero(side > np.minimum.accumulate(side) + _RISE * side[0])
        if len(rising) and (not len(below) or rising[0] <= below[0]):
            ends.append(float(np.argmin(side[: rising[0]])))
        elif len(below):
            ends.append(_crossing(side, _HALF * side[0], int(below[0])))
        else:
            return float(peak)
    return peak + 0.5 * (ends[1] - ends[0])


def _reach(column: npt.NDArray[Any], middle: float) -> float:
    """Slices from a cell's middle to where half of its light is left: the mean of above and below, of those that the
    stack shows; the distance to the farther border if it shows none."""
    start, ends = round(middle), []
    for side, beyond in ((column[start::-1], middle - start), (column[start:], start - middle)):
        below = np.flatnonzero(side < _HALF * side[0])
        if len(below):
            ends.append(_crossing(side, _HALF * side[0], int(below[0])) + beyond)
    return float(np.mean(ends)) if ends else max(middle, len(column) - 1 - middle)


def _crossing(values: npt.NDArray[Any], level: float, below: int) -> float:
    """Where values fall through a level, between the index `below` and the one before it."""
    if below == 0:
        return 0.0
    return below - (level - values[below]) / (values[below - 1] - values[below])


def _profile(columns: list[tuple[npt.NDArray[Any], float, float]]) -> tuple[list[float], float]:
    """Median light at relative heights, and the relative spread of cell heights at half maximum.

    columns: light per slice, middle and half height in slices. Within a cell both sides count. Beyond it other cells
    only ever add light, and height: so there the darker side counts, and of the heights the lower half. At the tips
    it is some of either.
    """
    up, down, widths = [], [], []
    for column, middle, half in columns:
        u = (np.arange(len(column)) - middle) / half
        top = max(float(np.interp(0, u, column)), 1e-6)
        sides = [np.interp(s * _U, u, column / top, left=np.nan, right=np.nan) for s in (1, -1)]
        up.append(sides[0])
        down.append(sides[1])
        darker = np.fmin(*sides)
        below = np.flatnonzero(darker < _HALF)
        widths.append(_U[1] * _crossing(darker, _HALF, int(below[0])) if len(below) else np.inf)
    within, beyond = _median(np.concatenate([up, down])), _median(np.fmin(up, down))
    weight = np.interp(_U, _TIPS, (0, 1))
    median = np.minimum.accumulate(np.maximum((1 - weight) * within + weight * beyond, 0))
    with np.errstate(invalid="ignore"):  # infinite for cells taller than their stack
        low, middle = np.percentile(widths, [25, 50])
    spread = (middle - low) / (_SD_OF_QUARTER * middle) if np.isfinite(middle) else 0.0
    return (median / median[0]).tolist(), float(np.clip(spread, *_SPREAD))


def _median(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Of columns (N, U), without the places (NaN) that lie outside the stack; 0 where all of them do."""
    return np.array([np.median(seen) if len(seen) else 0.0 for seen in (v[~np.isnan(v)] for v in values.T)])


def _count(followed: list[_Followed], diameter: float, height: float, spacing_um: Sequence[float]) -> list[Census]:
    """Cells per stack: blobs told apart by scale, corrected by how many of the annotated cells they account for."""
    centres = [_centres(f, diameter, height, spacing_um) for f in followed]
    near = [
        int((np.abs(c[:, 0] - f.z * spacing_um[0]) < 0.5 * height).sum())
        for c, f in zip(centres, followed, strict=True)
    ]
    overall = sum(f.num_cells for f in followed) / max(sum(near), 1)
    found = []
    for f, c, seen in zip(followed, centres, near, strict=True):
        ratio = (f.num_cells + _LEAN * overall) / (seen + _LEAN)  # few annotated cells: lean on the whole data set
        u = {label: float(2 * offset / height) for label, offset in zip(f.labels, f.offsets, strict=True)}
        middles = [m * spacing_um[0] for m in f.middles]
        found.append(Census(max(round(len(c) * ratio), f.num_cells), c, u, middles))
    return found


def _centres(stack: _Followed, diameter: float, height: float, spacing_um: Sequence[float]) -> npt.NDArray[Any]:
    """Blobs of about the cells' size, at least a third as strong as the annotated cells' lower quartile."""
    own = stack.diameters[np.abs(stack.offsets) < _SECTION * height]
    width = min(float(np.median(own)), diameter) if len(own) else diameter
    sigma = np.array([height / diameter, 1, 1]) * _DOG_SIGMA * width / (2 * np.sqrt(3)) / np.array(spacing_um)
    blobs = ndimage.gaussian_filter(stack.image, sigma) - ndimage.gaussian_filter(stack.image, _DOG_RATIO * sigma)
    known = [blobs[p] for p in stack.peaks if blobs[p] > 0]
    if not known:
        return np.zeros((0, 3))
    footprint = np.ones([2 * int(max(_APART * s, 1)) + 1 for s in sigma], bool)
    threshold = _FAINT * np.percentile(known, 25)
    return feature.peak_local_max(blobs, footprint=footprint, threshold_abs=threshold) * np.array(spacing_um)
