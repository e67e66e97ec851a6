"""Pairs of image and label files, or labels alone, in the folders that segmentation tools expect."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage import segmentation

from cascade.annotation import Sample
from cascade.export.records import SampleRecord
from cascade.export.tiff import write_ome_tiff, write_tiff
from cascade.geometry.resample import resample

_PLANES = 8  # of a stack, in each of the three orientations


def write_cellpose(sample: Sample, number: int, folder: Path) -> None:
    """`train/sample_000000.tif` beside `train/sample_000000_masks.tif`: what `cellpose --train --dir …/train` reads.

    Cellpose trains on planes, also for its 3D mode: of a stack `train` gets eight each along xy, xz and yz, evenly
    spread over those that show cells, with square pixels; the stack itself lies in `stacks`. Cellpose takes every
    picture in a folder for an image, so nothing else is put there.
    """
    if sample.labels.ndim == 2:
        return _write_cellpose_pair(folder / "train" / _name(number), sample.image, sample.labels, sample.spacing_um)
    _write_cellpose_pair(folder / "stacks" / _name(number), sample.image, sample.labels, sample.spacing_um)
    side = sample.spacing_um[-2:]
    for axis, name in enumerate(("xy", "xz", "yz")):
        spacing = tuple(np.delete(sample.spacing_um, axis))
        shown = np.flatnonzero(sample.labels.any(tuple({0, 1, 2} - {axis})))
        for n in np.unique(shown[np.linspace(0, len(shown) - 1, _PLANES).round().astype(int)] if len(shown) else []):
            image, labels = None, resample(np.take(sample.labels, int(n), axis), spacing, side, order=0)
            if sample.image is not None:
                planes = [resample(np.take(channel, int(n), axis), spacing, side) for channel in sample.channels]
                image = np.rint(planes[0] if len(planes) == 1 else np.stack(planes)).astype(sample.image.dtype)
            _write_cellpose_pair(folder / "train" / f"{_name(number)}_{name}{int(n):03d}", image, labels, side)


def _write_cellpose_pair(
    path: Path, image: npt.NDArray[Any] | None, labels: npt.NDArray[Any], spacing_um: tuple[float, ...]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if image is not None:
        write_tiff(path.with_name(f"{path.name}.tif"), image, spacing_um)
    write_tiff(path.with_name(f"{path.name}_masks.tif"), labels, spacing_um)


def write_stardist(sample: Sample, number: int, folder: Path) -> None:
    """`images/` and `masks/` with equal names, as in StarDist's examples; several channels come first, as ImageJ has
    them, where StarDist takes them last."""
    for kind, array in (("images", sample.image), ("masks", sample.labels)):
        if array is None:
            continue
        (folder / kind).mkdir(parents=True, exist_ok=True)
        write_tiff(folder / kind / f"{_name(number)}.tif", array, sample.spacing_um)


def write_ome(sample: Sample, number: int, folder: Path) -> None:
    """`images/` and `labels/` as OME-TIFF."""
    for kind, array in (("images", sample.image), ("labels", sample.labels)):
        if array is None:
            continue
        (folder / kind).mkdir(parents=True, exist_ok=True)
        write_ome_tiff(folder / kind / f"{_name(number)}.ome.tif", array, sample.spacing_um, _name(number))


def write_nnunet(sample: Sample, number: int, folder: Path) -> None:
    """nnU-Net v2's raw layout: `imagesTr/…_0000.tif`, a file for each channel, and semantic labels: 1 inside a cell, 2
    on its border.

    nnU-Net segments classes, not instances: the border class lets touching cells be told apart afterwards. The
    instance labels are kept in `instancesTr`.
    """
    border = segmentation.find_boundaries(sample.labels, mode="inner")
    classes = np.where(border, 2, sample.labels > 0).astype(np.uint8)
    named = [("imagesTr", f"_{n:04d}", channel) for n, channel in enumerate(sample.channels)]
    for kind, suffix, array in (*named, ("labelsTr", "", classes), ("instancesTr", "", sample.labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        write_tiff(folder / kind / f"{_name(number)}{suffix}.tif", array, sample.spacing_um)
        if sample.labels.ndim == 3:  # its TIFF reader takes the spacing from a file beside the image
            spacing = json.dumps({"spacing": list(sample.spacing_um)})
            (folder / kind / f"{_name(number)}.json").write_text(spacing)


def finish_nnunet(
    folder: Path, records: list[SampleRecord], spacing_um: tuple[float, ...], about: dict[str, Any]
) -> None:
    """nnU-Net's `dataset.json`."""
    several = [f"fluorescence {n + 1}" for n in range(records[0].channels)]
    record = {
        "channel_names": dict(enumerate(several)) if len(several) > 1 else {"0": "fluorescence"},
        "labels": {"background": 0, "cell": 1, "border": 2},
        "numTraining": len(records),
        "file_ending": ".tif",
        **about,
    }
    (folder / "dataset.json").write_text(json.dumps(record, indent=1))


def finish_cellpose(
    folder: Path, records: list[SampleRecord], spacing_um: tuple[float, ...], about: dict[str, Any]
) -> None:
    """`dataset.json` beside the pairs, in `train` and, in 3D, in `stacks`."""
    (folder / "train").mkdir(parents=True, exist_ok=True)  # if no stack has shown a cell
    finish(folder / "train", records, spacing_um[-2:], about)
    if len(spacing_um) == 3:
        finish(folder / "stacks", records, spacing_um, about)


def finish(folder: Path, records: list[SampleRecord], spacing_um: tuple[float, ...], about: dict[str, Any]) -> None:
    """`dataset.json` with axes and spacing, for the layouts that have no index of their own."""
    axes = "ZYX"[-len(spacing_um) :]
    about = about | ({"channels": records[0].channels} if records[0].channels > 1 else {})
    (folder / "dataset.json").write_text(json.dumps({"axes": axes, "spacing_um": list(spacing_um), **about}, indent=1))


def _name(number: int) -> str:
    return f"sample_{number:06d}"
