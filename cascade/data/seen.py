"""The images of a folder that are looked at, raw or annotated, and the cells in them: as labelled, else as detected."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cascade.data.detection import detect
from cascade.data.frame_checks import check_labels, some
from cascade.data.frames import Frame
from cascade.data.images import find_images
from cascade.data.label_sets import LabelFile, find_labels
from cascade.data.spacing import needed_spacing, stored_spacing
from cascade.data.structure import FIND, structure_of_files
from cascade.evenly import evenly
from cascade.reading import DataError, read_image
from cascade.sketch.settings import Structure

log = logging.getLogger(__name__)

_MOST_RAW, _MOST_LABELLED = 24, 100  # images looked at, spread over the folder
_COMPARED, _UNLABELLED = 3, 2.0  # images of which cells are counted, and so many times the labels are too many
_SAME_SIZE = 0.01  # relative difference of voxel sizes that rounding makes


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What was looked at in a folder."""

    folder: Path
    origin: Literal["raw images", "labels"]
    """What the cells are known from."""
    num_images: int
    """In the folder; as many were looked at as there are `labels`."""
    spacing_um: tuple[float, ...]
    labels: list[npt.NDArray[Any]]
    paths: list[Path] | None
    """Of the images, one for each; None where there are labels only."""
    structure: Structure | None = None
    """What raw images show, and their cells were found by; None of labels."""
    channel: str | None = None
    """That is read of them, see `read_image`."""

    def image(self, number: int) -> npt.NDArray[Any] | None:
        """One image; None where there are labels only."""
        return None if self.paths is None else read_image(self.paths[number], self.channel)

    def images(self) -> Iterator[npt.NDArray[Any]] | None:
        """All of them, one by one; None where there are labels only."""
        return None if self.paths is None else (read_image(path, self.channel) for path in self.paths)


def look_at(
    folder: str | Path,
    *,
    truth: str = "gt",
    sequences: Sequence[str] = (),
    channel: str | None = None,
    spacing_um: Sequence[float] = (),
    raw: bool = False,
    most: int | None = None,
    whole: bool = True,
    structure: Structure | None = None,
) -> Seen:
    """Read the labels of a folder if all cells have some, else find cells in its images, by `detect`, or between
    membranes by `detect_tissue`.

    Layouts: those of `find_labels`; of raw images also any folder of them, and sequences `01/t000.tif`. channel: of
    images of several, one by its name or its number from 1. raw: pass over labels. most: images to look at, default 24
    raw and 100 labelled ones. whole: refuse labels in pieces. structure: of raw images, default what they show. Raises
    DataError, one line, where there are no images, where no cell can be seen in them, where they are of several
    dimensions or voxel sizes, and where labels lie in pieces."""
    source = Path(folder)
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; name the folder that holds the images")
    files = [] if raw else _label_files(source, truth, tuple(sequences), channel)
    if files and not _are_sparse(files, spacing_um):
        found = _of_labels(source, files, spacing_um, most or _MOST_LABELLED, whole)
        return replace(found, channel=files[0].frame.channel)  # none where each channel is a file
    paths = [path for sequence in find_images(source, sequences) for path in sequence]
    return _of_images(source, paths, channel, spacing_um, most or _MOST_RAW, structure)


def _of_images(
    source: Path,
    paths: list[Path],
    channel: str | None,
    given: Sequence[float],
    most: int,
    structure: Structure | None,
) -> Seen:
    some_paths = [paths[n] for n in evenly(len(paths), most)]
    images = [read_image(path, channel) for path in some_paths]
    spacing = _spacing(source, some_paths, [image.ndim for image in images], given)
    structure = structure or structure_of_files(paths, channel)
    labels = [FIND[structure](image, spacing) for image in images]
    if not any(plane.any() for plane in labels):
        raise DataError(
            f"{source}: no cell can be seen in any of {len(images)} images; look at them, or give numbers and sizes "
            f"instead (num_cells, radius_um)"
        )
    return Seen(
        folder=source,
        origin="raw images",
        num_images=len(paths),
        spacing_um=spacing,
        labels=labels,
        paths=some_paths,
        channel=channel,
        structure=structure,
    )


