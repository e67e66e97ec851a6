"""Nuclei of a T. castaneum embryo: on a sphere, seen as a map of 13 layers (sketch DDPM paper, Methods)."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from cascade.annotation import Annotation, CellRecord
from cascade.draws import check_quantiles, draw
from cascade.settings import check_fields
from cascade.simulators.bodies import in_one_piece
from cascade.simulators.checks import check_canvas

_DARTS = 4096  # that are thrown at the sphere at a time
_IN_VAIN = 20  # rounds of darts without one that finds room, after which there is none


@dataclass(frozen=True, kw_only=True)
class TriboliumSettings:
    """Numbers of the paper, and where it is silent of its authors' code; one voxel of theirs is taken for a µm.

    What is drawn is given by its quantiles: one number, a range, or evenly spaced ones.
    """

    canvas_size: tuple[int, ...] = (13, 2450, 1700)
    """Voxels of the map: radii, the whole circle of longitudes, and the latitudes."""
    layer_um: float = 1.0
    """From one radius to the next."""
    embryo_radius_um: float = 230.0
    """Of the sphere that the nuclei lie on, the middle of the radii."""
    latitudes: float = 0.9
    """Share of the half circle from pole to pole that is on the map: at the very poles cells would be stretched without
    bound."""
    num_cells: tuple[float, ...] = (3000.0,)
    """Nuclei of an embryo."""
    radius_um: tuple[float, ...] = (5.0, 6.0)
    """Of a nucleus, a ball."""
    depth_um: tuple[float, ...] = (0.0,)
    """Of a nucleus's centre, outside (above 0) or inside the sphere."""
    brightness: tuple[float, ...] | None = None
    """Wanted mean of a cell, camera units; default left to who paints."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_canvas(self.canvas_size, (1.0, 1.0, 1.0), 3)
        check_quantiles("num_cells", self.num_cells, least=0)
        check_quantiles("radius_um", self.radius_um, above=0)
        half = 0.5 * self.canvas_size[0] * self.layer_um
        if not 0 < self.layer_um < np.inf:
            raise ValueError(f"layer_um must be a length above 0, got {self.layer_um:g}")
        if not 0 < self.latitudes <= 0.98:
            raise ValueError(f"latitudes must be above 0, up to 0.98 of the half circle, got {self.latitudes:g}")
        check_quantiles("depth_um", self.depth_um, least=-half, most=half)
        if not 2 * max(half, self.radius_um[-1]) < self.embryo_radius_um < np.inf:
            raise ValueError(
                f"embryo_radius_um {self.embryo_radius_um:g} is too small for nuclei of `radius_um` "
                f"{self.radius_um[-1]:g} in layers of {2 * half:g} µm: the sphere must be larger than both"
            )
        smallest = 2 * self.radius_um[0] / max(self.spacing_um)
        if smallest < 2:
            raise ValueError(
                f"radius_um {self.radius_um[0]:g} is less than a voxel of the map: give a larger `canvas_size`"
            )
        if self.brightness is not None:
            check_quantiles("brightness", self.brightness, least=0)

    @property
    def spacing_um(self) -> tuple[float, float, float]:
        """Voxel size at the equator, in the middle layer."""
        _, longitudes, latitudes = self.canvas_size
        circle = 2 * np.pi * self.embryo_radius_um
        return self.layer_um, float(circle / longitudes), float(0.5 * circle * self.latitudes / latitudes)


def tribolium(rng: np.random.Generator, settings: TriboliumSettings | None = None) -> Annotation:
    """The map of an embryo's nuclei: (radius, longitude, latitude), cells near the poles stretched along longitudes.

    Sizes and centroids are those on the map, in its spacing at the equator. A nucleus on the meridian where the map is
    cut lies at both its borders, each part a label of its own (`counts["on_both_borders"]`). Raises ValueError if fewer
    nuclei fit on the sphere than `num_cells` asks for at least.
    """
    settings = settings or TriboliumSettings()
    count = round(float(draw(rng, settings.num_cells, 1)[0]))
    radius = np.sort(draw(rng, settings.radius_um, count))[::-1]
    distance = settings.embryo_radius_um + draw(rng, settings.depth_um, count)
    directions = _spread(rng, radius / min(distance, default=1.0), 0.5 * np.pi * settings.latitudes)
    placed = len(directions)
    if placed < round(settings.num_cells[0]):
        raise ValueError(
            f"num_cells asks for {count} nuclei, and {placed} of them fit on a sphere of "
            f"{settings.embryo_radius_um:g} µm: ask for fewer, give smaller ones, or a larger `embryo_radius_um`"
        )
    chart = _Map.empty(settings)
    parts = [
        chart.draw(own_radius, own_distance, theta, phi)
        for own_radius, own_distance, (theta, phi) in zip(radius, distance, directions, strict=False)
    ]
    found = {
        "not_placed": count - placed,
        "on_both_borders": sum(n > 1 for n in parts),
        "beside_the_map": parts.count(0),
    }
    cells = chart.cells
    if settings.brightness is not None:
        wanted = draw(rng, settings.brightness, len(cells))
        cells = [replace(cell, brightness=float(b)) for cell, b in zip(cells, wanted, strict=True)]
    counts = {name: number for name, number in found.items() if number}
    return Annotation(chart.labels, settings.spacing_um, tuple(cells), counts=counts)


def _spread(rng: np.random.Generator, reach: npt.NDArray[np.float64], widest: float) -> npt.NDArray[np.float64]:
    """Polar angles and longitudes (N, 2) of as many balls on the unit sphere as fit without overlap: random sequential
    addition, many darts at once.

    reach: radii (B,), the largest first. widest: how far from the equator, as an angle, their centres may lie.
    """
    placed = np.empty((0, 3))
    found: list[npt.NDArray[np.float64]] = []
    in_vain = 0
    while len(placed) < len(reach) and in_vain < _IN_VAIN:
        height = rng.uniform(-np.sin(widest), np.sin(widest), _DARTS)
        angles = np.stack([np.arccos(height), rng.uniform(0, 2 * np.pi, _DARTS)], 1)
        flat = np.sin(angles[:, 0])
        darts = np.stack([height, flat * np.sin(angles[:, 1]), flat * np.cos(angles[:, 1])], 1)
        apart = 2 * reach[len(placed)]  # of the largest that is left
        if len(placed):
            far = cKDTree(placed).query(darts, distance_upper_bound=2 * reach[0])[0]
            free = far >= reach[0] + reach[len(placed)]
            darts, angles = darts[free], angles[free]
        alone = np.ones(len(darts), bool)
        for i, j in sorted(cKDTree(darts).query_pairs(apart)) if len(darts) else []:
            if alone[i]:
                alone[j] = False
        in_vain = 0 if alone.any() else in_vain + 1
        room = len(reach) - len(placed)
        placed = np.concatenate([placed, darts[alone][:room]])
        found.append(angles[alone][:room])
    return np.concatenate(found) if found else np.empty((0, 2))


@dataclass(eq=False)
class _Map:
    """Voxels by radius in µm, longitude in [0, 2π) and polar angle, and the nuclei on them."""

    labels: npt.NDArray[Any]
    radii: npt.NDArray[np.float64]
    longitudes: npt.NDArray[np.float64]
    polar: npt.NDArray[np.float64]
    spacing_um: tuple[float, float, float]
    cells: list[CellRecord] = field(default_factory=list)

    @classmethod
    def empty(cls, settings: TriboliumSettings) -> "_Map":
        layers, longitudes, latitudes = settings.canvas_size
        radii = settings.embryo_radius_um + (np.arange(layers) - 0.5 * (layers - 1)) * settings.layer_um
        phi = (np.arange(longitudes) + 0.5) * (2 * np.pi / longitudes)
        theta = 0.5 * np.pi * (1 + settings.latitudes * (2 * (np.arange(latitudes) + 0.5) / latitudes - 1))
        labels = np.zeros(settings.canvas_size, np.uint16 if settings.num_cells[-1] < 2**15 else np.uint32)
        return cls(labels, radii, phi, theta, settings.spacing_um)

    def draw(self, radius: float, distance: float, theta: float, phi: float) -> int:
        """Label the voxels in a ball around a point; returns into how many cells the map's borders cut it."""
        angle = radius / self.radii[0]
        step, around = self.longitudes[1] - self.longitudes[0], len(self.longitudes)
        wide = min(1.1 * angle / np.sin(max(min(theta, np.pi - theta) - angle, 1e-3)), np.pi)
        first = int(np.floor((phi - wide) / step))
        columns = np.arange(first, min(int(np.ceil((phi + wide) / step)), first + around))
        low, high = (int(n) for n in np.searchsorted(self.polar, [theta - 1.1 * angle, theta + 1.1 * angle]))
        polar = self.polar[low:high]
        # |x − c|² = r² + d² − 2 r d cos γ, γ the angle between the two as seen from the middle of the sphere.
        cosine = np.cos((columns[:, None] + 0.5) * step - phi) * (np.sin(polar) * np.sin(theta))
        cosine += np.cos(polar) * np.cos(theta)
        least = (self.radii**2 + distance**2 - radius**2) / (2 * self.radii * distance)
        mask = cosine >= least[:, None, None]
        parts = 0
        for turn in range(-1, 2):  # the map, and the parts beyond its borders
            own = (columns >= turn * around) & (columns < (turn + 1) * around)
            if mask[:, own].any():
                parts += self._label(mask[:, own], int(columns[own][0]) - turn * around, low)
        return parts

    def _label(self, mask: npt.NDArray[np.bool_], start: int, low: int) -> bool:
        window = self.labels[:, start : start + mask.shape[1], low : low + mask.shape[2]]
        mask &= window == 0
        if not in_one_piece(mask):
            return False
        label = len(self.cells) + 1
        window[mask] = label
        places = zip(np.nonzero(mask), (0, start, low), self.spacing_um, strict=True)
        centroid = tuple(float((index.mean() + corner) * s) for index, corner, s in places)
        size = float(np.count_nonzero(mask) * np.prod(self.spacing_um))
        self.cells.append(CellRecord(label=label, centroid_um=centroid, size=size))
        return True
