"""Does a painted image show the cells that were asked for, as bright as they were, and no others?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.data.detection import detect

Array = npt.NDArray[Any]

_RING_PX = (2, 8)  # around a cell, where its background is looked for
_LOST = 0.5  # of the asked contrast: below, a cell counts as lost
_DIM, _DIMMEST = 0.2, 0.05  # shares of the cells that are the dimmest
_FAINT = 0.5  # of the contrast of the dimmest cells: less is no phantom


@dataclass(frozen=True)
class Faithfulness:
    """Of cells in painted images, against the sketches that they were painted from."""

    asked: Array
    """(C,) contrast of each cell in its sketch: its mean less that around it, camera units."""
    shown: Array
    """(C,) the same in the painted images."""
    phantoms: int
    """Bright blobs where no cell was drawn."""

    @property
    def lost(self) -> float:
        """Share of cells with less than half of their contrast."""
        return float(np.mean(self.shown < _LOST * self.asked)) if len(self.asked) else 0.0

    @property
    def dim_contrast(self) -> float:
        """Contrast of the dimmest fifth over what was asked."""
        if not len(self.asked):
            return 1.0
        dim = self.asked <= np.quantile(self.asked, _DIM)
        return float(self.shown[dim].mean() / self.asked[dim].mean())

    @property
    def phantoms_per_100(self) -> float:
        """Per hundred cells."""
        return 100 * self.phantoms / max(len(self.asked), 1)

    def __add__(self, other: "Faithfulness") -> "Faithfulness":
        """Of both together."""
        return Faithfulness(
            np.concatenate([self.asked, other.asked]),
            np.concatenate([self.shown, other.shown]),
            self.phantoms + other.phantoms,
        )


def faithfulness(labels: Array, sketch: Array, image: Array, spacing_um: Sequence[float]) -> Faithfulness:
    """Compare a painted image with its sketch, both (Y, X) or (Z, Y, X) in camera units.

    Phantoms are what `detect` finds, touches no label, and has half the contrast of the dimmest twentieth of the cells
    that were asked for, or more: fainter is haze. Raises ValueError for arrays of different shapes.

    >>> labels = np.zeros((64, 64), np.uint16)
    >>> labels[20:40, 20:40] = 1
    >>> sketch = np.where(labels > 0, 300.0, 100.0)
    >>> found = faithfulness(labels, sketch, 100 + 0.25 * (sketch - 100), (0.5, 0.5))
    >>> found.asked.tolist(), found.shown.tolist(), found.lost
    ([200.0], [50.0], 1.0)
    """
    if not labels.shape == sketch.shape == image.shape:
        raise ValueError(f"labels {labels.shape}, sketch {sketch.shape} and image {image.shape} must be equally large")
    asked, shown = (_contrasts(labels, one) for one in (sketch, image))
    least = _FAINT * float(np.quantile(asked, _DIMMEST)) if len(asked) else 0.0
    return Faithfulness(asked, shown, _phantoms(labels, image, tuple(spacing_um), least))


def _contrasts(labels: Array, image: Array) -> Array:
    """Of each cell: the mean inside less the mean around, where no cell is."""
    image = np.asarray(image, np.float64)
    count = int(labels.max(initial=0)) + 1
    away, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    ring = (away > _RING_PX[0]) & (away <= _RING_PX[1])
    owner = labels[tuple(nearest)]
    inside = np.bincount(labels.ravel(), image.ravel(), count) / np.maximum(np.bincount(labels.ravel(), None, count), 1)
    pixels = np.bincount(owner[ring], None, count)
    around = np.bincount(owner[ring], image[ring], count) / np.maximum(pixels, 1)
    elsewhere = np.median(image[labels == 0]) if (labels == 0).any() else 0.0
    around = np.where(pixels > 0, around, elsewhere)  # of cells with neighbours on all sides
    ids = np.unique(labels)
    ids = ids[ids > 0]
    return (inside - around)[ids]


def _phantoms(labels: Array, image: Array, spacing_um: tuple[float, ...], least: float) -> int:
    found = detect(image, spacing_um)
    known = ndimage.binary_dilation(labels > 0, iterations=_RING_PX[0])
    strange = np.setdiff1d(np.unique(found), np.unique(found[known]))
    ids = np.unique(found)
    contrasts = dict(zip(ids[ids > 0].tolist(), _contrasts(found, image).tolist(), strict=True))
    return sum(contrasts[one] >= least for one in strange.tolist() if one > 0)
