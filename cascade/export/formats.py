"""The formats that a data set can be written in, by name."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.annotation import Sample
from cascade.export import annotations, coco, ctc, huggingface, ome_zarr, pairs
from cascade.export.records import SampleRecord, write_cells
from cascade.files import replacing

Write = Callable[..., None]
"""(sample, number, folder, options of the format): one sample's files."""
Finish = Callable[..., None]
"""(folder, records, spacing_um, about, options of the format): the files that need all samples."""

FORMATS: dict[str, tuple[Write, Finish]] = {
    "annotations": (annotations.write, annotations.finish),
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

    def write(self, sample: Sample, number: int, folder: Path) -> SampleRecord:
        """Write one sample under `folder`; returns its record for `finish`."""
        for name in self.formats:
            FORMATS[name][0](sample, number, self._place(folder, name), **self._options(name))
        if self.meshes:
            from cascade.export.mesh import write_meshes

            write_meshes(sample, folder / "meshes" / f"sample_{number:06d}")
        return SampleRecord.of(sample, number)

    def finish(self, folder: Path, records: list[SampleRecord], about: dict[str, Any]) -> None:
        """Write the index files of every format, which record `about`, `provenance.jsonl` and `cells.parquet`."""
        spacing_um = records[0].spacing_um
        about = {name: value for name, value in about.items() if name != "spacing_um"}  # that was asked for
        if any(record.spacing_um != spacing_um for record in records):
            about = about | {"spacing_um": None}  # each file says its own
        for name in self.formats:
            FORMATS[name][1](self._place(folder, name), records, spacing_um, about, **self._options(name))
        write_cells(records, folder / "cells.parquet")
        with replacing(folder / "provenance.jsonl") as last:  # its presence says that everything else is there
            last.write_text("".join(json.dumps(record.provenance()) + "\n" for record in records))

    def _place(self, folder: Path, name: str) -> Path:
        place = folder if len(self.formats) == 1 else folder / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _options(self, name: str) -> dict[str, Any]:
        return {"frames_per_sequence": self.frames_per_sequence} if name == "ctc" else {}
