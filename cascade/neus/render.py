"""Volume rendering of signed distances: what NeuS sees along a ray."""

from collections.abc import Callable

import torch

from cascade.geometry.cameras import Cameras


def alphas(sdf: torch.Tensor, sharpness: torch.Tensor) -> torch.Tensor:
    """Opacity of each interval of a ray, (..., S − 1), from distances (..., S) at its ends.

    α_i = max((Φ_s(f_i) − Φ_s(f_{i+1})) / Φ_s(f_i), 0)   (NeuS, Eq. 13), Φ_s the logistic function of sharpness s
    """
    phi = torch.sigmoid(sdf * sharpness)
    return ((phi[..., :-1] - phi[..., 1:] + 1e-5) / (phi[..., :-1] + 1e-5)).clamp(0, 1)


def opacity(alpha: torch.Tensor) -> torch.Tensor:
    """Accumulated opacity of rays, Σ T_i α_i = 1 − Π (1 − α_i), (...,) from (..., S)."""
    return 1 - torch.exp(torch.log1p(-alpha.clamp(max=1 - 1e-6)).sum(-1))


def ray_points(cameras: Cameras, view: torch.Tensor, image: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """Points (B, R, S, 3) on rays of cameras `view` (B, R) through `image` (B, R, 2) at depths (B, R, S)."""
    axes = cameras.axes[view]  # (B, R, 3, 3)
    plane = image[..., :1] * axes[..., 1, :] + image[..., 1:] * axes[..., 2, :]
    return plane[..., None, :] + depth[..., None] * axes[..., None, 0, :]


def render_opacity(
    sdf: Callable[[torch.Tensor], torch.Tensor], points: torch.Tensor, sharpness: torch.Tensor
) -> torch.Tensor:
    """Opacity (B, R) of rays given by points (B, R, S, 3); `sharpness` (B,) or scalar."""
    return opacity(alphas(sdf(points), sharpness.view(-1, 1, 1)))


def refine_depths(depth: torch.Tensor, alpha: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Add `count` depths per ray where the opacity lies: NeuS's hierarchical sampling; sorted (B, R, S + count)."""
    transmitted = torch.cumprod(torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha + 1e-7], -1), -1)[..., :-1]
    weights = alpha * transmitted + 1e-5
    cumulative = torch.cumsum(weights / weights.sum(-1, keepdim=True), -1)
    cumulative = torch.cat([torch.zeros_like(cumulative[..., :1]), cumulative], -1)
    u = torch.rand((*depth.shape[:-1], count), generator=generator, device=depth.device)
    above = torch.searchsorted(cumulative.contiguous(), u, right=True).clamp(1, depth.shape[-1] - 1)
    low, high = cumulative.gather(-1, above - 1), cumulative.gather(-1, above)
    start, stop = depth.gather(-1, above - 1), depth.gather(-1, above)
    new = start + (u - low) / (high - low).clamp(min=1e-6) * (stop - start)
    return torch.cat([depth, new], -1).sort(-1).values
