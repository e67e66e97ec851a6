"""The Cell Tracking Challenge layout: `01/t000.tif`, `01_GT/SEG/man_seg000.tif`, `01_GT/TRA/`, `dataset.json`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cascade.annotation import Sample
from cascade.export.records import SampleRecord
from cascade.export.tiff import write_tiff

TRACK_IDS = 65_535  # TRA masks are uint16, and every cell of every image is a track of its own


def write(sample: Sample, number: int, folder: Path, frames_per_sequence: int) -> None:
    """Image, if there is one, and SEG labels of sample `number`, in sequence number // frames_per_sequence + 1."""
    sequence, frame = _place(number, frames_per_sequence)
    seg = folder / f"{sequence}_GT" / "SEG"
    seg.mkdir(parents=True, exist_ok=True)
    if sample.image is not None:
        (folder / sequence).mkdir(parents=True, exist_ok=True)
        write_tiff(folder / sequence / f"t{frame:03d}.tif", sample.image, sample.spacing_um)
    write_tiff(seg / f"man_seg{frame:03d}.tif", sample.labels, sample.spacing_um)


def finish(
    folder: Path,
    records: list[SampleRecord],
    spacing_um: tuple[float, ...],
    about: dict[str, Any],
    frames_per_sequence: int,
) -> None:
    """TRA masks and tracks of all samples, and `dataset.json`.

    Samples are independent images, so each cell is a track of one frame; its id is its label and the highest before it.
    Raises ValueError if a sequence has more cells than uint16 ids.
    """
    for start in range(0, len(records), frames_per_sequence):
        sequence, _ = _place(start, frames_per_sequence)
        tra = folder / f"{sequence}_GT" / "TRA"
        tra.mkdir(parents=True, exist_ok=True)
        lines: list[str] = []
        last = 0
        for frame, record in enumerate(records[start : start + frames_per_sequence]):
            highest = max([record.num_cells, *(cell.label for cell in record.cells)])
            if last + highest > TRACK_IDS:
                raise ValueError(
                    f"{folder}: sequence {sequence} has more than {TRACK_IDS} cells; use shorter sequences"
                )
            labels = tifffile.imread(folder / f"{sequence}_GT" / "SEG" / f"man_seg{frame:03d}.tif")
            shifted = np.where(labels > 0, labels.astype(np.int64) + last, 0).astype(np.uint16)
            write_tiff(tra / f"man_track{frame:03d}.tif", shifted, record.spacing_um[-shifted.ndim :])
            lines += [f"{last + cell.label} {frame} {frame} 0" for cell in record.cells]
            last += highest
        (tra / "man_track.txt").write_text("\n".join(lines) + "\n")
    axes = "ZYX"[-len(spacing_um) :]
    about = about | ({"channels": records[0].channels} if records[0].channels > 1 else {})
    (folder / "dataset.json").write_text(json.dumps({"axes": axes, "spacing_um": list(spacing_um), **about}, indent=1))


def _place(number: int, frames_per_sequence: int) -> tuple[str, int]:
    return f"{number // frames_per_sequence + 1:02d}", number % frames_per_sequence
