"""Annotated frames of a data set, found by layout and read with their mistakes named."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from skimage import io, measure

_IMAGE_SUFFIXES = (".tif", ".tiff", ".png")
_MASK_TAGS = ("_masks", "_cp_masks")  # the second is what Cellpose's own window writes
_IMAGE_TAGS = ("", "_img")  # the second is how Cellpose names its own data set, 000_img.png
_NEAR_TAGS = ("_mask", "_label", "_labels", "_seg", "_gt")  # of masks named otherwise
_FOREIGN = (".jpg", ".jpeg", ".bmp", ".gif", ".czi", ".nd2", ".lif", ".lsm", ".ims", ".npy")
_MAX_ID = 2**20  # every plane is gone through by id, up to the highest: minutes an image beyond this


class DataError(ValueError):
    """A mistake in the user's data; its message names the file and the mend."""


@dataclass(frozen=True)
class Frame:
    """One annotated image: a plane, a stack, or a stack of which one slice is annotated.

    z is that slice, or None where the labels cover the whole image.
    """

    name: str
    image_path: Path
    label_path: Path
    z: int | None = None

    def image(self) -> np.ndarray:
        """(Y, X) or (Z, Y, X), in the file's own dtype."""
        return read_image(self.image_path)

    def labels(self) -> np.ndarray:
        """Instance labels, integer: of the whole image, or (Y, X) of slice z."""
        return read_labels(self.label_path)


def find_frames(source: str | Path, truth: str = "gt", sequences: list[str] | None = None) -> tuple[list[Frame], int]:
    """The annotated frames under `source`, and how many images there have no annotation.

    Layouts: Cell Tracking Challenge (`01/t000.tif` with `01_GT/SEG/man_seg000.tif`, `man_seg_000_012.tif` for one
    slice of a stack, or `01_ST/SEG/…` with `truth="st"`), or Cellpose pairs (`x.tif` with `x_masks.tif` or
    `x_cp_masks.tif`, `x_img.tif` with `x_masks.tif`; `.ome.tif` and PNG as well).
    Raises DataError where nothing annotated is found.
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


def _ctc_frames(source: Path, folders: list[Path], truth: str, sequences) -> tuple[list[Frame], int]:
    if sequences:
        missing = sorted(set(sequences) - {p.name for p in folders})
        if missing:
            raise DataError(f"{source}: no sequence {', '.join(missing)}; there are {_names(folders)}")
        folders = [p for p in folders if p.name in sequences]
    frames, bare = [], 0
    for folder in folders:
        images = {int(p.stem[1:]): p for p in _one_each(_images(folder)) if re.fullmatch(r"t\d{3,}", p.stem)}
        if not images:
            raise DataError(f"{folder}: no images named t000.tif, t001.tif, …{_foreign(folder)}")
        seg = source / f"{folder.name}_{truth.upper()}" / "SEG"
        if not seg.is_dir():
            other = "st" if truth == "gt" else "gt"
            there = (source / f"{folder.name}_{other.upper()}" / "SEG").is_dir()
            mend = f"choose the other truth, {other} (--…truth {other})" if there else "annotated masks belong there"
            known = [p.name for p in folders if (source / f"{p.name}_{truth.upper()}" / "SEG").is_dir()]
            mend += f", or only the annotated sequences (--…sequences {' '.join(known)})" if known else ""
            raise DataError(f"{seg}: no such folder; {mend}")
        annotated = set()
        for path in sorted(seg.iterdir()):
            match = re.fullmatch(r"man_seg_?(\d{3,})(?:_(\d{3,}))?\.tif", path.name)
            if not match:
                continue
            time = int(match[1])
            if time not in images:
                raise DataError(f"{path}: there is no image t{match[1]}.tif for it in {folder}")
            annotated.add(time)
            name = f"{folder.name}/t{match[1]}" + (f"/z{match[2]}" if match[2] else "")
            frames.append(Frame(name, images[time], path, int(match[2]) if match[2] else None))
        bare += len(images) - len(annotated)
    if not frames:
        where = ", ".join(f"{p.name}_{truth.upper()}/SEG" for p in folders)
        raise DataError(f"{source}: no man_seg000.tif or man_seg_000_000.tif under {where}; name the masks so")
    return frames, bare


def _pair_frames(source: Path) -> tuple[list[Frame], int]:
    paths = _one_each(_images(source))
    masks = [p for p in paths if _image_stems(p, _MASK_TAGS)]
    images = {p.stem: p for p in paths if not _image_stems(p, _MASK_TAGS)}
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
        if stem and path.stem not in pairs:
            right = re.sub("_[a-z]+$", _MASK_TAGS[0], path.stem.removesuffix(".ome")) + path.suffix
            raise DataError(
                f"{path}: if these are the labels of {images[stem].name}, rename them to {right}, else move them away"
            )
    if not pairs:
        raise DataError(f"{source}: no annotated images; {_expected(source)}")
    return [Frame(stem, images[stem], pairs[stem]) for stem in sorted(pairs)], len(images) - len(pairs)


def _image_stems(mask: Path, tags: tuple[str, ...]) -> list[str]:
    """Names that the image of a mask may have, without suffix; none if the mask's ends with no tag."""
    stem = mask.stem.removesuffix(".ome")
    bases = [stem.removesuffix(tag) for tag in tags if stem.endswith(tag)]
    return [base + tag + ome for ome in ("", ".ome") for base in bases for tag in _IMAGE_TAGS]


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
    found = (p for p in sorted(folder.iterdir()) if p.suffix.lower() in _FOREIGN and stem in (None, p.stem))
    path = next(found, None)
    return f"; {path.name} is not read: export TIFF or PNG (never JPEG, which is lossy)" if path else ""


