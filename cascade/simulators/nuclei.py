"""Nuclei of any tissue, by their numbers: sizes, shapes, how many, and how crowded they lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.annotation import Annotation
from cascade.draws import at_rank, check_quantiles, draw, tied
from cascade.settings import check_fields
from cascade.simulators.bodies import Body, ellipsoid_bodies, random_frames
from cascade.simulators.checks import check_all_placed, check_canvas
from cascade.simulators.crowd import Crowd, Site


@dataclass(frozen=True, kw_only=True)
class NucleiSettings:
    """Numbers of a population; what is drawn is given by its quantiles: one number, a range, or evenly spaced ones.

    >>> NucleiSettings(radius_um=(0.0, 3.0))
    Traceback (most recent call last):
    ValueError: radius_um must be above 0, got 0 3
    """

    canvas_size: tuple[int, ...] = (512, 512)
    """Voxels y x, or z y x."""
    spacing_um: tuple[float, ...] = (0.65, 0.65)
    """Voxel size y x, or z y x."""
    num_cells: tuple[float, ...] = (40.0, 80.0)
    """Cells of an image."""
    radius_um: tuple[float, ...] = (4.0, 6.0)
    """Of the disc or ball of equal size."""
    radius_by_number: float = 0.0
    """Correlation of a cell's radius with how many an image has, both as normal scores over all cells."""
    radius_shared: float = 0.0
    """How alike the cells of one image are beside that: share of the variance left that lies between images."""
    elongation: tuple[float, ...] = (1.0, 1.4)
    """Longest over shortest semi-axis, in 3D of those in the plane."""
    axial_elongation: tuple[float, ...] = (1.0,)
    """In 3D, extent along z over the mean one in the plane."""
    deformation: tuple[float, ...] = (0.08,)
    """Standard deviation of a cell's B-spline displacements, in radii: how irregular outlines are."""
    touching: tuple[float, ...] = (0.0,)
    """Share of an image's cells that touch another one."""
    touching_by_number: float = 0.0
    """Its correlation with how many cells an image has, as normal scores over images."""
    clustering: tuple[float, ...] = (0.0,)
    """Of a cell, or a group that touches. 0: put anywhere; 1: as near to others as it fits; -1: as far from them."""
    inside: bool = False
    """No cell is cut by the border of the canvas."""
    brightness: tuple[float, ...] | None = None
    """Wanted mean of a cell, camera units; default left to who paints."""
    brightness_by_number: float = 0.0
    """Correlation of a cell's brightness with how many an image has, as for the radius."""
    brightness_shared: float = 0.0
    """How alike in brightness the cells of one image are beside that, as for the radius."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_canvas(self.canvas_size, self.spacing_um)
        check_quantiles("num_cells", self.num_cells, least=0)
        check_quantiles("radius_um", self.radius_um, above=0)
        check_quantiles("elongation", self.elongation, least=1)
        check_quantiles("axial_elongation", self.axial_elongation, above=0)
        check_quantiles("deformation", self.deformation, least=0, most=0.5)
        check_quantiles("touching", self.touching, least=0, most=1)
        check_quantiles("clustering", self.clustering, least=-1, most=1)
        if self.brightness is not None:
            check_quantiles("brightness", self.brightness, least=0)
        for name in ("radius_by_number", "touching_by_number", "brightness_by_number"):
            if not -1 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from -1 to 1, got {getattr(self, name):g}")
        for name in ("radius_shared", "brightness_shared"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name):g}")


def nuclei(
    rng: np.random.Generator, settings: NucleiSettings | None = None, *, number_rank: float | None = None
) -> Annotation:
    """Nuclei at random places: each in one piece, none on another, none left out unseen.

    number_rank: what share of images has fewer cells, default drawn; given, all of them must fit.

    Cells that touch do so in groups of two and more, the others keep two pixels of background around them. Raises
    ValueError if fewer fit than `num_cells` asks for at least; between its least and what was drawn, those that did not
    fit are counted in `Annotation.counts`.

    >>> annotation = nuclei(np.random.default_rng(0), NucleiSettings(canvas_size=(128, 128), num_cells=(9.0,)))
    >>> len(annotation.cells), annotation.split_ids()
    (9, [])
    """
    settings = settings or NucleiSettings()
    drawn = float(rng.random(1)[0])
    rank = drawn if number_rank is None else number_rank
    count = round(float(at_rank(settings.num_cells, rank)))
    weighted = _rank_of_cells(settings.num_cells, rank)
    bodies = bodies_of(rng, settings, count, weighted)
    crowd = Crowd(
        settings.canvas_size, settings.spacing_um, float(at_rank(settings.radius_um, 0.1)), inside=settings.inside
    )
    touching = float(at_rank(settings.touching, tied(rng.random(1), by=settings.touching_by_number, cause=rank))[0])
    fill(rng, crowd, bodies, touching=touching, clustering=settings.clustering)
    check_all_placed(crowd, count, settings.num_cells[0] if number_rank is None else count)
    if settings.brightness is None:
        return crowd.annotation()
    ranks = _of_image(rng, count, settings.brightness_by_number, settings.brightness_shared, weighted)
    return crowd.annotation(at_rank(settings.brightness, ranks))


def _of_image(rng: np.random.Generator, count: int, by: float, shared: float, cause: float) -> npt.NDArray[Any]:
    """Ranks of an image's cells, see `tied`."""
    image = float(rng.standard_normal()) if shared else 0.0
    return tied(rng.random(count), by=by, cause=cause, shared=shared, image=image)


