"""Putting bodies on a canvas without overlap: anywhere free, near to others, or in contact with one of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.annotation import Annotation, CellRecord
from cascade.geometry.masks import overlap_windows
from cascade.simulators.bodies import Body, deepest, in_one_piece

_NODES = 0.4  # smallest radii between two places that are looked at
_MOST_NODES = 1 << 21
_POOL = 128  # sites of which one is chosen by how near others are
_TRIES = 12  # sites at which a body is tried, for each of the rooms that it may need
_LAST_TRIES = 400  # before a body is given up; fewer after each that was
_DIRECTIONS = 24  # from which a body is pressed against another
_FAR = {2: 5.0, 3: 3.0}  # smallest radii from a cell that the distance to it is known
_PRESSED = 0.08  # share of a body that may lie on others before it gives way


@dataclass(frozen=True, eq=False)
class Site:
    """A cell that lies somewhere: its centre voxel (n,), and its body."""

    label: int
    centre: npt.NDArray[Any]
    body: Body


@dataclass(eq=False)
class Crowd:
    """A canvas that fills with cells.

    region: bool, as large as the canvas, where centres may lie; None for all of it. inside: no cell is cut by the
    canvas's border, and none leaves the region. smallest_um: radius of the smallest cells, roughly.
    """

    canvas_size: tuple[int, ...]
    spacing_um: tuple[float, ...]
    smallest_um: float
    region: npt.NDArray[Any] | None = None
    inside: bool = False
    labels: npt.NDArray[Any] = field(init=False)
    cells: list[CellRecord] = field(init=False, default_factory=list)
    counts: dict[str, int] = field(init=False, default_factory=dict)
    _in_vain: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.labels = np.zeros(self.canvas_size, np.uint16)
        spacing, size = np.array(self.spacing_um), np.array(self.canvas_size)
        step = np.maximum((_NODES * self.smallest_um / spacing).astype(int), 1)
        while np.prod(-(-size // step).astype(float)) > _MOST_NODES:
            step = step + np.maximum(step // 4, 1)
        self._step = step
        self._nodes = [np.minimum(np.arange(s // 2, n + s // 2, s), n - 1) for n, s in zip(size, step, strict=True)]
        self._room = np.full([len(axis) for axis in self._nodes], np.inf, np.float32)
        self._open = np.arange(self._room.size)
        if self.inside:
            for axis, (nodes, n, s) in enumerate(zip(self._nodes, size, spacing, strict=True)):
                edge = (np.minimum(nodes + 0.5, n - 0.5 - nodes) * s).astype(np.float32)
                self._room = np.minimum(self._room, edge.reshape([-1 if a == axis else 1 for a in range(len(size))]))
        if self.region is not None:
            self.widen(self.region)

    def widen(self, region: npt.NDArray[Any]) -> None:
        """Let centres lie in another region."""
        self.region, self._open = region, np.flatnonzero(region[np.ix_(*self._nodes)])

    def put(self, rng: np.random.Generator, body: Body, *, gap: bool = False, clustering: float = 0.0) -> Site | None:
        """Put a body anywhere free; None if there is no room for it.

        gap: with background around it, in planes two pixels of it, since labels may have one between cells that touch.
        clustering: of the free sites one at random (0), the nearest to other cells (1) or the farthest from them (−1).
        """
        least, most = body.reach_um
        spare = gap * 2.5 * max(self.spacing_um[-2:])
        for room in (most + spare, 0.5 * (least + most) + spare):
            for centre in self._sites(rng, room, _TRIES, clustering):
                if site := self._lay(body, centre, gap):
                    return site
        for centre in self._sites(rng, 0.8 * least, max(_LAST_TRIES >> self._in_vain, _TRIES), 0):
            if site := self._lay(_turned(rng, body), centre, gap):
                self._in_vain = 0
                return site
        self._in_vain += 1
        return None

    def put_beside(self, rng: np.random.Generator, body: Body, others: Sequence[Site]) -> Site | None:
        """Put a body in contact with one of the others; None if there is no room for it.

        It is pressed against them: what it would have of taken voxels it gets elsewhere, so that its size stays.
        """
        spacing = np.array(self.spacing_um)
        for _ in range(_DIRECTIONS):
            other = others[rng.integers(len(others))]
            direction = rng.standard_normal(len(spacing))
            direction /= np.linalg.norm(direction)
            near, far = 0.0, other.body.reach_um[1] + body.reach_um[1]
            while far - near > 0.4 * min(spacing):
                middle = 0.5 * (near + far)
                if self._taken(body, self._beside(other, middle * direction)) > 0.5 * _PRESSED:
                    near = middle
                else:
                    far = middle
            centre = self._beside(other, far * direction)
            if self._taken(body, centre) <= _PRESSED and (site := self._press(body, centre, other)):
                return site
        return None

    def lay(self, body: Body, centre: npt.NDArray[Any]) -> Site | None:
        """Put a body with its centre at this voxel (n,); it gives way to what is there."""
        return self._press(body, centre, None)

    def count(self, what: str, number: int = 1) -> None:
        """Remember that something was not as it was asked for."""
        if number:
            self.counts[what] = self.counts.get(what, 0) + number

    def annotation(self, brightness: npt.NDArray[Any] | None = None) -> Annotation:
        """What lies on the canvas. brightness: wanted one of each cell, (N,) or more of which the first are taken."""
        cells = self.cells
        if brightness is not None:
            cells = [replace(c, brightness=float(b)) for c, b in zip(cells, brightness, strict=False)]
        return Annotation(self.labels, self.spacing_um, tuple(cells), self.region, counts=self.counts)

    def _sites(self, rng: np.random.Generator, room: float, tries: int, clustering: float) -> list[npt.NDArray[Any]]:
        """Voxels (n,) with so much room around them, the first to be tried first."""
        rooms = self._room.ravel()
        wanted = _POOL if clustering else tries
        if not len(self._open):
            return []
        pool = self._open[rng.integers(len(self._open), size=8 * wanted)]
        pool = pool[rooms[pool] >= room][:wanted]
        if len(pool) < wanted:  # a crowded canvas: look everywhere
            free = self._open[rooms[self._open] >= room]
            if not len(free):
                return []
            pool = free[rng.integers(len(free), size=wanted)]
        if clustering:
            pool = pool[np.argsort(np.sign(clustering) * rooms[pool], kind="stable")]
            most = _POOL ** (1 - abs(clustering))
            pool = pool[(rng.random(tries) * most).astype(int)]
        index = np.unravel_index(pool, self._room.shape)
        centres = np.stack([axis[i] for axis, i in zip(self._nodes, index, strict=True)], 1)
        centres += rng.integers(-(self._step // 2), self._step - self._step // 2, size=centres.shape)
        return list(np.clip(centres, 0, np.array(self.canvas_size) - 1))

    def _beside(self, other: Site, shift_um: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.rint(other.centre + shift_um / self.spacing_um).astype(int)

    def _windows(self, body: Body, centre: npt.NDArray[Any]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        return overlap_windows(centre - body.half, body.depth.shape, self.canvas_size)

    def _taken(self, body: Body, centre: npt.NDArray[Any]) -> float:
        """Share of a body that lies on others."""
        here, there = self._windows(body, centre)
        return np.count_nonzero(self.labels[here][body.mask[there]]) / body.voxels

    def _allows(self, centre: npt.NDArray[Any]) -> bool:
        on = all(0 <= c < n for c, n in zip(centre, self.canvas_size, strict=True))
        return on and (self.region is None or bool(self.region[tuple(centre)]))

    def _lay(self, body: Body, centre: npt.NDArray[Any], gap: bool) -> Site | None:
        """Put a body where it lies on nothing."""
        here, there = self._windows(body, centre)
        mask = body.mask if body.depth.shape == tuple(s.stop - s.start for s in here) else body.mask[there]
        if self.labels[here][mask].any() or not self._allows(centre):
            return None
        if gap and self.labels[here][_with_gap(mask)].any():
            return None
        return self._fill(body, centre, mask, here)

    def _press(self, body: Body, centre: npt.NDArray[Any], other: Site | None) -> Site | None:
        """Put a body where it may lie on others, to which it gives way; it touches `other`, where there is one."""
        if not self._allows(centre):
            return None
        here, there = self._windows(body, centre)
        depth = body.depth.copy()
        depth[there][self.labels[here] > 0] = np.inf
        mask = deepest(depth, body.voxels)[there]
        if other is not None and not (self.labels[here][ndimage.binary_dilation(mask)] == other.label).any():
            return None
        return self._fill(body, centre, mask, here)

    def _fill(
        self, body: Body, centre: npt.NDArray[Any], mask: npt.NDArray[Any], here: tuple[slice, ...]
    ) -> Site | None:
        if self.inside:
            if np.count_nonzero(mask) < body.voxels:
                return None
            if self.region is not None and not self.region[here][mask].all():
                return None
        if mask is not body.mask and not in_one_piece(mask):
            return None
        label = len(self.cells) + 1
        if label > np.iinfo(self.labels.dtype).max:
            self.labels = self.labels.astype(np.uint32)
        self.labels[here][mask] = label
        places = np.nonzero(mask)
        corner = [window.start for window in here]
        centroid = tuple(
            float((index.mean() + start) * s) for index, start, s in zip(places, corner, self.spacing_um, strict=True)
        )
        size = float(len(places[0]) * np.prod(self.spacing_um))
        self.cells.append(CellRecord(label=label, centroid_um=centroid, size=size))
        self._keep_away(body, centre)
        return Site(label, centre, body)

    def _keep_away(self, body: Body, centre: npt.NDArray[Any]) -> None:
        """Less room around a cell, as far as it matters to the next."""
        reach = body.reach_um[1] + _FAR[len(self.canvas_size)] * self.smallest_um
        span = []
        for nodes, c, s in zip(self._nodes, centre, self.spacing_um, strict=True):
            low, high = np.searchsorted(nodes, [c - reach / s, c + reach / s])
            span.append(slice(int(low), int(high)))
        window = self._room[tuple(span)]
        axes = [
            (nodes[part] - c) * s for nodes, part, c, s in zip(self._nodes, span, centre, self.spacing_um, strict=True)
        ]
        points = np.empty((*window.shape, len(axes)))
        for axis, place in enumerate(np.meshgrid(*axes, indexing="ij", sparse=True)):
            points[..., axis] = place
        points = points.reshape(-1, len(axes))
        np.minimum(window, body.sdf(points).reshape(window.shape), out=window, casting="unsafe")


def _with_gap(mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A mask, wider by two pixels in planes and one along z."""
    wider = ndimage.binary_dilation(mask, np.ones((3,) * mask.ndim))
    plane = np.ones((3, 3)) if mask.ndim == 2 else np.ones((1, 3, 3))
    return np.asarray(ndimage.binary_dilation(wider, plane))


def _turned(rng: np.random.Generator, body: Body) -> Body:
    """A body, mirrored along some of its axes."""
    signs = rng.choice([-1, 1], size=body.depth.ndim)
    steps = tuple(slice(None, None, sign) for sign in signs)
    return replace(body, depth=body.depth[steps], mask=body.mask[steps], sdf=lambda points: body.sdf(points * signs))
