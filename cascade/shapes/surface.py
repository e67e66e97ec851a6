"""Depth and normals of star-convex solids, rendered orthographically: a batch of shapes in all cameras at once."""

import math

import torch
from torch.nn import functional as F

from cascade.geometry.cameras import Cameras, pixel_centres
from cascade.shapes.harmonics import HarmonicShapes
from cascade.shapes.table import beyond_surface, radius_table


def render_surface(
    shapes: HarmonicShapes, cameras: Cameras, size: int, *, samples: int = 64, refinements: int = 8
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each camera sees of each solid's surface.

    Returns depth (B, N, size, size), along the viewing direction in half-widths of the frame, +inf beside the solid;
    and normals (B, N, size, size, 3), unit vectors in the camera's own axes (depth, v, u) that point outwards, so
    their first entry is ≤ 0 where the surface faces the camera; 0 beside the solid.

    Radii are tabulated once for each shape. A ray's first point inside is found on `samples` steps, and the surface
    between it and its predecessor by bisection.
    """
    table = radius_table(shapes)
    plane = pixel_centres(size, table.device).view(-1, 2)
    depth = torch.linspace(-1, 1, samples, device=table.device)
    grid = plane[:, None].expand(-1, samples, -1)
    points = cameras.world(depth.expand(len(plane), -1), grid)  # (N, P, S, 3)
    inside = beyond_surface(table, points.flatten(0, 2)).view(len(shapes), len(cameras), -1, samples) < 0
    hit, first = inside.any(-1), inside.float().argmax(-1)
    far = depth[first]
    near = depth[(first - 1).clamp(min=0)]
    for _ in range(refinements):
        middle = 0.5 * (near + far)
        within = beyond_surface(table, _on_rays(cameras, plane, middle)) < 0
        far, near = torch.where(within, middle, far), torch.where(within, near, middle)
    surface = 0.5 * (near + far)
    step = 2e-2
    local = _on_rays(cameras, plane, surface)
    slopes = [
        beyond_surface(table, local + step * axis) - beyond_surface(table, local - step * axis)
        for axis in cameras.axes.to(local).transpose(0, 1)[:, None, :, None]  # depth, v, u: (1, N, 1, 3) each
    ]
    normals = F.normalize(torch.stack(slopes, -1), dim=-1) * hit[..., None]
    shape = (len(shapes), len(cameras), size, size)
    return torch.where(hit, surface, math.inf).view(shape), normals.view(*shape, 3)


def _on_rays(cameras: Cameras, plane: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """Points (B, N, P, 3) at depths (B, N, P) of the rays through `plane` (P, 2)."""
    axes = cameras.axes.to(depth)
    across = torch.einsum("pk,nkj->npj", plane, axes[:, 1:])
    return across + depth[..., None] * axes[:, None, 0]
