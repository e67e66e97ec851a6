"""A. thaliana meristem in 3D: cells in layers from the organism's surface inwards (cGAN paper, 3.1 and 3.2)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.annotation import Annotation
from cascade.settings import check_fields
from cascade.shapes.statistical import ShapeModel
from cascade.simulators.checks import check_canvas, check_share
from cascade.simulators.layers import check_tissue, filled_tissue
from cascade.simulators.organisms import check_foreground, harmonic_dome, read_foreground, sampled_organism


@dataclass(frozen=True, kw_only=True)
class MeristemSettings:
    """Numbers of the paper's data set; what is drawn is given by its quantiles: one number, a range, or evenly spaced
    ones.

    >>> MeristemSettings(diameter_um=(0.0, 6.0))
    Traceback (most recent call last):
    ValueError: diameter_um must be above 0, got 0 6
    """

    canvas_size: tuple[int, ...] = (221, 495, 511)
    """Voxels z y x; the tip points to the first plane."""
    spacing_um: tuple[float, ...] = (0.26, 0.22, 0.22)
    """Voxel size z y x."""
    shape_model: Path | None = None
    """Statistical shape model of organisms, a file that ShapeModel.save wrote; default a dome of harmonics."""
    foreground: Path | None = None
    """Image of one organism, not 0 inside, to be filled with cells instead."""
    dome: tuple[float, ...] = (0.85, 0.42, 0.42)
    """Height of the dome, and half its width along y and x, in sides of the canvas."""
    roughness: float = 0.06
    """How uneven the dome is: standard deviation of its radius, in radii; 0 makes half an ellipsoid."""
    diameter_um: tuple[float, ...] = (4.5, 5.5, 6.0, 6.6, 8.0)
    """Of the ball of a cell's volume."""
    elongation: tuple[float, ...] = (1.0, 1.5)
    """Longest over shortest axis of cells, up to 3 (in 2D, about 2 is reached); 1 leaves them as the tessellation makes
    them, about 1.4."""
    layer_um: float | None = None
    """Thickness of a layer of cells; default the edge of the cube of a middling cell."""
    regularity: int = 3
    """Rounds in which cells move apart; 0 leaves them at random places in their layers."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_canvas(self.canvas_size, self.spacing_um, 3)
        check_share(self, "roughness")
        if len(self.dome) != 3 or not all(0 < share <= 1 for share in self.dome):
            raise ValueError(f"dome must be three shares z y x above 0, up to 1, got {self.dome}")
        if self.shape_model is not None and self.foreground is not None:
            raise ValueError("shape_model and `foreground` both say what the organism looks like: give one of them")
        given = self.shape_model is not None or self.foreground is not None
        for name in ("dome", "roughness") if given else ():
            if getattr(self, name) != getattr(type(self), name):
                raise ValueError(
                    f"{name} goes without `shape_model` and `foreground`, which say what the organism is like"
                )
        check_tissue(self)


def meristem(
    rng: np.random.Generator,
    settings: MeristemSettings | None = None,
    *,
    foreground: npt.NDArray[Any] | None = None,
) -> Annotation:
    """A meristem, or a mask (Z, Y, X) that is given, full of cells; `Annotation.foreground` is the organism.

    Its membranes are `cascade.shapes.membranes.membranes(annotation.labels, annotation.spacing_um, thickness_um)`.
    Raises ValueError for an organism that is smaller than a cell, and for files that are no model or no mask.

    >>> small = MeristemSettings(canvas_size=(32, 48, 48), spacing_um=(1.0, 1.0, 1.0), diameter_um=(8.0, 12.0))
    >>> annotation = meristem(np.random.default_rng(0), small)
    >>> bool(np.array_equal(annotation.labels > 0, annotation.foreground)), annotation.split_ids()
    (True, [])
    """
    settings = settings or MeristemSettings()
    if foreground is not None:
        check_foreground(foreground, settings.canvas_size)
        organism = foreground
    elif settings.foreground is not None:
        organism = read_foreground(settings.foreground, settings.canvas_size)
    elif settings.shape_model is not None:
        model = ShapeModel.load(settings.shape_model)
        organism = sampled_organism(rng, model, settings.canvas_size, settings.spacing_um)
    else:
        organism = harmonic_dome(
            rng, settings.canvas_size, settings.spacing_um, dome=settings.dome, roughness=settings.roughness
        )
    return filled_tissue(
        rng,
        organism,
        settings.spacing_um,
        diameter_um=settings.diameter_um,
        elongation=settings.elongation,
        layer_um=settings.layer_um,
        regularity=settings.regularity,
    )
