"""Data sets that Cascade wrote, as layers: images, labels with their scale, and the surfaces of their cells."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cascade.layers import MICROMETRE, PIXEL, SEPARATE, Array, LayerData, layer_data

if TYPE_CHECKING:
    from cascade.data.label_sets import LabelFile

_MARK = "provenance.jsonl"  # of a data set that is whole
_MADE_BY_FIT = "synthetic"
_EAGER_BYTES = 2**28  # what is read at once; larger sets are read image by image, as they are looked at
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
    files = find_labels(_format_of(folder))
    if len(files) != len(rows):
        raise ValueError(f"{folder}: {len(files)} images, but {_MARK} names {len(rows)}: make the data set again")
    spacings = [tuple(row["spacing_um"]) for row in rows]
    images, labels = _arrays(files)
    if len({label.shape for label in labels}) == len(set(spacings)) == 1:
        shown = None if images[0] is None else _joined(images)
        found = layer_data(folder.name, shown, _joined(labels), spacings[0], metadata={"cascade": rows})
    else:
        found = []
        for row, image, label, spacing in zip(rows, images, labels, spacings, strict=True):
            about = {"cascade": [row]}
            found += layer_data(f"{folder.name} {row['sample']}", image, label, spacing, metadata=about)
    return found + _surfaces(folder, len(rows))


def _data_set(path: Path) -> Path | None:
    places = (path.parent if path.name == _MARK else path, path / _MADE_BY_FIT)
    return next((place for place in places if (place / _MARK).is_file()), None)


def _format_of(folder: Path) -> Path:
    """Where the images lie: a set of several formats has a folder for each."""
    from cascade.export.formats import FORMATS

    there = [folder / name for name in FORMATS if name != "annotations" and (folder / name).is_dir()]
    return there[0] if there else folder


def _arrays(files: "Sequence[LabelFile]") -> tuple[list[Any], list[Any]]:
    """Images, None where there are none, and labels of all samples; many of them are read when they are looked at."""
    image, labels = _image(files[0]), _labels(files[0])
    if len(files) * labels.nbytes <= _EAGER_BYTES:
        rest = files[1:]
        return [image, *map(_image, rest)], [labels, *map(_labels, rest)]
    return [None if image is None else _later(_image, file, image) for file in files], [
        _later(_labels, file, labels) for file in files
    ]


def _later(read_one: "Callable[[LabelFile], Any]", file: "LabelFile", like: Array) -> Any:
    """An array that is read when it is needed, of the shape of another."""
    import dask
    import dask.array as da

    return da.from_delayed(dask.delayed(read_one)(file), like.shape, like.dtype)


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


def _image(file: "LabelFile") -> Array | None:
    """The image of the labels, None where there is none."""
    path = file.path
    if path.suffix == ".zarr":
        import zarr

        group = zarr.open_group(str(path), mode="r")
        return group["0"][:] if "0" in group else None
    if path.suffix == ".parquet":
        return _image_of_table(path, file.number)
    if path.suffix == ".json":
        image = path.parent / "images" / f"{file.frame.name}.png"
        return _decoded(image.read_bytes()) if image.is_file() else None
    return None if file.frame.image_path == path else file.frame.image()


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
