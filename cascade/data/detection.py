"""Cells in raw images that nobody annotated: where they lie, how large they are, and a rough mask of each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import measure, segmentation
from skimage.morphology import local_maxima, reconstruction, remove_small_objects

from cascade.geometry.masks import largest_piece
from cascade.optics.foreground import background_field, background_mask

# Lengths are in radii of the typical cell of an image.
_CLEAR = 6  # standard deviations of the background: of a million pixels none is as bright by chance
_SMALLEST = 0.08  # of a typical cell's area or volume: less is dirt

# A ball of radius r answers strongest to a scale-normalised Laplacian of Gaussian of sigma r / √n (Lindeberg, 1998).
_SCALES = 12
_SIDE = 200  # pixels of the shorter side, or more, that are enough to see blobs
_SMALL_PX, _LARGE = 2.5, 0.2  # radii looked for: from pixels of the binned image up to a share of its shorter side
_STRONG = 0.3  # of the strongest answers: the others are nucleoli and noise
_SHADES = 4  # standard deviations of the background up to which light counts in full, beyond it by its logarithm
_LEAN = 2.0  # if the darkest percents lie so much farther from the mode than the brightest, cells are dark

_PLANE_BLUR, _PLANE_BLUR_PX = 0.12, 1.0  # takes noise off before light is looked at, and pixels at least
_FIELD = 6  # the background changes over three cells, not within one
_AROUND, _OWN = 0.7, 0.42  # light below this share of the brightest so near is no cell: it is its neighbour's blur
_CELL_BLUR = 0.3  # after which a cell has one middle, whatever its nucleoli are like
_RIM_BLUR = 0.1  # of distances, so that a rough rim makes no second peak
_SADDLE = 0.15  # relative depth of what parts two cells
_BRIGHT, _OUTLINE = 75, 0.46  # percentile that stands for a cell's light; of that so much is left at the outline
_CRUMB = 0.3  # radius of pieces that no one looks at

_STACK_SIGMA = 0.42  # of the Laplacian whose peaks are cells
_STACK_SADDLE = 0.3  # relative depth of what parts two of them: nucleoli make shallower ones
_STACK_BLUR, _STACK_BLUR_VX = 0.12, 0.6
_REACH = 1.7  # so far from a cell's middle at most lies its rim
_FAINT = 0.1  # of the upper quartile of cells' peaks and contrasts: less is haze
_GROUND, _STACK_OUTLINE = 10, 0.33  # percentile of light around a cell; share of the way from there to the cell's light
_TALL = 1.5  # light along z is blurred more: where to begin with how much taller cells are than wide
_TALLEST = (1.0, 2.5)
_ROUNDS, _SETTLED = 4, 0.1  # until heights and radii change by less


def detect(image: npt.NDArray[Any], spacing_um: Sequence[float]) -> npt.NDArray[Any]:
    """Rough labels, int32, of the cells of a raw image (Y, X) or (Z, Y, X); all 0 where no cell can be seen.

    Nothing is told of the cells: their typical radius is read off the image's scale space. In planes, what is brighter
    than the background and than half of the light nearby is cut where both its light and its distance to the rim fall
    by 15 % between two peaks. In stacks, peaks of a Laplacian of Gaussian, as much taller than wide as the cells turn
    out to be, are parted by a watershed. A mask ends where a cell's light falls to half in a plane, to a third of its
    contrast in a stack. Cells that are dark on a bright ground are found as well.

    Raises ValueError unless the image has two or three axes and as many spacings.

    >>> y, x = np.mgrid[:64, :96]
    >>> image = 10.0 + 90 * ((y - 30) ** 2 + (x - 30) ** 2 < 81) + 20 * ((y - 30) ** 2 + (x - 70) ** 2 < 81)
    >>> labels = detect(image + np.random.default_rng(0).normal(size=image.shape), (0.5, 0.5))
    >>> int(labels.max()), bool(labels[30, 30] > 0), bool(labels[30, 70] > 0)
    (2, True, True)
    """
    if image.ndim not in (2, 3) or len(spacing_um) != image.ndim:
        raise ValueError(f"an image has two or three axes and as many spacings, got {image.shape} and {spacing_um}")
    light = image.astype(np.float32)
    if _cells_are_dark(light):
        light = light.max() - light
    spacing = np.array(spacing_um, float)
    ground = background_mask(light)
    radius = typical_radius(light, spacing_um, ground)
    if not radius:
        return np.zeros(image.shape, np.int32)
    find = _in_plane if image.ndim == 2 else _in_stack
    return find(light, spacing, ground, radius)


def typical_radius(image: npt.NDArray[Any], spacing_um: Sequence[float], ground: npt.NDArray[Any]) -> float:
    """Radius in µm of the blobs of an image (its median, by how strong they are); 0 if there are none.

    ground: pixels that show background only, bool, same shape.
    """
    ndim, spacing = image.ndim, np.array(spacing_um, float)
    side = min(image.shape[-2:])
    finest = np.full(2, max(side // _SIDE, 1) * min(spacing)) if ndim == 2 else max(spacing)
    bins = tuple(np.maximum(np.rint(finest / spacing), 1).astype(int).tolist())
    coarse = measure.block_reduce(image, bins, np.mean)
    empty = measure.block_reduce(ground.astype(np.float32), bins, np.mean) > 0.9
    spacing = spacing * bins
    coarse = ndimage.gaussian_filter(coarse, 0.7)
    coarse -= np.median(coarse[empty]) if empty.any() else coarse.min()
    noise = _noise(coarse, empty)
    light = np.log1p(np.maximum(coarse, 0) / (_SHADES * noise))  # so that dim cells count beside bright ones
    largest = _LARGE * float((np.array(light.shape) * spacing)[-2:].min())
    radii = np.geomspace(_SMALL_PX * spacing.min(), max(largest, 2 * _SMALL_PX * spacing.min()), _SCALES)
    answers = np.stack([_blobs(light, radius / np.sqrt(ndim) / spacing) for radius in radii])
    if answers.max() <= 0:
        return 0.0
    clear = np.log1p(_CLEAR / _SHADES)
    peaks = (answers == ndimage.maximum_filter(answers, 3)) & (light >= clear)
    best = answers.max(0)
    peaks &= answers > _STRONG * np.percentile(best[best > 0], 99)
    peaks[0] = peaks[-1] = False
    return _weighted_median(radii[np.nonzero(peaks)[0]], answers[peaks]) if peaks.any() else 0.0


def _in_plane(
    image: npt.NDArray[Any], spacing: npt.NDArray[Any], ground: npt.NDArray[Any], radius: float
) -> npt.NDArray[Any]:
    found = np.zeros(image.shape, np.int32)
    for _ in range(2):  # once more, by the cells' own size
        px = radius / spacing
        signal = ndimage.gaussian_filter(image, np.maximum(_PLANE_BLUR * px, _PLANE_BLUR_PX))
        signal -= background_field(image, ground, _FIELD * float(px.max()))
        smooth = ndimage.gaussian_filter(signal, _CELL_BLUR * px)
        nearby = ndimage.maximum_filter(smooth, tuple(2 * (_AROUND * px).astype(int) + 1))
        noise = _noise(signal, ground)
        bright = (signal > _CLEAR * noise) & (signal > _OWN * nearby)
        bright = remove_small_objects(bright, max_size=int(np.pi * (_CRUMB * px).prod()))
        bright = ndimage.binary_fill_holes(bright)
        distance = ndimage.distance_transform_edt(np.pad(bright, 1, mode="edge"), sampling=spacing)[1:-1, 1:-1]
        distance = ndimage.gaussian_filter(distance, _RIM_BLUR * px)
        depth = np.log(np.maximum(distance, 0.01 * radius)) + np.log(
            np.maximum(smooth, noise) / np.maximum(nearby, noise)
        )
        pieces = _parted(bright, depth, _SADDLE)
        found, sizes = _outlined(pieces, signal)
        if not len(sizes):
            return found
        radii = np.sqrt(sizes * spacing.prod() / np.pi)
        radius = _weighted_median(radii, radii**2)
    return _kept(found, radii**2 > _SMALLEST * radius**2)


def _parted(bright: npt.NDArray[Any], depth: npt.NDArray[Any], saddle: float) -> npt.NDArray[Any]:
    """Pieces of what is bright, int32: one for each peak of the depth that rises by `saddle` over where it meets a
    higher one (an h-maximum)."""
    pieces, last = np.zeros(bright.shape, np.int32), 0
    clumps = ndimage.label(bright)[0]
    for clump, box in enumerate(ndimage.find_objects(clumps), 1):
        own = clumps[box] == clump
        low = float(depth[box][own].min()) - 1
        inside = np.pad(np.where(own, depth[box], low), 1, constant_values=low)
        flooded = reconstruction(inside - saddle, inside)
        peaks = local_maxima(flooded)[(slice(1, -1),) * bright.ndim] & own
        marks, count = ndimage.label(peaks, np.ones((3,) * bright.ndim))
        parts = segmentation.watershed(-depth[box], marks, mask=own)
        pieces[box][own] = parts[own] + last
        last += count
    return pieces


def _outlined(pieces: npt.NDArray[Any], signal: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Each piece up to where its light falls to half, holes filled; and pixels of each."""
    found, sizes = np.zeros(pieces.shape, np.int32), []
    for region in measure.regionprops(pieces, intensity_image=signal):
        light = region.image_intensity
        inside = region.image & (light > _OUTLINE * np.percentile(light[region.image], _BRIGHT))
        inside = ndimage.binary_fill_holes(largest_piece(inside)) & region.image
        sizes.append(int(inside.sum()))
        found[region.slice][inside] = len(sizes)
    return found, np.array(sizes)


