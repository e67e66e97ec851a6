"""Images in OME-Zarr folders, as OME-NGFF 0.4 and 0.5 have them: the finest level, its voxel size, labels beside it."""

from pathlib import Path
from typing import Any

import numpy as np

from cascade.vendor import VendorImage

_UM = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "angstrom": 1e-4, "meter": 1e6, "centimeter": 1e4}
_KINDS = {"time": "t", "channel": "c"}
_USUAL = "tczyx"  # of versions before 0.3, which name no axes


def is_zarr(path: Path) -> bool:
    """Is this an OME-Zarr image, or labels inside one, by its name?

    >>> [is_zarr(Path(name)) for name in ("x.ome.zarr", "x.zarr", "x.zarr/labels/cells", "x.zarr/0")]
    [True, True, True, False]
    """
    return path.suffix.lower() == ".zarr" or (path.parent.name == "labels" and is_zarr(path.parent.parent))


def holds_image(path: Path) -> bool:
    """Whether there is an image, not labels alone, nor a folder that cannot be opened."""
    try:
        return bool(_metadata(_opened(path)).get("multiscales"))
    except Exception:  # zarr raises many kinds
        return False


def labels_in(path: Path) -> list[Path]:
    """The label images inside an OME-Zarr image, which `read_zarr` reads. Raises what zarr does for a folder that it
    cannot open."""
    group = _opened(path)
    names = _metadata(group["labels"]).get("labels", []) if "labels" in group else []
    return [path / "labels" / str(name) for name in names]


def read_zarr(path: Path, *, pixels: bool = True) -> VendorImage:
    """The finest level of an image; without `pixels` its array is empty.

    Raises ValueError, one line, for a folder without image, plates, several images in one, and axes that are not
    those of an image; a broken folder raises what zarr does.
    """
    group = _opened(path)
    metadata = _metadata(group)
    if "plate" in metadata or "well" in metadata:
        raise ValueError("a plate of wells: export each field as an image of its own")
    found = metadata.get("multiscales") or []
    if len(found) != 1:
        raise ValueError(f"{len(found)} images in one folder: keep each in a folder x.ome.zarr of its own")
    level = found[0]["datasets"][0]
    array = group[level["path"]]
    names, units = _axes(found[0], array.ndim)
    scale = np.ones(array.ndim)
    for one in (level, found[0]):
        for step in one.get("coordinateTransformations", ()):
            if step.get("type") == "scale" and "scale" in step:
                scale = scale * np.asarray(step["scale"], float)
    spacing = {name: scale[at] * _UM.get(units[at], 0.0) for at, name in enumerate(names)}
    order = [names.index(name) for name in _USUAL if name in names]
    where = tuple(slice(None) if name in names else np.newaxis for name in _USUAL)
    values = np.zeros((0,) * 5)
    if pixels:
        values = np.transpose(np.asarray(array[...]), order)[where]
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
    channels = metadata.get("omero", {}).get("channels", [])
    return VendorImage(
        values,
        tuple(str(one["label"]) for one in channels if one.get("label")),
        (spacing.get("z", 0.0), spacing["y"], spacing["x"]),
    )


def _opened(path: Path) -> Any:
    """The group of an image; of a folder as bioformats2raw writes it, that of the one image in it."""
    import zarr  # heavy; only needed here

    group = zarr.open_group(str(path), mode="r")
    if "bioformats2raw.layout" in _metadata(group):
        series = [name for name, _ in group.groups() if name.isdecimal()]
        if len(series) > 1:
            raise ValueError(f"{len(series)} images in one folder: export each to a folder x.ome.zarr of its own")
        return group[series[0]] if series else group
    return group


def _metadata(group: Any) -> dict[str, Any]:
    """What version 0.5 keeps under "ome", and earlier ones at the top."""
    found = dict(group.attrs)
    return dict(found.get("ome") or found)


def _axes(multiscale: dict[str, Any], ndim: int) -> tuple[list[str], list[str]]:
    """Names of the axes of an array, of t, c, z, y and x, and their units."""
    told = multiscale.get("axes") or [*_USUAL[-ndim:]]
    axes = [{"name": one} if isinstance(one, str) else one for one in told]
    names = [_KINDS.get(str(one.get("type")), str(one["name"]).lower()) for one in axes]
    if len(names) != ndim or len(set(names)) != ndim or not {"y", "x"} <= set(names) <= set(_USUAL):
        raise ValueError(f"axes {' '.join(names)} of {ndim}: an image has some of t c z y x, each once")
    return names, [str(one.get("unit", "")) for one in axes]
