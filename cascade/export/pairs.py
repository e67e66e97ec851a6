"""Pairs of image and label files in the folders that segmentation tools expect."""

import json
from pathlib import Path

import numpy as np
from skimage import segmentation

from cascade.export.tiff import write_ome_tiff, write_tiff


def write_cellpose(sample, number: int, folder: Path) -> None:
    """`train/sample_000000.tif` beside `train/sample_000000_masks.tif`: what `cellpose --train --dir …/train` reads.

    Cellpose takes every picture in a folder for an image, so nothing else is put there.
    """
    folder = folder / "train"
    folder.mkdir(parents=True, exist_ok=True)
    write_tiff(folder / f"{_name(number)}.tif", sample.image, sample.spacing_um)
    write_tiff(folder / f"{_name(number)}_masks.tif", sample.labels, sample.spacing_um)


def write_stardist(sample, number: int, folder: Path) -> None:
    """`images/` and `masks/` with equal names, as in StarDist's examples."""
    for kind, array in (("images", sample.image), ("masks", sample.labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        write_tiff(folder / kind / f"{_name(number)}.tif", array, sample.spacing_um)


def write_ome(sample, number: int, folder: Path) -> None:
    """`images/` and `labels/` as OME-TIFF."""
    for kind, array in (("images", sample.image), ("labels", sample.labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        write_ome_tiff(folder / kind / f"{_name(number)}.ome.tif", array, sample.spacing_um, _name(number))


def write_nnunet(sample, number: int, folder: Path) -> None:
    """nnU-Net v2's raw layout: `imagesTr/…_0000.tif` and semantic labels: 1 inside a cell, 2 on its border.

    nnU-Net segments classes, not instances: the border class lets touching cells be told apart afterwards. The
    instance labels are kept in `instancesTr`.
    """
    border = segmentation.find_boundaries(sample.labels, mode="inner")
    classes = np.where(border, 2, sample.labels > 0).astype(np.uint8)
    named = (("imagesTr", "_0000", sample.image), ("labelsTr", "", classes), ("instancesTr", "", sample.labels))
    for kind, suffix, array in named:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        write_tiff(folder / kind / f"{_name(number)}{suffix}.tif", array, sample.spacing_um)
        if sample.image.ndim == 3:  # its TIFF reader takes the spacing from a file beside the image
            spacing = json.dumps({"spacing": list(sample.spacing_um)})
            (folder / kind / f"{_name(number)}.json").write_text(spacing)


def finish_nnunet(folder: Path, records: list[dict], spacing_um: tuple[float, ...], about: dict) -> None:
    """nnU-Net's `dataset.json`."""
    record = {
        "channel_names": {"0": "fluorescence"},
        "labels": {"background": 0, "cell": 1, "border": 2},
        "numTraining": len(records),
        "file_ending": ".tif",
        **about,
    }
    (folder / "dataset.json").write_text(json.dumps(record, indent=1))


def finish_cellpose(folder: Path, records: list[dict], spacing_um: tuple[float, ...], about: dict) -> None:
    """`train/dataset.json`, beside the pairs."""
    finish(folder / "train", records, spacing_um, about)


def finish(folder: Path, records: list[dict], spacing_um: tuple[float, ...], about: dict) -> None:
    """`dataset.json` with axes and spacing, for the layouts that have no index of their own."""
    axes = "ZYX"[-len(spacing_um) :]
    (folder / "dataset.json").write_text(json.dumps({"axes": axes, "spacing_um": list(spacing_um), **about}, indent=1))


def _name(number: int) -> str:
    return f"sample_{number:06d}"
