"""Placing cells on a canvas and adding up their light: the population synthesis of the cascade."""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage, spatial


@dataclass(frozen=True)
class Cell:
    """One cell in a box of voxels: `mask` bool and `signal` float32 (camera units above background), same shape.

    `signal` may reach beyond the mask: light that the microscope spreads around a cell. `centre` is where in the box,
    in voxels, the shape that it was cut from has its origin.
    """

    mask: np.ndarray
    signal: np.ndarray
    centre: tuple[float, ...]
    info: dict = field(default_factory=dict)


def place(
    masks: list[np.ndarray],
    canvas_shape: tuple[int, ...],
    clustering_probability: float,
    rng: np.random.Generator,
    region: np.ndarray | None = None,
    max_overlap: float = 0.0,
    max_tries: int = 60,
) -> np.ndarray:
    """Find a free site for every mask, one after the other.

    max_overlap: share of a cell, in [0, 1), that may lie on cells already placed, as in thick or crowded samples; see
    `compose` for what becomes of the labels.

    With probability `clustering_probability` (Bernoulli) a cell is put next to one that is already there, pressed
    against it along a random direction, else anywhere free (cascaded diffusion paper, §2, after Svoboda & Ulman, 2017).
    Of a cell pressed against others 1 % (a solid: 3 %) may lie on them: light then falls off between neighbours as it
    does in real images. A cell's box centre stays on the canvas, and in `region` (bool, canvas_shape) where given;
    cells may be cut by the border.

    Returns corners (N, D) int64: where each mask's first voxel goes, possibly negative. A cell for which no site was
    found has the corner `UNPLACED`, in every axis.
    """
    if not 0 <= clustering_probability <= 1:
        raise ValueError(f"clustering_probability must be in [0, 1], got {clustering_probability}")
    if not 0 <= max_overlap < 1:
        raise ValueError(f"max_overlap must be in [0, 1), got {max_overlap}")
    boxes = [_tight_box(mask) for mask in masks]
    tight = [mask[box] for mask, box in zip(masks, boxes, strict=True)]
    widest = np.max([m.shape for m in tight] or [(1,) * len(canvas_shape)], axis=0)
    canvas = _Canvas(canvas_shape, widest, region, max_overlap)
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


UNPLACED = np.iinfo(np.int64).min
GAP_PX = 2  # in planes, and one slice across: wider gaps between cells stay open
_PRESSED = {2: 0.01, 3: 0.03}  # share of a cell that may lie on others where it is put in contact with them


class _Canvas:
    """Which voxels are taken; padded, so that cells cut by the border need no special case."""

    def __init__(self, shape, pad: np.ndarray, region: np.ndarray | None, max_overlap: float):
        if region is not None and region.shape != tuple(shape):
            raise ValueError(f"region has shape {region.shape}, the canvas {tuple(shape)}: they must be equal")
        if region is not None and not region.any():
            raise ValueError("region is empty: no cell can be placed in it")
        self.shape, self.pad, self.region, self.max_overlap = tuple(shape), pad, region, max_overlap
        self.taken = np.zeros(np.array(shape) + 2 * pad, bool)
        self.sites = None if region is None else np.flatnonzero(region)
        self.room: np.ndarray | None = None  # distance to the nearest taken voxel when it was last computed
        self.coarse = int(np.ceil((np.prod(shape, dtype=float) / _COARSE_BEYOND) ** (1 / len(shape))))

    def window(self, corner, mask) -> tuple[slice, ...]:
        return tuple(slice(c, c + n) for c, n in zip(corner + self.pad, mask.shape, strict=True))

    def allows(self, centre) -> bool:
        inside = all(0 <= c < n for c, n in zip(centre, self.shape, strict=True))
        return inside and (self.region is None or bool(self.region[tuple(centre)]))

    def free(self, corner, mask, overlap: float) -> bool:
        met = self.taken[self.window(corner, mask)] & mask
        return not met.any() if overlap == 0 else np.count_nonzero(met) <= overlap * mask.sum()

    def maybe_free(self, corners: np.ndarray, probes: np.ndarray, overlap: float) -> np.ndarray:
        """Indices of the corners (C, D) at which hardly any of a mask's `probes` (P, D) meets anything."""
        places = corners[:, None] + probes + self.pad
        limit = np.array(self.taken.shape) - 1
        taken = self.taken[tuple(np.moveaxis(np.clip(places, 0, limit), -1, 0))]
        return np.flatnonzero(taken.mean(1) <= max(2 * overlap, 1 / len(probes)))  # few probes: `free` decides

    def fill(self, corner, mask) -> None:
        self.taken[self.window(corner, mask)] |= mask

    def random_centre(self, rng) -> np.ndarray:
        if self.sites is None:
            return rng.integers(0, self.shape)
        return np.array(np.unravel_index(self.sites[rng.integers(len(self.sites))], self.shape))

    def roomy(self, radius: float, refresh: bool) -> np.ndarray:
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


def _pooled(mask: np.ndarray, factor: int, pool) -> np.ndarray:
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


