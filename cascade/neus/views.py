"""What silhouettes say of a solid, and how well a solid fits them."""

from collections.abc import Callable, Iterator

import torch
from torch.nn import functional as F

from cascade.geometry.cameras import Cameras, pixel_centres
from cascade.neus.render import ray_points

_OUTSIDE = 0.04  # half-widths of the frame, a node of `carving`: what a view cuts away by less is a sliver
_DISPUTED = 2  # views, the one and another, that may cut away what belongs to the solid in the eyes of all others
_NEAR = 0.5  # distances, in units of the truncation, at which outlines are looked at
_BLUR_PX = 3  # reach of a Gaussian of 1 px
_RAYS = 16  # a side, on which views are compared with a solid: enough to tell one that fits from one that does not


@torch.no_grad()
def visual_hull(
    views: torch.Tensor, cameras: Cameras, nodes: int, truncation: float, trust: torch.Tensor | None = None
) -> torch.Tensor:
    """The intersection of the back-projected silhouettes as a signed distance bound, (B, G, G, G).

    trust: (B, N); views with less than ½ are left out.
    """
    hull = torch.full((len(views), nodes**3), -1.0, device=views.device)
    for n, seen in enumerate(back_project(views, cameras, nodes)):
        hull = torch.maximum(hull, seen if trust is None else torch.where(trust[:, n, None] < 0.5, -1.0, seen))
    return (hull * truncation).view(-1, nodes, nodes, nodes)


@torch.no_grad()
def carving(views: torch.Tensor, cameras: Cameras, truncation: float, nodes: int = 25) -> torch.Tensor:
    """How much of the solid each view cuts away that at most one other view disputes, (B, N), relative to the hull.

    Views of one solid only shave off slivers that thin; a view that does not belong cuts away more.
    """
    seen = torch.stack(list(back_project(views, cameras, nodes)), 1) * truncation  # (B, N, P)
    outside = seen > _OUTSIDE
    alone = (seen > 0).sum(1, keepdim=True) <= _DISPUTED
    solid = ((seen > 0).sum(1) <= _DISPUTED).sum(1, keepdim=True)
    return (outside & alone).sum(2) / solid.clamp(min=1)


@torch.no_grad()
def jaggedness(views: torch.Tensor, truncation: float) -> torch.Tensor:
    """How far outlines wander from pixel to pixel, in pixels, (B,): the mean change near them under a blur of 1 px."""
    offset = torch.arange(-_BLUR_PX, _BLUR_PX + 1, device=views.device, dtype=views.dtype)
    kernel = torch.softmax(-0.5 * offset**2, 0)
    flat = F.pad(views.flatten(0, 1)[:, None], (_BLUR_PX,) * 4, mode="replicate")
    blurred = F.conv2d(F.conv2d(flat, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1)).view(views.shape)
    near = views.abs() < _NEAR
    change = ((views - blurred).abs() * near).sum((1, 2, 3)) / near.sum((1, 2, 3)).clamp(min=1)
    return change * truncation * views.shape[-1] / 2


def back_project(views: torch.Tensor, cameras: Cameras, nodes: int) -> Iterator[torch.Tensor]:
    """Each view's distance at the nodes of the frame, (B, G³) per view."""
    axis = torch.linspace(-1, 1, nodes, device=views.device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).view(-1, 3)
    image = cameras.project(points).flip(-1)  # (N, P, 2) as (u, v) for grid_sample
    for n in range(len(cameras)):
        grid = image[n].expand(len(views), 1, -1, -1)
        yield F.grid_sample(views[:, n : n + 1], grid, padding_mode="border", align_corners=False)[:, 0, 0]


@torch.no_grad()
def view_residuals(
    sdf: Callable[[torch.Tensor], torch.Tensor], views: torch.Tensor, cameras: Cameras, *, samples: int = 32
) -> torch.Tensor:
    """1 − IoU of each view with the re-projected solid, (B, N), on at most 16² rays a view."""
    step = max(views.shape[-1] // _RAYS, 1)
    image = pixel_centres(views.shape[-1], views.device)[step // 2 :: step, step // 2 :: step].reshape(-1, 2)
    target = views[..., step // 2 :: step, step // 2 :: step].flatten(2) < 0
    depth = torch.linspace(-1, 1, samples, device=views.device)
    residual = []
    for n in range(len(cameras)):
        view = torch.full((len(views), len(image)), n, device=views.device)
        points = ray_points(cameras, view, image.expand(len(views), -1, -1), depth.expand(len(views), len(image), -1))
        inside = sdf(points).amin(-1) < 0
        both, either = (inside & target[:, n]).sum(1), (inside | target[:, n]).sum(1)
        residual.append(1 - both / either.clamp(min=1))
    return torch.stack(residual, 1)
