"""Values of volumes between their voxels."""

import itertools

import torch
from torch.nn import functional as F


def trilinear(volumes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Volumes (B, C, D, H, W) at points (*shape, 3), x y z from −1 to 1 at their outer faces: (B, C, *shape).

    0 lies outside. As `F.grid_sample`, with the points in float32 whatever the volumes are; on a CPU, where that goes
    from channel to channel, all channels of a voxel are read at once.

    >>> volumes, points = torch.rand(2, 3, 4, 5, 6), 2.4 * torch.rand(7, 8, 9, 3) - 1.2
    >>> sampled = F.grid_sample(volumes, points.expand(2, -1, -1, -1, -1), align_corners=False)
    >>> torch.allclose(trilinear(volumes, points), sampled, atol=1e-6)
    True
    """
    batch, channels, *size = volumes.shape
    shape = points.shape[:-1]
    if volumes.device.type != "cpu":
        grid = points.float().reshape(1, -1, 1, 1, 3).expand(batch, -1, -1, -1, -1)
        sampled = F.grid_sample(volumes.float(), grid, align_corners=False).to(volumes.dtype)
        return sampled.view(batch, channels, *shape)
    index, weight = _corners(points.float().reshape(-1, 3), size)
    table = volumes.permute(2, 3, 4, 0, 1).contiguous().view(-1, batch * channels)  # not a view: one row a voxel
    read = F.embedding_bag(index, table, mode="sum", per_sample_weights=weight.to(volumes.dtype))
    return read.view(*shape, batch, channels).movedim((-2, -1), (0, 1))


def _corners(points: torch.Tensor, size: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The eight voxels around each of P points (P, 3), their numbers (P, 8) and weights, 0 where there is none."""
    lengths = torch.tensor(size, device=points.device)
    place = ((points.flip(-1) + 1) * lengths - 1) / 2
    first = place.floor()
    beyond = place - first
    index, weight = [], []
    for corner in itertools.product((0, 1), repeat=3):
        at = first.long() + torch.tensor(corner)
        inside = ((at >= 0) & (at < lengths)).all(-1)
        z, y, x = at.clamp(min=0).minimum(lengths - 1).unbind(-1)
        index.append((z * size[1] + y) * size[2] + x)
        share = [beyond[:, n] if far else 1 - beyond[:, n] for n, far in enumerate(corner)]
        weight.append(share[0] * share[1] * share[2] * inside)
    return torch.stack(index, 1), torch.stack(weight, 1)
