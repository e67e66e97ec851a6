"""A folder of images, raw or annotated, and what is to be simulated like it: `cascade simulate --like`."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cascade.data.calibrate import nuclei_like, tissue_like
from cascade.data.detection import detect
from cascade.data.frame_checks import check_labels, some
from cascade.data.frames import Frame
from cascade.data.label_sets import LabelFile, find_labels
from cascade.data.measures import Measures, measure_labels
from cascade.data.spacing import needed_spacing, tiff_spacing
from cascade.evenly import evenly
from cascade.export.preview import outlined_sheet
from cascade.reading import DataError, is_image, read_image
from cascade.simulators.nuclei import NucleiSettings
from cascade.simulators.tissue import TissueSettings

log = logging.getLogger(__name__)

_MOST_RAW, _MOST_LABELLED = 24, 100  # images looked at, spread over the folder
_SHOWN = 6
_COMPARED, _UNLABELLED = 3, 2.0  # images of which cells are counted, and so many times the labels are too many
_SAME_SIZE = 0.01  # relative difference of voxel sizes that rounding makes
_MASK = re.compile(r"_(cp_)?masks$")
_TISSUE_TOUCHING = 0.9  # share of cells that touch another one, in stacks: of nuclei fewer do

_Picture = tuple[npt.NDArray[Any] | None, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Likeness:
    """What the images of a folder show: how large cells are, how many, of which shape, how crowded and how bright."""

    folder: Path
    origin: Literal["raw images", "labels"]
    """What it was read from."""
    num_images: int
    """In the folder; so many were looked at as `measures.cells_per_image` has values."""
    image_shape: tuple[int, ...]
    """Median."""
    spacing_um: tuple[float, ...]
    organism: Literal["nuclei", "tissue"]
    """The simulator to choose."""
    measures: Measures
    pictures: tuple[_Picture, ...]
    """Some of the images (None where there are labels only), and the cells seen in them."""

    def settings(self, *, canvas_size: Sequence[int] | None = None, seed: int = 0) -> NucleiSettings:
        """At which nuclei have these measures, see `nuclei_like`; default canvas: as large as the images.

        Raises ValueError where no whole cell was seen, and for a canvas of another dimension.
        """
        if canvas_size is not None and len(canvas_size) != len(self.image_shape):
            raise ValueError(
                f"canvas_size has {len(canvas_size)} sides, the images in {self.folder} have {len(self.image_shape)}"
            )
        return nuclei_like(self.measures, self.image_shape, self.spacing_um, canvas_size=canvas_size, seed=seed)

    def tissue_settings(self, *, canvas_size: Sequence[int] | None = None, seed: int = 0) -> TissueSettings:
        """At which a tissue's cells are as large, as long and as tall, see `tissue_like`."""
        return tissue_like(self.measures, self.image_shape, self.spacing_um, canvas_size=canvas_size, seed=seed)

    def table(self) -> str:
        """Mean, spread and range of every measure, a line each."""
        lengths = " × ".join(f"{s:g}" for s in self.spacing_um)
        sizes = " × ".join(map(str, self.image_shape))
        looked = len(self.measures.cells_per_image)
        lines = [
            f"{self.folder}: {looked} of {self.num_images} images ({self.origin}), {sizes} voxels of {lengths} µm",
            f"{'':18}{'mean':>9}{'sd':>9}{'5 %':>9}{'95 %':>9}{'of':>7}",
        ]
        for name, values in vars(self.measures).items():
            if len(values):
                low, high = np.percentile(values, [5, 95])
                numbers = "".join(f"{value:9.3g}" for value in (np.mean(values), np.std(values), low, high))
                lines.append(f"{name:18}{numbers}{len(values):7d}")
        return "\n".join(lines)

    def draw(self, path: Path) -> None:
        """Write a picture of what was seen, outlined on the images, of stacks the slice with most cells."""
        outlined_sheet(self.pictures, path)


def like(
    folder: str | Path,
    *,
    truth: str = "gt",
    sequences: Sequence[str] = (),
    spacing_um: Sequence[float] = (),
    raw: bool = False,
) -> Likeness:
    """Measure the images of a folder: by their labels if all cells have some, else by what `detect` finds.

    Layouts: those of `find_labels`; of raw images also any folder of them, and sequences `01/t000.tif`. raw: pass over
    labels. Raises DataError, one line, where there are no images, where no cell can be seen in them, where they are of
    several dimensions or voxel sizes, and where labels lie in pieces.
    """
    source = Path(folder)
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; name the folder that holds the images")
    files = [] if raw else _label_files(source, truth, tuple(sequences))
    if files and not _are_sparse(files, spacing_um):
        return _of_labels(source, files, spacing_um)
    return _of_images(source, _raw_images(source, tuple(sequences)), spacing_um)


