"""Radii of star-convex solids, tabulated over all directions, so that harmonics are not evaluated point by point."""

import math

import torch
from torch.nn import functional as F

from cascade.shapes.harmonics import HarmonicShapes, harmonics

_ROWS, _COLUMNS = 96, 192  # steps of the polar and the azimuthal angle


def radius_table(shapes: HarmonicShapes) -> torch.Tensor:
    """Radii (B, 1, rows + 1, columns + 1) over the polar angle, 0 to π, and the azimuth, 0 to 2π, ends included."""
    device = shapes.form.device
    theta = torch.arange(_ROWS + 1, device=device) * (math.pi / _ROWS)
    phi = torch.arange(_COLUMNS + 1, device=device) * (2 * math.pi / _COLUMNS)
    theta, phi = torch.meshgrid(theta, phi, indexing="ij")
    directions = torch.stack([theta.cos(), theta.sin() * phi.sin(), theta.sin() * phi.cos()], -1).view(-1, 3)
    basis = harmonics(directions, shapes.degree).to(device)
    return shapes.radius(directions, basis).view(-1, 1, _ROWS + 1, _COLUMNS + 1)


def beyond_surface(table: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """|p| − r(p/|p|), (B, …), at points (…, 3) that all shapes share, or (B, …, 3): negative inside, linear in between
    the table's directions."""
    batch = len(table)
    points = points if points.ndim > 2 else points.expand(batch, -1, -1)
    distance = points.norm(dim=-1).clamp(min=1e-9)
    theta = torch.acos((points[..., 0] / distance).clamp(-1, 1))
    phi = torch.atan2(points[..., 1], points[..., 2]) % (2 * math.pi)
    grid = torch.stack([phi / math.pi - 1, 2 * theta / math.pi - 1], -1).view(batch, 1, -1, 2)
    radius = F.grid_sample(table, grid, padding_mode="border", align_corners=True)
    return distance - radius.view(distance.shape)
