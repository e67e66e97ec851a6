"""Annotated frames of a data set, found by layout."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy.typing as npt

from cascade.reading import DataError, is_image, read_image, read_labels

__all__ = ["DataError", "Frame", "check_pair", "find_frames", "read_image", "read_labels"]

_MASK_TAGS = ("_masks", "_cp_masks")  # the second is what Cellpose's own window writes
_IMAGE_TAGS = ("", "_img")  # the second is how Cellpose names its own data set, 000_img.png
_NEAR_TAGS = ("_mask", "_label", "_labels", "_seg", "_gt")  # of masks named otherwise
_Key = TypeVar("_Key")
_FOREIGN = (".jpg", ".jpeg", ".bmp", ".gif", ".czi", ".nd2", ".lif", ".lsm", ".ims", ".npy")


@dataclass(frozen=True)
class Frame:
    """One annotated image: a plane, a stack, or a stack of which one slice is annotated.

    z is that slice, or None where the labels cover the whole image.
    """

    name: str
    image_path: Path
    label_path: Path
    z: int | None = None

    def image(self) -> npt.NDArray[Any]:
        """(Y, X) or (Z, Y, X), in the file's own dtype."""
        return read_image(self.image_path)

    def labels(self) -> npt.NDArray[Any]:
        """Instance labels, integer: of the whole image, or (Y, X) of slice z."""
        return read_labels(self.label_path)


def find_frames(source: str | Path, truth: str = "gt", sequences: list[str] | None = None) -> tuple[list[Frame], int]:
    """The annotated frames under `source`, and how many images there have no annotation.

    Layouts: Cell Tracking Challenge (`01/t000.tif` with `01_GT/SEG/man_seg000.tif`, `man_seg_000_012.tif` for one
    slice of a stack, or `01_ST/SEG/…` with `truth="st"`), or Cellpose pairs (`x.tif` with `x_masks.tif` or
    `x_cp_masks.tif`, `x_img.tif` with `x_masks.tif`; `.ome.tif` as well). Files end with .tif, .tiff or .png, in
    lower or upper case; hidden files are passed over.
    Raises DataError where nothing annotated is found, and where two files are of the same frame.
    """
    source = Path(source)
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; name the folder that holds the images")
    folders = sorted(p for p in source.iterdir() if p.is_dir() and re.fullmatch(r"\d{2,}", p.name))
    if folders:
        return _ctc_frames(source, folders, truth, sequences)
    if sequences:
        raise DataError(f"{source}: sequences need the Cell Tracking Challenge layout (folders 01, 02, …)")
    return _pair_frames(source)


