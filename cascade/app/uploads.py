"""Files that a page is sent: checked before they are decoded, and deleted once they are read."""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.app.drawing import cells_of_mask
from cascade.app.settings import MAX_FILE_MB, MAX_FILE_VOXELS, MAX_FILES
from cascade.reading import DataError, is_image, is_png, opened, read_labels

_PNG_HEAD = 24  # bytes: signature, and the header up to width and height


@contextmanager
def deleted_after(files: Sequence[Path]) -> Iterator[None]:
    """The files are gone when the block ends, whatever happens in it."""
    try:
        yield
    finally:
        for path in files:
            path.unlink(missing_ok=True)


def check_files(files: Sequence[Path]) -> None:
    """Raises ValueError for too many files, and DataError for one that is too large or no image, before it is decoded.

    Messages name files without their folders, which are the page's own.
    """
    if len(files) > MAX_FILES:
        raise ValueError(
            f"{len(files)} files, and the page takes {MAX_FILES} at once: use cascade prepare on the folder"
        )
    for path in files:
        _check_file(path)


def read_mask(path: Path) -> npt.NDArray[np.uint16]:
    """The cells of an uploaded label image, which is deleted.

    Raises DataError for a file that is too large, no image or no labels, ValueError for what `cells_of_mask` refuses.
    """
    with deleted_after([path]), named_without(path.parent):
        check_files([path])
        return cells_of_mask(read_labels(path), path.name)


@contextmanager
def named_without(folder: Path) -> Iterator[None]:
    """Messages of mistakes in the block name files without this folder."""
    try:
        yield
    except ValueError as error:
        raise DataError(without(folder, str(error))) from error


def without(folder: Path, message: str) -> str:
    """A message in which files are named without their folder.

    >>> without(Path("/page"), "/page/x.tif: a colour image")
    'x.tif: a colour image'
    """
    return message.replace(f"{folder}/", "").replace(str(folder), folder.name)


def _check_file(path: Path) -> None:
    if not is_image(path):
        raise DataError(f"{path.name}: no image that is read here; export TIFF or PNG (never JPEG, which is lossy)")
    size = path.stat().st_size / 1e6
    if size > MAX_FILE_MB:
        raise DataError(
            f"{path.name}: {size:.0f} MB, and the page takes {MAX_FILE_MB}: crop it, or use cascade prepare"
        )
    with named_without(path.parent):
        voxels = _voxels(path)
    if voxels > MAX_FILE_VOXELS:
        raise DataError(
            f"{path.name}: {voxels / 1e6:.0f} megapixels, and the page takes {MAX_FILE_VOXELS / 1e6:.0f}: crop it, or "
            "use cascade prepare"
        )


def _voxels(path: Path) -> int:
    """As the head of the file says."""
    if is_png(path):
        with path.open("rb") as file:
            head = file.read(_PNG_HEAD)
        if len(head) < _PNG_HEAD or head[:4] != b"\x89PNG":
            raise DataError(f"{path}: cannot be read (no PNG); replace the file")
        width, height = struct.unpack(">II", head[16:24])
        return int(width) * int(height)
    with opened(path) as tiff:
        if not tiff.series:
            raise DataError(f"{path}: cannot be read (no image in it); replace the file")
        shapes: list[Any] = [series.shape for series in tiff.series]
    return max(int(np.prod(shape, dtype=np.int64)) for shape in shapes)
