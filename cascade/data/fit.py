"""Fitting what generation needs to know of a data set: window, background, noise, halo, depth and population."""

from typing import Any

import numpy as np
import numpy.typing as npt
from skimage import measure

from cascade.data.axial import Census, fit_axial, measure_axial
from cascade.data.camera import fit_camera
from cascade.data.crops import Plane
from cascade.data.crowding import areas_px, clustering_of_stacks
from cascade.data.frames import Annotated
from cascade.data.glow import around, cell_light, fit_glow, fit_haze, least_lit
from cascade.data.region import fit_region, fit_shells, fit_shifts
from cascade.evenly import evenly
from cascade.geometry.masks import one_piece
from cascade.optics.axial import Axial
from cascade.optics.foreground import background_mask
from cascade.optics.glow import Glow
from cascade.optics.halo import Halo
from cascade.optics.statistics import Statistics
from cascade.optics.window import Window
from cascade.population.clustering import fit_clustering, touching_fraction
from cascade.population.room import Room, room_of
from cascade.rng import stream

_MANY = 24  # images looked at for background and noise
_MANY_LEVELS = 120  # images looked at for their level
_MANY_MIDDLES = 200  # cells whose height tells those of all


def fit_statistics(
    source: str,
    licence: str,
    images: list[Annotated],
    planes: list[Plane],
    spacing_um: tuple[float, ...],
    halo: Halo,
    seed: int,
) -> tuple[Statistics, list[Census]]:
    """Everything but the records of single cells; and for stacks what was found in each annotated frame."""
    some = [images[n] for n in evenly(len(images), _MANY)]
    arrays = [image.image() for image in some]
    covers = [image.cover(array.shape) for array, image in zip(arrays, some, strict=True)]
    masks = [background_mask(array, cover, halo.radius_px) for array, cover in zip(arrays, covers, strict=True)]
    areas = np.concatenate([areas_px(plane.labels) for plane in planes])
    diameter_px = float(np.median(2 * np.sqrt(areas / np.pi)))
    shape = tuple(int(n) for n in np.median([array.shape for array in arrays], 0))
    one_layer = len(shape) == 3 and shape[0] * spacing_um[0] < diameter_px * spacing_um[-1]
    axial, glow = None, None
    if len(spacing_um) == 3:
        axial, found = _fit_depth(images, planes, spacing_um, one_layer)
        axial = fit_haze(axial, arrays, masks, covers, spacing_um)
    else:
        found = _count_plane_cells(planes, spacing_um)
        glow = fit_glow(arrays, masks, diameter_px * spacing_um[-1], 2 * diameter_px, spacing_um)
    strays = [_stray(*seen, axial, glow, spacing_um) for seen in zip(arrays, masks, covers, strict=True)]
    quiet = [least_lit(stray, mask) for stray, mask in zip(strays, masks, strict=True)]
    hazy = [cell_light(*seen)[1] for seen in zip(arrays, masks, covers, strict=True)] if axial else None
    background, noise = fit_camera(arrays, quiet, covers, 2 * diameter_px, strays, hazy)
    middles = _middles(found) if one_layer else []
    region = fit_region(found, np.array(shape) * np.array(spacing_um), one_layer)
    shifts, shells = fit_shifts(found, shape, region, spacing_um), fit_shells(found, region, one_layer, seed)
    counts = [seen.num_cells for seen in found]
    if region is None and len({array.shape for array in arrays}) > 1:
        counts = _counts(images, found, shape, one_layer)
    gap_px = 0.1 * diameter_px
    gap_um, draws = gap_px * spacing_um[-1], stream(seed, "clustering")
    if axial is None:
        touching = float(np.mean([touching_fraction(p.labels, spacing_um, gap_um) for p in planes]))
        room = float(np.prod(shape))
        if region:
            room = min(room, np.pi * float(np.prod(region)) / float(np.prod(spacing_um)))
        density = float(np.mean(counts)) / room
        clustering = [fit_clustering(touching, np.sqrt(areas / np.pi), density, gap_px, draws)]
    else:

        def room_in(frame: int) -> Room:
            shift, shell = shifts[frame] if shifts else None, shells[frame] if shells else (0.0, 1.0)
            return room_of(shape, spacing_um, region, middles, shift_um=shift, shell=shell)

        clustering = clustering_of_stacks(images, planes, counts, axial, shape, spacing_um, room_in, gap_um, draws)
    statistics = Statistics(
        source=source,
        licence=licence,
        spacing_um=spacing_um,
        image_shape=shape,
        dtype=str(arrays[0].dtype),
        window=_fit_window(arrays, planes, background.level),
        background=background,
        noise=noise,
        halo=halo,
        axial=axial,
        cells_per_image=counts,
        region_um=region,
        middles_um=middles,
        region_shift_um=shifts,
        region_shell=shells,
        clustering_probability=float(np.mean(clustering)),
        image_clustering=clustering if axial else [],
        image_level=_levels(images, halo.radius_px, axial, glow, spacing_um),
        cut_by_border=region is None,
        glow=glow,
        cell_area_um2=[],
        cell_brightness=[],
        cell_image=[],
    )
    return statistics, found


