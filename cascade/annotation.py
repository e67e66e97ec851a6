"""An annotation: which voxel belongs to which cell, and what is known of every cell; and a sample, painted from one."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.geometry.grid import SignedDistance

_POINTS = ("centroid_um", "origin_um")  # one number for each axis
_AT_ONCE = 1 << 18  # voxels that are counted
_NOT_STORED = ("outline", "solid")  # an array and a function: no columns of a table


@dataclass(frozen=True, kw_only=True, eq=False)
class CellRecord:
    """What is known of one cell; what its source does not know is None.

    Lengths are µm in the order of the array's axes, intensities camera units.
    """

    label: int = 0
    """Its id in the labels, from 1; 0 as long as it lies nowhere."""
    centroid_um: tuple[float, ...] = ()
    """Mean of its voxels' centres, voxel 0 at 0."""
    size: float = 0.0
    """Area in µm² of a cell in a plane, volume in µm³ of one in a stack."""
    parent: int = 0
    """Label of the cell that it came from, in the annotation of the time before; 0 if there is none."""
    origin_um: tuple[float, ...] | None = None
    """Where the frame of `solid` has its origin."""
    brightness: float | None = None
    """Wanted mean over its middle plane, on the reference background."""
    nucleoli: tuple[tuple[float, ...], ...] | None = None
    """Where a painter may leave dark spots: centre and radius of each, µm."""
    outline: npt.NDArray[Any] | None = None
    """(H, W) bool at `outline_pixel_um`: what it was made from."""
    outline_pixel_um: float | None = None
    solid: SignedDistance | None = None
    """Signed distance around `origin_um`."""
    residual: float | None = None
    """Mean 1 − IoU of its solid with the views that it was fitted to."""
    alignment: float | None = None
    """IoU of what its texture shows with its mask (`otsu_alignment`)."""
    bank: int | None = None
    """Number of the cell in the bank that it was taken from, and `symmetry`, 0 to 7, how it was turned."""
    symmetry: int | None = None

    def row(self, ndim: int) -> dict[str, Any]:
        """Plain numbers and lists by name, what is not known left out, for tables and JSON.

        `size` is called area_um2 or volume_um3; outline and solid are left out.

        >>> CellRecord(label=2, centroid_um=(1.0, 2.0), size=3.5).row(2)
        {'label': 2, 'centroid_um': [1.0, 2.0], 'area_um2': 3.5, 'parent': 0}
        """
        found: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if value is None or one.name in _NOT_STORED:
                continue
            name = _size_name(ndim) if one.name == "size" else one.name
            found[name] = _plain(value)
        return found

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "CellRecord":
        """Inverse of `row`; columns that are no fields are passed over."""
        found = {one.name: row[one.name] for one in fields(cls) if one.name in row}
        for name in _POINTS:
            if found.get(name) is not None:
                found[name] = tuple(found[name])
        if found.get("nucleoli") is not None:
            found["nucleoli"] = tuple(tuple(spot) for spot in found["nucleoli"])
        sizes = [row[name] for name in (_size_name(2), _size_name(3)) if name in row]
        return cls(**found, **({"size": sizes[0]} if sizes else {}))


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _size_name(ndim: int) -> str:
    return "area_um2" if ndim == 2 else "volume_um3"


