"""How the light of cells lies in a real image: how bright each is, its rim, what it casts around it, the background."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize

from cascade.annotation import Annotation
from cascade.optics.foreground import background_field, background_mask
from cascade.rng import stream
from cascade.sketch.rules import numbered, relative_depth, relative_height, rim, stray_light
from cascade.sketch.smooth import blurred

_KNOTS, _HEIGHTS = 13, 9  # of the profiles
_ROUNDS = 5  # in which the two are told apart
_FULL = 0.9  # share of an image in cells, beyond which there is no background to be seen
_SIDES = 0.25  # of an image's shorter side: over it, the background under cells is known
_HALF, _LEAST_PX = 0.5, 4.0  # of a cell's radius, and pixels: over it, its field is measured
_PIXELS = 20_000  # around cells that are looked at in an image
_PX, _RADII = (1.0, 2.0, 4.0), (0.5, 1.5, 4.0)  # lengths of stray light that are tried
_TOGETHER = 3  # of them at most
AXIAL = (1.0, 2.0, 4.0)
"""So many times as far stray light goes along z, tried of stacks."""
_OUTLIER = 5.0  # standard deviations: cells nobody labelled, dirt
_FAINT = 0.003  # share of light that is nothing
_GARISH = 4.0  # shares that no cells cast: they are not seen at all, and what is fitted is noise
_DARKEST = 1.0  # percentile that stands for the background where cells fill the image


@dataclass(frozen=True)
class Shade:
    """How light lies within cells: relative light by relative depth, and times that by relative height along z."""

    profile: tuple[float, ...] = (1.0,)
    axial_profile: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Glow:
    """What cells cast around them, as in `SketchSettings`."""

    glow: tuple[float, ...] = ()
    glow_um: tuple[float, ...] = ()
    glow_axial: float = 1.0

    def of(self, light: npt.NDArray[Any], spacing_um: Sequence[float]) -> npt.NDArray[np.float32]:
        """Of cells' light (Y, X) or (Z, Y, X), like it."""
        return stray_light(light, spacing_um, self.glow, self.glow_um, self.glow_axial)


