"""Fitting what generation needs to know of a data set: window, background, noise, halo, depth and population."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage import measure

from cascade import background as bg
from cascade.data.axial import Axial, StackCells, fit_axial, measure_axial
from cascade.data.crops import Halo, Plane, one_piece
from cascade.data.frames import Frame
from cascade.data.statistics import Statistics
from cascade.intensity import Window
from cascade.population import fit_clustering, touching_fraction
from cascade.rng import stream

_MANY = 24  # images looked at for background and noise


@dataclass(frozen=True)
class Annotated:
    """One image of the data set with its annotated frames (several, where several slices are annotated)."""

    path: Path
    frames: list[Frame]

    def image(self) -> np.ndarray:
        return self.frames[0].image()

    def cells(self, shape: tuple[int, ...]) -> np.ndarray:
        """Voxels annotated as cell, bool; slices that nobody annotated are empty."""
        cells = np.zeros(shape, bool)
        for frame in self.frames:
            cells[... if frame.z is None else frame.z] |= frame.labels() > 0
        return cells


def fit_statistics(
    source: str,
    licence: str,
    images: list[Annotated],
    planes: list[Plane],
    spacing_um: tuple[float, ...],
    halo: Halo,
    seed: int,
) -> tuple[Statistics, list[StackCells]]:
    """Everything but the records of single cells; and for stacks what was found in each annotated frame."""
    some = [images[n] for n in np.linspace(0, len(images) - 1, min(_MANY, len(images))).astype(int)]
    arrays = [image.image() for image in some]
    cells = [image.cells(array.shape) for array, image in zip(arrays, some, strict=True)]
    masks = [bg.background_mask(array, cell, halo.radius_px) for array, cell in zip(arrays, cells, strict=True)]
    areas = np.concatenate([_areas(plane.labels) for plane in planes])
    diameter_px = float(np.median(2 * np.sqrt(areas / np.pi)))
    background, noise = bg.fit_camera(arrays, masks, cells, 2 * diameter_px)
    if len(spacing_um) == 3:
        axial, found = _fit_depth(images, planes, spacing_um)
    else:
        axial, found = None, _count_plane_cells(planes, spacing_um)
    shape = tuple(int(n) for n in np.median([array.shape for array in arrays], 0))
    region = _region(found, np.array(shape) * np.array(spacing_um))
    gap_px = 0.1 * diameter_px
    touching = np.mean([touching_fraction(p.labels, spacing_um[-2:], gap_px * spacing_um[-1]) for p in planes])
    plane_px = float(np.prod(shape[-2:]))
    if region:
        plane_px = min(plane_px, np.pi * region[-1] * region[-2] / (spacing_um[-1] * spacing_um[-2]))
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
        cells_per_image=[cells.count for cells in found],
        region_um=region,
        clustering_probability=fit_clustering(
            float(touching),
            np.sqrt(areas / np.pi),
            len(areas) / len(planes) / plane_px,
            gap_px,
            stream(seed, "clustering"),
        ),
        cell_area_um2=[],
        cell_brightness=[],
        cell_image=[],
    )
    return statistics, found


def _fit_depth(images: list[Annotated], planes: list[Plane], spacing_um) -> tuple[Axial, list[StackCells]]:
    """The axial fit, and one StackCells per annotated frame; where single slices are annotated, planes are frames."""
    frames = [frame for image in images for frame in image.frames]
    if frames[0].z is None:
        fit = measure_axial(((f.image(), one_piece(f.labels())[0]) for f in frames), spacing_um)
    else:
        cut = zip(frames, planes, strict=True)
        fit = fit_axial(((f.image(), _annotated(p), f.z, len(_areas(p.labels))) for f, p in cut), spacing_um)
    if fit is not None:
        return fit
    # Too few cells to tell: a sphere, and its chord as the light through it.
    u = np.linspace(0, 2, 21)
    sphere = Axial((1.0, 0.1), u.tolist(), np.sqrt(np.maximum(1 - u * u, 0)).tolist())
    if frames[0].z is None:
        return sphere, [StackCells(len(np.unique(f.labels())) - 1, np.zeros((0, 3)), {}) for f in frames]
    return sphere, [StackCells(len(_areas(p.labels)), np.zeros((0, 3)), {}) for p in planes]


def _annotated(plane: Plane) -> np.ndarray:
    """A plane's labels without the cells that nobody annotated."""
    return plane.labels if plane.chosen is None else np.where(np.isin(plane.labels, [*plane.chosen]), plane.labels, 0)


def _count_plane_cells(planes: list[Plane], spacing_um) -> list[StackCells]:
    cells = []
    for plane in planes:
        regions = measure.regionprops(plane.labels)
        centres = np.array([region.centroid for region in regions]).reshape(-1, 2)
        cells.append(StackCells(len(regions), centres * np.array(spacing_um), {}))
    return cells


def _region(found: list[StackCells], extent_um: np.ndarray) -> tuple[float, ...] | None:
    """Semi-axes of the ellipsoid that cell centres fill, µm, or None where they fill the image.

    A solid ellipsoid has the variance a² / 5 along its semi-axis a in 3D and a² / 4 in 2D, a full box L² / 12.
    """
    spreads = [cells.centres_um.std(0) for cells in found if len(cells.centres_um) >= 8]
    if not spreads:
        return None
    spread = np.median(spreads, 0)
    if (spread[-2:] > 0.8 * extent_um[-2:] / np.sqrt(12)).any():
        return None
    return tuple(float(s) for s in np.sqrt(2 + len(spread)) * spread)


def _fit_window(images: list[np.ndarray], planes: list[Plane], level: float) -> Window:
    """From just below the darkest pixels to just above the brightest cells."""
    low = min(float(np.percentile(image, 0.01)) for image in images)
    cells = np.concatenate([plane.signal[plane.labels > 0][::7] for plane in planes])
    high = level + 1.1 * float(np.percentile(cells, 99.9))
    return Window(low=round(low - 0.25 * (level - low), 2), high=round(high, 2))


def _areas(labels: np.ndarray) -> np.ndarray:
    sizes = np.bincount(labels.ravel())[1:]
    return sizes[sizes > 0]
