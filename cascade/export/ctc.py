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

    Samples are independent images, so each cell is a track of one frame, all of them numbered in their order. Raises
    ValueError if a sequence has more cells than uint16 ids.
    """
    for start in range(0, len(records), frames_per_sequence):
        sequence, _ = _place(start, frames_per_sequence)
        tra = folder / f"{sequence}_GT" / "TRA"
        tra.mkdir(parents=True, exist_ok=True)
        lines: list[str] = []
        last = 0
        for frame, record in enumerate(records[start : start + frames_per_sequence]):
            ids = sorted(cell.label for cell in record.cells)
            if last + len(ids) > TRACK_IDS:
                raise ValueError(
                    f"{folder}: sequence {sequence} has more cells than the {TRACK_IDS} numbers of the Cell Tracking "
                    "Challenge's layout: give another `format`, stardist for one"
                )
            labels = tifffile.imread(folder / f"{sequence}_GT" / "SEG" / f"man_seg{frame:03d}.tif")
            track = np.zeros(max([0, *ids]) + 1, np.uint16)
            track[ids] = np.arange(len(ids)) + last + 1
            write_tiff(tra / f"man_track{frame:03d}.tif", track[labels], record.spacing_um[-labels.ndim :])
            lines += [f"{track[label]} {frame} {frame} 0" for label in ids]
            last += len(ids)
        (tra / "man_track.txt").write_text("\n".join(lines) + "\n")
    axes = "ZYX"[-len(spacing_um) :]
    about = about | ({"channels": records[0].channels} if records[0].channels > 1 else {})
    (folder / "dataset.json").write_text(json.dumps({"axes": axes, "spacing_um": list(spacing_um), **about}, indent=1))


def _place(number: int, frames_per_sequence: int) -> tuple[str, int]:
    return f"{number // frames_per_sequence + 1:02d}", number % frames_per_sequence
