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


def read_exported(path: Path, number: int = 0) -> Annotation:
    """Labels and voxel size of one image, by the file's ending.

    path: a folder `x.ome.zarr`, a `x.parquet` or COCO's `annotations.json`; number: of the image among those of the
    file. Raises DataError for files that hold something else, as COCO's polygons, and for cells on one another.
    """
    try:
        return _READERS[path.suffix](path, number)
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


def unsigned(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Integer labels as the narrowest unsigned type that holds them; narrow ones stay. Raises DataError for ids below
    0."""
    if labels.dtype.kind == "i" and labels.min(initial=0) < 0:
        raise DataError(f"ids down to {labels.min()}; make what is no cell 0 (labels.clip(0))")
    if labels.dtype.kind not in "iu" or (labels.dtype.kind == "u" and labels.dtype.itemsize <= 4):
        return labels
    return labels.astype("uint16" if labels.max(initial=0) < 2**16 else "uint32")


def _of_zarr(path: Path, number: int) -> Annotation:
    """Labels beside an image, or an image that is labels."""
    several = labels_in(path)
    if len(several) > 1:
        raise DataError(f"{path}: {', '.join(one.name for one in several)} are all labels; keep one of them")
    found = read_zarr(several[0] if several else path)
    ndim = 3 if found.spacing_um[0] or found.array.shape[2] > 1 else 2
    if not all(found.spacing_um[-ndim:]):
        raise DataError(f"{path}: its labels have no voxel size in a unit of length")
    return Annotation.of_labels(unsigned(found.array.reshape(found.array.shape[-ndim:])), found.spacing_um[-ndim:])


def _of_parquet(path: Path, number: int) -> Annotation:
    import pyarrow.parquet
    import tifffile
    from PIL import Image

    row = pyarrow.parquet.read_table(path, columns=["labels", "spacing_um"]).to_pylist()[number]
    data, spacing = io.BytesIO(row["labels"]["bytes"]), _lengths(row["spacing_um"])
    labels = tifffile.imread(data) if len(spacing) == 3 else np.array(Image.open(data))
    return Annotation.of_labels(unsigned(labels), spacing)


def _of_coco(path: Path, number: int) -> Annotation:
    known = _coco(path)
    image = known["images"][number]
    labels = np.zeros((image["height"], image["width"]), np.uint32)
    for n, cell in enumerate((one for one in known["annotations"] if one["image_id"] == image["id"]), 1):
        if not isinstance(cell["segmentation"], dict):
            raise DataError(f"{path}: has polygons, and only run lengths are read")
        mask = _unpacked(cell["segmentation"])
        if labels[mask].any():
            raise DataError(f"{path}: cell {cell['id']} lies on another one of {image['file_name']}")
        labels[mask] = cell.get("label", n)
    spacing = image.get("spacing_um") or known.get("info", {}).get("spacing_um") or (1.0, 1.0)
    return Annotation.of_labels(labels, _lengths(spacing))


@lru_cache(maxsize=1)
def _coco(path: Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(path.read_text())
    return known


def _unpacked(segmentation: dict[str, Any]) -> npt.NDArray[Any]:
    """Mask of uncompressed run lengths: column by column, of zeros first."""
    height, width = segmentation["size"]
    runs = segmentation["counts"]
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _lengths(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


_READERS: dict[str, Callable[[Path, int], Annotation]] = {
    ".zarr": _of_zarr,
    ".parquet": _of_parquet,
    ".json": _of_coco,
}
