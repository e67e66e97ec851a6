"""What is asked of the commands that read annotated images: `prepare`, `thin`, `validate`."""

import math
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal

from cascade.settings import at_least, check_fields, check_spacing

Truth = Literal["gt", "st"]


def check_crops(crop_size: int | None, pixel_size_um: float | None) -> None:
    """Raises ValueError for sizes of crops that cannot be."""
    if crop_size is not None and (crop_size < 32 or crop_size % 16):
        raise ValueError(f"crop_size must be a multiple of 16, at least 32, got {crop_size}")
    if pixel_size_um is not None and not 0 < pixel_size_um < math.inf:
        raise ValueError(f"pixel_size_um must be a length above 0, in µm, got {pixel_size_um:g}")


@dataclass(frozen=True)
class PrepareSettings:
    """How a data set is cut into crops of one cell each.

    >>> PrepareSettings("images", output_dir="crops", crop_size=65)
    Traceback (most recent call last):
    ValueError: crop_size must be a multiple of 16, at least 32, got 65
    """

    source: Path
    """Cell Tracking Challenge folder; or folder of x.tif with x_masks.tif, or with outlines of QuPath (x.geojson) or
    ImageJ (x.zip, x.roi); or of images/ and masks/ or outlines/; or of x.ome.zarr that hold their labels."""
    _: KW_ONLY
    output_dir: Path
    """Folder of the crops, their statistics, a preview and a card."""
    truth: Truth = "gt"
    """The Cell Tracking Challenge's gold or silver truth."""
    sequences: tuple[str, ...] = ()
    """Which of its sequences, e.g. 01 02; default all."""
    channel: str | None = None
    """Of images that have several: the one to read, by its name, or by its number from 1."""
    crop_size: int | None = None
    """Pixels, a multiple of 16 from 32 on; default 64, or with `pixel_size_um` as many as nearly all cells fit into."""
    pixel_size_um: float | None = None
    """Resample to this pixel size; default the data set's own, or so much coarser that nearly all cells fit."""
    spacing_um: tuple[float, ...] = ()
    """Voxel size z y x or y x; default as stored with the images, for planes else 1 µm."""
    slices_per_cell: int = 3
    """How many planes of a cell are used where whole stacks are annotated."""
    sparse: bool = False
    """Planes show cells that nobody annotated: they are found by their light, roughly, to be counted and to be kept
    out of the crops."""
    licence: str = "not stated"
    """Of the images, and whom to cite; carried over to the cards of models trained on the crops."""
    seed: int = 0
    """Of the choice of planes and of the clustering fit."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_crops(self.crop_size, self.pixel_size_um)
        check_spacing("spacing_um", self.spacing_um)
        at_least(self, slices_per_cell=1, seed=0)


@dataclass(frozen=True)
class ThinSettings:
    """Which annotations of a data set are kept: those of some cells, or of some frames.

    >>> ThinSettings("images", output_dir="few")
    Traceback (most recent call last):
    ValueError: give `cells` or `frames`, one of them
    """

    source: Path
    """As for prepare."""
    _: KW_ONLY
    output_dir: Path
    """Folder of the copy, which must not hold anything."""
    cells: int | None = None
    """Keep the annotation of so many cells (then: prepare with `sparse`)."""
    frames: int | None = None
    """Or of so many frames or slices."""
    truth: Truth = "gt"
    """The Cell Tracking Challenge's gold or silver truth."""
    sequences: tuple[str, ...] = ()
    """Which of its sequences; default all."""
    channel: str | None = None
    """Of images that have several: the one to read, by its name, or by its number from 1."""
    seed: int = 0
    """Of the choice."""

    def __post_init__(self) -> None:
        check_fields(self)
        at_least(self, cells=1, frames=1, seed=0)
        if (self.cells is None) == (self.frames is None):
            raise ValueError("give `cells` or `frames`, one of them")


@dataclass(frozen=True)
class ValidateSettings:
    """Which data set is looked at.

    >>> ValidateSettings("images", truth="silver")
    Traceback (most recent call last):
    ValueError: truth must be one of gt, st, got silver
    """

    folder: Path
    """A data set, generated or real, in a layout that prepare reads."""
    _: KW_ONLY
    truth: Truth = "gt"
    """The Cell Tracking Challenge's gold or silver truth."""
    sequences: tuple[str, ...] = ()
    """Which of its sequences; default all."""
    channel: str | None = None
    """Of images that have several: the one to read, by its name, or by its number from 1."""

    def __post_init__(self) -> None:
        check_fields(self)
