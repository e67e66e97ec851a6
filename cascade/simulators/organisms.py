"""Shapes of whole organisms on a canvas: domes of harmonics, samples of a shape model, masks that are given."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from cascade.geometry.grid import SignedDistance
from cascade.reading import read_image
from cascade.shapes.harmonics import ShapeLaw, draw_shapes
from cascade.shapes.rays import rays, star_solid
from cascade.shapes.statistical import ShapeModel

_POINTS = 48  # at most so many along an axis are looked at; in between a distance is linear


def harmonic_dome(
    rng: np.random.Generator,
    canvas_size: tuple[int, ...],
    spacing_um: tuple[float, ...],
    *,
    dome: tuple[float, ...],
    roughness: float,
) -> npt.NDArray[Any]:
    """A random dome on the last plane of the canvas (Z, Y, X), bool: the upper half of a harmonic solid.

    dome: its height, and half its width along y and x, in sides of the canvas. roughness: standard deviation of the
    logarithm of its radius, roughly; 0 makes half an ellipsoid.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    law = ShapeLaw(roughness=2 * roughness, anisotropy=roughness)
    directions = torch.from_numpy(rays()[0]).float()
    solid = star_solid(draw_shapes(1, law, generator).radius(directions)[0].numpy())
    extent = _extent(canvas_size, spacing_um)
    foot = np.array([extent[0], *(0.5 * extent[1:])])

    scale = np.array(dome) * np.maximum(extent, spacing_um)
    return rasterised(lambda points: solid((points - foot) / scale), canvas_size, spacing_um)


def sampled_organism(
    rng: np.random.Generator, model: ShapeModel, canvas_size: tuple[int, ...], spacing_um: tuple[float, ...]
) -> npt.NDArray[Any]:
    """A new shape of a model of organisms (cGAN paper, Eq. 4) in the middle of the canvas (Z, Y, X), bool.

    What is larger than the canvas is cut by it.
    """
    radii = model.radii(model.draw(rng, 1)[0])
    surface = radii[:, None] * rays()[0]
    middle = 0.5 * (surface.min(0) + surface.max(0))
    offset = middle - 0.5 * _extent(canvas_size, spacing_um)
    solid = star_solid(radii)
    return rasterised(lambda points: solid(points + offset), canvas_size, spacing_um)


def rasterised(sdf: SignedDistance, canvas_size: tuple[int, ...], spacing_um: tuple[float, ...]) -> npt.NDArray[Any]:
    """A large smooth solid on a canvas (Z, Y, X) whose first voxel's centre is the origin, bool.

    Its signed distance is evaluated at no more than 48 places along each axis and interpolated linearly, which is off
    by less than a thousandth of its radius of curvature.
    """
    counts = tuple(min(n, _POINTS) for n in canvas_size)
    axes = [np.linspace(0, side, n) for side, n in zip(_extent(canvas_size, spacing_um), counts, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    distance = torch.from_numpy(np.asarray(sdf(points), np.float32).reshape(1, 1, *counts))
    if counts != tuple(canvas_size):
        distance = F.interpolate(distance, canvas_size, mode="trilinear", align_corners=True)
    return (distance[0, 0] < 0).numpy()


def read_foreground(path: Path, canvas_size: tuple[int, ...]) -> npt.NDArray[Any]:
    """A mask, or labels, from a file: what is not 0. Raises ValueError unless it is as large as the canvas, and
    something is in it."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such mask; give a TIFF or PNG that is not 0 inside the organism")
    mask = read_image(path) > 0
    check_foreground(mask, canvas_size, str(path))
    return mask


def check_foreground(mask: npt.NDArray[Any], canvas_size: tuple[int, ...], name: str = "foreground") -> None:
    """Raises ValueError unless a mask is as large as the canvas, and something is in it."""
    if mask.shape != tuple(canvas_size):
        size = " ".join(map(str, mask.shape))
        raise ValueError(
            f"{name}: the mask has {size} voxels, the canvas {' '.join(map(str, canvas_size))}: set `canvas_size` to "
            f"{size}"
        )
    if not mask.any():
        raise ValueError(f"{name}: the mask is empty; it must not be 0 inside the organism")


def _extent(canvas_size: tuple[int, ...], spacing_um: tuple[float, ...]) -> npt.NDArray[Any]:
    """Between the first and the last voxel's centre, µm."""
    return (np.array(canvas_size) - 1) * np.array(spacing_um)
