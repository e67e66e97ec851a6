"""Voxel spacing of a data set: given, written beside it, or in the metadata of its TIFFs."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from cascade.data.frames import Frame
from cascade.ngff import is_zarr, read_zarr
from cascade.reading import DataError, is_png, opened
from cascade.vendor import is_vendors, read_vendor

log = logging.getLogger(__name__)

_MU = ("\u00b5", "\u03bc", "\\u00B5")  # the micro sign, the Greek letter, and what ImageJ writes
_UM = {"nm": 1e-3, "um": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3} | {f"{mu}m": 1.0 for mu in _MU}


def spacing_of(
    source: str | Path, frames: list[Frame], ndim: int, given: Sequence[float] | None = None
) -> tuple[tuple[float, ...], str]:
    """Voxel spacing in µm and where it is from: given, dataset.json, the metadata of the first TIFF that has some, or
    1 µm, "assumed".

    Raises DataError for a given one that does not fit `ndim` axes, and for a dataset.json that cannot be read.
    """
    if given:
        if len(given) != ndim or not _are_lengths(given):
            raise DataError(f"spacing_um {given}: {frames[0].image_path} needs {ndim} lengths above 0, in µm")
        return tuple(float(s) for s in given), "given"
    record = Path(source) / "dataset.json"
    spacing = _recorded_spacing(record, ndim) if record.is_file() else None
    if spacing:
        return spacing, "dataset.json"
    stored = (stored_spacing(path, ndim) for path in dict.fromkeys(frame.image_path for frame in frames))
    spacing = next(filter(None, stored), None)
    return (spacing, "TIFF metadata") if spacing else ((1.0,) * ndim, "assumed")


def needed_spacing(
    source: str | Path, frames: list[Frame], ndim: int, given: Sequence[float] | None = None
) -> tuple[float, ...]:
    """The same, for those who cannot do without: raises DataError for stacks that have none, of planes it is 1 µm, with
    a warning."""
    spacing, origin = spacing_of(source, frames, ndim, given)
    if origin == "assumed":
        path, axes = frames[0].image_path, "Z Y X"[-2 * ndim + 1 :]
        plane = " ".join(f"{length:g}" for length in stored_spacing(path, 2) or ())
        found = f"its y and x are of {plane} µm, but it has no z step" if plane else "no voxel size"
        record = f'{{"spacing_um": [{", ".join(axes.lower().split())}]}}'
        mend = f"give spacing_um {'Z ' + plane if plane else axes}, in µm, or write {record} to {source}/dataset.json"
        if ndim == 3:
            raise DataError(f"{path}: {found}; {mend}")
        log.warning("%s: no voxel size, taking 1 µm per pixel; %s", path, mend)
    return spacing


def frame_spacing(
    source: str | Path, frame: Frame, ndim: int, usual: tuple[float, ...], given: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Voxel spacing of one frame: its own file's where nothing says that of all, else the `usual` one."""
    own, origin = spacing_of(source, [frame], ndim, given)
    return own if origin == "TIFF metadata" else usual


def _recorded_spacing(path: Path, ndim: int) -> tuple[float, ...] | None:
    mend = 'write {"spacing_um": [z, y, x]}, in µm, in UTF-8'
    try:
        record = json.loads(path.read_text(encoding="utf-8-sig"))  # with the mark that Windows puts in front, or not
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {mend}") from error
    if not isinstance(record, dict):
        raise DataError(f"{path}: cannot be read (it holds {json.dumps(record)[:40]}); {mend}")
    try:
        spacing = [float(length) for length in record.get("spacing_um") or ()]
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read (spacing_um: {error}); {mend}") from error
    if not _are_lengths(spacing):
        raise DataError(f"{path}: spacing_um {spacing} is not above 0; write lengths in µm")
    if 0 < len(spacing) < ndim:
        raise DataError(f"{path}: spacing_um {spacing} has {len(spacing)} lengths, the images have {ndim} axes; {mend}")
    return tuple(spacing[-ndim:]) if spacing else None


def stored_spacing(path: Path, ndim: int) -> tuple[float, ...] | None:
    """Spacing of the last `ndim` of z, y, x in µm as a TIFF's ImageJ or OME metadata, or those of OME-Zarr and
    of a microscope's format, say, None where they do not."""
    if is_png(path):
        return None
    if is_vendors(path) or is_zarr(path):
        return _spacing_in(path, ndim)
    with opened(path) as tiff:
        if tiff.ome_metadata:
            pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"].get("Image", {})  # which may be in another file
            pixels = (pixels[0] if isinstance(pixels, list) else pixels).get("Pixels", {})
            units = [_UM.get(str(pixels.get(f"PhysicalSize{axis}Unit", "um")), 0.0) for axis in "ZYX"[-ndim:]]
            told = [float(pixels.get(f"PhysicalSize{axis}", 0)) for axis in "ZYX"[-ndim:]]
            spacing = tuple(length * unit for length, unit in zip(told, units, strict=True))
            return spacing if _are_lengths(spacing) else None
        meta, page = tiff.imagej_metadata or {}, tiff.pages.first
        unit = _UM.get(str(meta.get("unit")), 0.0)
        plane = []
        for tag in ("YResolution", "XResolution"):
            count, per = page.tags[tag].value if tag in page.tags else (0, 1)
            plane.append(unit * per / count if count else 0.0)
        spacing = (unit * float(meta.get("spacing", 0)), *plane) if ndim == 3 else tuple(plane)
        return spacing if _are_lengths(spacing) else None


def _spacing_in(path: Path, ndim: int) -> tuple[float, ...] | None:
    try:
        image = read_zarr(path, pixels=False) if is_zarr(path) else read_vendor(path, pixels=False)
        spacing = image.spacing_um[-ndim:]
    except ImportError:
        raise
    except Exception as error:  # each of its readers raises its own
        raise DataError(f"{path}: cannot be read ({error}); replace the file") from error
    return spacing if _are_lengths(spacing) else None


def _are_lengths(values: Sequence[float]) -> bool:
    return all(0 < value < np.inf for value in values)
