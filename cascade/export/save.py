"""Writing samples to disk: complete, or not at all."""

import json
import shutil
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from cascade.export.ctc import write_ctc
from cascade.export.preview import sample_preview

_MARK = "dataset.json"


def save_samples(
    samples: Iterable,
    output_dir: str | Path,
    format: str = "ctc",
    meshes: bool = False,
    about: dict | None = None,
) -> Path:
    """Write samples, their provenance and a preview of the first; returns the folder.

    samples: consumed one by one, so a generator of any length will do.
    format: "ctc".
    meshes: also write every 3D cell's surface as `meshes/sample_000/cell_0001.glb`.
    about: recorded in `dataset.json`.

    Everything is written under a temporary name and renamed at the end; an earlier data set there is replaced, any
    other folder refused with FileExistsError.
    """
    output = Path(output_dir)
    if format != "ctc":
        raise ValueError(f'no format {format!r}; there is "ctc"')
    if output.exists() and any(output.iterdir()) and not (output / _MARK).is_file():
        raise FileExistsError(f"{output}: holds something else than a data set; name another folder")
    samples = iter(samples)
    try:
        first = next(samples)
    except StopIteration:
        raise ValueError("there is no sample to save") from None
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    sample_preview(first, partial / "preview.png")
    with (partial / "provenance.jsonl").open("w") as file:
        write_ctc(_noted(chain([first], samples), file, partial if meshes else None), partial, about)
    if output.exists():
        shutil.rmtree(output)
    partial.rename(output)
    return output


def _noted(samples: Iterable, file, mesh_folder: Path | None) -> Iterable:
    """Pass samples on, noting where each came from."""
    for number, sample in enumerate(samples):
        plain = [{k: v for k, v in cell.items() if k not in ("outline", "solid")} for cell in sample.cells]
        record = {
            "sample": number,
            "seed": sample.seed,
            "index": sample.index,
            "counts": sample.counts,
            "cells": plain,
        }
        file.write(json.dumps(record) + "\n")
        if mesh_folder is not None:
            from cascade.export.mesh import write_meshes  # trimesh only where it is wanted

            write_meshes(sample, mesh_folder / "meshes" / f"sample_{number:03d}")
        yield sample
