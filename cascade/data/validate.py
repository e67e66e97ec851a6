"""Is a data set sound? Intensities, ids, connectivity, shapes, spacing, empty frames: `cascade validate`."""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from skimage import measure
from tqdm.auto import tqdm

from cascade.data.frames import DataError, Frame, check_pair, find_frames
from cascade.data.settings import ValidateSettings
from cascade.data.spacing import spacing_of


@dataclass(frozen=True)
class Soundness:
    """What was found. `errors` make a data set unfit for training, `warnings` deserve a look; both name files."""

    frames: int
    cells: int
    spacing_um: tuple[float, ...]
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def validate(settings: ValidateSettings) -> Soundness:
    """Look at every frame of a data set, generated or real, in a layout that `find_frames` knows.

    Raises DataError where there is nothing to look at.
    """
    source = settings.folder
    frames, bare = find_frames(source, settings.truth, list(settings.sequences) or None)
    errors, warnings, cells, shapes = [], [], 0, {}
    spacing: tuple[float, ...] = ()
    read: list[Frame] = []
    for frame in tqdm(frames, desc="validating", unit="frame"):
        try:
            image, labels = frame.image(), frame.labels()
            shapes.setdefault(image.ndim, frame.image_path)
            read.append(frame)
            check_frame(frame, image, labels)
        except DataError as error:
            errors.append(str(error))
            continue
        if image.dtype.kind == "f":
            warnings.append(f"{frame.image_path}: {image.dtype} intensities; uint16 is what tools expect")
        ids = np.unique(labels[labels > 0])
        cells += len(ids)
        if not len(ids):
            warnings.append(f"{frame.label_path}: an empty frame")
        split = _in_pieces(labels)
        if split:
            errors.append(f"{frame.label_path}: ids in several pieces: {', '.join(map(str, split[:5]))}")
    if read:
        spacing = _spacing(source, read, next(iter(shapes)), errors, warnings)
    if len(shapes) > 1:
        errors.append(f"{source}: planes ({shapes[2]}) and stacks ({shapes[3]}) in one data set")
    if bare:
        warnings.append(f"{source}: {bare} images have no labels")
    return Soundness(len(frames), cells, spacing, errors, warnings)


def check_frame(frame: Frame, image: np.ndarray, labels: np.ndarray) -> None:
    """Raises DataError for what `prepare` cannot use: shapes, intensities or ids that are not as they should be."""
    check_pair(frame, image, labels)
    _check_intensities(frame, image)
    _check_instances(frame, labels)


def _check_intensities(frame: Frame, image: np.ndarray) -> None:
    """Crops are stored as uint16: an image that would lose by that is refused."""
    lowest, highest = float(image.min()), float(image.max())
    if lowest < 0:
        raise DataError(
            f"{frame.image_path}: intensities down to {lowest:g}; subtract the lowest of all images, save as uint16"
        )
    plane = image if frame.z is None else image[frame.z]
    if plane.min() == plane.max():
        where = "" if frame.z is None else f" of slice {frame.z}"
        raise DataError(f"{frame.image_path}: all pixels{where} are {plane.flat[0]}; export it again, or remove it")
    if image.dtype.kind == "f" and highest <= 16:
        raise DataError(f"{frame.image_path}: intensities up to {highest:g}; save it as uint16, stretched to 0…65535")
    if highest > np.iinfo(np.uint16).max:
        raise DataError(f"{frame.image_path}: intensities up to {highest:g}; save it as uint16, divided to fit 65535")


def _check_instances(frame: Frame, labels: np.ndarray) -> None:
    """Classes, such as cell and rim, are no cells: each id lies in many pieces of which none is a crumb."""
    pieces = measure.label(labels, connectivity=labels.ndim)
    sizes = np.bincount(pieces.ravel())
    owner = np.zeros(len(sizes), labels.dtype)
    owner[pieces.ravel()] = labels.ravel()
    ids, number = np.unique(owner[1:], return_inverse=True)
    largest = np.zeros(len(ids))
    np.maximum.at(largest, number, sizes[1:])
    sizeable = (sizes[1:] >= 12) & (sizes[1:] > 0.2 * largest[number])
    scattered = np.bincount(number[sizeable], minlength=len(ids)) > 5
    if 2 * scattered.sum() >= len(ids) > 0:
        raise DataError(
            f"{frame.label_path}: ids {', '.join(map(str, ids[scattered][:5]))} lie in many pieces each, as classes "
            f"do; give every cell its own id (skimage.measure.label)"
        )


def _spacing(source, frames: list[Frame], ndim: int, errors: list[str], warnings: list[str]) -> tuple[float, ...]:
    try:
        spacing, origin = spacing_of(source, frames, ndim)
    except DataError as error:
        errors.append(str(error))
        return ()
    if origin == "assumed":
        axes = "Z Y X"[-2 * ndim + 1 :]
        warnings.append(
            f"{source}: no voxel size stored; ImageJ or OME metadata or dataset.json can hold it, or give prepare "
            f"--spacing_um {axes}"
        )
    return spacing


def _in_pieces(labels: np.ndarray) -> list[int]:
    """Ids whose voxels are not all connected, corners counting as connections."""
    structure = np.ones((3,) * labels.ndim)
    split = []
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None and ndimage.label(labels[box] == label, structure)[1] > 1:
            split.append(label)
    return split