def _rank_of_cells(num_cells: Sequence[float], rank: float) -> float:
    """Share of all cells that lie in images with fewer of them, for the share of such images."""
    ranks = np.linspace(0, 1, 257)
    sums = np.cumsum(at_rank(num_cells, ranks))
    return float(np.interp(rank, ranks, sums / sums[-1])) if sums[-1] else rank


def bodies_of(rng: np.random.Generator, settings: NucleiSettings, count: int, rank: float = 0.5) -> list[Body]:
    """Deformed ellipsoids of the wanted sizes, upright, turned at random around z: cells that lie nowhere yet.

    rank: share of cells in images with fewer of them."""
    ndim = len(settings.canvas_size)
    ranks = _of_image(rng, count, settings.radius_by_number, settings.radius_shared, rank)
    radius = at_rank(settings.radius_um, ranks)
    ratio = np.sqrt(draw(rng, settings.elongation, count))
    flat = radius
    semi = []
    if ndim == 3:
        axial = draw(rng, settings.axial_elongation, count)
        flat = radius / np.cbrt(axial)
        semi = [flat * axial]
    semi_axes = np.stack([*semi, flat * ratio, flat / ratio], 1)
    frames = random_frames(rng, count, ndim, upright=True)
    deformation = draw(rng, settings.deformation, count)
    return ellipsoid_bodies(rng, semi_axes, frames, settings.spacing_um, deformation=deformation)


def fill(
    rng: np.random.Generator,
    crowd: Crowd,
    bodies: list[Body],
    *,
    touching: float = 0.0,
    clustering: Sequence[float] = (0.0,),
) -> list[Site]:
    """Put bodies on a canvas, so that this share of them touches another; clustering: quantiles.

    Groups that touch come first, the larger bodies before the smaller: later cells have to keep away from them, or
    squeeze in between. What had to touch for want of room, or could not, is counted.
    """
    sites: list[Site] = []
    order = rng.permutation(len(bodies))
    groups = _groups(rng, _touching(rng, len(bodies), touching))
    nearness, start = draw(rng, clustering, len(bodies)), 0
    for size in groups:
        group: list[Site] = []
        for n in order[start : start + size]:
            site = crowd.put_beside(rng, bodies[n], group) if group else None
            site = site or crowd.put(rng, bodies[n], clustering=float(nearness[order[start]]))
            group += [site] if site else []
        sites += group
        start += size
    alone = sorted(order[start:], key=lambda n: -bodies[n].voxels)
    for n in alone:
        site = crowd.put(rng, bodies[n], gap=True, clustering=float(nearness[n]))
        if site is None and (site := crowd.put(rng, bodies[n])):
            crowd.count("touching_for_want_of_room")
        sites += [site] if site else []
    return sites


def _touching(rng: np.random.Generator, count: int, share: float) -> int:
    """How many of so many cells touch another, on average the share, but never a single one."""
    wanted = share * count
    number = int(wanted + rng.random()) if wanted >= 2 else 2 * int(rng.random() < 0.5 * wanted)
    return min(number, count)


def _groups(rng: np.random.Generator, count: int) -> list[int]:
    """Sizes, of two and more, of groups with so many members together; a single one has nobody to touch."""
    sizes: list[int] = []
    while count - sum(sizes) > 1:
        sizes.append(min(1 + int(rng.geometric(0.5)), count - sum(sizes)))
    if sizes:
        sizes[-1] += count - sum(sizes)
    return sizes