@dataclass(frozen=True, eq=False)
class Annotation:
    """An annotated scene, whoever annotated it, before or without any picture of it.

    Raises ValueError where labels, spacing, cells and foreground do not fit each other.

    >>> labels = np.zeros((4, 6), np.uint16)
    >>> labels[1:3, 2:5] = 7
    >>> annotation = Annotation.of_labels(labels, (0.5, 0.5))
    >>> annotation.cells[0].label, annotation.cells[0].centroid_um, annotation.cells[0].size
    (7, (0.75, 1.5), 1.5)
    """

    labels: npt.NDArray[Any]
    """(Y, X) or (Z, Y, X) unsigned integers: 0 is background, every id one cell, in one piece."""
    spacing_um: tuple[float, ...]
    cells: tuple[CellRecord, ...]
    """One for each id, in the order of the ids."""
    foreground: npt.NDArray[Any] | None = None
    """Bool, as large as the labels: the organism, where there is one."""
    time: int = 0
    """Number of the frame in a time series."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What its source could not do as it was asked, and how often: cells that did not fit, for one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", tuple(self.cells))
        if self.labels.ndim not in (2, 3) or self.labels.dtype.kind != "u":
            raise ValueError(
                f"labels must be (Y, X) or (Z, Y, X) unsigned integers, got {self.labels.dtype} {self.labels.shape}"
            )
        if len(self.spacing_um) != self.labels.ndim or not all(0 < s < np.inf for s in self.spacing_um):
            raise ValueError(f"spacing_um must be {self.labels.ndim} lengths above 0, got {self.spacing_um}")
        if self.foreground is not None and self.foreground.shape != self.labels.shape:
            raise ValueError(f"foreground has shape {self.foreground.shape}, the labels {self.labels.shape}")
        ids, known = ids_of(self.labels), [cell.label for cell in self.cells]
        if known != ids.tolist():
            odd = sorted(set(known) ^ set(ids.tolist()))[:5]
            raise ValueError(f"cells must be one record for each id of the labels, in order; see {odd or known[:5]}")

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return self.labels.ndim

    @classmethod
    def of_labels(
        cls,
        labels: npt.NDArray[Any],
        spacing_um: tuple[float, ...],
        *,
        foreground: npt.NDArray[Any] | None = None,
        time: int = 0,
    ) -> "Annotation":
        """Of a label image: records are read off it."""
        records = [
            CellRecord(label=int(label), centroid_um=centroid, size=size)
            for label, centroid, size in zip(ids_of(labels), *measured(labels, spacing_um), strict=True)
        ]
        return cls(labels, tuple(float(s) for s in spacing_um), tuple(records), foreground, time)

    def split_ids(self) -> list[int]:
        """Ids whose voxels are not all connected (corners connect): none, if the annotation is sound."""
        structure = np.ones((3,) * self.ndim)
        boxes = ndimage.find_objects(self.labels.astype(np.int64, copy=False))
        return [
            cell.label
            for cell in self.cells
            if ndimage.label(self.labels[boxes[cell.label - 1]] == cell.label, structure)[1] > 1
        ]


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and its annotation. image: the data set's dtype, camera units, like the labels or, of several channels,
    (C, …); None before anyone has painted one."""

    image: npt.NDArray[Any] | None
    annotation: Annotation
    seed: int = 0
    index: int = 0
    """Number of the image under `seed`."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What was drawn again or left out on the way, and how often."""
    microscope: Mapping[str, float] = field(default_factory=dict)
    """What differs from the fitted microscope, by name; nothing where none was varied."""

    def __post_init__(self) -> None:
        shape = self.annotation.labels.shape
        several = self.image is not None and len(self.image) > 1 and self.image.shape == (len(self.image), *shape)
        if self.image is not None and self.image.shape != shape and not several:
            raise ValueError(f"the image has shape {self.image.shape}, its labels {shape}")

    @property
    def channels(self) -> tuple[npt.NDArray[Any], ...]:
        """The image's, each like the labels; none without an image."""
        if self.image is None:
            return ()
        return (self.image,) if self.image.shape == self.labels.shape else tuple(self.image)

    @property
    def labels(self) -> npt.NDArray[Any]:
        """Those of the annotation."""
        return self.annotation.labels

    @property
    def spacing_um(self) -> tuple[float, ...]:
        """That of the annotation."""
        return self.annotation.spacing_um

    @property
    def cells(self) -> tuple[CellRecord, ...]:
        """Those of the annotation."""
        return self.annotation.cells


def ids_of(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The ids of a label image, ascending, without 0."""
    return _ids_and_counts(labels)[0]


def measured(labels: npt.NDArray[Any], spacing_um: tuple[float, ...]) -> tuple[list[tuple[float, ...]], list[float]]:
    """Centroids in µm and sizes in µm² or µm³ of all cells of a label image, in the order of their ids."""
    ids, counts = _ids_and_counts(labels)
    if not len(ids):
        return [], []
    if ids[-1] > 4 * labels.size + 1024:
        labels = np.where(labels > 0, np.searchsorted(ids, labels) + 1, 0)
        places = np.arange(1, len(ids) + 1)
    else:
        places = ids
    sums = np.zeros((labels.ndim, int(places[-1]) + 1))
    deep = max(_AT_ONCE // max(int(np.prod(labels.shape[1:])), 1), 1)
    for start in range(0, len(labels), deep):
        part = labels[start : start + deep]
        for axis, sum_of in enumerate(sums):
            at = np.arange(part.shape[axis], dtype=float) + (start if axis == 0 else 0)
            weights = np.broadcast_to(at.reshape([-1 if a == axis else 1 for a in range(part.ndim)]), part.shape)
            sum_of += np.bincount(part.ravel(), weights.ravel(), len(sum_of))
    centroids = (sums[:, places] / counts).T * np.array(spacing_um)
    return [tuple(row) for row in centroids.tolist()], [float(count * np.prod(spacing_um)) for count in counts]


def overlapping(annotation: Annotation) -> npt.NDArray[Any]:
    """How many cells lie on each pixel (Y, X), of an annotation that `layered` made: what a painter darkens them by."""
    found = np.zeros(annotation.labels.shape, np.uint8)
    for cell in annotation.cells:
        if cell.outline is None or cell.origin_um is None:
            raise ValueError(f"cell {cell.label} has no outline of its own: these annotations hold no layers")
        corner = np.rint(np.array(cell.origin_um) / annotation.spacing_um).astype(int)
        window = tuple(slice(c, c + n) for c, n in zip(corner, cell.outline.shape, strict=True))
        found[window] += cell.outline
    return found


def _ids_and_counts(labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    flat, most = labels.ravel(), int(labels.max(initial=0))
    if most > 4 * labels.size + 1024:  # few cells with ids such as 10**9
        ids, counts = np.unique(labels, return_counts=True)
        return ids[ids > 0], counts[ids > 0]
    counts = np.zeros(most + 1, np.int64)
    for start in range(0, flat.size, _AT_ONCE):  # counting makes 8 bytes of every voxel
        part = flat[start : start + _AT_ONCE]
        counts += np.bincount(part[part > 0], minlength=most + 1)
    ids = np.flatnonzero(counts)
    return ids, counts[ids]
