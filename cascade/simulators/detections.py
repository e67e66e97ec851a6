"""Where cells were detected: points from a table or an image."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.annotation import measured
from cascade.reading import is_image, read_image

_NEAR = 0.5  # voxels between two detections of the same cell


def read_detections(path: Path, spacing_um: Sequence[float]) -> npt.NDArray[Any]:
    """Points (N, n) in µm in the order of the array's axes, of a CSV or a point image.

    CSV: one point a line, in columns z, y, x (or y, x), in voxels, or z_um, y_um, x_um; other columns are passed over.
    Commas, semicolons (then with decimal commas, too) or tabs part the columns.
    Image: TIFF or PNG, 0 except at the points; pixels of equal value that touch are one point, at their mean. Raises
    ValueError for files that cannot be read, hold no points, or points that are no numbers.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file of detections; give a CSV with columns z, y, x, or an image")
    spacing = np.asarray(spacing_um, float)
    if is_image(path):
        image = read_image(path)
        if image.ndim != len(spacing):
            raise ValueError(
                f"{path}: a point image of {image.ndim} axes {image.shape}, for a canvas of {len(spacing)}"
            )
        points = _of_image(image, spacing)
    else:
        points = _of_table(path, spacing)
    if not len(points):
        raise ValueError(f"{path}: holds no detections")
    return points


def check_detections(points_um: npt.NDArray[Any], canvas_size: Sequence[int], spacing_um: Sequence[float]) -> None:
    """Raises ValueError for points that lie outside the canvas or on each other, or are no points at all."""
    points, spacing = np.asarray(points_um, float), np.asarray(spacing_um, float)
    if points.ndim != 2 or points.shape[1] != len(canvas_size) or not len(points):
        raise ValueError(f"detections must be (N, {len(canvas_size)}) points in µm, at least one, got {points.shape}")
    voxels = points / spacing
    outside = ~((voxels >= -0.5) & (voxels <= np.array(canvas_size) - 0.5)).all(1)
    if outside.any():
        size = "×".join(map(str, canvas_size))
        raise ValueError(
            f"{np.count_nonzero(outside)} of {len(points)} detections lie outside the canvas of {size} voxels, the "
            f"first at voxel {_shown(voxels[outside][0])}: mend `canvas_size` or `spacing_um`, or remove them"
        )
    from scipy.spatial import cKDTree

    pairs = sorted(cKDTree(voxels).query_pairs(_NEAR))
    if pairs:
        raise ValueError(
            f"{len(pairs)} detections are there twice, the first at voxel {_shown(voxels[pairs[0][0]])}: remove one of "
            "each pair"
        )


def _of_image(image: npt.NDArray[Any], spacing: npt.NDArray[Any]) -> npt.NDArray[Any]:
    from skimage import measure

    if image.dtype.kind == "f":
        image = image != 0
    pieces = measure.label(image, connectivity=image.ndim).astype(np.uint32)
    return np.array(measured(pieces, tuple(spacing))[0]).reshape(-1, len(spacing))


def _of_table(path: Path, spacing: npt.NDArray[Any]) -> npt.NDArray[Any]:
    names = "zyx"[-len(spacing) :]
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            separator = _separator(file.readline())
            file.seek(0)
            reader = csv.DictReader(file, delimiter=separator)
            rows, lines = [], []
            for row in reader:
                rows.append(row)
                lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as CSV ({error}); save it with columns {', '.join(names)}") from error
    found = [[(name or "").strip().lower() for name in row] for row in rows[:1]]
    for suffix, scale in (("_um", np.ones(len(spacing))), ("", spacing)):
        columns = [name + suffix for name in names]
        if not rows or not set(columns) <= set(found[0]):
            continue
        values = [{(key or "").strip().lower(): value for key, value in row.items()} for row in rows]
        points = np.array([[_number(row[column], separator) for column in columns] for row in values])
        odd = np.flatnonzero(~np.isfinite(points).all(1))
        if len(odd):
            shown = ", ".join(str(values[odd[0]][column]) for column in columns)
            raise ValueError(f"{path}: line {lines[odd[0]]} holds no finite numbers in {', '.join(columns)}: {shown}")
        return points * scale
    if rows:
        raise ValueError(
            f"{path}: has columns {', '.join(found[0])}; name those of the points {', '.join(names)} (voxels) or "
            f"{', '.join(n + '_um' for n in names)}"
        )
    return np.empty((0, len(spacing)))


def _separator(header: str) -> str:
    """Of columns: spreadsheets write semicolons where numbers have decimal commas."""
    return next((one for one in ",;\t" if one in header), ",")


def _number(text: object, separator: str) -> float:
    """Not a number for what is none; a comma that does not separate columns is a decimal one."""
    try:
        return float(str(text) if separator == "," else str(text).replace(",", "."))
    except ValueError:
        return float("nan")


def _shown(voxel: npt.NDArray[Any]) -> str:
    return " ".join(f"{value:.4g}" for value in voxel)
