"""What makes one annotated frame unfit to learn from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage import measure

from cascade.data.frames import Frame, check_pair
from cascade.reading import DataError

_MIN_SIDE_PX = 16  # half the smallest crop: no whole cell with its surroundings lies in less
_CRUMB = 0.2  # pieces up to this share of an id's largest are crumbs: keeping the largest loses next to nothing
_SIZEABLE_PX = 12  # crops are cut of nothing smaller, either
_CLASS_PIECES = 5  # of a cell cut by a few others; an id in more sizeable pieces is a class
_FEW_SPLIT, _SPLIT_SHARE = 2, 1 / 3  # ids in sizeable pieces that are mended; of badly annotated sets a quarter are
_SPECK_PX = 3  # noise makes pieces of equal grey level of so many pixels
_FEW_PIECES = 20  # do not tell whether they are grey levels
_TOPS = (2**8 - 1, 2**16 - 1)  # ids after which counting begins anew in uint8 and uint16


@dataclass(frozen=True)
class _Pieces:
    """Connected pieces of equal id, corners counting as connections; N ids, P pieces."""

    ids: npt.NDArray[Any]  # (N,) ascending
    owner: npt.NDArray[Any]  # (P,) which of the ids
    sizes: npt.NDArray[Any]  # (P,) pixels
    largest: npt.NDArray[Any]  # (N,) pixels

    @property
    def sizeable(self) -> npt.NDArray[Any]:
        """How many pieces each id has that are no crumbs, (N,)."""
        counted = (self.sizes >= _SIZEABLE_PX) & (self.sizes > _CRUMB * self.largest[self.owner])
        return np.asarray(np.bincount(self.owner[counted], minlength=len(self.ids)))


def check_frame(frame: Frame, image: npt.NDArray[Any], labels: npt.NDArray[Any]) -> tuple[int, list[int]]:
    """How many ids a frame has, and those whose pixels lie in several pieces: the largest of them is the cell.

    Raises DataError for what nothing can be learnt from: shapes, intensities or ids that are not as they should be. Ids
    in several sizeable pieces are an error where they are more than two, and more than a third of a frame's.
    """
    check_pair(frame, image, labels)
    _check_size(frame, image)
    _check_intensities(frame, image)
    _check_copy(frame, image if frame.z is None else image[frame.z], labels)
    return check_labels(frame.label_path, labels)


def check_labels(path: Path, labels: npt.NDArray[Any]) -> tuple[int, list[int]]:
    """The same of labels alone."""
    pieces = _pieces_of(labels)
    _check_instances(path, pieces)
    return len(pieces.ids), pieces.ids[np.bincount(pieces.owner, minlength=len(pieces.ids)) > 1].tolist()


def _check_size(frame: Frame, image: npt.NDArray[Any]) -> None:
    if len(image) == 1 and image.ndim == 3:
        raise DataError(f"{frame.image_path}: a stack of one slice {image.shape}; save image and labels as planes")
    if min(image.shape[-2:]) < _MIN_SIDE_PX:
        raise DataError(
            f"{frame.image_path}: planes of {image.shape[-2]}×{image.shape[-1]} pixels hold no whole cell; give images "
            f"of {_MIN_SIDE_PX} pixels or more a side (axes YX or ZYX)"
        )


def _check_intensities(frame: Frame, image: npt.NDArray[Any]) -> None:
    """Crops are stored as uint16: an image that would lose by that is refused."""
    check_range(frame.image_path, image)
    plane = image if frame.z is None else image[frame.z]
    if plane.min() == plane.max():
        where = "" if frame.z is None else f" of slice {frame.z}"
        raise DataError(f"{frame.image_path}: all pixels{where} are {plane.flat[0]}; export it again, or remove it")


def check_range(path: Path, image: npt.NDArray[Any]) -> None:
    """Raise DataError for an image that would lose something as uint16, which is what is painted."""
    lowest, highest = float(image.min()), float(image.max())
    if lowest < 0:
        raise DataError(f"{path}: intensities down to {lowest:g}; subtract the lowest of all images, save as uint16")
    if image.dtype.kind == "f" and highest <= 16:
        raise DataError(f"{path}: intensities up to {highest:g}; save it as uint16, stretched to 0…65535")
    if highest > np.iinfo(np.uint16).max:
        raise DataError(f"{path}: intensities up to {highest:g}; save it as uint16, divided to fit 65535")


def is_copy(labels: npt.NDArray[Any], image: npt.NDArray[Any]) -> bool:
    """Whether labels are the image itself: ids equal the light of their pixels by chance only."""
    inside = labels > 0
    return bool(np.count_nonzero((labels == image) & inside) > 0.5 * np.count_nonzero(inside))


def _check_copy(frame: Frame, image: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
    if is_copy(labels, image):
        raise DataError(
            f"{frame.label_path}: the image {frame.image_path.name} itself, not labels; save one integer id per cell "
            f"(0 = background)"
        )


def _pieces_of(labels: npt.NDArray[Any]) -> _Pieces:
    pieces = measure.label(labels, connectivity=labels.ndim)
    sizes = np.bincount(pieces.ravel())
    ids_of = np.zeros(len(sizes), labels.dtype)
    ids_of[pieces.ravel()] = labels.ravel()
    ids, owner = np.unique(ids_of[1:], return_inverse=True)
    largest = np.zeros(len(ids))
    np.maximum.at(largest, owner, sizes[1:])
    return _Pieces(ids, owner, sizes[1:], largest)


def _check_instances(path: Path, pieces: _Pieces) -> None:
    """Grey levels, classes such as cell and rim, and ids given twice are no cells."""
    ids, count = pieces.ids, len(pieces.ids)
    if not count:
        return
    specks = np.count_nonzero(pieces.sizes <= _SPECK_PX)
    scattered = pieces.largest.sum() < 0.5 * pieces.sizes.sum() or np.median(pieces.largest) <= _SPECK_PX
    if len(pieces.sizes) > _FEW_PIECES and 2 * specks > len(pieces.sizes) and scattered:
        raise DataError(
            f"{path}: {count} ids in {len(pieces.sizes)} pieces, most of 1 to {_SPECK_PX} pixels, as grey "
            f"levels of an image lie; save one integer id per cell (0 = background)"
        )
    sizeable = pieces.sizeable
    classes = ids[sizeable > _CLASS_PIECES].tolist()
    if 2 * len(classes) >= count:
        raise DataError(
            f"{path}: ids {some(classes)} lie in many pieces each, as classes do; give every cell "
            f"its own id (skimage.measure.label)"
        )
    split = ids[sizeable > 1].tolist()
    if ids[-1] in _TOPS and len(split) > 1 and len(split) >= 0.5 * split[-1]:  # the lowest ids: counting began anew
        wider = 16 if ids[-1] == _TOPS[0] else 32
        raise DataError(
            f"{path}: ids {some(split)} stand for several cells each, and the highest is {ids[-1]}: the "
            f"ids of more cells were wrapped around; save the labels anew as uint{wider}"
        )
    if len(split) > _FEW_SPLIT and len(split) > _SPLIT_SHARE * count:
        raise DataError(
            f"{path}: {len(split)} of {count} ids lie in several pieces: {some(split)}; give every cell "
            f"its own id, or keep the largest piece of each"
        )


def some(ids: Sequence[int]) -> str:
    """The first ids of many, to be read.

    >>> some([3, 5, 6, 8, 9, 11])
    '3, 5, 6, 8, 9, …'
    """
    return ", ".join(map(str, ids[:5])) + (", …" if len(ids) > 5 else "")
