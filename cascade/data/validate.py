"""Is a data set sound? Ids, connectivity, shapes, spacing, dtype, empty frames: `cascade validate`."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import ndimage
from tqdm.auto import tqdm

from cascade.data.frames import DataError, check_pair, find_frames, spacing_of


@dataclass(frozen=True)
class Soundness:
    """What was found. `errors` make a data set unfit for training, `warnings` deserve a look; both name files."""

    frames: int
    cells: int
    spacing_um: tuple[float, ...]
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def validate(source: str | Path, truth: str = "gt") -> Soundness:
    """Look at every frame of a data set, generated or real, in a layout that `find_frames` knows.

    Raises DataError where there is nothing to look at.
    """
    frames, bare = find_frames(source, truth)
    errors, warnings, cells, shapes = [], [], 0, {}
    spacing: tuple[float, ...] = ()
    for frame in tqdm(frames, desc="validating", unit="frame"):
        try:
            image, labels = frame.image(), frame.labels()
            check_pair(frame, image, labels)
        except DataError as error:
            errors.append(str(error))
            continue
        if not spacing:
            spacing, origin = spacing_of(source, frames, image.ndim)
            if origin == "assumed":
                warnings.append(f"{source}: no voxel size stored; ImageJ or OME metadata or dataset.json can hold it")
        shapes.setdefault(image.ndim, frame.image_path)
        if image.dtype.kind == "f":
            warnings.append(f"{frame.image_path}: {image.dtype} intensities; uint16 is what tools expect")
        ids = np.unique(labels)[1:]
        cells += len(ids)
        if not len(ids):
            warnings.append(f"{frame.label_path}: an empty frame")
        split = _in_pieces(labels)
        if split:
            errors.append(f"{frame.label_path}: ids in several pieces: {', '.join(map(str, split[:5]))}")
        if image.max() == image.min():
            errors.append(f"{frame.image_path}: all pixels are {image.flat[0]}")
    if len(shapes) > 1:
        errors.append(f"{source}: planes ({shapes[2]}) and stacks ({shapes[3]}) in one data set")
    if bare:
        warnings.append(f"{source}: {bare} images have no labels")
    return Soundness(len(frames), cells, spacing, errors, warnings)


def _in_pieces(labels: np.ndarray) -> list[int]:
    """Ids whose voxels are not all connected, corners counting as connections."""
    structure = np.ones((3,) * labels.ndim)
    split = []
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None and ndimage.label(labels[box] == label, structure)[1] > 1:
            split.append(label)
    return split
