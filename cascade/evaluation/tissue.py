"""Tissue as three classes — background, membrane, centroid — made from labels, and labels made from them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from cascade.evaluation.labelled import LabelledImage
from cascade.shapes.membranes import membranes

CLASSES = ("background", "membrane", "centroid")
THRESHOLDS = (0.1, 0.4, 0.2)
"""From which probability on a voxel is of each class (3D fluorescence microscopy data synthesis, section 4)."""
CELL_VOXELS = 32
"""Voxels that a typical cell is across where thicknesses and tolerances in voxels are those of the paper."""
MEMBRANE, BLOB = 2.0, 4.0
"""Thickness of membranes, and radius of the ball around a centroid, in such voxels."""
SMOOTH, BASIN = 2.0, 0.02
"""Standard deviation, in such voxels, by which a membrane's probability is smoothed, and how much less it must be in a
cell's middle than on the way to the next."""

_Array = npt.NDArray[Any]


def typical_voxel(images: Sequence[LabelledImage]) -> float:
    """Side in µm of which a typical cell is `CELL_VOXELS` across: half of all labelled tissue is of cells at least as
    large, so that splinters of labels do not count. Of planes cells are measured as discs, of stacks as balls.

    Raises ValueError for labels of fewer than two cells, of which no typical one can be told.

    >>> cubes = np.arange(1, 28).reshape(3, 3, 3).repeat(16, 0).repeat(16, 1).repeat(16, 2)
    >>> voxel = typical_voxel([LabelledImage(cubes, cubes, (1.0, 1.0, 1.0))])
    >>> round(voxel, 3)  # a ball as large as a cube of 16 is 19.85 across
    0.62
    """
    found = []
    for one in images:
        ids, counts = np.unique(one.labels, return_counts=True)
        found.append(counts[ids > 0] * float(np.prod(one.spacing_um)))
    sizes = np.sort(np.concatenate(found)) if found else np.empty(0)
    if len(sizes) < 2:
        raise ValueError(f"the labels show {len(sizes)} cells in all: give labels of two or more")
    size = float(sizes[np.searchsorted(sizes.cumsum(), 0.5 * sizes.sum())])
    across = 2 * (size / np.pi) ** 0.5 if images[0].labels.ndim == 2 else 2 * (0.75 * size / np.pi) ** (1 / 3)
    return float(across / CELL_VOXELS)


def tissue_diameter(images: Sequence[LabelledImage]) -> float:
    """Of a typical cell, in pixels along x of the first image."""
    return CELL_VOXELS * typical_voxel(images) / images[0].spacing_um[-1]


def classes_of(labels: _Array, spacing_um: Sequence[float], voxel_um: float) -> _Array:
    """Background, membrane and centroid of labels (Y, X) or (Z, Y, X), bool (3, *shape).

    Background is what no cell covers. A membrane lies on every border, half of it on either side, so that its outer
    half is background as well; the inside of cells is of no class. Lengths are in multiples of `voxel_um`.

    >>> classes_of(np.repeat([[0, 1, 2]], 3, 1), (1.0, 1.0), 1.0)[1].astype(int).tolist()
    [[0, 0, 1, 1, 0, 1, 1, 0, 0]]
    """
    wall = membranes(labels, spacing_um, MEMBRANE * voxel_um)
    blob = np.zeros(labels.shape, bool)
    spacing = np.asarray(spacing_um, float)
    ids, centres = cell_centres(labels, spacing_um, voxel_um)
    for label, centre in zip(ids, centres / spacing - 0.5, strict=True):
        reach = BLOB * voxel_um / spacing
        box = tuple(slice(max(int(a), 0), int(b) + 2) for a, b in zip(centre - reach, centre + reach, strict=True))
        away = np.stack(np.meshgrid(*[np.arange(labels.shape[d])[box[d]] for d in range(labels.ndim)], indexing="ij"))
        distance = np.linalg.norm((away - _column(centre)) * _column(spacing), axis=0)
        blob[box] |= (labels[box] == label) & (distance <= BLOB * voxel_um)
    return np.stack([labels == 0, wall, blob])


def cell_centres(labels: _Array, spacing_um: Sequence[float], voxel_um: float) -> tuple[_Array, _Array]:
    """Ids (N,) of the cells, and of each the place inside it that is nearest to its centre of mass, (N, axes) in µm
    from the corner of the image. Splinters that are smaller than a centroid's ball are left out."""
    spacing, least = np.asarray(spacing_um, float), _ball(labels.ndim, voxel_um) / float(np.prod(spacing_um))
    ids, dense = np.unique(labels, return_inverse=True)
    found, centres = [], []
    for n, box in enumerate(ndimage.find_objects(dense.reshape(labels.shape) + 1)):
        if ids[n] == 0 or box is None:
            continue
        places = np.argwhere(labels[box] == ids[n])
        if len(places) >= least:
            nearest = np.linalg.norm((places - places.mean(0)) * spacing, axis=1).argmin()
            found.append(ids[n])
            centres.append((places[nearest] + [side.start for side in box] + 0.5) * spacing)
    return np.array(found, labels.dtype), np.array(centres).reshape(-1, labels.ndim)


def seeds_of(probabilities: _Array, spacing_um: Sequence[float], voxel_um: float) -> tuple[_Array, _Array]:
    """Pieces of the centroid class outside membranes, labelled 1 … N, int32, and the middle of each, (N, axes) in µm.

    probabilities: (3, *shape), see `CLASSES`. Pieces of less than an eighth of a centroid's ball are left out.
    """
    inside = (probabilities[2] > THRESHOLDS[2]) & (probabilities[1] <= THRESHOLDS[1])
    pieces, count = ndimage.label(inside)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1) * float(np.prod(spacing_um))
    keep = sizes >= _ball(inside.ndim, voxel_um) / 8
    keep[0] = False
    seeds = np.where(keep, keep.cumsum(), 0)[pieces].astype(np.int32)
    middles = ndimage.center_of_mass(seeds > 0, seeds, np.arange(1, keep.sum() + 1))
    return seeds, (np.array(middles).reshape(-1, inside.ndim) + 0.5) * np.asarray(spacing_um, float)


def instances(probabilities: _Array, spacing_um: Sequence[float], voxel_um: float) -> _Array:
    """Cells, int32 labels, by a watershed of the membrane's probability outside the background, from where it is least.

    Cells begin in every basin of that probability, smoothed, that is deeper than `BASIN`: the centroid's class, from
    which the paper grows them (after Eschweiler et al., ISBI 2019), is learned late, and a cell whose centroid is
    missed is lost.
    """
    inside = 1 - ndimage.gaussian_filter(probabilities[1].astype(np.float32), SMOOTH * voxel_um / np.array(spacing_um))
    tissue = probabilities[0] <= THRESHOLDS[0]
    filled = np.pad(reconstruction(inside - BASIN, inside), 1, constant_values=-1)  # level all over is one basin, too
    basins = local_maxima(filled)[(slice(1, -1),) * inside.ndim] & tissue
    seeds, _ = ndimage.label(basins, np.ones((3,) * basins.ndim))
    return np.asarray(watershed(probabilities[1], seeds, mask=tissue), np.int32)


def _ball(axes: int, voxel_um: float) -> float:
    """Area or volume of a centroid's ball."""
    radius = BLOB * voxel_um
    return float(np.pi * radius**2 if axes == 2 else 4 / 3 * np.pi * radius**3)


def _column(values: _Array) -> _Array:
    return values.reshape(-1, *(1,) * len(values))
