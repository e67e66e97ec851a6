"""One image or label image from a file, its mistakes named."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from imageio.v3 import imread
from skimage import measure

from cascade.ngff import is_zarr, read_zarr
from cascade.vendor import is_vendors, read_vendor

SUFFIXES = (".tif", ".tiff", ".png")  # in upper case, too
_MAX_ID = 2**20  # every plane is gone through by id, up to the highest: minutes an image beyond this
_JPEG = (6, 7, 33007, 34892)  # TIFF compression tags: old JPEG, JPEG, its alternative, lossy JPEG of DNG
_LOSSY_BITS = 12  # JPEG of more bits than this a value knows its lossless mode only
_COLOURS = ("red", "green", "blue", "alpha")
_FEW_CHANNELS = 4  # stacks whose axes were not given are often stored as channels, but have more planes than this


class DataError(ValueError):
    """A mistake in the user's data; its message names the file and the mend."""


@dataclass(frozen=True)
class _Stored:
    """What a file holds: the array, and what its metadata say of the axes."""

    array: npt.NDArray[Any]
    channels: int = 1  # that are surely channels, not slices
    times: int = 1
    axes: str = ""  # of the array, as "ZCYX", where that is known
    names: tuple[str, ...] = ()  # of the channels, where they have some


def is_image(path: Path) -> bool:
    """Is this a file, or of OME-Zarr a folder, to be read, by its name? Hidden ones are not: macOS leaves a `._x.tif`
    beside `x.tif`.

    >>> [is_image(Path(name)) for name in ("t000.tif", "X.TIFF", "x.PNG", "x.czi", "x.ome.zarr", "._t.tif", "x.jpg")]
    [True, True, True, True, True, False, False]
    """
    return (path.suffix.lower() in SUFFIXES or is_vendors(path) or is_zarr(path)) and not path.name.startswith(".")


def is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png"


def read_image(path: Path, channel: str | None = None) -> npt.NDArray[Any]:
    """A greyscale image (Y, X) or stack (Z, Y, X), in the file's own dtype.

    channel: of several, one by its name, or by its number from 1. Raises DataError for files that are truncated,
    coloured or of several channels of which none was chosen, of several times, or not images; ImportError for formats
    that need an extra.
    """
    stored = _read(path)
    array = stored.array
    if channel is not None:
        array = _channel_of(path, stored, channel)
    elif _in_colour(path, array):
        raise DataError(
            f"{path}: a colour image {array.shape}; convert it to greyscale, or choose `channel` red, green or blue"
        )
    elif stored.channels > 1:
        names = f" ({', '.join(stored.names)})" if stored.names else ""
        raise DataError(
            f"{path}: {stored.channels} channels {array.shape}{names}; choose the one that shows the cells with "
            f"`channel`, by name or by number from 1 (or, if these are slices, save them with axes ZYX)"
        )
    if stored.times > 1:
        raise DataError(
            f"{path}: a time series of {stored.times} frames {array.shape}; save each frame to a file of its own (or, "
            f"if these are slices, save them with axes ZYX: in Fiji, Image > Properties)"
        )
    if array.ndim not in (2, 3):
        raise DataError(f"{path}: {array.ndim} axes {array.shape}; an image is (Y, X) or (Z, Y, X), one channel")
    if array.dtype.kind not in "uif" or not np.isfinite(array).all():
        raise DataError(f"{path}: {array.dtype} with values that are no intensities; save it as uint16")
    return array


def read_plane_shape(path: Path) -> tuple[int, int]:
    """Pixels of an image along y and x, whatever other axes it has."""
    stored = _read(path)
    array = stored.array[..., 0] if _in_colour(path, stored.array) else stored.array
    if array.ndim < 2:
        raise DataError(f"{path}: {array.ndim} axes {array.shape}; an image is (Y, X) or (Z, Y, X)")
    return array.shape[-2], array.shape[-1]


def read_channels(path: Path, channels: int) -> npt.NDArray[Any]:
    """An image of so many channels, (C, Y, X) or (C, Z, Y, X), in the file's own dtype; one of colours has three.

    Which axis the channels are is what the file says, else the first or the last that is so long. Raises DataError
    where none is, and what `read_image` does for one channel.
    """
    if channels == 1:
        return read_image(path)[None]
    stored = _read(path)
    array, axes = stored.array, stored.axes
    told = [axes.index(name) for name in "CS" if name in axes] if len(axes) == array.ndim else []
    found = [at for at in (*told, 0, array.ndim - 1) if array.shape[at] == channels]
    if array.ndim not in (3, 4) or not found:
        raise DataError(
            f"{path}: of shape {array.shape}, which has no axis of {channels} channels; see what was exported"
        )
    if array.dtype.kind not in "uif" or not np.isfinite(array).all():
        raise DataError(f"{path}: {array.dtype} with values that are no intensities; save it as uint16")
    return np.moveaxis(array, found[0], 0)


def read_labels(path: Path) -> npt.NDArray[Any]:
    """Instance labels (Y, X) or (Z, Y, X), integer, 0 = background.

    Raises DataError for colour, float and binary label images, for lossy compression, and for ids that are negative or
    above 2²⁰.
    """
    array = _read(path, lossless=True).array
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


@contextmanager
def opened(path: Path) -> Iterator[tifffile.TiffFile]:
    """A TIFF to read from; raises DataError where it cannot be read."""
    try:
        with tifffile.TiffFile(path) as tiff:
            yield tiff
    except DataError:
        raise
    except Exception as error:  # tifffile and its codecs raise many kinds for a broken file
        raise _unreadable(path, error) from error


