"""Labels that exist as annotations: as they are, a slice repeated, frames as a volume, layers that overlap."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.annotation import Annotation, CellRecord, ids_of
from cascade.geometry.masks import one_piece
from cascade.settings import at_least, check_fields, check_spacing

_ROUNDS = 20  # in which cells that others cut are laid on top of them

_Mask = tuple[tuple[slice, ...], npt.NDArray[Any]]
"""The box of a cell, and its mask in it."""


@dataclass(frozen=True, kw_only=True)
class LabelsSettings:
    """Which labels, and what they are.

    >>> LabelsSettings(source="masks", reading="slice", slices=0)
    Traceback (most recent call last):
    ValueError: slices must be a whole number from 1, got 0
    """

    source: Path
    """Folder of labels, manual or automatic, in a layout that prepare reads, or without images."""
    reading: Literal["whole", "slice", "time", "layers"] = "whole"
    """whole: each file is an annotation; slice: each is a plane, to be repeated along z; time: all planes are frames of
    one volume; layers: each is a stack of planes, in which cells that overlap lie in different ones."""
    truth: Literal["gt", "st"] = "gt"
    """The Cell Tracking Challenge's gold or silver truth."""
    sequences: tuple[str, ...] = ()
    """Which of its sequences; default all."""
    spacing_um: tuple[float, ...] = ()
    """Voxel size z y x or y x; default as stored."""
    slices: int = 8
    """How often a slice is repeated."""
    step_um: float | None = None
    """From slice to slice, or from frame to frame; default as stored, else the pixel size."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_spacing("spacing_um", self.spacing_um)
        at_least(self, slices=1)
        if self.step_um is not None and not 0 < self.step_um < float("inf"):
            raise ValueError(f"step_um must be a length above 0, got {self.step_um:g}")
        if self.slices != type(self).slices and self.reading != "slice":
            raise ValueError("slices goes with `reading` slice")
        if self.step_um is not None and self.reading not in ("slice", "time"):
            raise ValueError("step_um goes with `reading` slice or time")


def whole(annotation: Annotation) -> Annotation:
    """An annotation as it is. Raises ValueError for ids in several pieces."""
    split = annotation.split_ids()
    if split:
        shown = ", ".join(map(str, split[:5])) + (", …" if len(split) > 5 else "")
        raise ValueError(f"ids in several pieces: {shown}; give every piece its own id, or keep the largest of each")
    return annotation


def repeated(plane: Annotation, slices: int, step_um: float) -> Annotation:
    """A plane, `slices` times along z: what the sketch DDPM paper makes stacks of single annotated slices with.

    >>> plane = Annotation.of_labels(np.eye(4, dtype=np.uint16), (0.5, 0.5))
    >>> repeated(plane, 8, 1.0).labels.shape
    (8, 4, 4)
    """
    if plane.ndim != 2:
        raise ValueError(f"a slice to be repeated must be a plane, got labels {plane.labels.shape}")
    return _stacked([plane] * slices, step_um)


def over_time(frames: Sequence[Annotation], step_um: float) -> Annotation:
    """The planes of a sequence as one volume (T, Y, X); an id is the same cell in all of them.

    Raises ValueError where planes differ in size, or an id is in several pieces, because it moves by more than itself
    or ids are not kept from frame to frame.
    """
    if not frames or any(frame.ndim != 2 for frame in frames):
        raise ValueError("a sequence must be one or more planes; stacks have a z of their own")
    sizes = {frame.labels.shape for frame in frames}
    if len(sizes) > 1:
        raise ValueError(f"frames of one sequence must be equally large, got {' and '.join(map(str, sorted(sizes)))}")
    return whole(_stacked(frames, step_um))


def layered(planes: npt.NDArray[Any], spacing_um: tuple[float, float]) -> Annotation:
    """Cells that overlap, as in cervical cytology: of label planes (L, Y, X), in each of which some of them lie.

    Each cell's whole mask is kept as its record's `outline`, at `origin_um`; `cascade.annotation.overlapping` gives
    them back. In the labels, where every pixel has one id, smaller cells lie on larger ones, and a cell that would be
    cut in pieces lies on those that cut it; where no order leaves all in one piece, a cell's largest is kept
    (`counts["cut_by_others"]`). An id that is in several planes is one cell in each. Raises ValueError for cells in
    several pieces, and for cells that others hide whole.
    """
    if planes.ndim != 3 or planes.dtype.kind not in "ui":
        raise ValueError(f"layers must be (L, Y, X) integer labels, got {planes.dtype} {planes.shape}")
    masks = [mask for plane in planes for mask in _masks(plane)]
    if not masks:
        raise ValueError("layers hold no cells")
    for n, (_, mask) in enumerate(masks, 1):
        if ndimage.label(mask, np.ones((3, 3)))[1] > 1:
            raise ValueError(f"cell {n} of the layers is in several pieces: give every piece its own id")
    labels, cut = _laid(masks, planes.shape[1:])
    annotation = Annotation.of_labels(labels, spacing_um)
    hidden = set(range(1, len(masks) + 1)) - {cell.label for cell in annotation.cells}
    if hidden:
        raise ValueError(f"cell {min(hidden)} of the layers is hidden whole by others: leave one of them out")
    cells = [_with_outline(cell, *own, spacing_um) for cell, own in zip(annotation.cells, masks, strict=True)]
    return replace(annotation, cells=tuple(cells), counts={"cut_by_others": cut} if cut else {})


def _masks(plane: npt.NDArray[Any]) -> list[_Mask]:
    """Of a plane's cells, in the order of their ids."""
    ids = ids_of(plane)
    boxes = ndimage.find_objects(np.where(plane > 0, np.searchsorted(ids, plane) + 1, 0), len(ids))
    return [(box, plane[box] == n) for box, n in zip(boxes, ids, strict=True)]


