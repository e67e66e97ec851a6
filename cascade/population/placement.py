"""Placing cells on a canvas and adding up their light: the population synthesis of the cascade."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.geometry.masks import tight_box
from cascade.population.room import Room


def place(
    masks: list[npt.NDArray[Any]],
    canvas_shape: tuple[int, ...],
    clustering_probability: float,
    rng: np.random.Generator,
    room: Room | None = None,
    max_overlap: float = 0.0,
    max_tries: int = 60,
) -> npt.NDArray[Any]:
    """Find a free site for every mask, one after the other.

    room: where centres may lie, default anywhere on the canvas. max_overlap: share of a cell, in [0, 1), that may lie
    on cells already placed, as in thick or crowded samples; see `compose` for what becomes of the labels.

    With probability `clustering_probability` (Bernoulli) a cell is put next to one that is already there, pressed
    against it along a random direction, else anywhere free (cascaded diffusion paper, §2, after Svoboda & Ulman, 2017).
    Of a cell pressed against others 1 % (a solid: 3 %) may lie on them: light then falls off between neighbours as it
    does in real images. Cells may be cut by the border. Cells of one layer are put beside each other as they are seen
    along z.

    Returns corners (N, D) int64: where each mask's first voxel goes, possibly negative. A cell for which no site was
    found has the corner `UNPLACED`, in every axis.
    """
    if not 0 <= clustering_probability <= 1:
        raise ValueError(f"clustering_probability must be in [0, 1], got {clustering_probability}")
    if not 0 <= max_overlap < 1:
        raise ValueError(f"max_overlap must be in [0, 1), got {max_overlap}")
    room = room or Room()
    if room.middles is not None:
        plane = Room(room.region, beyond=room.beyond)
        flat = [mask.any(0) for mask in masks]
        corners = place(flat, canvas_shape[1:], clustering_probability, rng, plane, max_overlap, max_tries)
        return _at_heights(corners, masks, room.middles, rng)
    boxes = [tight_box(mask) for mask in masks]
    tight = [mask[box] for mask, box in zip(masks, boxes, strict=True)]
    widest = np.max([m.shape for m in tight] or [(1,) * len(canvas_shape)], axis=0)
    canvas = _Canvas(canvas_shape, widest, room.region, max_overlap, room.beyond and room.region is None)
    corners = np.full((len(masks), len(canvas_shape)), UNPLACED, np.int64)
    anchors = _Anchors()
    for n, mask in enumerate(tight):
        corner = None
        if anchors and rng.random() < clustering_probability:
            corner = _beside(canvas, mask, anchors, rng, max_tries)
        if corner is None:
            corner = _anywhere(canvas, mask, rng, max_tries)
        if corner is not None:
            canvas.fill(corner, mask)
            corners[n] = corner - [box.start for box in boxes[n]]
            anchors.add(corner + np.array(mask.shape) // 2, _radius(mask))
    return corners


def _at_heights(
    corners: npt.NDArray[Any], masks: list[npt.NDArray[Any]], middles: npt.NDArray[Any], rng: np.random.Generator
) -> npt.NDArray[Any]:
    """Corners (N, 3) of solids whose corners in the plane (N, 2) are known, their middles at heights drawn (slices)."""
    found = np.insert(corners, 0, UNPLACED, axis=1)
    for n in np.flatnonzero((corners != UNPLACED).all(1)):
        filled = np.flatnonzero(masks[n].any((1, 2)))
        found[n, 0] = np.floor(rng.choice(middles) - 0.5 * (filled[0] + filled[-1]) + 0.5)
    return found


_BEYOND = 0.4  # of a cell's box, from its centre: a tenth of it stays on the canvas


UNPLACED = np.iinfo(np.int64).min


GAP_PX = 2  # in planes, and one slice across: wider gaps between cells stay open


_PRESSED = {2: 0.01, 3: 0.03}  # share of a cell that may lie on others where it is put in contact with them


class _Canvas:
    """Which voxels are taken; padded, so that cells cut by the border need no special case."""

    def __init__(
        self,
        shape: Sequence[int],
        pad: npt.NDArray[Any],
        region: npt.NDArray[Any] | None,
        max_overlap: float,
        beyond: bool,
    ):
        if region is not None and region.shape != tuple(shape):
            raise ValueError(f"region has shape {region.shape}, the canvas {tuple(shape)}: they must be equal")
        if region is not None and not region.any():
            raise ValueError("region is empty: no cell can be placed in it")
        self.shape, self.pad, self.region, self.max_overlap = tuple(shape), pad, region, max_overlap
        self.beyond = _BEYOND if beyond else 0.0
        self.taken = np.zeros(np.array(shape) + 2 * pad, bool)
        self.sites = None if region is None else np.flatnonzero(region)
        self.room: npt.NDArray[Any] | None = None  # distance to the nearest taken voxel when it was last computed
        self.coarse = int(np.ceil((np.prod(shape, dtype=float) / _COARSE_BEYOND) ** (1 / len(shape))))

    def window(self, corner: npt.NDArray[Any], mask: npt.NDArray[Any]) -> tuple[slice, ...]:
        return tuple(slice(c, c + n) for c, n in zip(corner + self.pad, mask.shape, strict=True))

    def allows(self, centre: npt.NDArray[Any], mask: npt.NDArray[Any]) -> bool:
        out = self.reach(mask)
        inside = all(-r <= c < n + r for c, n, r in zip(centre, self.shape, out, strict=True))
        return inside and (self.region is None or bool(self.region[tuple(centre)]))

    def free(self, corner: npt.NDArray[Any], mask: npt.NDArray[Any], overlap: float) -> bool:
        met = self.taken[self.window(corner, mask)] & mask
        return not met.any() if overlap == 0 else np.count_nonzero(met) <= overlap * mask.sum()

    def maybe_free(self, corners: npt.NDArray[Any], probes: npt.NDArray[Any], overlap: float) -> npt.NDArray[Any]:
        """Indices of the corners (C, D) at which hardly any of a mask's `probes` (P, D) meets anything."""
        places = corners[:, None] + probes + self.pad
        limit = np.array(self.taken.shape) - 1
        taken = self.taken[tuple(np.moveaxis(np.clip(places, 0, limit), -1, 0))]
        return np.flatnonzero(taken.mean(1) <= max(2 * overlap, 1 / len(probes)))  # few probes: `free` decides

    def fill(self, corner: npt.NDArray[Any], mask: npt.NDArray[Any]) -> None:
        self.taken[self.window(corner, mask)] |= mask

    def reach(self, mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """How far beyond the border a mask's centre may lie, in voxels, by axis."""
        return (self.beyond * np.array(mask.shape)).astype(int)

    def random_centre(self, mask: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
        if self.sites is None:
            out = self.reach(mask)
            return rng.integers(-out, self.shape + out)
        return np.array(np.unravel_index(self.sites[rng.integers(len(self.sites))], self.shape))

    def roomy(self, radius: float, refresh: bool) -> npt.NDArray[Any]:
        """Centres (C, D) that had at least `radius` of room; computed anew with `refresh`.

        On large canvases they are sought on a coarser grid, on which a block is taken if any of its voxels is.
        """
        if self.room is None or refresh:
            inner = self.taken[tuple(slice(p, p + n) for p, n in zip(self.pad, self.shape, strict=True))]
            free = ~_pooled(inner, self.coarse, np.any)
            distance = ndimage.distance_transform_edt(free).astype(np.float32) if not free.all() else np.inf
            if self.region is not None:
                free = _pooled(self.region, self.coarse, np.all)
                distance = np.where(free, distance, -1)
            self.room = distance + np.zeros(free.shape, np.float32)
        sites = np.argwhere(self.room * self.coarse > radius)
        return np.minimum(sites * self.coarse + self.coarse // 2, np.array(self.shape) - 1)


_COARSE_BEYOND = 1 << 25  # voxels of a canvas


def _pooled(mask: npt.NDArray[Any], factor: int, pool: Callable[..., Any]) -> npt.NDArray[Any]:
    """A mask on blocks of factor^D voxels, slab by slab; blocks cut by the border are pooled as they are."""
    if factor == 1:
        return mask
    slabs = []
    for start in range(0, mask.shape[0], factor):
        slab = pool(mask[start : start + factor], axis=0)
        for axis in range(slab.ndim):
            pad = [(0, -n % factor if a == axis else 0) for a, n in enumerate(slab.shape)]
            slab = np.pad(slab, pad, mode="edge")
            shape = (*slab.shape[:axis], -1, factor, *slab.shape[axis + 1 :])
            slab = pool(slab.reshape(shape), axis=axis + 1)
        slabs.append(slab)
    return np.stack(slabs)


def _anywhere(
    canvas: _Canvas, mask: npt.NDArray[Any], rng: np.random.Generator, max_tries: int
) -> npt.NDArray[Any] | None:
    half = np.array(mask.shape) // 2
    for _ in range(max_tries):
        corner = canvas.random_centre(mask, rng) - half
        if canvas.free(corner, mask, canvas.max_overlap):
            return corner
    radius = _radius(mask)
    for refresh in (False, True):  # a crowded canvas: look at every site with room for the whole box
        sites = canvas.roomy(radius, refresh)
        for site in rng.permutation(len(sites))[:max_tries]:
            corner = sites[site] - half
            if canvas.free(corner, mask, canvas.max_overlap):
                return corner
    return None


class _Anchors:
    """Placed cells that others can be put next to; one that has often had no room is not asked again."""

    def __init__(self) -> None:
        self.centres: list[npt.NDArray[Any]] = []
        self.radii: list[float] = []
        self.failures: list[int] = []

    def __bool__(self) -> bool:
        return bool(self.centres)

    def add(self, centre: npt.NDArray[Any], radius: float) -> None:
        self.centres.append(centre)
        self.radii.append(radius)
        self.failures.append(0)

    def failed(self, n: int) -> None:
        self.failures[n] += 1
        if self.failures[n] >= 6:  # it only gets more crowded: the last one takes its place
            lists: tuple[list[Any], ...] = (self.centres, self.radii, self.failures)
            for values in lists:
                values[n] = values[-1]
                values.pop()


def _beside(
    canvas: _Canvas, mask: npt.NDArray[Any], anchors: _Anchors, rng: np.random.Generator, max_tries: int
) -> npt.NDArray[Any] | None:
    half, radius = np.array(mask.shape) // 2, _radius(mask)
    overlap = max(canvas.max_overlap, _PRESSED[mask.ndim])
    inside = np.argwhere(mask)
    probes = inside[np.linspace(0, len(inside) - 1, 24).astype(int)]
    for _ in range(max_tries):
        if not anchors:
            return None
        n = rng.integers(len(anchors.centres))
        direction = rng.standard_normal(mask.ndim)
        direction /= np.linalg.norm(direction)
        reach = anchors.radii[n] + radius
        steps = np.arange(0.3 * reach, 1.1 * reach)  # outwards until it fits: in contact with what is there
        corners = np.rint(anchors.centres[n] + steps[:, None] * direction).astype(np.int64) - half
        for corner in corners[canvas.maybe_free(corners, probes, overlap)]:
            if not canvas.allows(corner + half, mask):
                break
            if canvas.free(corner, mask, overlap):
                return corner
        anchors.failed(n)
    return None


def _radius(mask: npt.NDArray[Any]) -> float:
    return 0.5 * float(np.linalg.norm(mask.shape))
