"""Data sets that Cascade wrote, as layers: images, labels with their scale, and the surfaces of their cells."""

import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cascade.layers import MICROMETRE, PIXEL, SEPARATE, Array, LayerData, layer_data

if TYPE_CHECKING:
    from cascade.data.label_sets import LabelFile

_MARK = "provenance.jsonl"  # of a data set that is whole
_MADE_BY_FIT = "synthetic"
_EAGER_BYTES = 2**28  # what is read at once; larger sets are read image by image, as they are looked at
_COLOURS = ("green", "magenta", "cyan", "yellow")  # of channels
_MESHED = 50  # samples whose surfaces are read


def get_reader(path: "str | Sequence[str]") -> Callable[[Any], list[LayerData]] | None:
    """What reads a path, or None where it is no data set of Cascade, nor a folder that `cascade fit` filled."""
    if not isinstance(path, str):
        if len(path) != 1:
            return None
        path = path[0]
    return None if _data_set(Path(path)) is None else read


def read(path: "str | Sequence[str]") -> list[LayerData]:
    """The layers of a data set: samples of one shape follow each other along a first axis, else each has its own.

    Raises ValueError, naming the file, for one that cannot be read.
    """
    from cascade.data.label_sets import find_labels

    folder = _data_set(Path(path if isinstance(path, str) else path[0]))
    if folder is None:
        raise ValueError(f"{path}: is no data set of Cascade ({_MARK} is missing)")
    rows = [json.loads(line) for line in (folder / _MARK).read_text(encoding="utf-8").splitlines()]
    where, channels = _format_of(folder), rows[0].get("channels", 1)
    numbers = [None] if channels == 1 else list(range(channels))
    files = [find_labels(where, channel=None if n is None else str(n + 1)) for n in numbers]
    if len(files[0]) != len(rows):
        raise ValueError(f"{folder}: {len(files[0])} images, but {_MARK} names {len(rows)}: make the data set again")
    spacings = [tuple(row["spacing_um"]) for row in rows]
    labels = _arrays(files[0], _labels)
    images = [_arrays(own, partial(_image, number=n)) for own, n in zip(files, numbers, strict=True)]
    if len({label.shape for label in labels}) == len(set(spacings)) == 1:
        shown = [None if own[0] is None else _joined(own) for own in images]
        found = _layers(folder.name, shown, _joined(labels), spacings[0], rows)
    else:
        found = []
        for row, label, spacing, *shown in zip(rows, labels, spacings, *images, strict=True):
            found += _layers(f"{folder.name} {row['sample']}", shown, label, spacing, [row])
    return found + _surfaces(folder, len(rows))


def _layers(
    name: str, channels: list[Any], labels: Any, spacing_um: tuple[float, ...], rows: list[dict[str, Any]]
) -> list[LayerData]:
    """The image, of several channels a layer for each in a colour of its own, and the labels."""
    about = {"cascade": rows}
    if len(channels) == 1:
        return layer_data(name, channels[0], labels, spacing_um, metadata=about)
    found = []
    for n, channel in enumerate(channels):
        (data, options, kind), _ = layer_data(f"{name} channel {n + 1}", channel, labels, spacing_um, metadata=about)
        colour = {"colormap": _COLOURS[n % len(_COLOURS)], "blending": "additive"}
        found.append((data, options | colour, kind))
    return found + layer_data(name, None, labels, spacing_um, metadata=about)


def _data_set(path: Path) -> Path | None:
    places = (path.parent if path.name == _MARK else path, path / _MADE_BY_FIT)
    return next((place for place in places if (place / _MARK).is_file()), None)


def _format_of(folder: Path) -> Path:
    """Where the images lie: a set of several formats has a folder for each."""
    from cascade.export.formats import FORMATS

    there = [folder / name for name in FORMATS if name != "annotations" and (folder / name).is_dir()]
    return there[0] if there else folder


