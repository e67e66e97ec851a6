"""Statistics of 3D cells, the same for labels drawn by people and for generated solids."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, stats
from skimage import measure


@dataclass(frozen=True)
class SolidStatistics:
    """One value per cell; lengths in µm.

    volume: µm³. sphericity: surface of the ball of equal volume over the own surface, 1 for a ball. elongation: longest
    over shortest principal axis of the ellipsoid of equal moments. height_ratio: extent along z over the diameter of
    the disc with the area of the largest slice. roughness: spread of the surface's distance from that ellipsoid,
    relative to its mean radius.
    """

    volume: npt.NDArray[Any]
    sphericity: npt.NDArray[Any]
    elongation: npt.NDArray[Any]
    height_ratio: npt.NDArray[Any]
    roughness: npt.NDArray[Any]

    def as_dict(self) -> dict[str, npt.NDArray[Any]]:
        """By name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def solid_statistics(masks: list[npt.NDArray[Any]], spacing_um: tuple[float, float, float]) -> SolidStatistics:
    """Of binary volumes (Z, Y, X), one cell each, at one spacing; a cell below 20 voxels is left out."""
    rows = [_measure(np.pad(mask, 2), np.array(spacing_um)) for mask in masks if mask.sum() >= 20]
    columns = np.array(rows).reshape(-1, 5).T
    return SolidStatistics(*columns)


def distances(a: SolidStatistics, b: SolidStatistics) -> dict[str, float]:
    """Wasserstein distance of every statistic, in units of the spread of `b` (the real cells)."""
    return {
        name: float(stats.wasserstein_distance(values, b.as_dict()[name]) / b.as_dict()[name].std())
        for name, values in a.as_dict().items()
    }


def cells_of(labels: npt.NDArray[Any], whole: bool = True) -> list[npt.NDArray[Any]]:
    """The binary volumes of all labels of a stack; `whole` leaves out those that touch its faces."""
    masks = []
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        cut = any(b.start == 0 or b.stop == n for b, n in zip(box, labels.shape, strict=True))
        if not (whole and cut):
            masks.append(labels[box] == label)
    return masks


def _measure(mask: npt.NDArray[Any], spacing: npt.NDArray[Any]) -> tuple[float, ...]:
    volume = float(mask.sum() * spacing.prod())
    # Voxels are staircases: a slight blur of the same physical width for every mask gives comparable surfaces.
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 0.8 / spacing * spacing.min())
    level = min(0.5, float(soft.max()) / 2)  # the blur leaves less than 0.5 of a thread
    vertices, faces, _, _ = measure.marching_cubes(soft, level, spacing=tuple(spacing))
    surface = float(measure.mesh_surface_area(vertices, faces))
    places = np.argwhere(mask) * spacing
    centre = places.mean(0)
    moments, axes = np.linalg.eigh(np.cov((places - centre).T) + np.diag(spacing**2 / 12))
    semi = np.sqrt(5 * moments)  # of the solid ellipsoid with these moments
    local = (vertices - centre) @ axes
    relative = np.linalg.norm(local / semi, axis=1)  # 1 on the ellipsoid
    slices = mask.sum((1, 2))
    diameter = 2 * np.sqrt(slices.max() * spacing[1] * spacing[2] / np.pi)
    return (
        volume,
        np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface,
        semi[-1] / semi[0],
        float((slices > 0).sum() * spacing[0] / diameter),
        float(relative.std()),
    )
