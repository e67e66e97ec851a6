"""The formats that a data set can be written in, by name."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cascade.export import coco, ctc, huggingface, ome_zarr, pairs
from cascade.files import replacing

if TYPE_CHECKING:
    from cascade.population.picture import Sample

Write = Callable[..., None]
"""(sample, number, folder, options of the format): one sample's files."""
Finish = Callable[..., None]
"""(folder, records, spacing_um, about, options of the format): the files that need all samples."""

FORMATS: dict[str, tuple[Write, Finish]] = {
    "ctc": (ctc.write, ctc.finish),
    "cellpose": (pairs.write_cellpose, pairs.finish_cellpose),
    "stardist": (pairs.write_stardist, pairs.finish),
    "nnunet": (pairs.write_nnunet, pairs.finish_nnunet),
    "ome-tiff": (pairs.write_ome, pairs.finish),
    "ome-zarr": (ome_zarr.write, ome_zarr.finish),
    "coco": (coco.write, coco.finish),
    "huggingface": (huggingface.write, huggingface.finish),
}


@dataclass(frozen=True)
class DataSetWriter:
    """Writes samples one by one, and the index files when all are there.

    formats: names of FORMATS; with several, each has a subfolder of its own name.
    frames_per_sequence: of the Cell Tracking Challenge layout.
    meshes: also every 3D cell's surface, `meshes/sample_000000/cell_0001.glb`.
    """

    formats: tuple[str, ...]
    frames_per_sequence: int = 400
    meshes: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise ValueError(f"no format {', '.join(map(repr, unknown)) or 'given'}; there are {', '.join(FORMATS)}")
        if "ome-zarr" in self.formats:
            ome_zarr.check_installed()

    def write(self, sample: "Sample", number: int, folder: Path) -> dict[str, Any]:
        """Write one sample under `folder`; returns its record for `finish`."""
        for name in self.formats:
            FORMATS[name][0](sample, number, self._place(folder, name), **self._options(name))
        if self.meshes:
            from cascade.export.mesh import write_meshes

            write_meshes(sample, folder / "meshes" / f"sample_{number:06d}")
        cells = [{k: v for k, v in cell.items() if k not in ("outline", "solid")} for cell in sample.cells]
        record = {
            "sample": number,
            "seed": sample.seed,
            "index": sample.index,
            "cells": int(sample.labels.max(initial=0)),
            "spacing_um": list(sample.spacing_um),
        }
        return record | {"counts": sample.counts, "cell_records": cells}

    def finish(
        self, folder: Path, records: list[dict[str, Any]], spacing_um: tuple[float, ...], about: dict[str, Any]
    ) -> None:
        """Write the index files of every format, `provenance.jsonl` and `cells.parquet`."""
        for name in self.formats:
            FORMATS[name][1](self._place(folder, name), records, spacing_um, about, **self._options(name))
        _write_cells(records, folder / "cells.parquet")
        plain = [{k: v for k, v in record.items() if k != "cell_records"} for record in records]
        with replacing(folder / "provenance.jsonl") as last:  # its presence says that everything else is there
            last.write_text("".join(json.dumps(record) + "\n" for record in plain))

    def _place(self, folder: Path, name: str) -> Path:
        place = folder if len(self.formats) == 1 else folder / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _options(self, name: str) -> dict[str, Any]:
        return {"frames_per_sequence": self.frames_per_sequence} if name == "ctc" else {}


def _write_cells(records: list[dict[str, Any]], path: Path) -> None:
    """One row a cell: sample, label, centroid, size, brightness and whatever else is known of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for record in records:
        for cell in record["cell_records"]:
            row = {"sample": record["sample"], "seed": str(record["seed"])}
            for key, value in cell.items():
                if isinstance(value, tuple | list):
                    row |= {f"{key}_{axis}": v for axis, v in zip("zyx"[-len(value) :], value, strict=True)}
                else:
                    row[key] = value
            rows.append(row)
    with replacing(path) as partial:
        pq.write_table(pa.Table.from_pylist(rows) if rows else pa.table({"sample": pa.array([], pa.int64())}), partial)