def _read(path: Path, lossless: bool = False) -> _Stored:
    if is_vendors(path) or is_zarr(path):
        return _read_stored(path)
    if is_png(path):
        try:
            with path.open("rb") as file:  # which a reader that fails would leave open
                return _Stored(np.asarray(imread(file, extension=".png")))
        except Exception as error:  # as do the readers of PNG
            raise _unreadable(path, error) from error
    with opened(path) as tiff:
        page = tiff.pages.first
        if lossless and page.compression in _JPEG and page.bitspersample <= _LOSSY_BITS:
            raise DataError(f"{path}: JPEG, which changes ids; save the labels anew, without compression or with zlib")
        alike = sum(one.shape == tiff.series[0].shape for one in tiff.series)  # others are previews
        if alike > 1:
            raise DataError(f"{path}: {alike} images in one file; save each as a TIFF of its own, with Fiji for one")
        array = tiff.asarray()
        return _Stored(array, *_channels_and_times(tiff, array), axes=tiff.series[0].axes, names=_names_in(tiff))


def _read_stored(path: Path) -> _Stored:
    try:
        image = read_zarr(path) if is_zarr(path) else read_vendor(path)
    except ImportError:
        raise
    except Exception as error:  # each of its readers raises its own
        raise _unreadable(path, error) from error
    times, channels = image.array.shape[:2]
    axes = [(name, n) for name, n in zip("TCZYX", image.array.shape, strict=True) if n > 1 or name in "YX"]
    array = image.array.reshape([n for _, n in axes])
    return _Stored(array, channels, times, "".join(name for name, _ in axes), image.channels)


def _channel_of(path: Path, stored: _Stored, channel: str) -> npt.NDArray[Any]:
    """One channel of what was read."""
    array, axis = stored.array, _channel_axis(path, stored)
    count = 1 if axis is None else array.shape[axis]
    names = stored.names if len(stored.names) == count else ()
    if axis is not None and count <= len(_COLOURS) and _in_colour(path, array):
        names = _COLOURS[:count]
    lower = [name.lower() for name in names]
    if channel.lower() in lower:
        number = lower.index(channel.lower())
    elif channel.isdecimal() and 1 <= int(channel) <= count:
        number = int(channel) - 1
    else:
        listed = f": {', '.join(names)}" if names else ", which have no names" if count > 1 else ""
        raise DataError(
            f"{path}: no `channel` {channel}; it has {count}{listed}; give one by its name, or its number from 1"
        )
    return array if axis is None else np.take(array, number, axis)


def _channel_axis(path: Path, stored: _Stored) -> int | None:
    """Which axis the channels are: the one that is called so, else in a file that names none a short first one."""
    array, axes = stored.array, stored.axes
    if _in_colour(path, array):
        return array.ndim - 1
    told = [at for at, name in enumerate(axes) if name in "CS" and array.shape[at] > 1] if array.ndim > 2 else []
    if told:
        return told[0]
    known = set(axes) <= set("TZYX") and bool(axes)
    return 0 if array.ndim in (3, 4) and not known and array.shape[0] <= _FEW_CHANNELS else None


def _names_in(tiff: tifffile.TiffFile) -> tuple[str, ...]:
    """Names of the channels in a TIFF's OME or ImageJ metadata."""
    if tiff.ome_metadata:
        image = tifffile.xml2dict(tiff.ome_metadata)["OME"].get("Image", {})
        found = (image[0] if isinstance(image, list) else image).get("Pixels", {}).get("Channel", [])
        channels = found if isinstance(found, list) else [found]
        names = [str(one.get("Name", "")) for one in channels]
        return tuple(names) if all(names) else ()
    labels = (tiff.imagej_metadata or {}).get("Labels", [])
    return tuple(map(str, labels)) if isinstance(labels, list) and all(labels) else ()


def _channels_and_times(tiff: tifffile.TiffFile, array: npt.NDArray[Any]) -> tuple[int, int]:
    """How many channels and times a TIFF says that it has."""
    if array.ndim < 3:
        return 1, 1
    axes = dict(zip(tiff.series[0].axes, tiff.series[0].shape, strict=True))
    channels = max(axes.get("C", 1), axes.get("S", 1))
    imagej = tiff.imagej_metadata or {}
    told = int(imagej.get("channels", 1))
    # ImageJ files of many planes that no one called slices are taken for channels by the library that writes most.
    if told > 1 and (imagej.get("mode") in ("composite", "color") or int(imagej.get("slices", 1)) > 1):
        return told, axes.get("T", 1)
    return channels if channels <= _FEW_CHANNELS else 1, axes.get("T", 1)


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return DataError(f"{path}: cannot be read ({reason}); replace the file")


def _in_colour(path: Path, array: npt.NDArray[Any]) -> bool:
    return array.ndim == 3 and (is_png(path) or (array.shape[-1] in (3, 4) and array.shape[0] > 4))


def _is_binary(labels: npt.NDArray[Any]) -> bool:
    """One value only, in several pieces of which the second is no mere crumb of the first."""
    if labels.dtype != bool and len(np.unique(labels)) != 2:
        return False
    sizes = np.sort(np.bincount(measure.label(labels > 0).ravel())[1:])
    return len(sizes) > 1 and bool(sizes[-2] > 0.2 * sizes[-1])
