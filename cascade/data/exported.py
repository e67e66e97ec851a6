"""Labels of data sets that keep them in no image of their own: OME-Zarr, COCO and Hugging Face's Parquet."""

import io
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.annotation import Annotation
from cascade.ngff import labels_in, read_zarr
from cascade.reading import DataError

COCO = "annotations.json"
"""Of all images."""

_SAME_SPACING = 0.01  # relative difference of voxel sizes that rounding makes
_Read = tuple[npt.NDArray[Any], tuple[float, ...]]
"""Labels, and their voxel size; none where it is not stored."""


def read_exported(path: Path, number: int = 0, spacing_um: tuple[float, ...] = ()) -> tuple[Annotation, str]:
    """Labels of one image, by the file's ending, with their voxel size, and where that is from: stored, "annotation",
    or where none is, "given", or of planes 1 µm, "assumed".

    path: a folder `x.ome.zarr`, a `x.parquet` or COCO's `annotations.json`; number: of the image among those of the
    file. spacing_um: z y x or y x. Raises DataError for files that hold something else, as COCO's polygons, for cells
    on one another, for a given voxel size that is not the stored one, and for stacks without any.
    """
    try:
        labels, stored = _READERS[path.suffix](path, number)
        spacing, origin = settled_spacing(stored, spacing_um, labels.ndim)
        return Annotation.of_labels(labels, spacing), origin
    except DataError as error:
        raise error if str(path) in str(error) else DataError(f"{path}: {error}") from error
    except Exception as error:  # each library has its own
        raise DataError(f"{path}: cannot be read as labels of a data set ({error})") from error


def images_of(path: Path) -> list[str]:
    """Names of the images that COCO's `annotations.json` describes. Raises DataError where it is no such file."""
    try:
        return [Path(str(image["file_name"])).stem for image in _coco(path)["images"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: describes no images as COCO does ({error})") from error


def rows_of(path: Path) -> int:
    """How many images a Parquet file has labels of; 1 of one that cannot be opened, which says so when it is read."""
    import pyarrow.parquet

    try:
        found = pyarrow.parquet.ParquetFile(path)
    except (OSError, ValueError):  # as pyarrow's own errors are
        return 1
    return int(found.metadata.num_rows) if "labels" in found.schema_arrow.names else 0


def unsigned(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Integer labels as the narrowest unsigned type that holds them; narrow ones stay. Raises DataError for ids below
    0."""
    if labels.dtype.kind == "i" and labels.min(initial=0) < 0:
        raise DataError(f"ids down to {labels.min()}; make what is no cell 0 (labels.clip(0))")
    if labels.dtype.kind not in "iu" or (labels.dtype.kind == "u" and labels.dtype.itemsize <= 4):
        return labels
    return labels.astype("uint16" if labels.max(initial=0) < 2**16 else "uint32")


def settled_spacing(stored: tuple[float, ...], given: tuple[float, ...], ndim: int) -> tuple[tuple[float, ...], str]:
    """Voxel size of labels of so many axes, and where it is from, see `read_exported`, which names the file."""
    if stored:
        if given and not np.allclose(given[-ndim:], stored[-len(given) :], rtol=_SAME_SPACING):
            lengths = " × ".join(f"{length:g}" for length in stored)
            raise DataError(f"its voxels are of {lengths} µm, as is stored with it; leave spacing_um out")
        return stored, "annotation"
    if len(given) >= ndim:
        return given[-ndim:], "given"
    if ndim == 3:
        raise DataError("its labels have no voxel size in a unit of length; give spacing_um Z Y X, in µm")
    return (1.0, 1.0), "assumed"


def _of_zarr(path: Path, number: int) -> _Read:
    """Labels beside an image, or an image that is labels."""
    several = labels_in(path)
    if len(several) > 1:
        raise DataError(f"{path}: {', '.join(one.name for one in several)} are all labels; keep one of them")
    found = read_zarr(several[0] if several else path)
    ndim = 3 if found.spacing_um[0] or found.array.shape[2] > 1 else 2
    stored = found.spacing_um[-ndim:] if all(found.spacing_um[-ndim:]) else ()
    return unsigned(found.array.reshape(found.array.shape[-ndim:])), stored


def _of_parquet(path: Path, number: int) -> _Read:
    import pyarrow.parquet
    import tifffile
    from PIL import Image

    found, group = pyarrow.parquet.ParquetFile(path), 0
    while number >= (count := found.metadata.row_group(group).num_rows):
        number, group = number - count, group + 1
    (row,) = found.read_row_group(group, ["labels", "spacing_um"]).slice(number, 1).to_pylist()
    data, spacing = io.BytesIO(row["labels"]["bytes"]), _lengths(row["spacing_um"])
    return unsigned(tifffile.imread(data) if len(spacing) == 3 else np.array(Image.open(data))), spacing


def _of_coco(path: Path, number: int) -> _Read:
    known = _coco(path)
    image = known["images"][number]
    columns = np.zeros((image["width"], image["height"]), np.uint32)
    flat = columns.reshape(-1)
    for n, cell in enumerate(known["cells"].get(image["id"], ()), 1):
        if not isinstance(cell["segmentation"], dict):
            raise DataError(f"{path}: has polygons, and only run lengths are read")
        if isinstance(cell["segmentation"]["counts"], str):
            raise DataError(f"{path}: has compressed run lengths; save them as lists (pycocotools.mask.decode)")
        if sum(cell["segmentation"]["counts"]) != flat.size or cell["segmentation"]["size"] != [*columns.T.shape]:
            raise DataError(f"{path}: cell {cell['id']} is of another size than {image['file_name']}")
        places = _unpacked(cell["segmentation"]["counts"])
        if flat[places].any():
            raise DataError(f"{path}: cell {cell['id']} lies on another one of {image['file_name']}")
        flat[places] = cell.get("label", n)
    spacing = image.get("spacing_um") or known.get("info", {}).get("spacing_um") or ()
    return np.ascontiguousarray(columns.T), _lengths(spacing)


def _coco(path: Path) -> dict[str, Any]:
    """What the file describes, and the annotations of each image, by its id, as "cells"."""
    stat = path.stat()
    return _parsed(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1)
def _parsed(path: Path, mtime_ns: int, size: int) -> dict[str, Any]:
    """The same of a file that was last changed then: one that was written anew is read anew."""
    known: dict[str, Any] = json.loads(path.read_text())
    cells: dict[Any, list[dict[str, Any]]] = {}
    for one in known.get("annotations", ()):
        cells.setdefault(one["image_id"], []).append(one)
    return {**known, "cells": cells}


def _unpacked(runs: list[int]) -> npt.NDArray[Any]:
    """Flat indices, column by column, of what uncompressed run lengths, of zeros first, mark."""
    ends = np.cumsum(runs, dtype=np.int64)
    starts, lengths = ends[:-1:2], np.array(runs[1::2], np.int64)
    return np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())


def _lengths(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


_READERS: dict[str, Callable[[Path, int], _Read]] = {
    ".zarr": _of_zarr,
    ".parquet": _of_parquet,
    ".json": _of_coco,
}
