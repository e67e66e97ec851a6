"""A Hugging Face data set: Parquet files that `datasets.load_dataset` reads and the Hub shows."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from cascade.annotation import Sample
from cascade.export.card import write_data_card
from cascade.export.records import SampleRecord


def write(sample: Sample, number: int, folder: Path) -> None:
    """One Parquet file a sample: labels and, if there is one, image (PNG; TIFF of stacks, channels, and ids that PNG
    cannot hold), spacing, cells."""
    import datasets

    (folder / "data").mkdir(parents=True, exist_ok=True)
    image = {} if sample.image is None else {"image": [{"bytes": _encoded(sample.image), "path": None}]}
    row = {
        **image,
        "labels": [{"bytes": _encoded(sample.labels), "path": None}],
        "spacing_um": [list(sample.spacing_um)],
        "seed": [str(sample.seed)],
        "index": [sample.index],
        "cells": [json.dumps([cell.row(sample.labels.ndim) for cell in sample.cells])],
    }
    features = datasets.Features(
        {
            **{name: _picture(sample.image) for name in image},
            "labels": _picture(sample.labels),
            "spacing_um": datasets.Sequence(datasets.Value("float64")),
            "seed": datasets.Value("string"),
            "index": datasets.Value("int64"),
            "cells": datasets.Value("string"),
        }
    )
    path = folder / "data" / f"train-{number:06d}.parquet"
    datasets.Dataset.from_dict(row, features).to_parquet(path)


def finish(folder: Path, records: list[SampleRecord], spacing_um: tuple[float, ...], about: dict[str, Any]) -> None:
    """The data set's card."""
    stacks = len(spacing_um) == 3
    how = (
        "`tifffile.imread(io.BytesIO(row['image']['bytes']))` gives the stack (Z, Y, X), likewise for `labels`."
        if stacks
        else "`numpy.array(row['image'])` gives the plane (Y, X), likewise for `labels`."
    )
    if (channels := records[0].channels) > 1:
        axes, bare = ("(C, Z, Y, X)", "likewise") if stacks else ("(C, Y, X)", "`numpy.array(row['labels'])`")
        read = "`tifffile.imread(io.BytesIO(row['image']['bytes']))`"
        how = f"{read} gives {channels} channels {axes}, {bare} the labels, which have none."
    voxels = f"Voxels are {' × '.join(f'{s:g}' for s in spacing_um)} µm."
    if "spacing_um" in about:  # it differs
        voxels = "Voxels are as large as `row['spacing_um']` says."
    title = f"{len(records)} synthetic annotated {'stacks' if stacks else 'images'}"
    record = f"```json\n{json.dumps(about, indent=1)}\n```\n"
    write_data_card(folder, title, f"{how} {voxels}\n\n{record}", count=len(records))


def _picture(array: npt.NDArray[Any] | None) -> Any:
    """PIL takes the first plane of a stack, or of channels, for the whole: those are left as they are."""
    import datasets

    return datasets.Image(decode=array is not None and array.ndim == 2)


def _encoded(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    if array.ndim == 2 and array.max(initial=0) < 2**16:
        Image.fromarray(array.astype(np.uint16) if array.dtype.itemsize > 2 else array).save(buffer, "PNG")
    else:
        tifffile.imwrite(buffer, array, compression="zlib", photometric="minisblack")
    return buffer.getvalue()
