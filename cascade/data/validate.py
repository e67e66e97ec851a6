"""Is a data set sound? `cascade validate`, and what `prepare` asks before it begins."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt
from tqdm.auto import tqdm

from cascade.data.frame_checks import check_frame, check_labels, some
from cascade.data.frames import Frame, find_frames
from cascade.data.label_sets import LabelFile, bare_labels
from cascade.data.set_checks import Look, doubts_of, look_at, mistakes_of
from cascade.data.settings import ValidateSettings
from cascade.data.spacing import spacing_of
from cascade.reading import DataError


@dataclass(frozen=True)
class Soundness:
    """What was found. `errors` make a data set unfit for training, `warnings` deserve a look; both name files."""

    frames: int
    num_cells: int
    spacing_um: tuple[float, ...]
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def validate(settings: ValidateSettings) -> Soundness:
    """Look at every frame of a data set, generated or real, in a layout that `find_frames` knows; or, where it has no
    images, at its labels, in one that `bare_labels` knows.

    Raises DataError where there is nothing to look at.
    """
    labels = bare_labels(settings.folder, settings.truth, settings.sequences) if settings.folder.is_dir() else []
    if labels:
        return _soundness_of_labels(settings.folder, labels)
    sequences = list(settings.sequences) or None
    frames, bare = find_frames(settings.folder, settings.truth, sequences, channel=settings.channel)
    found = soundness(settings.folder, frames)
    if bare:
        found.warnings.append(f"{settings.folder}: {bare} images have no labels")
    return found


def _soundness_of_labels(source: Path, files: list[LabelFile]) -> Soundness:
    errors: list[str] = []
    warnings: list[str] = []
    num_cells = 0
    known: dict[tuple[float, ...], LabelFile] = {}
    origin = ""
    for file in tqdm(files, desc="validating", unit="frame"):
        try:
            annotation, origin = file.annotation()
            num_ids, split = check_labels(file.path, annotation.labels)
        except DataError as error:
            errors.append(str(error))
            continue
        num_cells += num_ids
        if split and file.path.suffix == ".safetensors":
            errors.append(f"{file.path}: ids in several pieces: {some(split)}; an annotation has one piece each")
        elif split:
            warnings.append(f"{file.path}: ids in several pieces: {some(split)}; give every piece an id, or keep one")
        if not num_ids:
            warnings.append(f"{file.path}: an empty frame")
        other = next((one for spacing, one in known.items() if len(spacing) != annotation.ndim), None)
        if other is not None:
            errors.append(f"{file.path}: {annotation.ndim} axes, unlike {other.path}; keep planes and stacks apart")
        elif known and annotation.spacing_um not in known:
            warnings.append(f"{file.path}: voxels of another size than in {next(iter(known.values())).path}")
        known.setdefault(annotation.spacing_um, file)
    if origin == "assumed":
        place = "the files themselves (of COCO: info, spacing_um)" if files[0].holds_spacing else "dataset.json"
        warnings.append(f"{source}: no voxel size stored; write it to {place}")
    return Soundness(len(files), num_cells, next(iter(known), ()), errors, warnings)


def soundness(
    source: str | Path, frames: list[Frame], spacing_um: Sequence[float] | None = None, *, first_only: bool = False
) -> Soundness:
    """What `validate` finds in these frames. spacing_um: of all of them, whatever is stored with them.

    Raises DataError with the first error if `first_only`, for those who cannot go on with any.
    """
    errors: list[str] = []
    warnings: list[str] = []
    num_cells = 0
    axes: dict[int, list[Frame]] = {}  # frames of so many axes
    looks: list[Look] = []
    for frame in tqdm(frames, desc="validating", unit="frame"):
        try:
            image = frame.image()
            axes.setdefault(image.ndim, []).append(frame)
            labels = frame.labels()
            num_ids, split = check_frame(frame, image, labels)
            looks.append(look_at(frame, image, labels))
        except DataError as error:
            if first_only:
                raise
            errors.append(str(error))
            continue
        num_cells += num_ids
        warnings += _doubts(frame, image, num_ids, split)
    spacing: tuple[float, ...] = ()
    origin = ""
    if axes:
        ndim, alike = next(iter(axes.items()))
        try:
            spacing, origin = spacing_of(source, alike, ndim, spacing_um)
        except DataError as error:
            errors.append(str(error))
    errors += mistakes_of(looks, spacing_given=origin in ("given", "dataset.json"))
    if errors and first_only:
        raise DataError(errors[0])
    if origin == "assumed":
        lengths = "Z Y X"[-2 * ndim + 1 :]
        warnings.append(
            f"{source}: no voxel size stored; ImageJ or OME metadata or dataset.json can hold it, or give prepare "
            f"spacing_um {lengths}"
        )
    return Soundness(len(frames), num_cells, spacing, errors, warnings + list(doubts_of(looks)))


def _doubts(frame: Frame, image: npt.NDArray[Any], num_ids: int, split: list[int]) -> Iterator[str]:
    if image.dtype.kind == "f":
        yield f"{frame.image_path}: {image.dtype} intensities; uint16 is what tools expect"
    if not num_ids:
        yield f"{frame.label_path}: an empty frame"
    if split:
        yield f"{frame.label_path}: ids in several pieces: {some(split)}; prepare keeps the largest of each"
