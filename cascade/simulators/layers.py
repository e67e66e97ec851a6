"""Tissue of any shape: cells in layers from its surface inwards, which fill it without a gap."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import measure

from cascade.annotation import Annotation
from cascade.draws import check_quantiles, draw
from cascade.geometry.islands import islands_to_neighbours
from cascade.geometry.masks import tight_box
from cascade.settings import at_least, positive
from cascade.shapes.tessellation import weighted_voronoi

_FINE = 5  # points of the lattice that positions are sought on, along a cell
_FEWEST = 8  # voxels of a cell
_ARM = 0.42  # between a cell's centres, for an elongation of 2, in edges of its square or cube
_BEYOND = 0.75  # edges of a cell that the tissue goes on beyond the border, so that it cuts cells
_GAMMA = 1.3  # weights differ from the usual one by no more than this factor


class TissueNumbers(Protocol):
    """What the settings of a tissue have in common."""

    @property
    def diameter_um(self) -> tuple[float, ...]: ...
    @property
    def elongation(self) -> tuple[float, ...]: ...
    @property
    def layer_um(self) -> float | None: ...
    @property
    def regularity(self) -> int: ...


def check_tissue(settings: TissueNumbers) -> None:
    """Raises ValueError for numbers that no tissue has."""
    check_quantiles("diameter_um", settings.diameter_um, above=0)
    check_quantiles("elongation", settings.elongation, least=1, most=3)
    if settings.layer_um is not None:
        positive(settings, "layer_um")
    at_least(settings, regularity=0)


def filled_tissue(
    rng: np.random.Generator,
    foreground: npt.NDArray[Any],
    spacing_um: Sequence[float],
    *,
    diameter_um: Sequence[float],
    elongation: Sequence[float],
    layer_um: float | None,
    regularity: int,
    axial_elongation: float = 1.0,
) -> Annotation:
    """An organism (Y, X) or (Z, Y, X), bool, filled with cells: each in one piece, none lost, none on another.

    diameter_um: quantiles of the discs or balls of the cells' sizes. layer_um: thickness of the layers in which they
    lie from the surface inwards; default the edge of the square or cube of a middling cell. regularity: rounds in which
    cells move apart and grow towards their sizes; none leaves them anywhere. axial_elongation: of cells in 3D, extent
    along z over that in the plane, on average; all is made in a space so much lower. A part of the foreground without a
    cell is one, if it is as large as the smallest; else its voxels are counted, in `counts["voxels_of_no_cell"]`. Where
    the foreground reaches the border of the image it goes on there, and the border cuts cells. Raises ValueError for a
    foreground that is smaller than a cell.
    """
    foreground = np.asarray(foreground, bool)
    voxel, n = float(np.prod(spacing_um)), foreground.ndim
    smallest, usual = (_size_of(d, n) for d in (diameter_um[0], float(np.median(diameter_um))))
    _check_sizes(np.count_nonzero(foreground) * voxel, smallest, voxel, n)
    edge = usual ** (1 / n)
    spacing = np.asarray(spacing_um, float)
    if n == 3:
        spacing = spacing * np.cbrt(axial_elongation) / (axial_elongation, 1, 1)
    box = _around(foreground, np.ceil(edge / spacing).astype(int))
    inner = foreground[box]
    lattice = _lattice(inner, spacing, edge / _FINE, beyond_um=_BEYOND * edge)
    layer = _layers(lattice, layer_um or edge)

    # Each layer holds as many cells as fill it, anywhere in it; what is left of its room is the next one's.
    first, sizes, room = [], [], 0.0
    for number in np.unique(layer):
        inside = lattice.points[layer == number]
        room += len(inside) * lattice.share
        drawn = _drawn_sizes(rng, diameter_um, room, n)[: len(inside)]
        room -= drawn.sum()
        first.append(inside[rng.choice(len(inside), len(drawn), replace=False)])
        sizes.append(drawn)
    if not any(map(len, sizes)):
        first, sizes = [lattice.points[rng.choice(len(lattice.points), 1)]], [np.array([usual])]
    wanted = np.concatenate(sizes)
    wanted = wanted * (len(lattice.points) * lattice.share / wanted.sum())
    arms = _arms(rng, wanted, draw(rng, elongation, len(wanted)), n)

    # They move apart, and every voxel of the foreground goes to the nearest one.
    middles, gamma = _settled(np.concatenate(first), arms, lattice, wanted, regularity)
    labels, left = _whole(_tessellated(inner, spacing, middles, arms, gamma), inner, round(smallest / voxel))
    if not labels.any():
        raise ValueError(
            f"the foreground lies in pieces that are all smaller than a cell of diameter_um {diameter_um[0]:g}: give a "
            "whole one, or a smaller `diameter_um`"
        )
    canvas = np.zeros(foreground.shape, labels.dtype)
    canvas[box] = labels
    annotation = Annotation.of_labels(canvas, tuple(spacing_um), foreground=foreground)
    return replace(annotation, counts={"voxels_of_no_cell": left})


@dataclass(frozen=True, eq=False)
class _Lattice:
    """Every few voxels of a foreground: steps and the first one's place in µm; what one stands for in µm² or µm³."""

    inside: npt.NDArray[Any]
    step_um: npt.NDArray[Any]
    origin_um: npt.NDArray[Any]
    share: float

    @property
    def points(self) -> npt.NDArray[Any]:
        """(P, n) in µm, those inside."""
        return np.argwhere(self.inside) * self.step_um + self.origin_um


