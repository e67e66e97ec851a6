"""Labels that others found in the test images, scored like those of a trained segmenter."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.data.frame_checks import is_copy
from cascade.data.frames import Frame
from cascade.evaluation.labelled import LabelledImage
from cascade.reading import DataError, is_image, read_labels


def read_predictions(folder: Path, test: list[LabelledImage], frames: Iterable[Frame]) -> list[npt.NDArray[Any]]:
    """Labels of each test image, integer, 0 where nothing was found.

    Of the frame 01/t012 the file is called as its image or its labels (t012.tif, man_seg012.tif), as the results of the
    Cell Tracking Challenge (mask012.tif), or t012_cp_masks.tif, t012_masks.tif; it lies in `folder`, or there in
    01_RES/ or 01_ST/SEG/. Of a test image that is one slice of a stack, labels of the stack give that slice.
    Raises DataError for a frame without labels, or with several, and for labels of another shape.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name the folder that holds the predicted labels")
    found: dict[Path, Frame] = {}
    labels = []
    for one, frame in zip(test, frames, strict=True):
        path = _file_of(folder, frame)
        other = found.setdefault(path, frame)
        if other.image_path != frame.image_path:
            raise DataError(
                f"{path}: is the only file of {other.name} and of {frame.name}; lay those of each sequence in a folder "
                f"of its own, {frame.name.split('/')[0]}_RES for one"
            )
        labels.append(_read(path, one, frame))
    return labels


def _file_of(folder: Path, frame: Frame) -> Path:
    sequence = frame.name.split("/")[0]
    image, labels = frame.image_path.stem, frame.label_path.stem
    time = image.removeprefix("t")
    names = {image, labels, f"{image}_cp_masks", f"{image}_masks", f"mask{time}", f"man_seg{time}"}
    places = [folder, *(folder / place for place in (f"{sequence}_RES", f"{sequence}_ST/SEG"))]
    found = [path for place in places if place.is_dir() for path in place.iterdir() if path.stem in names]
    found = sorted(path for path in found if is_image(path))
    if len(found) > 1:  # masks beside a copy of their image
        found = [path for path in found if path.stem != image] or found
    if len(found) != 1:
        what = f"{found[0].name} and {found[1].name} are both" if found else "no file is"
        raise DataError(f"{folder}: {what} of {frame.name}; give each test image one file, such as {image}.tif")
    return found[0]


def _read(path: Path, one: LabelledImage, frame: Frame) -> npt.NDArray[Any]:
    labels = read_labels(path)
    if frame.z is not None and labels.ndim == 3 and frame.z < len(labels):
        labels = labels[frame.z]
    if labels.shape != one.labels.shape:
        raise DataError(f"{path}: shape {labels.shape} does not fit {frame.image_path} with {one.labels.shape}")
    if is_copy(labels, one.image):
        raise DataError(f"{path}: the image itself, not labels; name the folder that holds the predicted labels")
    return labels.astype(np.int32)