def check_pair(frame: Frame, image: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
    """Raises DataError unless the labels fit the image (its slice z)."""
    if frame.z is None:
        expected = image.shape
    elif image.ndim != 3 or not 0 <= frame.z < len(image):
        raise DataError(f"{frame.label_path}: slice {frame.z} is not in {frame.image_path} of shape {image.shape}")
    else:
        expected = image.shape[1:]
    if len(expected) == 3 and labels.ndim == 2:
        channels = "; or, if these are channels, export one" if len(image) <= 4 else ""
        raise DataError(
            f"{frame.label_path}: one plane of labels {labels.shape} for the stack {frame.image_path} {expected}; name "
            f"the labels of slice 12 of 01/t000.tif 01_GT/SEG/man_seg_000_012.tif{channels}"
        )
    if labels.shape != expected:
        raise DataError(
            f"{frame.label_path}: shape {labels.shape} does not fit {frame.image_path} with {expected}; "
            f"export both from the same image"
        )


def _ctc_frames(source: Path, folders: list[Path], truth: str, sequences: list[str] | None) -> tuple[list[Frame], int]:
    if sequences:
        missing = sorted(set(sequences) - {p.name for p in folders})
        if missing:
            raise DataError(f"{source}: no sequence {', '.join(missing)}; there are {_names(folders)}")
        folders = [p for p in folders if p.name in sequences]
    frames: list[Frame] = []
    bare = 0
    for folder in folders:
        images = _ctc_images(folder)
        found = _ctc_labels(_truth_folder(source, folder, folders, truth), folder, images)
        frames += found
        bare += len(images) - len({frame.image_path for frame in found})
    if not frames:
        where = ", ".join(f"{p.name}_{truth.upper()}/SEG" for p in folders)
        raise DataError(f"{source}: no man_seg000.tif or man_seg_000_000.tif under {where}; name the masks so")
    return frames, bare


def _ctc_images(folder: Path) -> dict[int, Path]:
    """The images of a sequence, by their time."""
    images: dict[int, Path] = {}
    for path in _one_each(_images(folder)):
        match = re.fullmatch(r"t(\d{3,})", path.stem)
        if match:
            _put(images, int(match[1]), path, f"time {int(match[1])}")
    if not images:
        raise DataError(f"{folder}: no images named t000.tif, t001.tif, …{_foreign(folder)}")
    return images


def _ctc_labels(seg: Path, folder: Path, images: dict[int, Path]) -> list[Frame]:
    """The annotated frames of a sequence, in the order of their files' names."""
    labels: dict[tuple[int, int | None], Path] = {}
    frames = []
    for path in _images(seg):
        match = re.fullmatch(r"man_seg_?(\d{3,})(?:_(\d{3,}))?", path.stem)
        if not match:
            continue
        time, z = int(match[1]), int(match[2]) if match[2] else None
        if time not in images:
            raise DataError(f"{path}: there is no image t{match[1]}.tif for it in {folder}")
        _put(labels, (time, z), path, f"time {time}" + ("" if z is None else f", slice {z}"))
        name = f"{folder.name}/t{match[1]}" + (f"/z{match[2]}" if match[2] else "")
        frames.append(Frame(name, images[time], path, z))
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


def _pair_frames(source: Path) -> tuple[list[Frame], int]:
    paths = _one_each(_images(source))
    masks = [p for p in paths if _image_stems(p, _MASK_TAGS)]
    images = {_stem(p): p for p in paths if not _image_stems(p, _MASK_TAGS)}
    pairs: dict[str, Path] = {}
    for path in masks:
        stems = _image_stems(path, _MASK_TAGS)
        stem = next((s for s in stems if s in images), None)
        if stem is None:
            name = min(stems, key=len)
            raise DataError(f"{path}: there is no image {name}.tif for it{_foreign(source, name)}")
        if stem in pairs:
            raise DataError(f"{path}: {images[stem]} has labels in {pairs[stem]}, too; keep one of them")
        pairs[stem] = path
    for path in images.values():
        stem = next((s for s in _image_stems(path, _NEAR_TAGS) if s in images and s not in pairs), None)
        if stem and _stem(path) not in pairs:
            right = re.sub("_[a-z]+$", _MASK_TAGS[0], _stem(path).removesuffix(".ome")) + path.suffix
            raise DataError(
                f"{path}: if these are the labels of {images[stem].name}, rename them to {right}, else move them away"
            )
    if not pairs:
        raise DataError(f"{source}: no annotated images; {_expected(source)}")
    return [Frame(stem, images[stem], pairs[stem]) for stem in sorted(pairs)], len(images) - len(pairs)


def _image_stems(mask: Path, tags: tuple[str, ...]) -> list[str]:
    """Names that the image of a mask may have, without suffix; none if the mask's ends with no tag."""
    stem = _stem(mask).removesuffix(".ome")
    bases = [stem.removesuffix(tag) for tag in tags if stem.endswith(tag)]
    return [base + tag + ome for ome in ("", ".ome") for base in bases for tag in _IMAGE_TAGS]


def _stem(path: Path) -> str:
    """A file's name without suffix, its .ome in lower case."""
    return path.stem[:-4] + ".ome" if path.stem.lower().endswith(".ome") else path.stem


def _expected(source: Path) -> str:
    """How to name a folder without pairs, or what is in it."""
    sequence = source.resolve()
    if any(sequence.with_name(sequence.name + truth).is_dir() for truth in ("_GT", "_ST")):
        return f"name {sequence.parent}, which holds the truth of {sequence.name}, too"
    folders = [p for p in sorted(source.iterdir()) if p.is_dir() and any(_images(p))]
    if folders:
        return f"they lie in {_names(folders)}: put pairs x.tif, x{_MASK_TAGS[0]}.tif into one folder, and name that"
    layouts = f"Cell Tracking Challenge folders (01, 01_GT) or pairs x.tif with x{_MASK_TAGS[0]}.tif"
    return f"expected {layouts}{_foreign(source)}"


def _foreign(folder: Path, stem: str | None = None) -> str:
    """What to do with images of other formats in a folder, or that of a name; nothing if there are none."""
    seen = (p for p in sorted(folder.iterdir()) if not p.name.startswith("."))
    path = next((p for p in seen if p.suffix.lower() in _FOREIGN and stem in (None, p.stem)), None)
    return f"; {path.name} is not read: export TIFF or PNG (never JPEG, which is lossy)" if path else ""


def _images(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.iterdir()) if is_image(p))


def _one_each(paths: Iterable[Path]) -> list[Path]:
    """The same paths; raises DataError where two differ by their suffix only."""
    found: dict[str, Path] = {}
    for path in paths:
        if (stem := _stem(path)) in found:
            raise DataError(f"{path}: there is {found[stem].name}, too; keep one of them")
        found[stem] = path
    return list(found.values())


def _names(folders: list[Path]) -> str:
    return ", ".join(p.name for p in folders)