def _of_labels(source: Path, files: list[LabelFile], given: Sequence[float], most: int, whole: bool) -> Seen:
    chosen = [files[n] for n in evenly(len(files), most)]
    labels, known = [], []
    for file in chosen:
        annotation, _ = file.annotation(tuple(given))
        plane = annotation.labels
        known.append((file.path, annotation.spacing_um))
        _, split = check_labels(file.path, plane)
        if split and whole:
            raise DataError(
                f"{file.path}: {some(split)} in several pieces; give each piece an id of its own, or keep the largest"
            )
        labels.append(plane)
    if chosen[0].holds_spacing:
        _check_axes([file.path for file in chosen], [one.ndim for one in labels])
        _check_alike(known, "measure them apart")
        spacing = known[0][1]
    else:
        spacing = _spacing(source, [file.frame.image_path for file in chosen], [one.ndim for one in labels], given)
    if not any(plane.any() for plane in labels):
        raise DataError(f"{source}: no cell is labelled in any of {len(labels)} images")
    with_images = all(file.frame.image_path != file.path for file in chosen)
    return Seen(
        folder=source,
        origin="labels",
        num_images=len(files),
        spacing_um=spacing,
        labels=labels,
        paths=[file.frame.image_path for file in chosen] if with_images else None,
    )


def _label_files(source: Path, truth: str, sequences: tuple[str, ...], channel: str | None) -> list[LabelFile]:
    """Whole label images; none where there are none, or of single slices of stacks."""
    try:
        files = find_labels(source, truth, sequences, channel=channel)
    except DataError:
        return []
    return [] if any(file.frame.z is not None for file in files) else files


def _are_sparse(files: list[LabelFile], given: Sequence[float]) -> bool:
    """Whether images show far more cells than are labelled."""
    pairs = [file for file in files if file.frame.image_path != file.path]
    labelled = seen = 0
    for file in (pairs[n] for n in evenly(len(pairs), _COMPARED)):
        image, labels = file.frame.image(), file.frame.labels()
        if image.ndim == 2:
            labelled += len(np.unique(labels)) - 1
            seen += int(detect(image, given or (1.0, 1.0)).max())
    if seen > _UNLABELLED * max(labelled, 1):
        log.warning("%d cells are labelled where %d are seen: going by the raw images", labelled, seen)
        return True
    return False


def _spacing(source: Path, paths: list[Path], axes: list[int], given: Sequence[float]) -> tuple[float, ...]:
    """The one that all have. Raises DataError for several, and for planes among stacks."""
    _check_axes(paths, axes)
    spacing = needed_spacing(source, [Frame(path.stem, path, path) for path in paths], axes[0], given or None)
    if not given:
        stored = [(path, stored_spacing(path, axes[0])) for path in paths]
        known = [(path, own) for path, own in stored if own is not None]
        _check_alike(known, "measure them apart, or give spacing_um")
    return spacing


def _check_axes(paths: list[Path], axes: list[int]) -> None:
    odd = next((path for path, ndim in zip(paths, axes, strict=True) if ndim != axes[0]), None)
    if odd is not None:
        raise DataError(f"{odd}: another number of axes than {paths[0]} ({axes[0]}); measure planes and stacks apart")


def _check_alike(known: list[tuple[Path, tuple[float, ...]]], mend: str) -> None:
    for path, own in known[1:]:
        if not np.allclose(own, known[0][1], rtol=_SAME_SIZE):
            here, first = (" × ".join(f"{s:g}" for s in lengths) for lengths in (own, known[0][1]))
            raise DataError(f"{path}: voxels of {here} µm, but those of {known[0][0]} are {first}; {mend}")