def read_image(path: Path) -> np.ndarray:
    """A greyscale image or stack; raises DataError for files that are truncated, coloured, of several channels or
    times, or not images."""
    array = _read(path)
    if _in_colour(path, array):
        raise DataError(f"{path}: a colour image {array.shape}; convert it to greyscale")
    axes = _axes(path) if array.ndim > 2 else {}
    channels = max(axes.get("C", 1), axes.get("S", 1))
    if 1 < channels <= 4:  # stacks whose axes were not given are written as channels, too, but of more planes
        raise DataError(
            f"{path}: {channels} channels {array.shape}; export the one that shows the cells (or, if these are slices, "
            f"save them with axes ZYX)"
        )
    if axes.get("T", 1) > 1:
        raise DataError(
            f"{path}: a time series of {axes['T']} frames {array.shape}; save each frame to a file of its own (or, if "
            f"these are slices, save them with axes ZYX: in Fiji, Image > Properties)"
        )
    if array.ndim not in (2, 3):
        raise DataError(f"{path}: {array.ndim} axes {array.shape}; an image is (Y, X) or (Z, Y, X), one channel")
    if array.dtype.kind not in "uif" or not np.isfinite(array).all():
        raise DataError(f"{path}: {array.dtype} with values that are no intensities; save it as uint16")
    return array


def read_labels(path: Path) -> np.ndarray:
    """Instance labels, 0 = background; raises DataError for colour, float and binary label images, and ids that are
    negative or above 2²⁰."""
    array = _read(path)
    if _in_colour(path, array):
        raise DataError(f"{path}: labels in colour {array.shape}; save one integer id per cell (0 = background)")
    if array.ndim not in (2, 3):
        raise DataError(f"{path}: {array.ndim} axes {array.shape}; labels are (Y, X) or (Z, Y, X)")
    if _is_binary(array):
        raise DataError(f"{path}: a binary mask of several cells; give every cell its own id (skimage.measure.label)")
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise DataError(f"{path}: ids down to {array.min()}; make what is no cell 0 (labels.clip(0))")
    if array.dtype.kind not in "ui":
        raise DataError(f"{path}: labels are {array.dtype}; save unsigned integers (labels.astype('uint16'))")
    if array.size and array.max() > _MAX_ID:
        raise DataError(f"{path}: ids up to {array.max()}; number the cells 1, 2, … (relabel_sequential)")
    unsigned = array.dtype.kind == "u" and array.dtype.itemsize == 8  # which np.bincount does not take
    return array.astype(np.int64) if unsigned else array


def _is_binary(labels: np.ndarray) -> bool:
    """One value only, in several pieces of which the second is no mere crumb of the first."""
    if labels.dtype != bool and len(np.unique(labels)) != 2:
        return False
    sizes = np.sort(np.bincount(measure.label(labels > 0).ravel())[1:])
    return len(sizes) > 1 and bool(sizes[-2] > 0.2 * sizes[-1])


def check_pair(frame: Frame, image: np.ndarray, labels: np.ndarray) -> None:
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


def _axes(path: Path) -> dict[str, int]:
    """A TIFF's axes and their lengths as its metadata say, {"T": 9, "Y": 64, "X": 64}; none for PNG."""
    if path.suffix.lower() == ".png":
        return {}
    with tifffile.TiffFile(path) as tiff:
        return dict(zip(tiff.series[0].axes, tiff.series[0].shape, strict=True))


def _in_colour(path: Path, array: np.ndarray) -> bool:
    png = path.suffix.lower() == ".png"
    return array.ndim == 3 and (png or (array.shape[-1] in (3, 4) and array.shape[0] > 4))


def _read(path: Path) -> np.ndarray:
    try:
        return io.imread(path) if path.suffix.lower() == ".png" else tifffile.imread(path)
    except Exception as error:  # tifffile and its codecs raise many kinds for a broken file
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{path}: cannot be read ({reason}); replace the file") from error


def _images(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.iterdir()) if p.suffix.lower() in _IMAGE_SUFFIXES)


def _one_each(paths: Iterator[Path]) -> list[Path]:
    """The same paths; raises DataError where two differ by their suffix only."""
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise DataError(f"{path}: there is {found[path.stem].name}, too; keep one of them")
        found[path.stem] = path
    return list(found.values())


def _names(folders: list[Path]) -> str:
    return ", ".join(p.name for p in folders)
