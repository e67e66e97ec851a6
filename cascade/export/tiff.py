"""TIFF files with their voxel size, as ImageJ, Cellpose and the Cell Tracking Challenge's tools read them."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile


def write_tiff(path: Path, array: npt.NDArray[Any], spacing_um: tuple[float, ...]) -> None:
    """A (Y, X) or (Z, Y, X) image with its voxel size in ImageJ's metadata; uint32, which it lacks, is plain TIFF."""
    metadata: dict[str, str | float] = {"axes": "ZYX"[-array.ndim :], "unit": "um"}
    if array.ndim == 3:
        metadata["spacing"] = spacing_um[0]
    resolution = (1 / spacing_um[-1], 1 / spacing_um[-2])
    known = array.dtype != np.uint32
    tifffile.imwrite(path, array, imagej=known, resolution=resolution, metadata=metadata, compression="zlib")


def write_ome_tiff(path: Path, array: npt.NDArray[Any], spacing_um: tuple[float, ...], name: str) -> None:
    """The same with OME-XML metadata: PhysicalSize in µm."""
    axes = "ZYX"[-array.ndim :]
    metadata: dict[str, str | float] = {"axes": axes, "Name": name}
    for axis, spacing in zip(axes, spacing_um, strict=True):
        metadata |= {f"PhysicalSize{axis}": spacing, f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(path, array, ome=True, metadata=metadata, compression="zlib", photometric="minisblack")
