"""A folder of images, raw or annotated, and what is to be simulated like it: `cascade simulate --like`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cascade.data.calibrate import nuclei_like, tissue_like
from cascade.data.measures import Measures, measure_labels
from cascade.data.seen import look_at
from cascade.data.ties import Ties, measure_ties
from cascade.evenly import evenly
from cascade.export.preview import outlined_sheet
from cascade.simulators.nuclei import NucleiSettings
from cascade.simulators.tissue import TissueSettings
from cascade.sketch.settings import Structure

_SHOWN = 6
LEAST_CONTRAST = 1.5  # in the noise of a pixel: noise draws outlines of cells that stand out less
_TISSUE_TOUCHING = 0.9  # share of cells that touch another one, in stacks: of nuclei fewer do

_Picture = tuple[npt.NDArray[Any] | None, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Likeness:
    """What the images of a folder show: how large cells are, how many, of which shape, how crowded and how bright."""

    folder: Path
    origin: Literal["raw images", "labels"]
    """What it was read from."""
    num_images: int
    """In the folder; so many were looked at as `measures.cells_per_image` has values."""
    image_shape: tuple[int, ...]
    """Median."""
    spacing_um: tuple[float, ...]
    organism: Literal["nuclei", "tissue"]
    """The simulator to choose."""
    measures: Measures
    ties: Ties
    pictures: tuple[_Picture, ...]
    """Some of the images (None where there are labels only), and the cells seen in them."""

    def settings(self, *, canvas_size: Sequence[int] | None = None, seed: int = 0) -> NucleiSettings:
        """At which nuclei have these measures, see `nuclei_like`; default canvas: as large as the images.

        Raises ValueError where no whole cell was seen, and for a canvas of another dimension.
        """
        if canvas_size is not None and len(canvas_size) != len(self.image_shape):
            raise ValueError(
                f"canvas_size has {len(canvas_size)} sides, the images in {self.folder} have {len(self.image_shape)}"
            )
        shape, spacing = self.image_shape, self.spacing_um
        return nuclei_like(self.measures, shape, spacing, ties=self.ties, canvas_size=canvas_size, seed=seed)

    def tissue_settings(self, *, canvas_size: Sequence[int] | None = None, seed: int = 0) -> TissueSettings:
        """At which a tissue's cells are as large, as long and as tall, see `tissue_like`."""
        return tissue_like(self.measures, self.image_shape, self.spacing_um, canvas_size=canvas_size, seed=seed)

    def table(self) -> str:
        """Mean, spread and range of every measure, a line each."""
        lengths = " × ".join(f"{s:g}" for s in self.spacing_um)
        sizes = " × ".join(map(str, self.image_shape))
        looked = len(self.measures.cells_per_image)
        lines = [
            f"{self.folder}: {looked} of {self.num_images} images ({self.origin}), {sizes} voxels of {lengths} µm",
            f"{'':18}{'mean':>9}{'sd':>9}{'5 %':>9}{'95 %':>9}{'of':>7}",
        ]
        for name, values in vars(self.measures).items():
            if len(values):
                low, high = np.percentile(values, [5, 95])
                numbers = "".join(f"{value:9.3g}" for value in (np.mean(values), np.std(values), low, high))
                lines.append(f"{name:18}{numbers}{len(values):7d}")
        return "\n".join(lines)

    def draw(self, path: Path) -> None:
        """Write a picture of what was seen, outlined on the images, of stacks the slice with most cells."""
        outlined_sheet(self.pictures, path)


def like(
    folder: str | Path,
    *,
    truth: str = "gt",
    sequences: Sequence[str] = (),
    channel: str | None = None,
    spacing_um: Sequence[float] = (),
    raw: bool = False,
    structure: Structure | None = None,
) -> Likeness:
    """Measure the images of a folder: by their labels if all cells have some, else by the cells that are found.

    Layouts: those of `find_labels`; of raw images also any folder of them, and sequences `01/t000.tif`. channel, raw,
    structure: see `look_at`. Raises DataError, one line, where there are no images, where no cell can be seen in them,
    where they are of several dimensions or voxel sizes, and where labels lie in pieces."""
    seen = look_at(
        folder,
        truth=truth,
        sequences=sequences,
        channel=channel,
        spacing_um=spacing_um,
        raw=raw,
        structure=structure,
    )
    detected = seen.origin == "raw images" and seen.structure == "cells"
    contrast = LEAST_CONTRAST if detected else 0.0
    measures = measure_labels(seen.labels, seen.spacing_um, seen.images(), least_contrast=contrast)
    shown = evenly(len(seen.labels), _SHOWN)
    pictures: list[_Picture] = [(seen.image(n), seen.labels[n]) for n in shown]
    shapes = np.array([labels.shape for _, labels in pictures])
    dense = seen.origin == "labels" and len(seen.spacing_um) == 3 and np.mean(measures.touching) > _TISSUE_TOUCHING
    shape = tuple(int(n) for n in np.median(shapes, 0))
    sizes = np.array([labels.size for labels in seen.labels])
    if (sizes != sizes[0]).any():  # numbers are those of images of the typical size
        measures = replace(measures, cells_per_image=measures.cells_per_image * (np.prod(shape) / sizes))
    return Likeness(
        folder=seen.folder,
        origin=seen.origin,
        num_images=seen.num_images,
        image_shape=shape,
        spacing_um=seen.spacing_um,
        organism="tissue" if dense or seen.structure == "membranes" else "nuclei",
        measures=measures,
        ties=measure_ties(seen.labels, seen.images(), least_contrast=contrast),
        pictures=tuple(pictures),
    )