def _counts(images: list[Annotated], found: list[Census], shape: tuple[int, ...], one_layer: bool) -> list[int]:
    """Cells of each annotated frame, were it as large as the typical one; at least one where there is any."""
    flat = int(one_layer)
    sizes = [np.prod(image.image().shape[flat:]) for image in images for _ in image.frames]
    usual = np.prod(shape[flat:])
    told = [seen.num_cells * float(usual / size) for seen, size in zip(found, sizes, strict=True)]
    return [max(round(number), int(number > 0)) for number in told]


def _stray(
    array: npt.NDArray[Any],
    mask: npt.NDArray[Any],
    cover: npt.NDArray[Any],
    axial: Axial | None,
    glow: Glow | None,
    spacing_um: tuple[float, ...],
) -> npt.NDArray[Any]:
    """Light of an image that is neither background nor in cells, camera units."""
    if axial is not None:
        return axial.stray(cell_light(array, mask, cover)[0], spacing_um)
    if glow is None:
        return np.zeros(array.shape, np.float32)
    return np.float32(glow.share) * around(array, mask, glow.length_um, spacing_um)


def _levels(
    images: list[Annotated], margin_px: int, axial: Axial | None, glow: Glow | None, spacing_um: tuple[float, ...]
) -> list[float]:
    """Background level of the image of each annotated frame, without stray light; of many images, some are measured and
    stand for their neighbours in time."""
    measured = evenly(len(images), _MANY_LEVELS)
    levels = []
    for n in measured:
        array = images[n].image()
        cover = images[n].cover(array.shape)
        mask = background_mask(array, cover, margin_px)
        stray = _stray(array, mask, cover, axial, glow, spacing_um)
        levels.append(float((array - stray)[least_lit(stray, mask)].mean()))
    nearest = [int(np.argmin(np.abs(np.array(measured) - n))) for n in range(len(images))]
    return [round(levels[nearest[n]], 3) for n, image in enumerate(images) for _ in image.frames]


def _fit_depth(
    images: list[Annotated], planes: list[Plane], spacing_um: tuple[float, ...], one_layer: bool
) -> tuple[Axial, list[Census]]:
    """The axial fit, and one Census per annotated frame; where single slices are annotated, planes are frames."""
    frames = [frame for image in images for frame in image.frames]
    if frames[0].z is None:
        fit = measure_axial(((f.image(), one_piece(f.labels())[0]) for f in frames), spacing_um)
    else:
        cut = zip(frames, planes, strict=True)
        fit = fit_axial(
            ((f.image(), _annotated(p), f.z, len(areas_px(p.labels))) for f, p in cut if f.z is not None),
            spacing_um,
            one_layer,
        )
    if fit is not None:
        return fit
    # Too few cells to tell: a sphere, and its chord as the light through it.
    u = np.linspace(0, 2, 21)
    sphere = Axial((1.0, 0.1), u.tolist(), np.sqrt(np.maximum(1 - u * u, 0)).tolist())
    if frames[0].z is None:
        return sphere, [Census(len(np.unique(f.labels())) - 1, np.zeros((0, 3)), {}) for f in frames]
    return sphere, [Census(len(areas_px(p.labels)), np.zeros((0, 3)), {}) for p in planes]


def _annotated(plane: Plane) -> npt.NDArray[Any]:
    """A plane's labels without the cells that nobody annotated."""
    return plane.labels if plane.chosen is None else np.where(np.isin(plane.labels, [*plane.chosen]), plane.labels, 0)


def _count_plane_cells(planes: list[Plane], spacing_um: tuple[float, ...]) -> list[Census]:
    found = []
    for plane in planes:
        regions = measure.regionprops(plane.labels)
        centres = np.array([region.centroid for region in regions]).reshape(-1, 2)
        found.append(Census(len(regions), centres * np.array(spacing_um), {}))
    return found


def _middles(found: list[Census]) -> list[float]:
    """Heights of cells' middles above the first slice, µm; of many, some that stand for all, evenly drawn by height."""
    middles = sorted(middle for seen in found for middle in seen.middles_um)
    return [round(middles[n], 3) for n in evenly(len(middles), _MANY_MIDDLES)]


def _fit_window(images: list[npt.NDArray[Any]], planes: list[Plane], level: float) -> Window:
    """From just below the darkest pixels to just above the brightest cells."""
    low = min(float(np.percentile(image, 0.01)) for image in images)
    light = np.concatenate([plane.signal[plane.labels > 0][::7] for plane in planes])
    high = level + 1.1 * float(np.percentile(light, 99.9))
    return Window(low=round(low - 0.25 * (level - low), 2), high=round(high, 2))
