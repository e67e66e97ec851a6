"""Tissue in 2D or 3D: any foreground full of cells, in layers from its surface inwards (cGAN paper, 3.1)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.annotation import Annotation
from cascade.settings import check_fields, positive
from cascade.simulators.checks import check_canvas
from cascade.simulators.layers import check_tissue, filled_tissue
from cascade.simulators.organisms import check_foreground, read_foreground


@dataclass(frozen=True, kw_only=True)
class TissueSettings:
    """Numbers of a tissue; what is drawn is given by its quantiles: one number, a range, or evenly spaced ones.

    >>> TissueSettings(elongation=(0.5, 1.0))
    Traceback (most recent call last):
    ValueError: elongation must be from 1 to 3, got 0.5 1
    """

    canvas_size: tuple[int, ...] = (96, 256, 256)
    """Voxels y x, or z y x."""
    spacing_um: tuple[float, ...] = (0.5, 0.3, 0.3)
    """Voxel size y x, or z y x."""
    foreground: Path | None = None
    """Image of the organism, not 0 inside; default the whole canvas."""
    diameter_um: tuple[float, ...] = (5.5, 10.9, 12.0, 13.1, 17.7)
    """Of the disc or ball of a cell's size."""
    elongation: tuple[float, ...] = (1.0, 1.6, 1.9, 2.4, 3.0)
    """Longest over shortest axis of cells, up to 3 (in 2D, about 2 is reached); 1 leaves them as the tessellation makes
    them, about 1.4."""
    axial_elongation: float = 1.0
    """In 3D, extent of cells along z over that in the plane, on average."""
    layer_um: float | None = None
    """Thickness of a layer of cells; default the edge of the square or cube of a middling cell."""
    regularity: int = 3
    """Rounds in which cells move apart; 0 leaves them at random places in their layers."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_canvas(self.canvas_size, self.spacing_um)
        check_tissue(self)
        positive(self, "axial_elongation")


def tissue(
    rng: np.random.Generator,
    settings: TissueSettings | None = None,
    *,
    foreground: npt.NDArray[Any] | None = None,
) -> Annotation:
    """A canvas, or a mask (Y, X) or (Z, Y, X) that is given, full of cells; `Annotation.foreground` is the mask.

    Its membranes are `cascade.shapes.membranes.membranes(annotation.labels, annotation.spacing_um, thickness_um)`.
    Raises ValueError for a foreground that is smaller than a cell, or not as large as the canvas.

    >>> annotation = tissue(np.random.default_rng(0), TissueSettings(canvas_size=(200, 200), spacing_um=(0.3, 0.3)))
    >>> bool((annotation.labels > 0).all()), annotation.split_ids()
    (True, [])
    """
    settings = settings or TissueSettings()
    if foreground is None:
        whole = np.ones(settings.canvas_size, bool)
        foreground = whole if settings.foreground is None else read_foreground(settings.foreground, whole.shape)
    check_foreground(foreground, settings.canvas_size)
    return filled_tissue(
        rng,
        foreground,
        settings.spacing_um,
        diameter_um=settings.diameter_um,
        elongation=settings.elongation,
        layer_um=settings.layer_um,
        regularity=settings.regularity,
        axial_elongation=settings.axial_elongation,
    )
