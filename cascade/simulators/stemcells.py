"""Nuclei of mouse stem cells (GOWT1) in 2D: large, irregular, apart, with dark nucleoli (sketch DDPM paper)."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cascade.annotation import Annotation
from cascade.draws import check_quantiles, draw
from cascade.settings import check_fields
from cascade.simulators.bodies import ellipsoid_bodies, random_frames
from cascade.simulators.checks import check_all_placed, check_canvas
from cascade.simulators.crowd import Crowd, Site

CONTROL_POINTS = 4  # of the authors' coarse grid: nuclei are bent more than uneven


@dataclass(frozen=True, kw_only=True)
class StemCellSettings:
    """Numbers of the paper, and where it is silent of its authors' code; pixels are those of Fluo-N2DH-GOWT1.

    What is drawn is given by its quantiles: one number, a range, or evenly spaced ones.
    """

    canvas_size: tuple[int, ...] = (1024, 1024)
    """Pixels y x."""
    spacing_um: tuple[float, ...] = (0.24, 0.24)
    """Pixel size y x."""
    num_cells: tuple[float, ...] = (30.0,)
    """Nuclei of an image."""
    radius_um: tuple[float, ...] = (7.2, 10.8)
    """Longer semi-axis: 30 to 45 pixels."""
    elongation: tuple[float, ...] = (1.0, 1.3)
    """Longer over shorter semi-axis."""
    deformation: float = 0.08
    """Standard deviation of the B-spline displacements, in radii."""
    nucleoli: tuple[float, ...] = (-0.5, 2.5)
    """Dark spots of a nucleus, rounded: none, one or two equally often."""
    nucleolus_radius: tuple[float, ...] = (0.1, 0.2)
    """Their radius, in that of the nucleus."""
    inside: bool = False
    """No cell is cut by the border of the canvas."""
    brightness: tuple[float, ...] | None = None
    """Wanted mean of a cell, camera units; default left to who paints."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_canvas(self.canvas_size, self.spacing_um, 2)
        check_quantiles("num_cells", self.num_cells, least=0)
        check_quantiles("radius_um", self.radius_um, above=0)
        check_quantiles("elongation", self.elongation, least=1)
        check_quantiles("nucleoli", self.nucleoli, least=-0.5)
        check_quantiles("nucleolus_radius", self.nucleolus_radius, above=0, most=0.5)
        if not 0 <= self.deformation <= 0.5:
            raise ValueError(f"deformation must be between 0 and 0.5 radii, got {self.deformation:g}")
        if self.brightness is not None:
            check_quantiles("brightness", self.brightness, least=0)


def stemcells(rng: np.random.Generator, settings: StemCellSettings | None = None) -> Annotation:
    """Nuclei at random places without overlap; `CellRecord.nucleoli` says where a painter may leave dark spots.

    Raises ValueError if fewer fit than `num_cells` asks for at least.

    >>> annotation = stemcells(np.random.default_rng(0))
    >>> len(annotation.cells), {len(cell.nucleoli or ()) for cell in annotation.cells}
    (30, {0, 1, 2})
    """
    settings = settings or StemCellSettings()
    count = round(float(draw(rng, settings.num_cells, 1)[0]))
    radius = draw(rng, settings.radius_um, count)
    axes = np.stack([radius, radius / draw(rng, settings.elongation, count)], 1)
    frames = random_frames(rng, count, 2)
    bodies = ellipsoid_bodies(
        rng, axes, frames, settings.spacing_um, deformation=settings.deformation, control_points=CONTROL_POINTS
    )

    crowd = Crowd(settings.canvas_size, settings.spacing_um, settings.radius_um[0], inside=settings.inside)
    placed = [crowd.put(rng, body, gap=True) for body in sorted(bodies, key=lambda body: -body.voxels)]
    sites = [site for site in placed if site]
    check_all_placed(crowd, count, settings.num_cells[0])

    annotation = crowd.annotation(None if settings.brightness is None else draw(rng, settings.brightness, count))
    spots = [_nucleoli(rng, site, settings) for site in sites]
    cells = [replace(cell, nucleoli=own) for cell, own in zip(annotation.cells, spots, strict=True)]
    return replace(annotation, cells=tuple(cells))


def _nucleoli(rng: np.random.Generator, site: Site, settings: StemCellSettings) -> tuple[tuple[float, ...], ...]:
    """Centre y, x and radius in µm of the dark spots of a nucleus, whole inside it."""
    body, spacing = site.body, np.array(settings.spacing_um)
    radius_um = float(np.sqrt(body.voxels * spacing.prod() / np.pi))
    count = int(np.rint(draw(rng, settings.nucleoli, 1)[0]))
    radii = radius_um * draw(rng, settings.nucleolus_radius, count)
    found: list[npt.NDArray[np.float64]] = []
    deep = body.mask & (body.depth < (1 - 2 * settings.nucleolus_radius[-1]) ** 2)
    deep[tuple(body.half)] = True
    places = np.argwhere(deep) - body.half + site.centre
    places = places[((places >= 0) & (places < settings.canvas_size)).all(1)]
    for radius in radii:
        found.append(np.append(places[rng.integers(len(places))] * spacing, radius))
    return tuple(tuple(float(v) for v in spot) for spot in found)
