"""What is drawn for the cells of an annotation before it is painted: how bright each is, and how its light lies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.annotation import Annotation, CellRecord
from cascade.draws import at_rank, draw, tied
from cascade.rng import stream
from cascade.shapes.membranes import membranes
from cascade.sketch.membranes import membrane_light, single_walls
from cascade.sketch.rules import (
    Spot,
    axial_decay,
    dark_spots,
    numbered,
    organism,
    organism_depth,
    ranks,
    relative_depth,
    relative_height,
    rim,
    slow_field,
    stray_light,
)
from cascade.sketch.settings import SketchSettings
from cascade.sketch.spots import draws_spots, nucleoli_of

_CLOSED = 1.0  # diameters of a cell that an organism nobody outlined goes on between cells


@dataclass(frozen=True, eq=False)
class Scene:
    """An annotation with all that is drawn.

    place: its cells, called 1, 2, …; contrast (N,): their light above the background; nucleoli: as records want them;
    spots: the same with what is left of the light; interior (N,): see the settings; decay: factor by depth in organism
    and along z; depth: relative, in cells, and height, along z; level: of the background. Where there is nothing of it,
    None.
    """

    annotation: Annotation
    place: npt.NDArray[np.int32]
    contrast: npt.NDArray[Any]
    nucleoli: Sequence[Sequence[Spot] | None]
    spots: Sequence[tuple[int, Spot, float]]
    interior: npt.NDArray[Any]
    decay: npt.NDArray[np.float32] | None
    depth: npt.NDArray[np.float32] | None
    height: npt.NDArray[np.float32] | None
    level: float
    settings: SketchSettings
    seed: int

    @classmethod
    def of(cls, annotation: Annotation, settings: SketchSettings, seed: int) -> "Scene":
        ids = np.array([cell.label for cell in annotation.cells], int)
        place = numbered(annotation.labels, ids)
        rank = ranks(stream(seed, "sketch cells"), ids, 2)
        decay = _decay(annotation, settings)
        contrast = at_rank(settings.brightness, _shared(rank[:, 0], settings.brightness_shared, seed))
        if decay is not None:
            contrast = contrast * decay[tuple(_middles(annotation).T)]
        contrast = _given(annotation.cells, contrast, float(np.median(settings.background)))
        depth = None
        if settings.structure == "cells" and (_is_shaded(settings) or draws_spots(annotation, settings)):
            depth = relative_depth(place, annotation.spacing_um)
        nucleoli = nucleoli_of(annotation, place, depth, settings, seed)
        left = at_rank(settings.nucleolus_light, ranks(stream(seed, "sketch nucleoli"), ids, 1)[:, 0])
        spots = [(n + 1, spot, float(left[n])) for n, own in enumerate(nucleoli) for spot in own or ()]
        interior = at_rank(settings.interior, rank[:, 1])
        level = float(draw(stream(seed, "sketch background"), settings.background, 1)[0])
        height = _height(place, settings) if settings.structure == "cells" else None
        return cls(annotation, place, contrast, nucleoli, spots, interior, decay, depth, height, level, settings, seed)

    @classmethod
    def given(
        cls, annotation: Annotation, place: npt.NDArray[np.int32], contrast: npt.NDArray[Any], settings: SketchSettings
    ) -> "Scene":
        """Cells of known contrasts, nothing drawn."""
        depth = relative_depth(place, annotation.spacing_um) if _is_shaded(settings) else None
        height = _height(place, settings)
        return cls(annotation, place, contrast, (), (), np.zeros(0), None, depth, height, 0.0, settings, 0)

    def background(self) -> npt.NDArray[np.float32]:
        """Level and slow field, like the labels."""
        labels, settings = self.annotation.labels, self.settings
        found = np.full(labels.shape, self.level, np.float32)
        if settings.field_sd > 0:
            spacing = self.annotation.spacing_um
            found += np.float32(settings.field_sd) * slow_field(labels.shape, spacing, settings.field_um, self.seed)
        return found

    def light(self, *, whole: bool = False) -> npt.NDArray[np.float32]:
        """Of cells or membranes, above the background. whole: contrasts are means of whole cells, not of their middle
        planes."""
        if not len(self.contrast):
            return np.zeros(self.place.shape, np.float32)
        spacing, settings = self.annotation.spacing_um, self.settings
        if settings.structure == "membranes":
            wall = membranes(self.place, spacing, settings.thickness_um)
            scaled = self.contrast if self.decay is None else self.contrast / self._decay_of_cells()
            ids = np.array([cell.label for cell in self.annotation.cells])
            inside = scaled * self.interior
            single = single_walls(self.place, ids, spacing, settings, scaled, inside, self.seed)
            return membrane_light(self.place, wall, spacing, settings, scaled, inside, self.decay, single)
        relative = self._relative()
        light = self._scaled(relative, whole=whole)
        if not any(settings.glow):
            return light
        stray = stray_light(light, spacing, settings.glow, settings.glow_um, settings.glow_axial)
        inside = np.flatnonzero(self.place)
        place, own = self.place.ravel()[inside], light.ravel()[inside]
        sign = np.float32(-1 if np.median(self.contrast) < 0 else 1)
        flat = np.append(0, self.contrast).astype(np.float32)
        others = sign * (stray.ravel()[inside] - np.float32(sum(settings.glow)) * np.take(flat, place))  # at least
        lifted = others > sign * own
        if lifted.any():  # dim cells beside bright ones have no dark rim
            light.ravel()[inside] = np.where(lifted, sign * others, own)
            light = self._scaled(light, whole=whole)
        stray.ravel()[inside] = light.ravel()[inside]
        return stray

    def _scaled(self, light: npt.NDArray[np.float32] | None, *, whole: bool) -> npt.NDArray[np.float32]:
        """Light whose mean over each cell's middle plane, or the whole of it, is the cell's contrast; None is flat."""
        wanted = np.append(0, self.contrast)
        if light is None:
            return np.take(wanted.astype(np.float32), self.place)
        inside = np.flatnonzero(self.place)
        place, own = self.place.ravel()[inside], light.ravel()[inside]
        means = _means(place, own, len(wanted))
        if self.place.ndim == 3 and not whole:
            middle = np.append(-1, _middles(self.annotation)[:, 0])
            central = np.take(middle, place) == inside // self.place[0].size
            central_means = _means(place[central], own[central], len(wanted))
            means = np.where(central_means != 0, central_means, means)
        scale = np.divide(wanted, means, out=np.zeros_like(wanted), where=means != 0).astype(np.float32)
        found = np.zeros_like(light)
        found.ravel()[inside] = np.take(scale, place) * own
        return found

    def _relative(self) -> npt.NDArray[np.float32] | None:
        """Light within each cell, of any mean; None where it is flat."""
        if not _is_shaded(self.settings) and not self.spots and self.decay is None and self.height is None:
            return None
        if self.depth is not None and _is_shaded(self.settings):
            found = rim(self.depth, self.settings.profile)
        else:
            found = np.ones(self.place.shape, np.float32)
        if self.height is not None:
            found *= rim(self.height, self.settings.axial_profile)
        if self.decay is not None:
            found *= self.decay
        dark_spots(found, self.place, self.annotation.spacing_um, self.spots)
        return found

    def _decay_of_cells(self) -> npt.NDArray[Any]:
        assert self.decay is not None
        return np.maximum(self.decay[tuple(_middles(self.annotation).T)], 1e-6)


def _means(place: npt.NDArray[Any], values: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
    """Means over cells, (count,), of a list of voxels; 0 of cells without one."""
    return np.bincount(place, values, count) / np.maximum(np.bincount(place, minlength=count), 1)


def _middles(annotation: Annotation) -> npt.NDArray[np.intp]:
    """Voxels of the centroids, (N, n)."""
    at = np.array([cell.centroid_um for cell in annotation.cells]).reshape(-1, annotation.ndim)
    return np.clip(np.rint(at / annotation.spacing_um), 0, np.array(annotation.labels.shape) - 1).astype(np.intp)


def _given(cells: Sequence[CellRecord], contrast: npt.NDArray[Any], reference: float) -> npt.NDArray[np.float64]:
    """Contrasts, those of the records where there are some."""
    given = np.array([np.nan if cell.brightness is None else cell.brightness for cell in cells], float)
    known = np.array([cell.brightness is not None for cell in cells], bool)
    odd = [cell.label for cell, one in zip(cells, known & ~np.isfinite(given), strict=True) if one]
    if odd:
        raise ValueError(f"cell {odd[0]} asks for a brightness that is no number: leave it out, or give a finite one")
    return np.where(known, given - reference, contrast)


def _shared(rank: npt.NDArray[Any], share: float, seed: int) -> npt.NDArray[Any]:
    """Ranks of which a share of the variance, as normal scores, is the whole image's."""
    return tied(rank, shared=share, image=float(stream(seed, "sketch image").standard_normal()) if share else 0.0)