def _laid(masks: Sequence[_Mask], shape: tuple[int, ...]) -> tuple[npt.NDArray[Any], int]:
    """Labels of masks laid on each other, each in one piece, and how many lost pieces."""
    by_size = sorted(range(len(masks)), key=lambda n: -int(np.count_nonzero(masks[n][1])))
    order = by_size
    for _ in range(_ROUNDS):
        labels = _painted(masks, order, shape)
        pieces = [ndimage.label(labels[box] == n + 1, np.ones((3, 3)))[1] for n, (box, _) in enumerate(masks)]
        odd = [n for n in order if pieces[n] != 1]
        if not odd:
            return labels, 0
        order = [n for n in order if pieces[n] == 1] + odd
    labels = _painted(masks, by_size, shape)
    whole, cut = one_piece(labels)
    return whole.astype(labels.dtype), cut


def _painted(masks: Sequence[_Mask], order: Sequence[int], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    labels = np.zeros(shape, np.uint16 if len(masks) < 2**16 else np.uint32)
    for n in order:
        box, mask = masks[n]
        labels[box][mask] = n + 1
    return labels


def _with_outline(
    cell: CellRecord, box: tuple[slice, ...], mask: npt.NDArray[Any], spacing_um: tuple[float, float]
) -> CellRecord:
    origin = tuple(float(part.start * s) for part, s in zip(box, spacing_um, strict=True))
    return replace(cell, outline=mask, origin_um=origin, outline_pixel_um=float(spacing_um[-1]))


def _stacked(planes: Sequence[Annotation], step_um: float) -> Annotation:
    """One volume of planes, with what is known of each cell but where it lies."""
    labels = np.stack([plane.labels for plane in planes])
    volume = Annotation.of_labels(labels, (float(step_um), *planes[0].spacing_um))
    known = {cell.label: cell.brightness for plane in planes for cell in plane.cells}
    cells = tuple(replace(cell, brightness=known[cell.label]) for cell in volume.cells)
    return replace(volume, cells=cells)
