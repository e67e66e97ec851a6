"""Annotated images, and the planes of them that a segmenter is trained on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

_LEAST_CONTRAST = 1e-3  # below which Cellpose takes an image for empty


@dataclass(frozen=True)
class LabelledImage:
    """One annotated image: a plane (Y, X) or a stack (Z, Y, X), its labels, and its voxel size in µm. whole: of a plane
    that is one slice of a stack, that stack."""

    image: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    spacing_um: tuple[float, ...]
    whole: npt.NDArray[Any] | None = None

    @property
    def stored(self) -> npt.NDArray[Any]:
        """The image with whatever slices its file has beside it."""
        return self.image if self.whole is None else self.whole


def drawn_planes(
    data: list[LabelledImage], limit: int, seed: int
) -> tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]]:
    """Planes to train on and their labels, at most `limit`; their order, and so the seed, decides the batches.

    A plane of which a single pixel is labelled is left out: of such, Cellpose 3 cannot make flows on a GPU. Raises
    ValueError if there is none to train on.
    """
    different = {id(one): one for one in data}  # a set may hold an image several times
    counts = {key: len(_that_show(one)) for key, one in different.items()}
    places = [(id(one), n) for one in data for n in range(counts[id(one)])]
    if not places:
        raise ValueError("no training image shows a cell")
    chosen = [places[n] for n in np.random.default_rng(seed).permutation(len(places))[:limit]]
    wanted: dict[int, list[int]] = {}
    for order, (key, _) in enumerate(chosen):
        wanted.setdefault(key, []).append(order)
    images, labels = [np.empty(0)] * len(chosen), [np.empty(0)] * len(chosen)
    for key, orders in wanted.items():  # one image after the other: the planes of all of them may not fit in memory
        planes = _that_show(different[key])
        for order in orders:
            images[order], labels[order] = (part.copy() for part in planes[chosen[order][1]])
    return images, labels


def _that_show(one: LabelledImage) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """The planes of an image from which something is learnt; none of one in which Cellpose sees nothing."""
    return [plane for plane in training_planes(one) if np.count_nonzero(plane[1]) > 1 and np.ptp(plane[0]) > 0]


def typical_diameter(data: list[LabelledImage]) -> float:
    """Of the cells of annotated images in pixels, as Cellpose measures it: the mean of the planes' medians."""
    from cellpose.utils import diameters

    found = np.array([diameters(labels)[0] for one in data for _, labels in training_planes(one)])
    return float(found[found > 0].mean())


def is_shallow(one: LabelledImage, diameter_px: float | None = None) -> bool:
    """Whether a stack is not even as high as a typical cell is wide: few slices, in which cells are seen one by one.

    diameter_px: of a typical cell in the plane, default by the labels of the fullest slice. Planes are not, nor are
    stacks that show no cell.
    """
    if one.image.ndim == 2:
        return False
    if diameter_px is None:
        fullest = one.labels[int(np.argmax((one.labels > 0).sum((1, 2))))]
        sizes = np.bincount(fullest[fullest > 0])
        diameter_px = 2 * float(np.sqrt(np.median(sizes[sizes > 0]) / np.pi)) if len(sizes) else 0.0
    return len(one.image) * one.spacing_um[0] < diameter_px * one.spacing_um[1]


def plane_count(one: LabelledImage) -> int:
    """How many of an image's `training_planes` show a cell."""
    if one.image.ndim == 2:
        return int(one.labels.any())
    shown = one.labels > 0
    if is_shallow(one):
        return int(sum(shown.any((1, 2))))
    return int(sum(shown.any((1, 2)))) + sum(int(np.sum(shown.any(others)[::4])) for others in ((0, 2), (0, 1)))


def training_planes(one: LabelledImage) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Planes of an annotated image with their labels, all of equal spacing: xy, and of stacks that are not shallow also
    xz and yz.

    Brightness is as Cellpose sees it when it segments: 0 and 1 are the first and last percentile of the whole image,
    in its 3D mode of the stack; one in which these are the same is 0 everywhere. Of xz and yz every fourth plane is
    taken: neighbours are nearly alike.
    """
    low, high = np.percentile(one.image, [1, 99])
    image = one.image.astype(np.float32) - np.float32(low)
    image = image / np.float32(high - low) if high - low > _LEAST_CONTRAST else np.zeros_like(image)
    labels = one.labels.astype(np.int32)
    if one.image.ndim == 2:
        return [(image, labels)]
    stretch = one.spacing_um[0] / one.spacing_um[1]
    planes = list(zip(image, labels, strict=True))
    if is_shallow(one):
        return planes
    for axis in (1, 2):
        for n in range(0, image.shape[axis], 4):
            plane, label = (np.take(array, n, axis) for array in (image, labels))
            planes.append((ndimage.zoom(plane, (stretch, 1), order=1), ndimage.zoom(label, (stretch, 1), order=0)))
    return planes