def _size_of(diameter_um: float, ndim: int) -> float:
    """µm² of a disc, µm³ of a ball."""
    return float(np.pi / 4 * diameter_um**2 if ndim == 2 else np.pi / 6 * diameter_um**3)


def _around(foreground: npt.NDArray[Any], margin: npt.NDArray[Any]) -> tuple[slice, ...]:
    """The box of a mask with so much background around it as the canvas has."""
    box = tight_box(foreground)
    return tuple(slice(max(side.start - m, 0), side.stop + m) for side, m in zip(box, margin, strict=True))


def _check_sizes(foreground: float, smallest: float, voxel: float, ndim: int) -> None:
    """Raises ValueError for cells that are larger than the foreground or too small for the voxels."""
    unit = "µm²" if ndim == 2 else "µm³"
    if foreground < max(smallest, voxel):
        raise ValueError(
            f"the foreground of {foreground:.3g} {unit} is smaller than a cell of {smallest:.3g} {unit}: give a larger "
            "one, or a smaller `diameter_um`"
        )
    if smallest < _FEWEST * voxel:
        raise ValueError(
            f"diameter_um gives cells of {smallest:.3g} {unit}, less than {_FEWEST} voxels of {voxel:.3g} {unit}: give "
            "larger ones, or a smaller `spacing_um`"
        )


def _lattice(foreground: npt.NDArray[Any], spacing: npt.NDArray[Any], step_um: float, *, beyond_um: float) -> _Lattice:
    """Every few voxels, and as many beyond the border as if the foreground went on there."""
    steps = np.maximum(np.rint(step_um / spacing), 1).astype(int)
    starts = np.minimum(steps, foreground.shape) // 2
    inside = foreground[tuple(slice(start, None, step) for start, step in zip(starts, steps, strict=True))]
    if not inside.any():  # thinner than the lattice
        steps, starts, inside = np.ones_like(steps), np.zeros_like(starts), foreground
    share = np.count_nonzero(foreground) * float(spacing.prod()) / np.count_nonzero(inside)
    more = np.ceil(beyond_um / (steps * spacing)).astype(int)
    beyond = np.pad(inside, [(m, m) for m in more], "edge")
    return _Lattice(beyond, steps * spacing, (starts - more * steps) * spacing, share)


