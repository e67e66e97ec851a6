"""Nuclei of D. rerio in 3D: spherical harmonics at detected centroids (conditional GAN paper, Eq. 5–7)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cascade.annotation import Annotation
from cascade.draws import at_rank, check_quantiles, draw
from cascade.geometry.grid import Grid
from cascade.settings import check_fields
from cascade.shapes.ellipsoid import ellipsoid
from cascade.shapes.harmonics import HarmonicShapes
from cascade.shapes.table import beyond_surface, radius_table
from cascade.simulators.bodies import FEWEST_VOXELS, Body, deepest
from cascade.simulators.checks import check_all_placed, check_canvas
from cascade.simulators.contest import contest
from cascade.simulators.crowd import Crowd
from cascade.simulators.detections import check_detections, read_detections

_TOGETHER = 1024  # shapes of which all radii are tabulated at a time


@dataclass(frozen=True, kw_only=True)
class ZebrafishSettings:
    """Numbers of the paper. What is drawn is given by its quantiles: one number, a range, or evenly spaced ones."""

    canvas_size: tuple[int, ...] = (112, 512, 512)
    """Voxels z y x."""
    spacing_um: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Voxel size z y x; the paper counts in voxels."""
    detections: Path | None = None
    """Where the nuclei are: a CSV with columns z, y, x in voxels (or z_um, y_um, x_um), or a point image; default
    anywhere without overlap."""
    num_cells: tuple[float, ...] = (400.0, 600.0)
    """Nuclei of an image without detections."""
    radius_um: tuple[float, ...] = tuple(round(9 + z, 2) for z in (
        -2.33, -1.64, -1.28, -1.04, -0.84, -0.67, -0.52, -0.39, -0.25, -0.13,
        0.0, 0.13, 0.25, 0.39, 0.52, 0.67, 0.84, 1.04, 1.28, 1.64, 2.33,
    ))  # fmt: skip
    """Of a nucleus, by default N(9, 1)."""
    degree: int = 8
    """Highest degree of the harmonics."""
    gamma: float = 5.0
    """How smooth: the power of degree l falls as its negative power, l to the -gamma."""
    brightness: tuple[float, ...] | None = None
    """Wanted mean of a cell, camera units; default left to who paints."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_canvas(self.canvas_size, self.spacing_um, 3)
        check_quantiles("num_cells", self.num_cells, least=0)
        check_quantiles("radius_um", self.radius_um, above=0)
        if not 2 <= self.degree <= 20:
            raise ValueError(f"degree must be between 2 and 20, got {self.degree}")
        if not 1 <= self.gamma <= 100:
            raise ValueError(f"gamma must be between 1 and 100, got {self.gamma:g}")
        if self.brightness is not None:
            check_quantiles("brightness", self.brightness, least=0)


def zebrafish(
    rng: np.random.Generator,
    settings: ZebrafishSettings | None = None,
    *,
    detections_um: npt.NDArray[Any] | None = None,
) -> Annotation:
    """Harmonic nuclei at detections, points (N, 3) in µm, or anywhere.

    A voxel that lies in several belongs to the one that it lies deepest in, and what is cut off by that belongs to
    none: no nucleus is in pieces (`counts["cut_by_others"]`). Raises ValueError for detections outside the canvas or
    twice, and for nuclei that others cover whole; without detections, as `nuclei`.
    """
    settings = settings or ZebrafishSettings()
    if detections_um is None and settings.detections is not None:
        detections_um = read_detections(settings.detections, settings.spacing_um)
    if detections_um is not None:
        check_detections(detections_um, settings.canvas_size, settings.spacing_um)
    count = round(float(draw(rng, settings.num_cells, 1)[0])) if detections_um is None else len(detections_um)
    bodies = harmonic_bodies(
        harmonic_nuclei(rng, count, settings), draw(rng, settings.radius_um, count), settings.spacing_um
    )
    brightness = None if settings.brightness is None else draw(rng, settings.brightness, count)
    if detections_um is not None:
        centres = np.rint(np.asarray(detections_um, float) / settings.spacing_um).astype(int)
        centres = np.clip(centres, 0, np.array(settings.canvas_size) - 1)
        return contest(bodies, centres, settings.canvas_size, settings.spacing_um, brightness)
    crowd = Crowd(settings.canvas_size, settings.spacing_um, float(at_rank(settings.radius_um, 0.1)))
    for body in sorted(bodies, key=lambda body: -body.voxels):
        crowd.put(rng, body)
    check_all_placed(crowd, count, settings.num_cells[0])
    return crowd.annotation(brightness)


def harmonic_nuclei(rng: np.random.Generator, count: int, settings: ZebrafishSettings) -> HarmonicShapes:
    """Solids of mean radius about 1, log r(d) = Σ_{l≥2} Σ_m c_l^m Y_l^m(d), all orders of a degree drawn alike.

    The standard deviation over the surface that degree l gives is l^{−γ/2}. Eq. 7 as printed lets coefficients fall
    with the order m alone, so that they would not fall with the degree at all; the authors' code lets the power of the
    degrees fall as l^{−γ}, which is what is done here. Degree 1, a shift, is left out: detections are centroids. On the
    logarithm of the radius every nucleus is star-convex.
    """
    degrees = np.concatenate([np.full(2 * l + 1, float(l)) for l in range(settings.degree + 1)])  # noqa: E741
    scale = np.where(
        degrees >= 2, np.sqrt(4 * np.pi / (2 * degrees + 1)) * np.maximum(degrees, 1) ** (-settings.gamma / 2), 0
    )
    coefficients = rng.standard_normal((count, len(degrees))) * scale
    return HarmonicShapes(torch.eye(3).expand(count, 3, 3), torch.from_numpy(coefficients).float())


def harmonic_bodies(shapes: HarmonicShapes, radius_um: npt.NDArray[Any], spacing_um: tuple[float, ...]) -> list[Body]:
    """Bodies of star-convex solids, each enlarged by its radius (B,). Raises ValueError for cells of too few voxels."""
    bodies: list[Body] = []
    spacing = np.array(spacing_um)
    for start in range(0, len(shapes), _TOGETHER):
        table = radius_table(shapes[start : start + _TOGETHER])
        for own, radius in zip(table, radius_um[start : start + _TOGETHER], strict=True):
            reach = (float(radius * own.min()), float(radius * own.max()))
            half = np.ceil(1.05 * reach[1] / spacing).astype(int) + 1
            points = Grid.centred(tuple(2 * half + 1), tuple(spacing_um)).points_um() / np.float32(radius)
            depth = 1 + beyond_surface(own[None], torch.from_numpy(points))[0].numpy().reshape(2 * half + 1)
            voxels = int(np.count_nonzero(depth < 1))
            if voxels < FEWEST_VOXELS:
                raise ValueError(
                    f"radius_um {radius:g} is too small for voxels of {' × '.join(f'{s:g}' for s in spacing)} µm"
                )
            bodies.append(Body(depth, deepest(depth, voxels), voxels, ellipsoid(np.full(3, radius)), reach))
    return bodies
