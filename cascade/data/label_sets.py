"""Labels, with or without images: found by layout, and read as annotations with their voxel size."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cascade.annotation import Annotation
from cascade.data.exported import COCO, images_of, read_exported, rows_of, settled_spacing, unsigned
from cascade.data.frames import Frame, find_frames
from cascade.data.spacing import spacing_of
from cascade.export.annotations import load_annotation
from cascade.ngff import holds_image, is_zarr
from cascade.reading import DataError, is_image

_FOLDERS = {"masks": "images", "labels": "images", "instancesTr": "imagesTr"}  # of StarDist, OME-TIFF, nnU-Net
_TAGS = ("_masks", "_cp_masks")


@dataclass(frozen=True)
class LabelFile:
    """Labels of one plane or stack, in a file of their own."""

    source: Path
    """Folder of the data set, whose dataset.json may say the voxel size."""
    frame: Frame
    """Of labels without an image, its image is the labels themselves."""
    number: int = 0
    """Among the images that the file describes, where there are several."""

    @property
    def path(self) -> Path:
        """The file."""
        return self.frame.label_path

    @property
    def holds_spacing(self) -> bool:
        """Whether the file itself says the voxel size, if it is known, so that no other can be given."""
        return self.path.suffix in (".safetensors", ".zarr", ".parquet", ".json")

    @property
    def files(self) -> list[Path]:
        """The file, or all those of a folder in its place."""
        return sorted(p for p in self.path.rglob("*") if p.is_file()) if self.path.is_dir() else [self.path]

    def annotation(self, spacing_um: tuple[float, ...] = ()) -> tuple[Annotation, str]:
        """With what is known of the cells, and where the voxel size is from, see `spacing_of`.

        Labels of one slice of a stack are a plane. Raises DataError for files that hold no labels, and for a voxel size
        that is not the one they hold.
        """
        if self.path.suffix == ".safetensors":
            return self._own_annotation(spacing_um), "annotation"
        if self.holds_spacing:
            return read_exported(self.path, self.number, spacing_um)
        labels = unsigned(self.frame.labels())
        spacing, origin = self._spacing(labels.ndim, spacing_um)
        return Annotation.of_labels(labels, spacing[-labels.ndim :]), origin

    def _own_annotation(self, spacing_um: tuple[float, ...]) -> Annotation:
        try:
            found = load_annotation(self.path)
        except ValueError as error:
            raise DataError(str(error)) from error
        try:
            settled_spacing(found.spacing_um, spacing_um, found.ndim)
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from error
        return found

    def step_um(self, spacing_um: tuple[float, ...] = ()) -> float | None:
        """From one slice to the next, of the stack that the labels are a slice of; None if that is not known."""
        if self.frame.z is None and len(spacing_um) < 3:
            return None
        spacing, origin = self._spacing(2, spacing_um)
        return None if origin == "assumed" else spacing[0]

    def _spacing(self, ndim: int, spacing_um: tuple[float, ...]) -> tuple[tuple[float, ...], str]:
        deep = self.frame.z is not None or len(spacing_um) == 3
        return spacing_of(self.source, [self.frame], 3 if deep else ndim, spacing_um)


def find_labels(
    source: Path, truth: str = "gt", sequences: tuple[str, ...] = (), *, channel: str | None = None
) -> list[LabelFile]:
    """Label files under `source`, whether or not there are images of them.

    Layouts: those of `bare_labels`, and those of `find_frames`. channel: of the images that have several. Raises
    DataError where nothing is found."""
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; name the folder that holds the labels")
    bare = bare_labels(source, truth, sequences)
    frames = [] if bare else find_frames(source, truth, list(sequences) or None, channel=channel)[0]
    return bare or [LabelFile(source, frame) for frame in frames]


def bare_labels(source: Path, truth: str = "gt", sequences: tuple[str, ...] = ()) -> list[LabelFile]:
    """Label files without images under `source`; none in a folder of images.

    Layouts: annotations as this package writes them (`annotations/sample_000000.safetensors`), the Cell Tracking
    Challenge's truth (`01_GT/SEG/man_seg000.tif`), Cellpose's masks (`x_masks.tif`, also in `train/`), StarDist's
    `masks/`, `labels/` of OME-TIFFs and nnU-Net's `instancesTr/`, and OME-Zarr without images. Of COCO and Hugging
    Face's Parquet only the labels are read, whether or not there are images.
    """
    if is_zarr(source):
        return [] if holds_image(source) else [_bare(source, source)]
    for folder in (source / "annotations", source):
        paths = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        if paths:
            return [_bare(source, path) for path in paths]
    truths = [p for p in sorted(source.iterdir()) if re.fullmatch(rf"\d{{2,}}_{truth.upper()}", p.name)]
    if truths and not any((source / p.name[:-3]).is_dir() for p in truths):
        kept = [p for p in truths if not sequences or p.name[:-3] in sequences]
        if missing := sorted(set(sequences) - {p.name[:-3] for p in kept}):
            known = ", ".join(p.name[:-3] for p in truths)
            raise DataError(f"{source}: no sequence {', '.join(missing)}; there are {known}")
        return [_bare(source, path) for p in kept for path in _images(p / "SEG") if path.stem.startswith("man_seg")]
    for folder in (source, source / "stacks", source / "train"):
        paths = list(_images(folder))
        if paths and all(path.stem.endswith(_TAGS) for path in paths):
            return [_bare(folder, path) for path in paths]
    stores = sorted(source.glob("*.ome.zarr"))
    if stores and holds_image(stores[0]):
        return []
    if stores:
        return [_bare(source, path) for path in stores]
    tables = sorted((source / "data").glob("*.parquet"))
    rows = [LabelFile(source, Frame(path.stem, path, path), n) for path in tables for n in range(rows_of(path))]
    if rows:
        return rows
    if (coco := source / COCO).is_file():
        return [LabelFile(source, Frame(name, coco, coco), n) for n, name in enumerate(images_of(coco))]
    for name, images in _FOLDERS.items():
        paths = list(_images(source / name))
        if paths and not (source / images).is_dir():
            return [_bare(source, path) for path in paths]
    return []


def _bare(source: Path, path: Path) -> LabelFile:
    return LabelFile(source, Frame(path.stem, path, path))


def _images(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.iterdir()) if is_image(p)) if folder.is_dir() else iter(())
