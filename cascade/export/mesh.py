"""Surfaces of solids as mesh files, in micrometres."""

from pathlib import Path

import numpy as np
import trimesh
from skimage import measure

from cascade.annotation import Sample
from cascade.geometry.grid import Grid, SignedDistance, to_xyz


def solid_mesh(sdf: SignedDistance, extent_um: tuple[float, float, float], step_um: float) -> trimesh.Trimesh:
    """The zero level of a signed distance, by marching cubes on a grid of `step_um` over ±extent/2; (x, y, z) µm.

    Watertight if the solid lies within the extent. Raises ValueError if there is no surface in it.
    """
    grid = Grid.covering(extent_um, (step_um,) * 3)
    values = np.pad(np.asarray(sdf(grid.points_um())).reshape(grid.shape), 1, constant_values=step_um)
    if not (values < 0).any():
        raise ValueError(f"there is no surface within ±{np.array(extent_um) / 2} µm")
    # A node on the surface would make several vertices of one place, and they would be merged into a torn mesh.
    values[np.abs(values) < 1e-3 * step_um] = 1e-3 * step_um
    # Distances grow outwards ("ascent"); skimage orients faces for (z, y, x), and so they look outwards in (x, y, z).
    vertices, faces, _, _ = measure.marching_cubes(values, 0.0, spacing=grid.spacing_um, gradient_direction="ascent")
    vertices += np.array(grid.origin_um) - step_um  # the padding's voxel
    return trimesh.Trimesh(to_xyz(vertices), faces)


def write_meshes(sample: Sample, folder: Path, format: str = "glb") -> int:
    """Write every cell of a 3D sample where it lies in the image, `cell_0001.glb` for label 1; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for cell in sample.cells:
        if cell.solid is None or cell.origin_um is None:
            continue
        radius = np.cbrt(cell.size)
        wide = 4 * radius
        if cell.outline is not None and cell.outline_pixel_um is not None:
            places = np.argwhere(cell.outline)
            wide = max(wide, 2.2 * cell.outline_pixel_um * float(np.abs(places - places.mean(0)).max()))
        mesh = solid_mesh(cell.solid, (6 * radius, wide, wide), radius / 16)
        mesh.apply_translation(to_xyz(np.array(cell.origin_um)))
        mesh.export(folder / f"cell_{cell.label:04d}.{format}")
        written += 1
    return written