def _anywhere(canvas: _Canvas, mask: np.ndarray, rng: np.random.Generator, max_tries: int) -> np.ndarray | None:
    half = np.array(mask.shape) // 2
    for _ in range(max_tries):
        corner = canvas.random_centre(rng) - half
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

    def __init__(self):
        self.centres: list[np.ndarray] = []
        self.radii: list[float] = []
        self.failures: list[int] = []

    def __bool__(self) -> bool:
        return bool(self.centres)

    def add(self, centre: np.ndarray, radius: float) -> None:
        self.centres.append(centre)
        self.radii.append(radius)
        self.failures.append(0)

    def failed(self, n: int) -> None:
        self.failures[n] += 1
        if self.failures[n] >= 6:  # it only gets more crowded: the last one takes its place
            for values in (self.centres, self.radii, self.failures):
                values[n] = values[-1]
                values.pop()


def _beside(canvas: _Canvas, mask: np.ndarray, anchors: _Anchors, rng, max_tries: int) -> np.ndarray | None:
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
            if not canvas.allows(corner + half):
                break
            if canvas.free(corner, mask, overlap):
                return corner
        anchors.failed(n)
    return None


def _radius(mask: np.ndarray) -> float:
    return 0.5 * float(np.linalg.norm(mask.shape))


def _tight_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds a mask; the whole of an empty one."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8)) or [None]
    return box if box is not None else tuple(slice(0, n) for n in mask.shape)


