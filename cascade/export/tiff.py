"""TIFF files with their voxel size, as ImageJ, Cellpose and the Cell Tracking Challenge's tools read them."""

import hashlib
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile


def write_tiff(path: Path, array: npt.NDArray[Any], spacing_um: tuple[float, ...]) -> None:
    """An image (Y, X) or (Z, Y, X), of several channels (C, …), with its voxel size in ImageJ's metadata; uint32, which
    that lacks, is plain TIFF with its pixel size in the tags, in centimetres."""
    metadata: dict[str, str | float] = {"axes": "ZYX"[-len(spacing_um) :], "unit": "um"}
    if len(spacing_um) == 3:
        metadata["spacing"] = spacing_um[0]
    if array.ndim > len(spacing_um):
        array = np.moveaxis(array, 0, -3)  # ImageJ's order is z, channel, y, x
        metadata |= {"axes": {2: "CYX", 3: "ZCYX"}[len(spacing_um)], "mode": "composite"}
    resolution: dict[str, Any] = {"resolution": (1 / spacing_um[-1], 1 / spacing_um[-2])}
    known = array.dtype != np.uint32
    if not known:  # its unit is that of the tags, which know no µm
        resolution = {"resolution": (1e4 / spacing_um[-1], 1e4 / spacing_um[-2]), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, array, imagej=known, metadata=metadata, compression="zlib", **resolution)


def write_ome_tiff(path: Path, array: npt.NDArray[Any], spacing_um: tuple[float, ...], name: str) -> None:
    """The same with OME-XML metadata: PhysicalSize in µm."""
    axes = "ZYX"[-len(spacing_um) :]
    several = "C" * (array.ndim > len(spacing_um))
    digest = hashlib.sha256(repr((name, spacing_um, array.shape, array.dtype)).encode())
    digest.update(np.ascontiguousarray(array).data)
    own = uuid.uuid5(uuid.NAMESPACE_OID, digest.hexdigest())  # else of the machine and the time
    metadata: dict[str, str | float] = {"axes": several + axes, "Name": name, "UUID": f"urn:uuid:{own}"}
    for axis, spacing in zip(axes, spacing_um, strict=True):
        metadata |= {f"PhysicalSize{axis}": spacing, f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(path, array, ome=True, metadata=metadata, compression="zlib", photometric="minisblack")
