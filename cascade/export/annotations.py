"""Annotations as files of their own, without loss: `annotations/sample_000000.safetensors`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cascade.annotation import Annotation, CellRecord, Sample
from cascade.export.records import SampleRecord
from cascade.files import replacing

_VERSION = "1"


def write(sample: Sample, number: int, folder: Path) -> None:
    """The annotation of a sample; its image is left to the other formats."""
    save_annotation(sample.annotation, annotation_path(folder, number))


def finish(folder: Path, records: list[SampleRecord], spacing_um: tuple[float, ...], about: dict[str, Any]) -> None:
    """Nothing to join: every annotation stands alone."""


def annotation_path(folder: Path, number: int) -> Path:
    """Where the annotation of a sample lies in a data set."""
    return folder / "annotations" / f"sample_{number:06d}.safetensors"


def save_annotation(annotation: Annotation, path: Path) -> None:
    """Write labels, foreground and all that is known of the cells, but for their solids, which are functions."""
    tensors = {"labels": np.ascontiguousarray(annotation.labels)}
    if annotation.foreground is not None:
        tensors["foreground"] = np.ascontiguousarray(annotation.foreground)
    for cell in annotation.cells:
        if cell.outline is not None:
            tensors[f"outline.{cell.label}"] = np.ascontiguousarray(cell.outline)
    about = {
        "version": _VERSION,
        "spacing_um": list(annotation.spacing_um),
        "time": annotation.time,
        "counts": dict(annotation.counts),
        "cells": [cell.row(annotation.ndim) for cell in annotation.cells],
    }
    with replacing(path) as partial:
        save_file(tensors, partial, {"annotation": json.dumps(about)})


def load_annotation(path: Path) -> Annotation:
    """What `save_annotation` wrote; raises ValueError, naming the file, for anything else."""
    try:
        with safe_open(path, "np") as file:
            about = json.loads(file.metadata()["annotation"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        cells = tuple(_record(row, tensors) for row in about["cells"])
        labels, spacing = tensors["labels"], tuple(about["spacing_um"])
        counts = about.get("counts", {})  # which earlier versions did not know
        return Annotation(labels, spacing, cells, tensors.get("foreground"), about["time"], counts)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: holds no annotation ({error}); write it with save_annotation") from error


def _record(row: dict[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> CellRecord:
    record = CellRecord.of_row(row)
    return replace(record, outline=tensors.get(f"outline.{record.label}"))
