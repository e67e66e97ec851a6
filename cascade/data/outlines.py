"""Outlines that were drawn around cells, as labels: GeoJSON as QuPath exports it, and ImageJ's regions of interest."""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage import draw

from cascade.extras import needed
from cascade.reading import DataError

_SUFFIXES = (".geojson", ".zip", ".roi")
_SHARED = 0.1  # of the smaller of two outlines may lie in the other: hands do not draw to the pixel
_LARGEST_ROI = 2**24  # bytes: of a file in an archive
_AREAS = ("POLYGON", "RECT", "OVAL", "FREEHAND", "TRACED")

Ring = npt.NDArray[Any]
"""(N, 2) y, x in pixels, 0 at the corner of the first pixel."""


@dataclass(frozen=True)
class _Outline:
    """One cell: what lies in an odd number of its rings, as holes and separate parts do."""

    name: str
    rings: list[Ring]


def is_outlines(path: Path) -> bool:
    """Are these outlines, by the file's name?

    >>> [is_outlines(Path(name)) for name in ("x.geojson", "RoiSet.zip", "x.roi", "x.tif")]
    [True, True, True, False]
    """
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def read_outlines(path: Path, shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Instance labels (Y, X), uint16 or uint32, of the outlines in a file, numbered as they follow there.

    A pixel is a cell's if its centre lies inside. Where two outlines share pixels, up to a tenth of the smaller, these
    are the smaller's. Raises DataError for files that hold no outlines of areas, and for outlines that lie outside of
    an image of this shape, that cover no pixel, or that lie on one another, naming them; ImportError for ImageJ's where
    the library that reads them is missing.
    """
    outlines = _read(path)
    covers = [_cover(path, outline, shape) for outline in outlines]
    labels = np.zeros(shape, np.uint16 if len(covers) < 2**16 else np.uint32)
    sizes = np.array([len(cover) for cover in covers])
    flat = labels.reshape(-1)
    for number in np.argsort(-sizes, kind="stable"):  # the smaller lie on the larger
        below, counts = np.unique(flat[covers[number]], return_counts=True)
        for other, shared in zip(below.tolist(), counts.tolist(), strict=True):
            if other and shared > _SHARED * sizes[number]:
                raise DataError(
                    f"{path}: {outlines[other - 1].name} and {outlines[number].name} lie on one another, with "
                    f"{shared} of {sizes[number]} pixels; remove one, or cut them apart"
                )
        flat[covers[number]] = number + 1
    return labels


def _read(path: Path) -> list[_Outline]:
    try:
        found = list(_of_geojson(path) if path.suffix.lower() == ".geojson" else _of_imagej(path))
    except (DataError, ImportError):
        raise
    except Exception as error:  # of broken files, by several libraries
        raise DataError(f"{path}: cannot be read as outlines ({error}); export them again") from error
    if not found:
        raise DataError(f"{path}: holds no outlines; export them again, or remove the file")
    return found


def _of_geojson(path: Path) -> Iterator[_Outline]:
    known = json.loads(path.read_text(encoding="utf-8-sig"))
    features = known if isinstance(known, list) else known.get("features", [known])
    for number, feature in enumerate(features, 1):
        geometry = feature.get("geometry", feature) or {}
        said = (feature.get("properties") or {}).get("name")
        name, kind = f"outline {number}" + (f" ({said})" if said else ""), geometry.get("type")
        if kind not in ("Polygon", "MultiPolygon"):
            raise DataError(
                f"{path}: {name} is a {kind}, not an area; remove it in QuPath, and export polygons only "
                f"(File > Export objects as GeoJSON)"
            )
        parts = geometry["coordinates"] if kind == "MultiPolygon" else [geometry["coordinates"]]
        yield _Outline(name, [np.asarray(ring, float)[:, 1::-1] for part in parts for ring in part])


def _of_imagej(path: Path) -> Iterator[_Outline]:
    roifile: Any = needed("imagej", str(path))
    if path.suffix.lower() == ".roi":
        files = [(path.name, path.read_bytes())]
    else:
        with zipfile.ZipFile(path) as archive:
            rois = [one for one in archive.infolist() if one.filename.lower().endswith(".roi")]
            large = next((one for one in rois if one.file_size > _LARGEST_ROI), None)
            if large is not None:
                raise DataError(f"{path}: {large.filename} is of {large.file_size} bytes, which no outline is")
            files = [(one.filename, archive.read(one)) for one in rois]
    for number, (file, data) in enumerate(files, 1):
        roi = roifile.ImagejRoi.frombytes(data)
        name = f"outline {number} ({roi.name or Path(file).stem})"
        if roi.roitype.name not in _AREAS:
            raise DataError(f"{path}: {name} is of type {roi.roitype.name.lower()}, not an area; remove it in ImageJ")
        found = roi.coordinates(multi=True)
        yield _Outline(name, [np.asarray(ring, float)[:, ::-1] for ring in (found if found else [])])


def _cover(path: Path, outline: _Outline, shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Flat indices of the pixels whose centres an outline holds."""
    for ring in outline.rings:
        if ring.ndim != 2 or len(ring) < 3 or not np.isfinite(ring).all():
            raise DataError(f"{path}: {outline.name} has fewer than three points; draw it again, or remove it")
    if not outline.rings:
        raise DataError(f"{path}: {outline.name} has no points; draw it again, or remove it")
    points = np.concatenate(outline.rings)
    if (points.max(0) <= 0).any() or (points.min(0) >= shape).any():
        raise DataError(
            f"{path}: {outline.name} lies outside of its image of {shape[0]}×{shape[1]} pixels, from "
            f"y, x = {points[:, 0].min():.0f}, {points[:, 1].min():.0f} on; export outlines in pixels of this image"
        )
    odd = np.zeros(0, np.int64)
    for ring in outline.rings:
        y, x = draw.polygon(ring[:, 0] - 0.5, ring[:, 1] - 0.5, shape)
        odd = np.setxor1d(odd, y.astype(np.int64) * shape[1] + x)
    if not len(odd):
        raise DataError(f"{path}: {outline.name} covers no pixel; draw it again, or remove it")
    return odd
