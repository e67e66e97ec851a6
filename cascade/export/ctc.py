"""The Cell Tracking Challenge layout: images, SEG and TRA truth."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tifffile

_FRAMES = 1000  # of one sequence: file names have three digits
_TRACKS = 65_535  # of one sequence: TRA ids are uint16 and every cell is a track of its own


def write_ctc(samples: Iterable, folder: Path, about: dict | None = None) -> int:
    """Write samples as sequences 01, 02, …; returns how many.

    `01/t000.tif`, `01_GT/SEG/man_seg000.tif`, `01_GT/TRA/man_track000.tif` with `man_track.txt`, and `dataset.json`
    with axes, spacing and `about`. Samples are independent images, so each cell is a track of one frame. TIFFs carry
    their spacing in micrometres (ImageJ metadata).
    """
    sequence, frame, tracks, written = 1, 0, [], 0
    for sample in samples:
        cells = int(sample.labels.max(initial=0))
        if frame == _FRAMES or len(tracks) + cells > _TRACKS:
            _write_tracks(folder, sequence, tracks)
            sequence, frame, tracks = sequence + 1, 0, []
        name = f"{sequence:02d}"
        seg, tra = folder / f"{name}_GT" / "SEG", folder / f"{name}_GT" / "TRA"
        for place in (folder / name, seg, tra):
            place.mkdir(parents=True, exist_ok=True)
        write_tiff(folder / name / f"t{frame:03d}.tif", sample.image, sample.spacing_um)
        write_tiff(seg / f"man_seg{frame:03d}.tif", sample.labels, sample.spacing_um)
        shifted = np.where(sample.labels > 0, sample.labels + len(tracks), 0).astype(np.uint16)
        write_tiff(tra / f"man_track{frame:03d}.tif", shifted, sample.spacing_um)
        tracks += [frame] * cells
        frame, written, spacing = frame + 1, written + 1, sample.spacing_um
    if written:
        _write_tracks(folder, sequence, tracks)
        record = {"axes": "ZYX"[-len(spacing) :], "spacing_um": list(spacing), **(about or {})}
        (folder / "dataset.json").write_text(json.dumps(record, indent=1))
    return written


def write_tiff(path: Path, array: np.ndarray, spacing_um: tuple[float, ...]) -> None:
    """A (Y, X) or (Z, Y, X) image that ImageJ, CTC tools and Cellpose read, with its voxel size."""
    metadata = {"axes": "ZYX"[-array.ndim :], "unit": "um"}
    if array.ndim == 3:
        metadata["spacing"] = spacing_um[0]
    resolution = (1 / spacing_um[-1], 1 / spacing_um[-2])
    tifffile.imwrite(path, array, imagej=True, resolution=resolution, metadata=metadata, compression="zlib")


def _write_tracks(folder: Path, sequence: int, frames: list[int]) -> None:
    lines = [f"{label} {frame} {frame} 0" for label, frame in enumerate(frames, 1)]
    (folder / f"{sequence:02d}_GT" / "TRA" / "man_track.txt").write_text("\n".join(lines) + "\n")
