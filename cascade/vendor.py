"""Images in microscopes' own formats, read through bioio, which is an extra."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.extras import needed

READERS = {".czi": "bioio-czi", ".lif": "bioio-lif", ".nd2": "bioio-nd2"}
"""Endings, in lower case, and the package that reads each for bioio; that of CZI is under the GPL, and in no extra."""


@dataclass(frozen=True)
class VendorImage:
    """One image of a file."""

    array: npt.NDArray[Any]
    """(T, C, Z, Y, X), in the file's own dtype."""
    channels: tuple[str, ...]
    """Their names."""
    spacing_um: tuple[float, float, float]
    """z, y, x; 0 where the file does not say."""


def is_vendors(path: Path) -> bool:
    """Is this a microscope's own format, by its name?

    >>> is_vendors(Path("x.CZI")), is_vendors(Path("x.tif"))
    (True, False)
    """
    return path.suffix.lower() in READERS


def read_vendor(path: Path, *, pixels: bool = True) -> VendorImage:
    """What a file holds; without `pixels` its array is empty.

    Raises ImportError, one line, where bioio or its reader is missing, ValueError for files of several images and for
    those in colour; a broken file raises what its reader does.
    """
    bioio = needed("bioio", str(path))
    try:
        image = bioio.BioImage(path)
    except Exception as error:
        package = READERS.get(path.suffix.lower())
        if package and type(error).__name__ == "UnsupportedFileFormatError" and not _is_there(package):
            raise ImportError(f"{path}: needs {package}, which is not installed: pip install {package}") from error
        raise
    if len(image.scenes) > 1:
        raise ValueError(f"{len(image.scenes)} images in one file: save each as TIFF of its own, with Fiji for one")
    if "S" in image.dims.order:
        raise ValueError("a colour image: save it as greyscale TIFF")
    size = image.physical_pixel_sizes
    return VendorImage(
        np.asarray(image.get_image_data("TCZYX")) if pixels else np.zeros((0,) * 5),
        tuple(map(str, image.channel_names)),
        (float(size.Z or 0), float(size.Y or 0), float(size.X or 0)),
    )


def _is_there(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package.replace("-", "_")) is not None
