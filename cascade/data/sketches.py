"""Sketch settings read off real images, labelled or not: `cascade sketch --like`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.data.calibrate import quantiles
from cascade.data.measures import touching_ids
from cascade.data.seen import Seen, look_at
from cascade.data.sketch_decay import fitted_decay, shared_variance
from cascade.data.sketch_light import AXIAL, LitImage, fitted_glow, fitted_shade, glow_lengths
from cascade.data.sketch_spots import count_quantiles, find_spots
from cascade.data.sketch_walls import (
    are_membranes,
    by_size,
    fitted_walls,
    on_ridges,
    share_quantiles,
    shares_of_walls,
    wall_sums,
    walls_and_insides,
)
from cascade.data.structure import FIND, shown_structure
from cascade.geometry.slices import matched_slices
from cascade.reading import DataError, read_image
from cascade.sketch.membranes import open_cells
from cascade.sketch.scene import depth_in_organism
from cascade.sketch.settings import SketchSettings, Structure

LOOKED_AT = 12
"""Images."""
_TISSUE = 0.9  # share of an image in cells, and of those that touch, from which on they may be known by their membranes

_Load = Callable[[int], npt.NDArray[Any]]


def fit_sketch(
    images: str | Path | Sequence[npt.NDArray[Any]],
    labels: Sequence[npt.NDArray[Any]] | None = None,
    *,
    spacing_um: Sequence[float] = (),
    structure: Structure | None = None,
    truth: str = "gt",
    sequences: Sequence[str] = (),
    channel: str | None = None,
    raw: bool = False,
) -> SketchSettings:
    """The settings at which sketches are as bright as real images: brightness of cells, their rims, nucleoli and what
    they cast around them, background and its field, fall of light along z and inwards; of membranes their thickness.

    images: a folder, see `look_at` for truth, sequences, channel and raw; or arrays (Y, X) or (Z, Y, X). labels: of
    arrays, one for each; default what `detect` finds, of membranes `detect_tissue`. spacing_um: of arrays to be given,
    of a folder default as stored. structure: default membranes where labelled cells fill the image and their borders
    are brighter, and where raw images show them (`shown_structure`). Raises ValueError, one line, where there is
    nothing to be read off: no image, no cell, constant images, images and labels of different sizes, membranes asked
    for that are no brighter than cells."""
    if isinstance(images, (str, Path)):
        if labels is not None:
            raise ValueError("labels go with images as arrays; of a folder they are read from it")
        how: dict[str, Any] = dict(truth=truth, sequences=sequences, channel=channel, spacing_um=spacing_um, raw=raw)
        return fit_seen(look_for(structure, images, **how), structure=structure)
    images = list(images)
    names = [f"image {n}" for n in range(len(images))]
    for name, image in zip(names, images, strict=True):
        if image.ndim not in (2, 3) or image.ndim != images[0].ndim:
            raise ValueError(f"{name} has {image.ndim} axes; all must be (Y, X), or all (Z, Y, X)")
        if not np.isfinite(image).all():
            raise ValueError(f"{name} holds values that are no numbers; leave it out, or mend them")
    if not images:
        raise ValueError("there is no image to fit a sketch to")
    if len(spacing_um) != images[0].ndim:
        raise ValueError(f"spacing_um must be {images[0].ndim} lengths above 0 in µm, got {tuple(spacing_um)}")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"there are {len(images)} images and {len(labels)} labels: give one for each")
    if labels is None:
        structure = structure or shown_structure(images)
        labels = [FIND[structure](image, spacing_um) for image in images]
    return _fitted(lambda n: images[n], labels, names, spacing_um, structure)


def look_for(
    structure: Structure | None,
    folder: str | Path,
    *,
    truth: str = "gt",
    sequences: Sequence[str] = (),
    channel: str | None = None,
    spacing_um: Sequence[float] = (),
    raw: bool = False,
) -> Seen:
    """Some images of a folder, see `look_at`, and their cells: as labelled, else found as their structure needs."""
    return look_at(
        folder,
        truth=truth,
        sequences=sequences,
        channel=channel,
        spacing_um=spacing_um,
        raw=raw,
        most=LOOKED_AT,
        whole=False,
        structure=structure,
    )


def fit_seen(seen: Seen, *, structure: Structure | None = None) -> SketchSettings:
    """The same, of a folder that was looked at. Raises DataError for labels without images."""
    if seen.paths is None:
        raise DataError(f"{seen.folder}: labels without images; sketches are fitted to images, name a folder with some")
    paths = seen.paths
    names = [str(path) for path in paths]
    return _fitted(
        lambda n: read_image(paths[n], seen.channel),
        seen.labels,
        names,
        seen.spacing_um,
        structure or seen.structure,
    )


def _fitted(
    load: _Load,
    labels: Sequence[npt.NDArray[Any]],
    names: Sequence[str],
    spacing_um: Sequence[float],
    structure: Structure | None,
) -> SketchSettings:
    labels = [matched_slices(one) for one in labels]
    cells = sum(int((np.unique(one) > 0).sum()) for one in labels)
    if not cells:
        raise DataError(f"no cell is known in any of {len(labels)} images: give labels, or brighter images")
    dtype = "uint8" if load(0).dtype == np.uint8 else "uint16"

    def lit(number: int) -> LitImage:
        image = load(number)
        if image.shape != labels[number].shape:
            raise DataError(f"{names[number]}: image {image.shape} and labels {labels[number].shape} differ in size")
        if np.ptp(image) == 0:
            raise DataError(f"{names[number]}: all pixels are {image.flat[0]:g}; leave it out")
        return LitImage.of(image, labels[number], spacing_um)

    if structure == "membranes" or (structure is None and _are_full(labels)):
        found = _membranes(lit, len(labels), dtype)
        if structure and found is None:
            raise DataError(f"{names[0]}: borders between cells are no brighter than cells: give structure cells")
        if found is not None:
            return found
    return _cells(lit, len(labels), dtype)


def _are_full(labels: Sequence[npt.NDArray[Any]]) -> bool:
    """Whether cells fill the space that they are in."""
    shares = []
    for one in labels:
        ids = np.unique(one[one > 0])
        shares.append(len(touching_ids(one)) / len(ids) if len(ids) else 0.0)
    return bool(np.mean(shares) > _TISSUE and np.mean([(one > 0).mean() for one in labels]) > 0.5)


def _cells(lit: Callable[[int], LitImage], count: int, dtype: str) -> SketchSettings:
    # What the cells' light looks like, with the background taken to be flat.
    first = lit(0)
    lengths = glow_lengths([first.annotation])
    axials = AXIAL if first.height is not None else AXIAL[:1]
    rows: dict[float, list[npt.NDArray[Any]]] = {axial: [] for axial in axials}
    sums = np.zeros(())
    for n in range(count):
        one = first if n == 0 else lit(n)
        above = one.image - one.level
        own = one.profile_sums(above)
        sums = sums + own
        for axial, found in rows.items():
            found.append(one.glow_rows(fitted_shade(own), lengths, n, axial))
    shade = fitted_shade(sums)
    glow = fitted_glow({axial: np.concatenate(found) for axial, found in rows.items()}, lengths)

    # Each cell's light on the background that is left, and where it falls.
    levels, spreads, contrasts, depths, inwards, owner = [], [], [], [], [], []
    counts: list[int] = []
    radii: list[float] = []
    left: list[float] = []
    sums = np.zeros(())
    for n in range(count):
        one = lit(n)
        level, spread, above = one.with_background(glow, shade)
        levels.append(level)
        spreads.append(spread)
        spots = find_spots(one, above, shade)
        counts += spots.counts
        radii += spots.radii
        left += spots.light
        sums = sums + one.profile_sums(above, spots.mask)
        own = one.contrasts(above)
        contrasts.append(own)
        owner += [n] * len(own)
        z, r = _depths(one)
        depths.append(z)
        inwards.append(r)
    light = np.concatenate(contrasts)
    image = np.array(owner)
    axial, radial = _decay(contrasts, depths, inwards, first.image.ndim)
    light = light / _factor(np.concatenate(depths), np.concatenate(inwards), axial, radial)
    return SketchSettings(
        structure="cells",
        brightness=quantiles(light),
        brightness_shared=shared_variance(light, image),
        background=quantiles(np.array(levels)),
        field_sd=float(np.median([spread for spread, _ in spreads])),
        field_um=float(np.median([length for _, length in spreads])) or 50.0,
        **vars(fitted_shade(sums)),
        **vars(glow),
        nucleoli=count_quantiles(counts),
        nucleolus_radius=_bounded(radii, 0.02, 0.5) or (0.1, 0.2),
        nucleolus_light=_bounded(left, 0.0, 1.0) or (0.3,),
        axial_decay=axial,
        radial_decay=radial,
        dtype=dtype,  # type: ignore[arg-type]
    )


def _membranes(lit: Callable[[int], LitImage], count: int, dtype: str) -> SketchSettings | None:
    first = on_ridges(lit(0))
    sums = sum(wall_sums(first if n == 0 else on_ridges(lit(n))) for n in range(count))
    shape = fitted_walls(np.asarray(sums), min(first.spacing_um))
    walls, insides, levels, depths, inwards, owner = [], [], [], [], [], []
    singles, opened, sizes = [], [], []
    for n in range(count):
        one = first if n == 0 else on_ridges(lit(n))
        wall, inside = walls_and_insides(one, shape)
        walls.append(wall)
        insides.append(inside)
        singles.append(shares_of_walls(one, shape, wall, inside))
        opened.append(open_cells(one.place, one.spacing_um, shape))
        sizes.append(np.bincount(one.place.ravel(), minlength=len(wall) + 1)[1:])
        levels.append(one.level)
        owner += [n] * len(wall)
        z, r = _depths(one)
        depths.append(z)
        inwards.append(r)
    if not are_membranes(list(zip(walls, insides, strict=True))):
        return None
    axial, radial = _decay(walls, depths, inwards, first.image.ndim)
    light = np.concatenate(walls)
    within = np.concatenate(insides)
    seen = np.concatenate(opened)
    seen = (seen if seen.any() else np.ones_like(seen)) & (light > 1e-6)
    shares = within[seen] / light[seen]
    size = np.concatenate(sizes)
    flat = light / _factor(np.concatenate(depths), np.concatenate(inwards), axial, radial)
    return replace(
        shape,
        brightness=quantiles(by_size(flat[seen], size[seen]) if seen.any() else flat),
        brightness_shared=shared_variance(flat, np.array(owner)),
        background=quantiles(np.array(levels)),
        interior=_bounded(by_size(shares, size[seen]), 0.0, 2.0) or (0.0,),
        wall_light=share_quantiles(singles),
        axial_decay=axial,
        radial_decay=radial,
        dtype=dtype,  # type: ignore[arg-type]
    )


def _depths(lit: LitImage) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Of each cell its depth along z in µm, and how deep it lies in the organism, 0 to 1."""
    middles = np.array([cell.centroid_um for cell in lit.annotation.cells]).reshape(-1, lit.image.ndim)
    voxels = np.clip(np.rint(middles / lit.spacing_um).astype(int), 0, np.array(lit.image.shape) - 1)
    return middles[:, 0], depth_in_organism(lit.annotation)[tuple(voxels.T)].astype(float)


def _decay(
    contrasts: Sequence[npt.NDArray[Any]],
    depths: Sequence[npt.NDArray[Any]],
    inwards: Sequence[npt.NDArray[Any]],
    ndim: int,
) -> tuple[float, float]:
    """See `fitted_decay`; each image's cells in units of its median one."""
    scale = [max(abs(float(np.median(own))), 1e-6) if len(own) else 1.0 for own in contrasts]
    relative = np.concatenate([own / s for own, s in zip(contrasts, scale, strict=True)])
    return fitted_decay(np.abs(relative), np.concatenate(depths) if ndim == 3 else None, np.concatenate(inwards))


def _factor(z: npt.NDArray[Any], r: npt.NDArray[Any], axial: float, radial: float) -> npt.NDArray[np.float64]:
    return np.asarray(np.maximum(1 - axial * z, 0.05) * np.maximum(1 - radial * r, 0.05))


def _bounded(values: Sequence[float] | npt.NDArray[Any], low: float, high: float) -> tuple[float, ...]:
    return quantiles(np.clip(values, low, high)) if len(values) else ()