def _layers(lattice: _Lattice, thickness_um: float) -> npt.NDArray[Any]:
    """Number of the layer of each point from the surface inwards; what is left in the middle joins the last one.

    The border of the image is no surface: the organism goes on there. One without any surface is one layer.
    """
    if lattice.inside.all():
        return np.zeros(lattice.inside.size, int)
    depth = ndimage.distance_transform_edt(lattice.inside, lattice.step_um)[lattice.inside]
    depth -= 0.5 * lattice.step_um.min()
    count = max(round(float(depth.max()) / thickness_um), 1)
    return np.minimum(depth // thickness_um, count - 1).astype(int)


def _drawn_sizes(rng: np.random.Generator, diameter_um: Sequence[float], room: float, ndim: int) -> npt.NDArray[Any]:
    """As many sizes as come nearest to filling the room; none, where there is room for less than half a cell."""
    usual = _size_of(float(np.mean(diameter_um)), ndim)
    drawn = np.array([_size_of(d, ndim) for d in draw(rng, diameter_um, 2 * int(room / usual) + 2)])
    return drawn[: int(np.abs(np.append(0, np.cumsum(drawn)) - room).argmin())]


def _arms(
    rng: np.random.Generator, sizes: npt.NDArray[Any], elongation: npt.NDArray[Any], ndim: int
) -> npt.NDArray[Any]:
    """How far from a cell's middle its two other centres lie, (J, n) in µm, in random directions."""
    directions = rng.standard_normal((len(sizes), ndim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * (_ARM * (elongation - 1) * sizes ** (1 / ndim))[:, None]


def _settled(
    middles: npt.NDArray[Any], arms: npt.NDArray[Any], lattice: _Lattice, wanted: npt.NDArray[Any], rounds: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Where cells come to lie, (J, n) in µm, and their weights (J,) about 1, for cells of the wanted sizes (J,).

    Lloyd's algorithm with Eq. 3's distance: every cell moves to the middle of its points, and its weight grows where
    it has fewer than wanted.
    """
    count, n = middles.shape
    points = lattice.points
    gamma = _near_one((wanted / wanted.mean()) ** (1 / n))
    for _ in range(rounds):
        owner = _tessellated(lattice.inside, lattice.step_um, middles - lattice.origin_um, arms, gamma)
        cell = owner[lattice.inside] - 1
        held = np.bincount(cell, minlength=count)
        moved = np.stack([np.bincount(cell, column, count) for column in points.T], 1)
        middles = np.where(held[:, None] > 0, moved / np.maximum(held, 1)[:, None], middles)
        size = np.maximum(held * lattice.share, 0.1 * wanted)
        gamma = _near_one(gamma * (wanted / size) ** (1 / (2 * n)))
    return middles, gamma


def _near_one(gamma: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Weights that are not so unequal that one cell lies inside another."""
    return np.clip(gamma / np.exp(np.log(gamma).mean()), 1 / _GAMMA, _GAMMA)


def _tessellated(
    foreground: npt.NDArray[Any],
    spacing: npt.NDArray[Any],
    middles: npt.NDArray[Any],
    arms: npt.NDArray[Any],
    gamma: npt.NDArray[Any],
) -> npt.NDArray[Any]:
    """Eq. 3, with three centres in a row for each cell, if any is elongated: labels 1 to J."""
    if not arms.any():
        return weighted_voronoi(foreground, tuple(spacing), middles, gamma)
    ends = np.concatenate([middles, middles + arms, middles - arms])
    cell = np.append(0, np.tile(np.arange(1, len(middles) + 1), 3)).astype(np.int32)
    return cell[weighted_voronoi(foreground, tuple(spacing), ends, np.tile(gamma, 3))]


def _whole(labels: npt.NDArray[Any], foreground: npt.NDArray[Any], smallest: int) -> tuple[npt.NDArray[Any], int]:
    """Cells in one piece each, numbered from 1, and how many voxels of the foreground were left to none."""
    labels, left = islands_to_neighbours(labels, fewest=_FEWEST)
    if left:
        parts = measure.label(foreground & (labels == 0), connectivity=1)
        sizes = np.bincount(parts.ravel())
        own = np.flatnonzero(sizes >= smallest)
        own = own[own > 0]
        number = np.zeros(len(sizes), labels.dtype)
        number[own] = labels.max() + 1 + np.arange(len(own))
        labels = labels + number[parts]
        left -= int(sizes[own].sum())
    present = np.bincount(labels.ravel()) > 0
    present[0] = False
    kind = np.uint16 if present.sum() <= np.iinfo(np.uint16).max else np.uint32
    return np.where(present, np.cumsum(present), 0).astype(kind)[labels], left