def _of_images(source: Path, paths: list[Path], given: Sequence[float]) -> Likeness:
    some_paths = [paths[n] for n in evenly(len(paths), _MOST_RAW)]
    images = [read_image(path) for path in some_paths]
    spacing = _spacing(source, some_paths, [image.ndim for image in images], given)
    labels = [detect(image, spacing) for image in images]
    if not any(plane.any() for plane in labels):
        raise DataError(
            f"{source}: no cell can be seen in any of {len(images)} images; look at them, or give numbers and sizes "
            f"instead (num_cells, radius_um)"
        )
    measures = measure_labels(labels, spacing, images)
    return _likeness(source, "raw images", len(paths), spacing, measures, list(zip(images, labels, strict=True)))


def _of_labels(source: Path, files: list[LabelFile], given: Sequence[float]) -> Likeness:
    chosen = [files[n] for n in evenly(len(files), _MOST_LABELLED)]
    labels = []
    for file in chosen:
        annotation, _ = file.annotation(tuple(given))
        plane = annotation.labels
        _, split = check_labels(file.path, plane)
        if split:
            raise DataError(
                f"{file.path}: {some(split)} in several pieces; give each piece an id of its own, or keep the largest"
            )
        labels.append(plane)
    if chosen[0].holds_spacing:
        spacing = annotation.spacing_um
    else:
        spacing = _spacing(source, [file.frame.image_path for file in chosen], [one.ndim for one in labels], given)
    if not any(plane.any() for plane in labels):
        raise DataError(f"{source}: no cell is labelled in any of {len(labels)} images")
    with_images = all(file.frame.image_path != file.path for file in chosen)
    images = (file.frame.image() for file in chosen) if with_images else None
    measures = measure_labels(labels, spacing, images)
    pictures: list[_Picture] = [
        (chosen[n].frame.image() if with_images else None, labels[n]) for n in evenly(len(labels), _SHOWN)
    ]
    return _likeness(source, "labels", len(files), spacing, measures, pictures)


def _likeness(
    source: Path,
    origin: Literal["raw images", "labels"],
    num_images: int,
    spacing: tuple[float, ...],
    measures: Measures,
    pictures: list[_Picture],
) -> Likeness:
    shapes = np.array([labels.shape for _, labels in pictures])
    dense = origin == "labels" and len(spacing) == 3 and np.mean(measures.touching) > _TISSUE_TOUCHING
    return Likeness(
        folder=source,
        origin=origin,
        num_images=num_images,
        image_shape=tuple(int(n) for n in np.median(shapes, 0)),
        spacing_um=spacing,
        organism="tissue" if dense else "nuclei",
        measures=measures,
        pictures=tuple(pictures[n] for n in evenly(len(pictures), _SHOWN)),
    )


def _label_files(source: Path, truth: str, sequences: tuple[str, ...]) -> list[LabelFile]:
    """Whole label images; none where there are none, or of single slices of stacks."""
    try:
        files = find_labels(source, truth, sequences)
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


def _raw_images(source: Path, sequences: tuple[str, ...]) -> list[Path]:
    folders = sorted(p for p in source.iterdir() if p.is_dir() and re.fullmatch(r"\d{2,}", p.name))
    missing = sorted(set(sequences) - {p.name for p in folders})
    if missing:
        raise DataError(f"{source}: no sequence {', '.join(missing)}; there are {', '.join(p.name for p in folders)}")
    folders = [p for p in folders if not sequences or p.name in sequences] or [source]
    files = (path for folder in folders for path in sorted(folder.iterdir()))
    paths = [path for path in files if is_image(path) and not _MASK.search(path.stem.removesuffix(".ome"))]
    if not paths:
        raise DataError(f"{source}: no images (.tif, .tiff, .png); name the folder that holds them")
    return paths


def _spacing(source: Path, paths: list[Path], axes: list[int], given: Sequence[float]) -> tuple[float, ...]:
    """The one that all have. Raises DataError for several, and for planes among stacks."""
    odd = next((path for path, ndim in zip(paths, axes, strict=True) if ndim != axes[0]), None)
    if odd is not None:
        raise DataError(f"{odd}: another number of axes than {paths[0]} ({axes[0]}); measure planes and stacks apart")
    spacing = needed_spacing(source, [Frame(path.stem, path, path) for path in paths[:1]], axes[0], given or None)
    if not given:
        stored = [(path, tiff_spacing(path, axes[0])) for path in paths]
        known = [(path, own) for path, own in stored if own is not None]
        for path, own in known[1:]:
            if not np.allclose(own, known[0][1], rtol=_SAME_SIZE):
                here, first = (" × ".join(f"{s:g}" for s in lengths) for lengths in (own, known[0][1]))
                raise DataError(
                    f"{path}: voxels of {here} µm, but those of {known[0][0]} are {first}; measure them apart, or give "
                    f"spacing_um"
                )
    return spacing
