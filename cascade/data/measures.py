"""What label images say of a population: sizes, shapes, how many cells, and how crowded they lie."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, spatial
from skimage import measure

_FEW_PX = 12  # of a cell: less has no shape, and neither has what is one pixel thick
FEW_WHOLE = 0.25  # share of an image's cells that, whole, stand for all: in tissue, most are cut
_NEAR = 2  # pixels to another cell that is touched: one of background may lie between


@dataclass(frozen=True, kw_only=True, eq=False)
class Measures:
    """Of all images of one kind; lengths in µm. Cells that a border cuts count, but have
    no size and no shape here, unless three of four are cut (`FEW_WHOLE`).

    >>> labels = np.zeros((40, 40), int)
    >>> labels[10:20, 10:20], labels[10:20, 20:30] = 1, 2
    >>> found = measure_labels([labels], (0.5, 0.5))
    >>> found.cells_per_image.tolist(), found.touching.tolist(), found.nearest_um.tolist()
    ([2], [1.0], [5.0, 5.0])
    """

    cells_per_image: npt.NDArray[Any]
    """One an image."""
    touching: npt.NDArray[Any]
    """One an image with cells: share of those with another one no more than a pixel of background away."""
    whole: npt.NDArray[Any]
    """One an image with cells: share of those that no border cuts."""
    nearest_um: npt.NDArray[Any]
    """One a cell that is not alone: distance between centroids."""
    radius_um: npt.NDArray[Any]
    """One a whole cell, as are those that follow: of the disc or ball of equal size."""
    elongation: npt.NDArray[Any]
    """Square root of the ratio of the second moments, largest over smallest; of solids in the plane."""
    solidity: npt.NDArray[Any]
    """Size over that of the convex hull."""
    axial_elongation: npt.NDArray[Any]
    """Of solids: extent along z over the mean one in the plane, by second moments; else empty."""
    brightness: npt.NDArray[Any]
    """One a cell: mean light in camera units; empty without images."""

    def halves(self, rng: np.random.Generator) -> tuple["Measures", "Measures"]:
        """The same, every statistic split in two at random: how far alike populations are apart by chance."""
        halves: list[dict[str, npt.NDArray[Any]]] = [{}, {}]
        for one in fields(self):
            mixed = rng.permutation(getattr(self, one.name))
            for half, part in zip(halves, np.array_split(mixed, 2), strict=True):
                half[one.name] = part
        return Measures(**halves[0]), Measures(**halves[1])


def measure_labels(
    labels: Iterable[npt.NDArray[Any]],
    spacing_um: Sequence[float],
    images: Iterable[npt.NDArray[Any]] | None = None,
    *,
    shapes: bool = True,
    least_contrast: float = 0.0,
) -> Measures:
    """Of label images (Y, X) or (Z, Y, X) of one spacing, every id one piece; images: as many, for brightness.

    shapes: whether to measure single cells as well, which takes longest. least_contrast: in the noise of one pixel; of
    cells that stand out less from the background there is no size and no shape, since noise draws the outlines by which
    they were found; needs images.

    Raises ValueError where an image has another number of axes than there are spacings, and for a contrast without
    images.
    """
    if least_contrast and images is None:
        raise ValueError("least_contrast is read off images: give as many as there are labels")
    spacing, names = np.array(spacing_um, float), [one.name for one in fields(Measures)]
    found: dict[str, list[float]] = {name: [] for name in names}
    pictures = iter(images) if images is not None else None
    for plane in labels:
        if plane.ndim != len(spacing):
            raise ValueError(f"labels {plane.shape} have {plane.ndim} axes, the spacing {len(spacing)}")
        cells = _Cells(plane, spacing)
        found["cells_per_image"].append(len(cells.ids))
        if len(cells.ids):
            found["touching"].append(float(np.isin(cells.ids, touching_ids(plane)).mean()))
            found["whole"].append(float(np.mean(cells.whole)))
            found["nearest_um"] += cells.nearest_um()
        picture = next(pictures) if pictures is not None else None
        clear = (
            None if picture is None or not least_contrast else contrasts(plane, picture, cells.ids) >= least_contrast
        )
        for name, values in (cells.shapes(clear) if shapes else {}).items():
            found[name] += values
        if picture is not None:
            found["brightness"] += np.atleast_1d(ndimage.mean(picture, plane, cells.ids)).tolist()
    return Measures(**{name: np.array(values) for name, values in found.items()})


def touching_ids(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Ids of the cells that have another one at most a pixel of background away (in stacks: along z, none)."""
    size = (3,) * (labels.ndim - 2) + (2 * _NEAR + 1,) * 2
    labels = labels.astype(np.int32, copy=False)
    highest = ndimage.maximum_filter(labels, size)
    lowest = ndimage.minimum_filter(np.where(labels > 0, labels, np.iinfo(np.int32).max), size)
    return np.unique(labels[(labels > 0) & ((highest != labels) | (lowest != labels))])


