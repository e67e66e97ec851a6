"""OME-Zarr (NGFF 0.5): pyramids with voxel size, and the labels beside the image; also written block by block."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.annotation import Sample
from cascade.export.records import SampleRecord

VERSION = "0.5"
Pyramid = list[Any]
"""zarr arrays, from full resolution down."""


def write(sample: Sample, number: int, folder: Path) -> None:
    """`sample_000000.ome.zarr` with the image's pyramid, if there is one, and `labels/cells`."""
    path = folder / f"sample_{number:06d}.ome.zarr"
    dtype = None if sample.image is None else sample.image.dtype
    channels = max(len(sample.channels), 1)
    image, labels = create(path, sample.labels.shape, sample.spacing_um, dtype, sample.labels.dtype, channels=channels)
    labels[0][:] = sample.labels
    downsample(labels)
    if sample.image is not None:
        image[0][:] = sample.image
        downsample(image)


def finish(folder: Path, records: list[SampleRecord], spacing_um: tuple[float, ...], about: dict[str, Any]) -> None:
    """Nothing to join: every sample stands alone."""


def create(
    path: Path,
    shape: tuple[int, ...],
    spacing_um: tuple[float, ...],
    image_dtype: npt.DTypeLike | None,
    label_dtype: npt.DTypeLike,
    *,
    channels: int = 1,
    chunk: int = 512,
) -> tuple[Pyramid, Pyramid]:
    """Empty image and label pyramids, each a list of zarr arrays from full resolution down; no image without a dtype.
    The image has an axis of channels before the others where there are several.

    Planes are halved until they fit one chunk; z is halved only where it is no thicker than the pixels are wide, so
    that a thin stack is not thinned further. Blocks of the first level can be written in any order, by one process
    for each chunk; `downsample` fills the rest.
    """
    import zarr  # heavy; only needed here

    shapes, factors = _levels(tuple(shape), tuple(spacing_um), chunk)
    root = zarr.create_group(str(path), zarr_format=3, overwrite=True)
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"[-len(shape) :]]
    images, several = image_dtype is not None, (channels,) if channels > 1 else ()
    own = [*[{"name": "c", "type": "channel"} for _ in several], *axes]
    wide = [(*(1 for _ in several), *factor) for factor in factors]
    scales = (*(1.0 for _ in several), *spacing_um)
    multiscales = {"multiscales": [_multiscale(own, scales, wide, "image")]} if images else {}
    root.attrs["ome"] = {"version": VERSION, **multiscales}
    group = root.create_group("labels")
    group.attrs["ome"] = {"version": VERSION, "labels": ["cells"]}
    cells = group.create_group("cells")
    cells.attrs["ome"] = {
        "version": VERSION,
        "multiscales": [_multiscale(axes, spacing_um, factors, "cells")],
        "image-label": {"source": {"image": "../../"}} if images else {},
    }
    return (
        [_array(root, level, own, (*several, *s), image_dtype, chunk) for level, s in enumerate(shapes)]
        if images
        else [],
        [_array(cells, level, axes, s, label_dtype, chunk) for level, s in enumerate(shapes)],
    )


def downsample(pyramid: Pyramid) -> None:
    """Fill the coarser levels with every other voxel, chunk by chunk: labels keep their ids, images their noise."""
    for fine, coarse in itertools.pairwise(pyramid):
        step = [-(-a // b) for a, b in zip(fine.shape, coarse.shape, strict=True)]
        for block in _blocks(coarse.shape, coarse.chunks):
            source = tuple(slice(b.start * s, b.stop * s) for b, s in zip(block, step, strict=True))
            part = fine[source][tuple(slice(None, None, s) for s in step)]
            coarse[block] = part


def _levels(
    shape: tuple[int, ...], spacing_um: tuple[float, ...], chunk: int
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    shapes, factors = [shape], [(1,) * len(shape)]
    while max(shapes[-1][-2:]) > chunk:
        thick = len(shape) == 3 and spacing_um[0] * factors[-1][0] <= spacing_um[-1] * factors[-1][-1]
        step = ((2,) if thick else (1,)) * (len(shape) - 2) + (2, 2)
        shapes.append(tuple(-(-n // s) for n, s in zip(shapes[-1], step, strict=True)))
        factors.append(tuple(f * s for f, s in zip(factors[-1], step, strict=True)))
    return shapes, factors


def _multiscale(
    axes: list[dict[str, str]], spacing_um: tuple[float, ...], factors: list[tuple[int, ...]], name: str
) -> dict[str, Any]:
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [float(s * f) for s, f in zip(spacing_um, factor, strict=True)]}
            ],
        }
        for level, factor in enumerate(factors)
    ]
    return {"name": name, "axes": axes, "datasets": datasets}


def _array(
    group: Any, level: int, axes: list[dict[str, str]], shape: tuple[int, ...], dtype: npt.DTypeLike, chunk: int
) -> Any:
    names, most = [axis["name"] for axis in axes], {"c": 1, "z": 32, "y": chunk, "x": chunk}
    chunks = tuple(min(n, most[name]) for name, n in zip(names, shape, strict=True))
    return group.create_array(str(level), shape=shape, chunks=chunks, dtype=np.dtype(dtype), dimension_names=names)


def _blocks(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    counts = [range(0, n, c) for n, c in zip(shape, chunks, strict=True)]
    for corner in np.stack(np.meshgrid(*counts, indexing="ij"), -1).reshape(-1, len(shape)):
        yield tuple(slice(int(a), int(min(a + c, n))) for a, c, n in zip(corner, chunks, shape, strict=True))