@dataclass(frozen=True, eq=False)
class LitImage:
    """An image with its cells called 1, 2, …, and where it shows background only."""

    image: npt.NDArray[np.float32]
    annotation: Annotation
    place: npt.NDArray[np.int32]
    depth: npt.NDArray[np.float32]
    height: npt.NDArray[np.float32] | None
    """Of planes None."""
    ground: npt.NDArray[np.bool_] | None
    level: float

    @classmethod
    def of(cls, image: npt.NDArray[Any], labels: npt.NDArray[Any], spacing_um: Sequence[float]) -> "LitImage":
        """image, labels: equally large."""
        image = np.asarray(image, np.float32)
        kind = labels if labels.dtype.kind == "u" else labels.astype(np.uint32)
        annotation = Annotation.of_labels(kind, tuple(spacing_um))
        place = numbered(labels, np.array([cell.label for cell in annotation.cells], int))
        known = place > 0
        ground = None
        if known.mean() < _FULL:
            ground = background_mask(image, known) & ~known
            ground = ground if ground.sum() > 100 else ~known
        level = (
            image[ground].mean() if ground is not None else np.percentile(blurred(image, (1.0,) * image.ndim), _DARKEST)
        )
        depth, height = relative_depth(place, spacing_um), relative_height(place) if place.ndim == 3 else None
        return cls(image, annotation, place, depth, height, ground, float(level))

    @property
    def spacing_um(self) -> tuple[float, ...]:
        return self.annotation.spacing_um

    def contrasts(self, above: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Mean light of each cell over its middle plane, (N,)."""
        count = len(self.annotation.cells) + 1
        whole = _means(self.place, above, count)
        if self.place.ndim == 2:
            return whole[1:]
        middle = np.rint([cell.centroid_um[0] / self.spacing_um[0] for cell in self.annotation.cells]).astype(int)
        z = np.arange(len(self.place))[:, None, None]
        central = np.where(np.take(np.append(-1, middle), self.place) == z, self.place, 0)
        there = np.bincount(central.ravel(), minlength=count) > 0
        return np.where(there, _means(central, above, count), whole)[1:]

    def profile_sums(
        self, above: npt.NDArray[np.float32], skip: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.float64]:
        """Light at evenly spaced depths and heights, and that which cells without a rim would have there, (2, depths,
        heights)."""
        inside = self.place > 0 if skip is None else (self.place > 0) & ~skip
        knot = np.rint(self.depth[inside] * (_KNOTS - 1)).astype(int)
        heights = 1 if self.height is None else _HEIGHTS
        if self.height is not None:
            knot = knot * heights + np.rint(self.height[inside] * (heights - 1)).astype(int)
        flat = np.take(np.append(0, _means(self.place, above, len(self.annotation.cells) + 1)[1:]), self.place[inside])
        sums = [np.bincount(knot, values, _KNOTS * heights) for values in (above[inside], flat)]
        return np.asarray(np.stack(sums).reshape(2, _KNOTS, heights), float)

    def light(self, contrasts: npt.NDArray[Any], shade: Shade) -> npt.NDArray[np.float32]:
        """As a sketch draws cells that have these means, without what they cast around them."""
        relative = rim(self.depth, shade.profile)
        if self.height is not None:
            relative *= rim(self.height, shade.axial_profile)
        means = np.append(1, _means(self.place, relative, len(contrasts) + 1)[1:])
        scale = np.append(0, contrasts / np.maximum(means[1:], 1e-6)).astype(np.float32)
        return np.take(scale, self.place) * relative

    def glow_rows(
        self, shade: Shade, lengths_um: Sequence[float], seed: int, axial: float = 1.0
    ) -> npt.NDArray[np.float64]:
        """What is seen around cells beside what each length of stray light would give, which goes `axial` times as far
        along z, (P, lengths + 1), without the image's means, in units of its cells' light."""
        if self.ground is None or not len(self.annotation.cells):
            return np.zeros((0, len(lengths_um) + 1))
        above = self.image - self.level
        contrasts = _means(self.place, above, len(self.annotation.cells) + 1)[1:]
        light = self.light(contrasts, shade)
        outside = np.flatnonzero(self.place == 0)
        chosen = stream(seed, "glow").choice(outside, min(len(outside), _PIXELS), replace=False, shuffle=False)
        columns = [Glow((1.0,), (um,), axial).of(light, self.spacing_um).ravel()[chosen] for um in lengths_um]
        rows = np.stack([*columns, above.ravel()[chosen]], 1).astype(float)
        return (rows - rows.mean(0)) / max(float(np.median(np.abs(contrasts))), 1e-6)

    def with_background(self, glow: Glow, shade: Shade) -> tuple[float, tuple[float, float], npt.NDArray[np.float32]]:
        """Level, standard deviation and length in µm of the background's slow field, and the image above both."""
        if self.ground is None:
            return self.level, (0.0, 0.0), self.image - np.float32(self.level)
        above = self.image - self.level
        light = self.light(_means(self.place, above, len(self.annotation.cells) + 1)[1:], shade)
        left = self.image - glow.of(light, self.spacing_um)
        counts = self.ground.reshape(-1, *self.ground.shape[-2:]).sum(0)
        plane = np.where(self.ground, left, 0).reshape(-1, *counts.shape).sum(0) / np.maximum(counts, 1)
        slow = background_field(plane, counts > 0, _SIDES * min(counts.shape)).astype(np.float32)
        level = float((slow * counts).sum() / counts.sum())
        radius_px = _radius_um([self.annotation]) / self.spacing_um[-1]
        field = background_field(plane, counts > 0, max(_HALF * radius_px, _LEAST_PX))
        spread, length_px = _spread_and_length(field, counts > 0)
        return level, (spread, length_px * self.spacing_um[-1]), self.image - slow


def _spread_and_length(field: npt.NDArray[np.float64], known: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Standard deviation of a field (Y, X) where it is known, and the length at which its correlation is exp(−d²/4ℓ²),
    read off where it falls to half."""
    centred = np.where(known, field - field[known].mean(), 0)
    variance = float((centred[known] ** 2).mean())
    most = min(field.shape) // 2
    for lag in range(1, most):
        pairs = [(known[lag:], known[:-lag], centred[lag:], centred[:-lag])]
        pairs.append((known[:, lag:], known[:, :-lag], centred[:, lag:], centred[:, :-lag]))
        together = sum(float(np.count_nonzero(a & b)) for a, b, _, _ in pairs)
        product = sum(float((a * b).sum()) for _, _, a, b in pairs)
        if together == 0 or product / together < 0.5 * variance:
            break
    return float(np.sqrt(variance)), float(lag / (2 * np.sqrt(np.log(2)))) if most > 1 else 1.0


def _radius_um(annotations: Sequence[Annotation]) -> float:
    """Of the disc or ball of a middling cell."""
    spacing = annotations[0].spacing_um
    n = len(spacing)
    sizes = [cell.size for one in annotations for cell in one.cells] or [float(np.prod(spacing))]
    return float((np.median(sizes) / (np.pi if n == 2 else 4 / 3 * np.pi)) ** (1 / n))


def glow_lengths(annotations: Sequence[Annotation]) -> tuple[float, ...]:
    """Lengths of stray light that are tried, in µm: by the pixel, and by the cells' radius."""
    pixel, radius = annotations[0].spacing_um[-1], _radius_um(annotations)
    return tuple([k * pixel for k in _PX] + [k * radius for k in _RADII if k * radius > 1.5 * _PX[-1] * pixel])


def fitted_glow(rows: dict[float, npt.NDArray[np.float64]], lengths_um: Sequence[float]) -> Glow:
    """Of the rows for each `glow_axial` the glow that leaves least."""
    found = [_fitted_glow(own, lengths_um, axial) for axial, own in rows.items()]
    return min(found, key=lambda one: one[0])[1]


def _fitted_glow(rows: npt.NDArray[np.float64], lengths_um: Sequence[float], axial: float) -> tuple[float, Glow]:
    """Shares of light and how far each goes, by non-negative least squares without what lies far off; before them the
    mean of what is left, without its sign."""
    if len(rows) < 10 * len(lengths_um):
        return 0.0, Glow()
    kept = rows
    for _ in range(3):
        triangle = np.asarray(np.linalg.qr(kept, mode="r"))
        chosen, shares = _best(triangle)
        rest = rows[:, -1] - rows[:, chosen] @ shares
        centre = np.median(rest)
        kept = rows[np.abs(rest - centre) <= _OUTLIER * 1.4826 * np.median(np.abs(rest - centre)) + 1e-9]
    if shares.sum() > _GARISH:
        return float(np.abs(rows[:, -1]).mean()), Glow()
    found = [(round(float(s), 5), float(lengths_um[n])) for n, s in zip(chosen, shares, strict=True) if s > _FAINT]
    glow = Glow(tuple(s for s, _ in found), tuple(length for _, length in found), axial if found else 1.0)
    return float(np.abs(rest - centre).mean()), glow


def _best(triangle: npt.NDArray[np.float64]) -> tuple[list[int], npt.NDArray[np.float64]]:
    """The few lengths that explain most, and their shares."""
    tried = []
    count = triangle.shape[1] - 1
    for chosen in combinations(range(count), min(_TOGETHER, count)):
        shares, misfit = optimize.nnls(triangle[:, list(chosen)], triangle[:, -1])
        tried.append((float(misfit), list(chosen), shares))
    _, best, shares = min(tried, key=lambda one: one[0])
    return best, shares


def fitted_shade(sums: npt.NDArray[np.float64]) -> Shade:
    """Relative light at evenly spaced depths and heights, of `LitImage.profile_sums` that were added up: the product of
    two profiles, each in turn what the light has beside the other one."""
    light, flat = sums
    by_depth, by_height = np.ones(light.shape[0]), np.ones(light.shape[1])
    for _ in range(_ROUNDS if len(by_height) > 1 else 1):
        by_depth = _ratios(light.sum(1), (flat * by_height).sum(1))
        if len(by_height) > 1:
            by_height = _ratios(light.sum(0), (flat * by_depth[:, None]).sum(0))
            by_height /= by_height[-1] or 1.0
    return Shade(
        *(
            tuple(round(float(value), 4) for value in found) if found.any() else (1.0,)
            for found in (by_depth, by_height)
        )
    )


def _ratios(light: npt.NDArray[np.float64], flat: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of the two, where there is light at all; what was not seen lies between its neighbours."""
    seen, knots = np.abs(flat) > 1e-9, np.arange(len(flat))
    if not seen.any():
        return np.ones(len(flat))
    return np.interp(knots, knots[seen], np.maximum(light[seen] / flat[seen], 0))


def _means(place: npt.NDArray[Any], values: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
    inside = np.flatnonzero(place)
    at = place.ravel()[inside]
    return np.bincount(at, values.ravel()[inside], count) / np.maximum(np.bincount(at, minlength=count), 1)
