"""Annotated frames of a data set, found by layout."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cascade.data.listing import foreign, images_in, names_of, one_each
from cascade.data.outlines import is_outlines, read_outlines
from cascade.data.pairs import find_pairs
from cascade.reading import DataError, read_image, read_labels, read_plane_shape

__all__ = ["Annotated", "DataError", "Frame", "check_pair", "find_frames", "read_image", "read_labels"]

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Frame:
    """One annotated image: a plane, a stack, or a stack of which one slice is annotated.

    z is that slice, or None where the labels cover the whole image. channel is the one of several that is read, by
    name or by number from 1.
    """

    name: str
    image_path: Path
    label_path: Path
    z: int | None = None
    channel: str | None = None

    def image(self) -> npt.NDArray[Any]:
        """(Y, X) or (Z, Y, X), in the file's own dtype."""
        return read_image(self.image_path, self.channel)

    def labels(self) -> npt.NDArray[Any]:
        """Instance labels, integer: of the whole image, or (Y, X) of slice z."""
        if is_outlines(self.label_path):
            return read_outlines(self.label_path, read_plane_shape(self.image_path))
        return read_labels(self.label_path)


@dataclass(frozen=True)
class Annotated:
    """One image of the data set with its annotated frames (several, where several slices are annotated)."""

    path: Path
    frames: list[Frame]

    def image(self) -> npt.NDArray[Any]:
        return self.frames[0].image()

    def cover(self, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Voxels annotated as cell, bool; slices that nobody annotated are empty."""
        cover = np.zeros(shape, bool)
        for frame in self.frames:
            cover[... if frame.z is None else frame.z] |= frame.labels() > 0
        return cover


def find_frames(
    source: str | Path, truth: str = "gt", sequences: list[str] | None = None, *, channel: str | None = None
) -> tuple[list[Frame], int]:
    """The annotated frames under `source`, and how many images there have no annotation.

    Layouts: Cell Tracking Challenge (`01/t000.tif` with `01_GT/SEG/man_seg000.tif`, `man_seg_000_012.tif` for one
    slice of a stack, or `01_ST/SEG/…` with `truth="st"`), or those of `find_pairs`: labels or outlines beside the
    images, or in a folder of their own. Files end with .tif, .tiff or .png, images also with .czi, .lif or .nd2, in
    lower or upper case, OME-Zarr folders with .zarr, and one of these may be `source` itself; hidden files are passed
    over.
    channel: of images that have several, by name or by number from 1.
    Raises DataError where nothing annotated is found, and where two files are of the same frame.
    """
    source = Path(source)
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; name the folder that holds the images")
    folders = sorted(p for p in source.iterdir() if p.is_dir() and re.fullmatch(r"\d{2,}", p.name))
    if folders:
        return _ctc_frames(source, folders, truth, sequences, channel)
    if sequences:
        raise DataError(f"{source}: sequences need the Cell Tracking Challenge layout (folders 01, 02, …)")
    pairs, bare = find_pairs(source, channel)
    parts = {label.parent.name.lower() for _, _, label in pairs} & {"instancestr", "labelstr"}  # one channel a file
    return [Frame(*pair, channel=None if parts else channel) for pair in pairs], bare


def check_pair(frame: Frame, image: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
    """Raises DataError unless the labels fit the image (its slice z)."""
    if frame.z is None:
        expected = image.shape
    elif image.ndim != 3 or not 0 <= frame.z < len(image):
        raise DataError(f"{frame.label_path}: slice {frame.z} is not in {frame.image_path} of shape {image.shape}")
    else:
        expected = image.shape[1:]
    if len(expected) == 3 and labels.ndim == 2:
        channels = "; or, if these are channels, choose one with `channel`" if len(image) <= 4 else ""
        raise DataError(
            f"{frame.label_path}: one plane of labels {labels.shape} for the stack {frame.image_path} {expected}; name "
            f"the labels of slice 12 of 01/t000.tif 01_GT/SEG/man_seg_000_012.tif{channels}"
        )
    if labels.shape != expected:
        raise DataError(
            f"{frame.label_path}: shape {labels.shape} does not fit {frame.image_path} with {expected}; "
            f"export both from the same image"
        )


def _ctc_frames(
    source: Path, folders: list[Path], truth: str, sequences: list[str] | None, channel: str | None
) -> tuple[list[Frame], int]:
    if sequences:
        missing = sorted(set(sequences) - {p.name for p in folders})
        if missing:
            raise DataError(f"{source}: no sequence {', '.join(missing)}; there are {names_of(folders)}")
        folders = [p for p in folders if p.name in sequences]
    frames: list[Frame] = []
    bare = 0
    for folder in folders:
        images = _ctc_images(folder)
        found = _ctc_labels(_truth_folder(source, folder, folders, truth), folder, images, channel)
        frames += found
        bare += len(images) - len({frame.image_path for frame in found})
    if not frames:
        where = ", ".join(f"{p.name}_{truth.upper()}/SEG" for p in folders)
        raise DataError(f"{source}: no man_seg000.tif or man_seg_000_000.tif under {where}; name the masks so")
    return frames, bare


def _ctc_images(folder: Path) -> dict[int, Path]:
    """The images of a sequence, by their time."""
    images: dict[int, Path] = {}
    for path in one_each(images_in(folder)):
        match = re.fullmatch(r"t(\d{3,})", path.stem)
        if match:
            _put(images, int(match[1]), path, f"time {int(match[1])}")
    if not images:
        raise DataError(f"{folder}: no images named t000.tif, t001.tif, …{foreign(folder)}")
    return images


def _ctc_labels(seg: Path, folder: Path, images: dict[int, Path], channel: str | None) -> list[Frame]:
    """The annotated frames of a sequence, in the order of their files' names."""
    labels: dict[tuple[int, int | None], Path] = {}
    frames = []
    for path in images_in(seg):
        match = re.fullmatch(r"man_seg_?(\d{3,})(?:_(\d{3,}))?", path.stem)
        if not match:
            continue
        time, z = int(match[1]), int(match[2]) if match[2] else None
        if time not in images:
            raise DataError(f"{path}: there is no image t{match[1]}.tif for it in {folder}")
        _put(labels, (time, z), path, f"time {time}" + ("" if z is None else f", slice {z}"))
        name = f"{folder.name}/t{match[1]}" + (f"/z{match[2]}" if match[2] else "")
        frames.append(Frame(name, images[time], path, z, channel))
    return frames


def _truth_folder(source: Path, folder: Path, folders: list[Path], truth: str) -> Path:
    seg = source / f"{folder.name}_{truth.upper()}" / "SEG"
    if seg.is_dir():
        return seg
    other = "st" if truth == "gt" else "gt"
    there = (source / f"{folder.name}_{other.upper()}" / "SEG").is_dir()
    mend = f"choose the other truth, {other}" if there else "annotated masks belong there"
    known = [p.name for p in folders if (source / f"{p.name}_{truth.upper()}" / "SEG").is_dir()]
    mend += f", or only the annotated sequences, {' '.join(known)}" if known else ""
    raise DataError(f"{seg}: no such folder; {mend}")


def _put(found: dict[_Key, Path], key: _Key, path: Path, what: str) -> None:
    if key in found:
        raise DataError(f"{path}: {found[key].name} is of {what}, too; keep one of them")
    found[key] = path