def _decay(annotation: Annotation, settings: SketchSettings) -> npt.NDArray[np.float32] | None:
    """Factor on the light of each voxel by its depth along z and in the organism; None where there is none."""
    shape, spacing = annotation.labels.shape, annotation.spacing_um
    found = None
    if settings.radial_decay:
        found = 1 - np.float32(settings.radial_decay) * depth_in_organism(annotation)
    if settings.axial_decay and annotation.ndim == 3:
        along = axial_decay(np.arange(shape[0]) * spacing[0], settings.axial_decay).astype(np.float32)
        found = np.broadcast_to(along[:, None, None], shape) if found is None else found * along[:, None, None]
    return found


def depth_in_organism(annotation: Annotation) -> npt.NDArray[np.float32]:
    """How deep voxels lie in the organism, 0 to 1: the annotation's foreground, else what its cells fill."""
    return organism_depth(foreground_of(annotation), annotation.spacing_um)


def foreground_of(annotation: Annotation) -> npt.NDArray[np.bool_]:
    """The organism, like the labels: the annotation's own foreground, else what its cells fill, gaps of less than a
    cell among it."""
    if annotation.foreground is not None:
        return annotation.foreground.astype(bool)
    sizes = [cell.size for cell in annotation.cells] or [1.0]
    across = (
        2
        * float(np.median(sizes)) ** (1 / annotation.ndim)
        / (np.pi if annotation.ndim == 2 else 4.19) ** (1 / annotation.ndim)
    )
    return organism(annotation.labels, annotation.spacing_um, _CLOSED * across)


def _height(place: npt.NDArray[np.int32], settings: SketchSettings) -> npt.NDArray[np.float32] | None:
    return relative_height(place) if place.ndim == 3 and len(set(settings.axial_profile)) > 1 else None


def _is_shaded(settings: SketchSettings) -> bool:
    return len(set(settings.profile)) > 1
