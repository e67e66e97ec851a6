"""Scenes without a drawing: populations of nuclei, and organisms that simulators make."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shutil import make_archive, rmtree
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cascade.annotation import Annotation, Sample
from cascade.app.drawing import check_count, check_size
from cascade.app.painters import paint, paints_sketches, populate, sketch_pipeline, spacing_of
from cascade.export.preview import coloured_labels
from cascade.export.save import save_samples
from cascade.rng import stream
from cascade.simulators.catalogue import ORGANISMS
from cascade.simulators.nuclei import NucleiSettings, nuclei
from cascade.sketch.draw import draw_sketch
from cascade.sketch.settings import SketchSettings

Look = Literal["labels", "sketch", "painted"]

_NUCLEI = NucleiSettings(radius_um=(8.0, 11.5), elongation=(1.05, 1.7), deformation=(0.06,))
_CANVAS: Mapping[str, dict[str, Any]] = MappingProxyType({  # seconds instead of minutes
    "nuclei": {"canvas_size": (384, 384), "num_cells": (30.0,), "radius_um": (8.0, 11.5)},
    "celegans": {"canvas_size": (35, 256, 354), "spacing_um": (1.0, 0.18, 0.18)},
    "tribolium": {"canvas_size": (13, 1225, 850), "num_cells": (3000.0,)},
    "zebrafish": {"canvas_size": (48, 160, 160), "num_cells": (20.0, 25.0)},
    "gowt1": {"canvas_size": (512, 512), "spacing_um": (0.48, 0.48)},
    "hela": {},
    "meristem": {"canvas_size": (74, 165, 170), "spacing_um": (0.78, 0.66, 0.66)},
    "tissue": {"canvas_size": (48, 128, 128), "spacing_um": (1.0, 0.6, 0.6)},
})  # fmt: skip


def organisms() -> dict[str, str]:
    """Names of the simulators, and a line on each."""
    return {name: ORGANISMS[name].about for name in _CANVAS}


def population(name: str, *, num_cells: int, clustering: float, side: int, seed: int = 0, bank: bool = True) -> Sample:
    """Nuclei at random places, painted by a model: image, labels and what is known of each.

    clustering: from 0, put anywhere, to 1, near to each other. side: of the canvas, pixels. A cascade draws outlines as
    in its real images (bank: see `populate`), a model of sketches paints simulated nuclei. Raises ValueError for
    numbers that cannot be, and for nuclei that do not fit.
    """
    check_size((side, side), "the canvas")
    check_count(num_cells, "the canvas")
    if not paints_sketches(name):
        size = (side, side)
        return populate(name, num_cells=num_cells, clustering=clustering, canvas_size=size, seed=seed, bank=bank)
    how = replace(
        _NUCLEI,
        canvas_size=(side, side),
        spacing_um=spacing_of(name),
        num_cells=(float(num_cells),),
        clustering=(clustering,),
        touching=(0.5 * clustering,),
    )
    return paint(nuclei(stream(seed, "population"), how), name, seed)


def simulate(organism: str, seed: int = 0) -> Annotation:
    """An organism, on a canvas that takes seconds; `cascade simulate` makes it as large as in its paper.

    Raises ValueError for a name that is none.
    """
    if organism not in _CANVAS:
        raise ValueError(f"there is no organism {organism}: {', '.join(_CANVAS)}")
    kind = ORGANISMS[organism]
    return kind.simulate()(stream(seed, "page", organism), kind.settings_class()(**_CANVAS[organism]))


def shown(annotation: Annotation, look: Look, name: str, seed: int = 0) -> Sample:
    """An annotation as it is to be looked at: without image, with its sketch, or painted.

    name: of the model of sketches, which paints what has its voxel size. Raises ValueError where it does not.
    """
    if look == "labels":
        return Sample(None, annotation, seed)
    if look == "painted":
        return paint(annotation, name, seed)
    fits = annotation.ndim == len(spacing_of(name)) and paints_sketches(name)
    own = sketch_pipeline(name).sketch_settings[0] if fits else SketchSettings()
    sketch = draw_sketch(annotation, own, stream(seed, "sketch", 0))
    return Sample(np.clip(np.rint(sketch), 0, 65535).astype(np.uint16), annotation, seed)


def saved(sample: Sample, folder: Path, format: str, about: dict[str, Any]) -> Path:
    """A zip of the sample as a data set of one image, in a format of `cascade generate`; about: what made it."""
    whole = save_samples([sample], folder / "sample", (format,), about=about)
    packed = Path(make_archive(str(folder / f"cascade_{format}"), "zip", whole))
    rmtree(whole)
    return packed


def coloured(labels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Labels (Y, X) as a picture (Y, X, 3), every cell in a colour."""
    return np.rint(255 * coloured_labels(labels)).astype(np.uint8)


def grey(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """An image (Y, X) in camera units as a picture, stretched over what it holds."""
    low, high = np.percentile(image, [1, 99.7])
    shade = np.clip((image.astype(np.float32) - low) / max(high - low, 1), 0, 1) ** 0.7
    return np.rint(255 * shade).astype(np.uint8)