def _arrays(files: "Sequence[LabelFile]", read_one: "Callable[[LabelFile], Any]") -> list[Any]:
    """What is read of each file, None where there is none; many large ones are read when they are looked at."""
    first = read_one(files[0])
    if first is None or len(files) * first.nbytes <= _EAGER_BYTES:
        return [first, *map(read_one, files[1:])]
    usual = _stored_shape(files[0])
    alike = [_stored_shape(file) == usual for file in files]
    return [
        _later(read_one, file, first.shape if same else read_one(file).shape, first.dtype)
        for file, same in zip(files, alike, strict=True)
    ]


def _later(read_one: "Callable[[LabelFile], Any]", file: "LabelFile", shape: tuple[int, ...], dtype: Any) -> Any:
    """An array that is read when it is needed."""
    import dask
    import dask.array as da

    return da.from_delayed(dask.delayed(read_one)(file), shape, dtype)


def _stored_shape(file: "LabelFile") -> tuple[int, ...]:
    """Of the labels, as their file says; of formats that do not say it, they are read."""
    import tifffile
    import zarr

    if file.path.suffix == ".zarr":
        return tuple(zarr.open_array(file.path / "labels" / "cells" / "0", mode="r").shape)
    if file.path.suffix in (".tif", ".tiff"):
        with tifffile.TiffFile(file.path) as tiff:
            return tuple(tiff.series[0].shape)
    return tuple(_labels(file).shape)


def _joined(arrays: list[Any]) -> Any:
    """Along a new first axis, where there is more than one."""
    if len(arrays) == 1:
        return arrays[0]
    if isinstance(arrays[0], np.ndarray):
        return np.stack(arrays)
    import dask.array as da

    return da.stack(arrays)


def _labels(file: "LabelFile") -> Array:
    return file.annotation()[0].labels if file.holds_spacing else file.frame.labels()


def _image(file: "LabelFile", number: int | None) -> Array | None:
    """The image of the labels, None where there is none. number: of several channels the one, from 0."""
    path = file.path
    if path.suffix == ".zarr":
        import zarr

        group = zarr.open_group(str(path), mode="r")
        return _channel(group["0"][:], number) if "0" in group else None
    if path.suffix == ".parquet":
        return _channel(_image_of_table(path, file.number), number)
    if path.suffix == ".json":
        image = path.parent / "images" / f"{file.frame.name}.png"
        return _decoded(image.read_bytes()) if image.is_file() else None
    return None if file.frame.image_path == path else file.frame.image()


def _channel(image: Array | None, number: int | None) -> Array | None:
    return image if image is None or number is None else image[number]


def _image_of_table(path: Path, number: int) -> Array | None:
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(path)
    if "image" not in table.schema_arrow.names:
        return None
    row = table.read(["image"]).to_pylist()[number]["image"]
    return None if row is None else _decoded(row["bytes"])


def _decoded(data: bytes) -> Array:
    """Of a TIFF or a PNG."""
    import tifffile
    from PIL import Image

    file = io.BytesIO(data)
    return np.asarray(Image.open(file)) if data[:4] == b"\x89PNG" else tifffile.imread(file)


def _surfaces(folder: Path, count: int) -> list[LayerData]:
    """The cells' surfaces, coloured by their labels; in a set of several samples each lies at its own along the first
    axis."""
    import trimesh

    points, faces, values, begun = [], [], [], 0
    for number in range(min(count, _MESHED)):
        for path in sorted((folder / "meshes" / f"sample_{number:06d}").glob("cell_*.glb")):
            mesh = trimesh.load(path, force="mesh")
            vertices = np.asarray(mesh.vertices)[:, ::-1]  # from x, y, z
            place = np.full((len(vertices), 1), number, float)
            points.append(np.hstack([place, vertices]) if count > 1 else vertices)
            faces.append(np.asarray(mesh.faces)[:, ::-1] + begun)  # the other way round: their axes are mirrored
            values.append(np.full(len(vertices), int(path.stem.removeprefix("cell_")), float))
            begun += len(vertices)
    if not points:
        return []
    separate = int(count > 1)
    options = {
        "name": f"{folder.name} surfaces",
        "axis_labels": [SEPARATE] * separate + ["z", "y", "x"],
        "units": [PIXEL] * separate + [MICROMETRE] * 3,
        "colormap": "hsv",
        "visible": False,
    }
    return [((np.concatenate(points), np.concatenate(faces), np.concatenate(values)), options, "surface")]