def whole_ids(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Ids of the cells that no border cuts.

    >>> whole_ids(np.array([[1, 0, 0], [1, 2, 0], [0, 0, 0]])).tolist()
    [2]
    """
    sides = [np.unique(np.take(labels, [0, -1], axis)) for axis in range(labels.ndim)]
    return np.setdiff1d(np.unique(labels), np.concatenate([[0], *sides]))


def contrasts(labels: npt.NDArray[Any], image: npt.NDArray[Any], ids: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """How far cells (N,) stand out from the background, in the noise of one of their pixels, as neighbours along x show
    it; inf where there is no noise or no background.

    >>> image = 10.0 + np.indices((8, 8)).sum(0) % 2
    >>> image[2:6, 2:6] += 5
    >>> contrasts((image > 12).astype(int), image, np.array([1])).round(2).tolist()
    [7.07]
    """
    image = image.astype(np.float64)
    background = float(np.median(image[labels == 0])) if (labels == 0).any() else -np.inf
    inside = np.where(labels[..., 1:] == labels[..., :-1], labels[..., 1:], 0)
    with np.errstate(invalid="ignore"):  # of a cell one pixel wide
        noise = np.sqrt(np.atleast_1d(ndimage.mean(np.diff(image) ** 2, inside, ids)) / 2)
    light = np.atleast_1d(ndimage.mean(image, labels, ids)) - background
    return np.divide(light, noise, out=np.full(len(ids), np.inf), where=noise > 0)


def nearest_distances(centres: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """How far the next one is from each of some points (N, n), (N,); none of a single one."""
    return np.asarray(spatial.KDTree(centres).query(centres, 2)[0][:, 1]) if len(centres) > 1 else np.zeros(0)


def measure_masks(masks: Iterable[npt.NDArray[Any]], spacing_um: Sequence[float]) -> Measures:
    """Shapes of single cells, each a mask of its own, whole; of a population there is nothing to measure."""
    spacing = np.array(spacing_um, float)
    found = _columns([_shape(mask, spacing) for mask in masks], len(spacing))
    return Measures(**{one.name: np.array(found.get(one.name, [])) for one in fields(Measures)})


class _Cells:
    """The cells of one label image."""

    def __init__(self, labels: npt.NDArray[Any], spacing: npt.NDArray[Any]) -> None:
        self.spacing, self.shape = spacing, labels.shape
        boxes = enumerate(ndimage.find_objects(labels.astype(np.int32, copy=False)), 1)
        found = [(label, box) for label, box in boxes if box is not None]
        self.ids = np.array([label for label, _ in found], int)
        self.boxes = [box for _, box in found]
        self.masks = [labels[box] == label for label, box in found]
        self.whole = [self._is_whole(box) for box in self.boxes]

    def nearest_um(self) -> list[float]:
        """Distance of each centroid to the next; of a cell that is alone, none."""
        corners = np.array([[side.start for side in box] for box in self.boxes])
        centres = (corners + [np.argwhere(mask).mean(0) for mask in self.masks]) * self.spacing
        return list(nearest_distances(centres).tolist())

    def shapes(self, clear: npt.NDArray[Any] | None = None) -> dict[str, list[float]]:
        """Of whole cells, by name; of all where hardly any is whole. clear: one a cell, whether its outline is seen."""
        few = np.sum(self.whole) < FEW_WHOLE * len(self.whole)
        some = np.array([True] * len(self.whole) if few else self.whole, bool)
        if clear is not None and (some & clear).any():
            some &= clear
        rows = [
            _shape(mask, self.spacing)
            for mask, wanted in zip(self.masks, some, strict=True)
            if wanted and np.count_nonzero(mask) >= _FEW_PX and min(mask.shape) > 1
        ]
        return _columns(rows, len(self.spacing))

    def _is_whole(self, box: tuple[slice, ...]) -> bool:
        return all(side.start > 0 and side.stop < size for side, size in zip(box, self.shape, strict=True))


def _columns(rows: list[tuple[float, ...]], ndim: int) -> dict[str, list[float]]:
    """What `_shape` returns of several cells, by name."""
    names = ("radius_um", "elongation", "solidity", "axial_elongation")[: 1 + ndim]
    return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=bool(rows))}


def _shape(mask: npt.NDArray[Any], spacing: npt.NDArray[Any]) -> tuple[float, ...]:
    """Radius, elongation, solidity, and of solids elongation along z."""
    region = measure.regionprops(mask.astype(np.uint8))[0]
    size = float(region.area) * float(spacing.prod())
    spread = np.atleast_2d(np.cov(np.argwhere(mask).T * spacing[:, None], bias=True)) + np.diag(spacing**2 / 12)
    least, most = np.linalg.eigvalsh(spread[-2:, -2:])
    elongation = float(np.sqrt(most / least))
    if mask.ndim == 2:
        return float(np.sqrt(size / np.pi)), elongation, float(region.solidity)
    axial = float(np.sqrt(spread[0, 0] / (0.5 * (least + most))))
    return float(np.cbrt(0.75 * size / np.pi)), elongation, _solidity(mask), axial


def _solidity(mask: npt.NDArray[Any]) -> float:
    """Volume over that of the convex hull of the voxels' corners; a flat one is its own hull."""
    if min(mask.shape) < 2:
        return 1.0
    surface = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    corners = (surface[:, None] + np.array(list(np.ndindex((2,) * mask.ndim)))).reshape(-1, mask.ndim)
    return float(np.count_nonzero(mask) / spatial.ConvexHull(np.unique(corners, axis=0)).volume)
