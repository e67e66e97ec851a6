"""COCO instance annotations of 2D samples: 16-bit PNGs and `annotations.json`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from cascade.annotation import Sample
from cascade.export.records import SampleRecord


def write(sample: Sample, number: int, folder: Path) -> None:
    """`images/sample_000000.png`, if there is an image; annotations lie in `annotations/` until `finish` joins them.

    Raises ValueError for a 3D sample, COCO has no z, and for several channels, which its pictures have not.
    """
    if len(sample.channels) > 1:
        raise ValueError("COCO's pictures have one channel: choose another --format for several")
    if sample.labels.ndim != 2:
        raise ValueError("COCO annotates planes: choose another --format for 3D data")
    name = f"sample_{number:06d}"
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    if sample.image is not None:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.image).save(folder / "images" / f"{name}.png")
    annotations = []
    for label, box in enumerate(ndimage.find_objects(sample.labels), 1):
        if box is None:
            continue
        mask = sample.labels[box] == label
        y, x = box
        annotations.append(
            {
                "bbox": [x.start, y.start, x.stop - x.start, y.stop - y.start],
                "area": int(mask.sum()),
                "segmentation": {
                    "size": list(sample.labels.shape),
                    "counts": _run_lengths(mask, (y.start, x.start), sample.labels.shape),
                },
                "label": label,
            }
        )
    (folder / "annotations" / f"{name}.json").write_text(
        json.dumps({"shape": sample.labels.shape, "cells": annotations})
    )


def finish(folder: Path, records: list[SampleRecord], spacing_um: tuple[float, ...], about: dict[str, Any]) -> None:
    """Join all annotations into `annotations.json`."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(len(records)):
        part = json.loads((folder / "annotations" / f"sample_{number:06d}.json").read_text())
        height, width = part["shape"]
        images.append({"id": number, "file_name": f"images/sample_{number:06d}.png", "height": height, "width": width})
        for cell in part["cells"]:
            annotations.append({**cell, "id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0})
    if "spacing_um" in about:  # it differs
        images = [image | {"spacing_um": list(one.spacing_um)} for image, one in zip(images, records, strict=True)]
    joined = {
        "info": {"spacing_um": list(spacing_um), **about},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cell"}],
    }
    (folder / "annotations.json").write_text(json.dumps(joined))


def _run_lengths(mask: npt.NDArray[Any], corner: tuple[int, int], shape: tuple[int, ...]) -> list[int]:
    """COCO's uncompressed run lengths of a mask that lies at a corner of an image: column by column, starting with the
    number of zeros."""
    x, y = np.nonzero(mask.T)
    places = (x + corner[1]) * shape[0] + y + corner[0]
    last = np.flatnonzero(np.diff(places) > 1)  # of each run but the final one
    starts, ends = places[np.append(0, last + 1)], places[np.append(last, -1)] + 1
    runs: list[int] = np.diff(
        np.concatenate([[0], np.stack([starts, ends], 1).ravel(), [shape[0] * shape[1]]])
    ).tolist()
    return runs if runs[-1] else runs[:-1]