def _in_stack(
    image: npt.NDArray[Any], spacing: npt.NDArray[Any], ground: npt.NDArray[Any], radius: float
) -> npt.NDArray[Any]:
    found, tall = np.zeros(image.shape, np.int32), _TALL
    for _ in range(_ROUNDS):
        stretched = spacing / (tall, 1, 1)
        px = radius / stretched
        blobs = _blobs(image, _STACK_SIGMA * px)
        answers = blobs[ground & (blobs > 0)]  # around cells there are strong ones below 0
        clear = _CLEAR * max(float(np.sqrt(np.mean(answers**2))) if len(answers) else 0.0, 1e-6)
        marks = _parted(blobs > clear, np.log(np.maximum(blobs, clear)), _STACK_SADDLE)
        if not marks.any():
            return np.zeros(image.shape, np.int32)
        ids = np.arange(1, marks.max() + 1)
        heights = np.asarray(ndimage.maximum(blobs, marks, ids))
        marks = _kept(marks, heights > _FAINT * np.percentile(heights, 75))
        apart = np.ones(image.shape, bool)
        apart[tuple(np.transpose(ndimage.maximum_position(blobs, marks, ids[: marks.max()])))] = False
        close = ndimage.distance_transform_edt(apart, sampling=stretched) < _REACH * radius
        pieces = segmentation.watershed(-blobs, marks * close, mask=close)
        smooth = ndimage.gaussian_filter(image, np.maximum(_STACK_BLUR * px, _STACK_BLUR_VX))
        noise, rows = _noise(smooth, ground), []
        found = np.zeros(image.shape, np.int32)
        for n, region in enumerate(measure.regionprops(pieces, intensity_image=smooth), 1):
            light = region.image_intensity
            low = np.percentile(light[region.image], _GROUND)
            high = np.percentile(light[region.image & (blobs[region.slice] > 0)], _BRIGHT)
            inside = largest_piece(region.image & (light >= low + _STACK_OUTLINE * (high - low)))
            found[region.slice][inside] = n
            spread = np.sqrt(np.array([axis.var() for axis in np.nonzero(inside)]) + 1 / 12) * spacing
            across = np.sqrt((spread[1:] ** 2).mean())
            rows.append((inside.sum() * spacing.prod(), high - low, spread[0] / across, np.sqrt(5) * across))
        volumes, contrasts, heights, radii = np.array(rows).T
        sound = (contrasts > _CLEAR * noise) & (contrasts > _FAINT * np.percentile(contrasts, 75))
        if not sound.any():
            return np.zeros(image.shape, np.int32)
        before = tall, radius
        tall, radius = float(np.clip(np.median(heights[sound]), *_TALLEST)), float(np.median(radii[sound]))
        if abs(tall - before[0]) < _SETTLED * tall and abs(radius - before[1]) < _SETTLED * radius:
            break
    return _kept(found, sound & (volumes > _SMALLEST * np.median(volumes[sound])))


def _blobs(image: npt.NDArray[Any], sigma: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Scale-normalised Laplacian of Gaussian, above 0 where it is bright; sigma (n,) in voxels."""
    orders = 2 * np.eye(image.ndim, dtype=int)
    parts = [
        s**2 * ndimage.gaussian_filter(image, sigma, order=order, truncate=3.5)
        for s, order in zip(sigma, orders.tolist(), strict=True)
    ]
    return np.asarray(-sum(parts))


def _cells_are_dark(image: npt.NDArray[Any]) -> bool:
    low, middle, high = np.percentile(image, [0.5, 50, 99.5])
    return bool(middle - low > _LEAN * (high - middle))


def _noise(values: npt.NDArray[Any], ground: npt.NDArray[Any]) -> float:
    return max(float(values[ground].std()) if ground.any() else 0.0, 1e-6)


def _weighted_median(values: npt.NDArray[Any], weights: npt.NDArray[Any]) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])


def _kept(labels: npt.NDArray[Any], keep: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Only the labels 1, 2, … that are to be kept, numbered anew."""
    number = np.concatenate([[0], np.where(keep, np.cumsum(keep), 0)])
    return np.asarray(number[labels], np.int32)
