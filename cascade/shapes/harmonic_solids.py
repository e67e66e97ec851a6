"""Random harmonic solids as signed-distance callables, without views or a fit."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cascade.geometry.cameras import along_z
from cascade.geometry.grid import SignedDistance
from cascade.shapes.harmonics import ShapeLaw, SilhouetteRenderer, draw_shapes, sphere
from cascade.shapes.table import beyond_surface, radius_table


def harmonic_solids(
    area_um2: npt.NDArray[Any], elongation: npt.NDArray[Any], generator: torch.Generator, law: ShapeLaw | None = None
) -> tuple[list[SignedDistance], npt.NDArray[Any]]:
    """Random solids as signed-distance callables in µm, and bounds on their heights in µm.

    Their silhouettes along z have the areas `area_um2` (B,); they are stretched along z by `elongation` (B,). What the
    cascade is compared with ("w/o SyncDreamer + NeuS", cascaded diffusion paper, Table 1c).
    """
    law = law or ShapeLaw()
    shapes = draw_shapes(len(area_um2), law, generator)
    rims = SilhouetteRenderer(along_z(), law.degree, 2).rims(shapes)[:, 0]
    radius = np.sqrt(area_um2 / np.pi) / rims.square().mean(1).sqrt().numpy()
    largest = shapes.radius(sphere(512)).amax(1).numpy() * 1.05  # between the directions looked at
    table = radius_table(shapes)

    def solid(n: int) -> SignedDistance:
        scale = np.array([elongation[n], 1, 1]) * radius[n]

        def sdf(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return radius[n] * beyond_surface(table[n : n + 1], torch.from_numpy(points / scale).float())[0].numpy()

        return sdf

    return [solid(n) for n in range(len(shapes))], 2 * elongation * radius * largest
