"""Nuclei of HeLa cells in 2D: colonies, discs that overlap, full of deformed nuclei (sketch DDPM paper, Methods)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cascade.annotation import Annotation
from cascade.draws import check_quantiles, draw
from cascade.settings import check_fields
from cascade.simulators.bodies import ellipsoid_bodies, random_frames
from cascade.simulators.checks import check_all_placed, check_canvas
from cascade.simulators.crowd import Crowd

_MORE_COLONIES = 1000  # after which nothing is left to be covered

CONTROL_POINTS = 4  # of the authors' coarse grid: nuclei are bent more than uneven


@dataclass(frozen=True, kw_only=True)
class HeLaSettings:
    """Numbers of the paper, and where it is silent of its authors' code; pixels are those of Fluo-N2DL-HeLa.

    What is drawn is given by its quantiles: one number, a range, or evenly spaced ones.
    """

    canvas_size: tuple[int, ...] = (700, 1100)
    """Pixels y x."""
    spacing_um: tuple[float, ...] = (0.645, 0.645)
    """Pixel size y x."""
    num_cells: tuple[float, ...] = (450.0,)
    """Nuclei of an image."""
    colonies: tuple[float, ...] = (15.0, 30.0)
    """Discs that the nuclei lie in; more are added, and counted, where they are too full."""
    colony_radius_um: tuple[float, ...] = (64.5,)
    """Radius of a disc: 100 pixels."""
    radius_um: tuple[float, ...] = (6.45, 12.9)
    """Longer semi-axis: 10 to 20 pixels."""
    elongation: tuple[float, ...] = (1.0, 2.0)
    """Longer over shorter semi-axis of the smallest nuclei; what it has above 1 falls with their size."""
    deformation: float = 0.15
    """Standard deviation of the B-spline displacements, in radii."""
    brightness: tuple[float, ...] | None = None
    """Wanted mean of a cell, camera units; default left to who paints."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_canvas(self.canvas_size, self.spacing_um, 2)
        check_quantiles("num_cells", self.num_cells, least=0)
        check_quantiles("colonies", self.colonies, least=1)
        check_quantiles("colony_radius_um", self.colony_radius_um, above=0)
        check_quantiles("radius_um", self.radius_um, above=0)
        check_quantiles("elongation", self.elongation, least=1)
        if self.colony_radius_um[0] < self.radius_um[-1]:
            raise ValueError(
                f"colony_radius_um {self.colony_radius_um[0]:g} is smaller than a cell of `radius_um` "
                f"{self.radius_um[-1]:g}: give larger colonies"
            )
        if not 0 <= self.deformation <= 0.5:
            raise ValueError(f"deformation must be between 0 and 0.5 radii, got {self.deformation:g}")
        if self.brightness is not None:
            check_quantiles("brightness", self.brightness, least=0)


def hela(rng: np.random.Generator, settings: HeLaSettings | None = None) -> Annotation:
    """Colonies of nuclei; `Annotation.foreground` are the discs, in which their centres lie.

    Where the colonies have no room for the next nucleus, a colony is added (`counts["colonies_added"]`), until they
    cover the canvas. Raises ValueError if fewer nuclei fit then than `num_cells` asks for at least.
    """
    settings = settings or HeLaSettings()
    count = round(float(draw(rng, settings.num_cells, 1)[0]))
    radius = draw(rng, settings.radius_um, count)
    elongation = 1 + (draw(rng, settings.elongation, count) - 1) * settings.radius_um[0] / radius
    axes = np.stack([radius, radius / elongation], 1)
    frames = random_frames(rng, count, 2)
    bodies = ellipsoid_bodies(
        rng, axes, frames, settings.spacing_um, deformation=settings.deformation, control_points=CONTROL_POINTS
    )

    region = np.zeros(settings.canvas_size, bool)
    for _ in range(round(float(draw(rng, settings.colonies, 1)[0]))):
        _add_colony(rng, region, settings)
    crowd = Crowd(settings.canvas_size, settings.spacing_um, settings.radius_um[0], region=region)
    for body in sorted(bodies, key=lambda body: -body.voxels):
        while (
            crowd.put(rng, body) is None and not region.all() and crowd.counts.get("colonies_added", 0) < _MORE_COLONIES
        ):
            _add_colony(rng, region, settings)
            crowd.widen(region)
            crowd.count("colonies_added")
    check_all_placed(crowd, count, settings.num_cells[0])
    return crowd.annotation(None if settings.brightness is None else draw(rng, settings.brightness, count))


def _add_colony(rng: np.random.Generator, region: npt.NDArray[np.bool_], settings: HeLaSettings) -> None:
    """Cover one more disc with its centre on the canvas."""
    radius = float(draw(rng, settings.colony_radius_um, 1)[0])
    y, x = (
        (np.arange(n) - rng.uniform(0, n)) * s for n, s in zip(settings.canvas_size, settings.spacing_um, strict=True)
    )
    region |= y[:, None] ** 2 + x**2 <= radius**2
