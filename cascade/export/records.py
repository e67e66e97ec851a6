"""What a data set remembers of each of its samples."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cascade.annotation import CellRecord, Sample
from cascade.files import replacing


@dataclass(frozen=True)
class SampleRecord:
    """One sample of a data set: how it was made, and its cells.

    number: of the sample in the data set; seed, index: what it was made from; counts: what was drawn again or left out;
    microscope: what differs from the fitted one; channels: of its image.
    """

    number: int
    seed: int
    index: int
    num_cells: int
    spacing_um: tuple[float, ...]
    counts: Mapping[str, int]
    cells: tuple[CellRecord, ...]
    time: int = 0
    microscope: Mapping[str, float] = field(default_factory=dict)
    channels: int = 1

    @classmethod
    def of(cls, sample: Sample, number: int) -> "SampleRecord":
        """Of a sample that is written under a number."""
        spacing, time = sample.spacing_um, sample.annotation.time
        counts = {**sample.annotation.counts, **sample.counts}
        cells, microscope, channels = sample.cells, sample.microscope, max(len(sample.channels), 1)
        return cls(number, sample.seed, sample.index, len(cells), spacing, counts, cells, time, microscope, channels)

    def provenance(self) -> dict[str, Any]:
        """The sample itself, as one line of `provenance.jsonl`."""
        found = {"sample": self.number, "seed": self.seed, "index": self.index, "cells": self.num_cells}
        more: dict[str, Any] = {"time": self.time} if self.time else {}
        more |= {"microscope": dict(self.microscope)} if self.microscope else {}
        more |= {"channels": self.channels} if self.channels > 1 else {}
        return {**found, "spacing_um": list(self.spacing_um), "counts": dict(self.counts), **more}

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain numbers and lists."""
        return self.provenance() | {"cell_records": [cell.row(len(self.spacing_um)) for cell in self.cells]}

    @classmethod
    def of_json(cls, record: Mapping[str, Any]) -> "SampleRecord":
        """Inverse of `to_json`; raises KeyError for a record that is not complete."""
        return cls(
            number=record["sample"],
            seed=record["seed"],
            index=record["index"],
            num_cells=record["cells"],
            spacing_um=tuple(record["spacing_um"]),
            counts=record["counts"],
            cells=tuple(CellRecord.of_row(row) for row in record["cell_records"]),
            time=record.get("time", 0),
            microscope=record.get("microscope", {}),
            channels=record.get("channels", 1),
        )


def write_cells(records: Iterable[SampleRecord], path: Path) -> None:
    """`cells.parquet`, one row a cell: sample, seed, label, centroid, size, brightness and whatever else is known."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for record in records:
        for cell in record.cells:
            row = {"sample": record.number, "seed": str(record.seed)}
            for key, value in cell.row(len(record.spacing_um)).items():
                if isinstance(value, list) and key.endswith("_um"):
                    row |= {f"{key}_{axis}": v for axis, v in zip("zyx"[-len(value) :], value, strict=True)}
                else:
                    row[key] = value
            rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))  # not all is known of every cell
    table = pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
    with replacing(path) as partial:
        pq.write_table(table if rows else pa.table({"sample": pa.array([], pa.int64())}), partial)
