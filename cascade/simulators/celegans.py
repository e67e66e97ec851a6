"""Nuclei of a C. elegans embryo in 3D: an ellipsoid full of them, the more the smaller (sketch DDPM paper, Methods)."""

from dataclasses import dataclass

import numpy as np

from cascade.annotation import Annotation
from cascade.draws import check_quantiles, draw
from cascade.geometry.masks import ellipsoid_region
from cascade.settings import check_fields
from cascade.simulators.bodies import ellipsoid_bodies, random_frames
from cascade.simulators.checks import check_all_placed, check_canvas, check_share
from cascade.simulators.crowd import Crowd


@dataclass(frozen=True, kw_only=True)
class CElegansSettings:
    """Numbers of the paper, and where it is silent of its authors' code; its voxels are those of Fluo-N3DH-CE.

    What is drawn is given by its quantiles: one number, a range, or evenly spaced ones.
    """

    canvas_size: tuple[int, ...] = (35, 512, 708)
    """Voxels z y x."""
    spacing_um: tuple[float, ...] = (1.0, 0.09, 0.09)
    """Voxel size z y x."""
    embryo: tuple[float, ...] = (0.3, 0.3, 0.3)
    """Semi-axes z y x of the embryo, an ellipsoid in the middle, in sides of the canvas."""
    num_cells: tuple[float, ...] = (20.0, 180.0)
    """Nuclei of an embryo."""
    filling: float = 1 / 3
    """Share of the embryo that its nuclei would fill as balls: it sets their radius, which falls with their number."""
    radius_spread: tuple[float, ...] = (0.95, 1.05)
    """Radii, in that of equal balls."""
    elongation: tuple[float, ...] = (1.0, 1.1)
    """By how much a nucleus is shrunk along two of its axes."""
    elongated: float = 0.1
    """Share of nuclei shortly after mitosis."""
    mitotic_elongation: tuple[float, ...] = (1.0, 2.0)
    """By how much these are shrunk, to a more cylindrical shape."""
    deformation: float = 0.0
    """Standard deviation of B-spline displacements, in radii."""
    brightness: tuple[float, ...] | None = None
    """Wanted mean of a cell, camera units; default left to who paints."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_canvas(self.canvas_size, self.spacing_um, 3)
        if len(self.embryo) != 3 or not all(0 < share <= 1 for share in self.embryo):
            raise ValueError(f"embryo must be three shares z y x above 0, up to 1, got {self.embryo}")
        check_quantiles("num_cells", self.num_cells, least=0)
        check_share(self, "filling", "elongated")
        for name in ("radius_spread", "elongation", "mitotic_elongation"):
            check_quantiles(name, getattr(self, name), above=0)
        if not 0 <= self.deformation <= 0.5:
            raise ValueError(f"deformation must be between 0 and 0.5 radii, got {self.deformation:g}")
        if self.brightness is not None:
            check_quantiles("brightness", self.brightness, least=0)


def celegans(rng: np.random.Generator, settings: CElegansSettings | None = None) -> Annotation:
    """An embryo full of nuclei; `Annotation.foreground` is the embryo, in which their centres lie.

    Raises ValueError for an embryo that is smaller than a cell, or fewer cells than `num_cells` asks for at least.
    """
    settings = settings or CElegansSettings()
    spacing = np.array(settings.spacing_um)
    count = round(float(draw(rng, settings.num_cells, 1)[0]))

    # The foreground: an ellipsoid in the middle of the image.
    semi_axes = np.array(settings.embryo) * settings.canvas_size * spacing
    embryo = ellipsoid_region(settings.canvas_size, settings.spacing_um, semi_axes)

    # The radius: of balls that fill a share of it together.
    usual = float(np.cbrt(settings.filling * semi_axes.prod() / max(count, 1)))
    if not embryo.any() or usual > semi_axes.min():
        lengths = " × ".join(f"{2 * a:.3g}" for a in semi_axes)
        raise ValueError(
            f"embryo of {lengths} µm is smaller than one of its {count} nuclei, of {2 * usual:.3g} µm: give a larger "
            "`embryo` or `canvas_size`, more `num_cells`, or less `filling`"
        )
    radius = usual * draw(rng, settings.radius_spread, count)

    # Their shapes: a tenth of them, after mitosis, are shrunk along two axes; all are turned at random.
    mitotic = rng.random(count) < settings.elongated
    shrunk = np.where(mitotic, draw(rng, settings.mitotic_elongation, count), draw(rng, settings.elongation, count))
    axes = np.stack([radius, radius / shrunk, radius / shrunk], 1)
    bodies = ellipsoid_bodies(
        rng, axes, random_frames(rng, count, 3), settings.spacing_um, deformation=settings.deformation
    )

    crowd = Crowd(settings.canvas_size, settings.spacing_um, usual, region=embryo)
    for body in sorted(bodies, key=lambda body: -body.voxels):
        crowd.put(rng, body)
    check_all_placed(crowd, count, settings.num_cells[0])
    return crowd.annotation(None if settings.brightness is None else draw(rng, settings.brightness, count))