def compose(
    cells: list[Cell], corners: np.ndarray, shape: tuple[int, ...], trimmed: bool = False
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Two canvases of a shape: the cells' light above background (camera units), and their labels.

    Returns light float32, labels int32 (1, 2, … in the order of `cells`, unplaced ones left out) and, per label,
    the index of its cell. Where cells overlap their light adds up, and the voxel is of the cell that it lies deepest
    in. Gaps of a voxel or two between cells close where their light adds up to no less than at the outline of the one
    that comes later (the smaller one, as `take_picture` orders them): one sees no gap there, and who annotates draws
    none.

    A cell of which the border or others leave nothing is left out, one that they cut into pieces keeps the largest;
    `trimmed` says that `trim` has seen to the border, and these are a window of a larger canvas.
    """
    light, labels = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    there = np.flatnonzero((corners != UNPLACED).all(1))
    masks = [cells[n].mask if trimmed else trim(cells[n].mask, corners[n], shape) for n in there]
    placed, shown = [], []
    for n, whole, own in zip(there, masks, _parted(masks, corners[there]), strict=True):
        window, box = _overlap(corners[n], whole.shape, shape)
        light[window] += cells[n].signal[box]
        if own[box].any():
            placed.append(int(n))
            shown.append(replace(cells[n], mask=whole))
            labels[window][own[box]] = len(placed)
    return light, _closed(labels, light, shown), placed


def _parted(masks: list[np.ndarray], corners: np.ndarray) -> list[np.ndarray]:
    """Masks without the voxels that lie deeper in another one, so that no two meet; each in one piece."""
    parts, depths = list(masks), {}
    for a, b in _meeting(masks, corners):
        in_a, in_b = _overlap(corners[b] - corners[a], masks[b].shape, masks[a].shape)
        both = masks[a][in_a] & masks[b][in_b]
        if not both.any():
            continue
        for n in (a, b):
            if n not in depths:
                depths[n] = ndimage.distance_transform_edt(np.pad(masks[n], 1))[(slice(1, -1),) * masks[n].ndim]
                parts[n] = masks[n].copy()
        first = depths[a][in_a] >= depths[b][in_b]
        parts[a][in_a] &= ~both | first
        parts[b][in_b] &= ~(both & first)
    return [largest_piece(part) if n in depths else part for n, part in enumerate(parts)]


def _meeting(masks: list[np.ndarray], corners: np.ndarray) -> np.ndarray:
    """Pairs (P, 2) of masks whose boxes overlap, in order."""
    if len(masks) < 2:
        return np.zeros((0, 2), int)
    sizes = np.array([mask.shape for mask in masks])
    tree = spatial.cKDTree(corners + 0.5 * sizes)
    pairs = tree.query_pairs(float(sizes.max()), p=np.inf, output_type="ndarray")
    a, b = pairs.T
    meet = (corners[a] < corners[b] + sizes[b]) & (corners[b] < corners[a] + sizes[a])
    pairs = pairs[meet.all(1)]
    return pairs[np.lexsort(pairs.T[::-1])]


def _closed(labels: np.ndarray, light: np.ndarray, cells: list[Cell]) -> np.ndarray:
    """Labels that meet where nothing dark is seen between two cells, see `compose`; `cells` in the labels' order."""
    across = (*(3 for _ in labels.shape[:-2]), 2 * GAP_PX + 1, 2 * GAP_PX + 1)
    highest = ndimage.maximum_filter(labels, across)
    nameless = np.where(labels == 0, len(cells) + 1, labels)
    between = (labels == 0) & (highest > 0) & (ndimage.minimum_filter(nameless, across) < highest)
    seen = np.zeros(len(cells) + 1, np.float32)
    for label in np.unique(highest[between]):
        seen[label] = _light_at_outline(cells[label - 1])
    between &= light >= seen[highest]
    face = ndimage.generate_binary_structure(labels.ndim, 1)
    for _ in range(GAP_PX):  # from both sides at once, so that they meet in the middle
        beside = ndimage.maximum_filter(labels, footprint=face)
        labels = np.where(between & (labels == 0), beside, labels)
    return labels


def _light_at_outline(cell: Cell) -> float:
    """Halfway between what is seen just inside and just outside of a cell's outline in its planes, camera units."""
    plane = ndimage.generate_binary_structure(2, 1).reshape((1,) * (cell.mask.ndim - 2) + (3, 3))
    mask, signal = np.pad(cell.mask, 1), np.pad(cell.signal, 1)
    inside, outside = mask & ~ndimage.binary_erosion(mask, plane), ndimage.binary_dilation(mask, plane) & ~mask
    return 0.5 * float(np.median(signal[inside]) + np.median(signal[outside]))


def trim(mask: np.ndarray, corner: np.ndarray, canvas_shape: tuple[int, ...]) -> np.ndarray:
    """What a canvas shows of a mask at `corner`: without what lies outside, and of that the largest piece."""
    here, there = _overlap(corner, mask.shape, canvas_shape)
    if all(h.stop - h.start == n for h, n in zip(here, mask.shape, strict=True)):
        return mask
    visible = np.zeros_like(mask)
    visible[there] = largest_piece(mask[there])
    return visible


def touching_fraction(labels: np.ndarray, spacing_um, gap_um: float) -> float:
    """Fraction of cells with another cell within `gap_um` of their outline: a measure of clustering."""
    ids, boxes = _boxes(labels)
    margin = [int(np.ceil(gap_um / s)) + 1 for s in spacing_um]
    touching = 0
    for label, box in zip(ids, boxes, strict=True):
        window = tuple(slice(max(b.start - m, 0), b.stop + m) for b, m in zip(box, margin, strict=True))
        around = labels[window]
        own = around == label
        others = (around > 0) & ~own
        touching += bool(others.any()) and bool(
            (ndimage.distance_transform_edt(~own, spacing_um)[others] <= gap_um).any()
        )
    return touching / len(ids) if len(ids) else 0.0


def fit_clustering(
    touching: float,
    radii_px: np.ndarray,
    density: float,
    gap_px: float,
    rng: np.random.Generator,
    canvas: int = 512,
) -> float:
    """The clustering probability whose random populations of discs touch as often as the real cells do.

    radii_px: sizes of real cells; density: cells per pixel. The touching fraction is simulated on a grid of p and
    the answer interpolated.
    """
    count = max(int(density * canvas * canvas), 2)
    count = min(count, int(0.6 * canvas * canvas / np.mean(np.pi * radii_px**2)))
    probabilities, simulated = np.linspace(0, 1, 6), []
    for p in probabilities:
        radii = rng.choice(radii_px, count)
        corners = place([_disc(r) for r in radii], (canvas, canvas), float(p), rng)
        placed = (corners != UNPLACED).all(1)
        centres = corners[placed] + np.array([_disc(r).shape[0] // 2 for r in radii[placed]])[:, None]
        gaps = spatial.distance.cdist(centres, centres) - radii[placed][:, None] - radii[placed][None]
        np.fill_diagonal(gaps, np.inf)
        simulated.append((gaps.min(1) <= gap_px).mean())
    return float(np.clip(np.interp(touching, np.maximum.accumulate(simulated), probabilities), 0, 1))


def ellipsoid_region(shape: tuple[int, ...], spacing_um, semi_axes_um) -> np.ndarray:
    """A centred ellipsoid on the canvas, bool: where the cells of an embryo or a spheroid lie."""
    axes = [
        ((np.arange(n) - 0.5 * (n - 1)) * s / a) ** 2 for n, s, a in zip(shape, spacing_um, semi_axes_um, strict=True)
    ]
    return sum(np.meshgrid(*axes, indexing="ij", sparse=True)) <= 1


def _disc(radius: float) -> np.ndarray:
    r = int(np.ceil(radius))
    y, x = np.ogrid[-r : r + 1, -r : r + 1]
    return y * y + x * x <= radius * radius


def _overlap(corner, size, shape) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of the canvas and of the box that lie on each other."""
    here, there = [], []
    for c, n, limit in zip(corner, size, shape, strict=True):
        start, stop = max(int(c), 0), min(int(c) + n, limit)
        stop = max(stop, start)
        here.append(slice(start, stop))
        there.append(slice(start - int(c), stop - int(c)))
    return tuple(here), tuple(there)


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """The largest connected piece of a mask, bool, same shape; an empty mask stays empty."""
    pieces, count = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, mask.ndim))
    if count <= 1:
        return mask
    return pieces == np.argmax(np.bincount(pieces.ravel())[1:]) + 1


def _boxes(labels: np.ndarray) -> tuple[np.ndarray, list[tuple[slice, ...]]]:
    boxes = ndimage.find_objects(labels)
    ids = [i + 1 for i, box in enumerate(boxes) if box is not None]
    return np.array(ids, int), [box for box in boxes if box is not None]
