"""Signed-distance fields for many cells at once: an SDF grid (fast) and NeuS's MLP (faithful)."""

import copy
import itertools
import math

import torch
from torch.nn import functional as F


class GridField(torch.nn.Module):
    """B signed distances on G³ nodes over [−1, 1]³, trilinear in between. Points are (z, y, x)."""

    def __init__(self, values: torch.Tensor):
        super().__init__()
        self.values = torch.nn.Parameter(values)  # (B, G, G, G)

    def one(self, cell: int) -> "GridField":
        """The field of a single cell; it does not keep the others."""
        return GridField(self.values[cell : cell + 1].detach().clone())

    def sdf(self, points: torch.Tensor) -> torch.Tensor:
        """Distances (B, ...) at points (B, ..., 3)."""
        if self.values.is_cuda and self.values.requires_grad:
            return trilinear(self.values, points)
        grid = points.reshape(len(points), 1, 1, -1, 3).flip(-1)  # grid_sample wants (x, y, z)
        values = F.grid_sample(self.values[:, None], grid, padding_mode="border", align_corners=True)
        return values.view(points.shape[:-1])

    def eikonal(self, points: torch.Tensor) -> torch.Tensor:
        """(|∇f| − 1)² near the surface, by central differences on the nodes; (B,). Points are not looked at."""
        inner = (slice(None), *(slice(1, -1),) * 3)
        half = (self.values.shape[-1] - 1) / 4  # 1 / (2 · node distance)
        slopes = [(self.values.roll(-1, axis) - self.values.roll(1, axis))[inner] * half for axis in (1, 2, 3)]
        norm = torch.stack(slopes).square().sum(0).add(1e-8).sqrt()
        near = (self.values[inner].detach().abs() < 0.2).float()
        return ((norm - 1) ** 2 * near).sum((1, 2, 3)) / near.sum((1, 2, 3)).clamp(min=1)

    def roughness(self) -> torch.Tensor:
        """Mean squared Laplacian times node distance, near the surface; (B,). Silhouettes leave it free."""
        inner = (slice(None), *(slice(1, -1),) * 3)
        laplacian = -6 * self.values[inner]
        for axis in (1, 2, 3):
            laplacian = laplacian + self.values.roll(1, axis)[inner] + self.values.roll(-1, axis)[inner]
        near = (self.values[inner].detach().abs() < 0.2).float()
        node = 2 / (self.values.shape[-1] - 1)
        return ((laplacian / node) ** 2 * near).sum((1, 2, 3)) / near.sum((1, 2, 3)).clamp(min=1)


def trilinear(values: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """What `GridField.sdf` says, by indexing: (B, ...) from values (B, G, G, G) and points (B, ..., 3) in [−1, 1].

    On a GPU the gradient of grid_sample adds up in any order, so that no two fits are quite alike; that of an index
    adds up in one.
    """
    size = values.shape[-1]
    place = (0.5 * (points.reshape(len(points), -1, 3) + 1) * (size - 1)).clamp(0, size - 1)
    low = place.floor().clamp(max=size - 2)
    share, low = place - low, low.long()
    first = size**3 * torch.arange(len(points), device=points.device)[:, None]
    flat, total = values.reshape(-1), torch.zeros_like(share[..., 0])
    for dz, dy, dx in itertools.product((0, 1), repeat=3):
        weight = torch.ones_like(total)
        for axis, step in enumerate((dz, dy, dx)):
            weight = weight * (share[..., axis] if step else 1 - share[..., axis])
        node = first + ((low[..., 0] + dz) * size + low[..., 1] + dy) * size + low[..., 2] + dx
        total = total + weight * flat[node]
    return total.view(points.shape[:-1])


class MLPField(torch.nn.Module):
    """NeuS's own field, one network per cell, all in one batched product.

    depth layers of width units, softplus(100), positional encoding, a skip half-way, and the geometric
    initialisation that makes it a sphere of radius `radius` at first (NeuS, §4 and supplement; Atzmon & Lipman, 2020).
    """

    def __init__(
        self,
        num_cells: int,
        generator: torch.Generator,
        depth: int = 8,
        width: int = 256,
        encoding: int = 6,
        radius: float = 0.5,
    ):
        super().__init__()
        self.encoding, self.skip = encoding, depth // 2
        inputs, device = 3 + 6 * encoding, generator.device
        self.weights, self.biases = torch.nn.ParameterList(), torch.nn.ParameterList()
        for layer in range(depth + 1):
            fan_in = inputs if layer == 0 else width
            fan_out = 1 if layer == depth else width - inputs if layer + 1 == self.skip else width
            weight = torch.randn((num_cells, fan_in, fan_out), generator=generator, device=device) * math.sqrt(
                2 / fan_out
            )
            bias = torch.zeros(num_cells, 1, fan_out, device=device)
            if layer == depth:
                weight = math.sqrt(math.pi / fan_in) + 1e-4 * torch.randn(
                    weight.shape, generator=generator, device=device
                )
                bias -= radius
            elif layer == 0:
                weight[:, 3:] = 0
            elif layer == self.skip:
                weight[:, -(inputs - 3) :] = 0
            self.weights.append(torch.nn.Parameter(weight))
            self.biases.append(torch.nn.Parameter(bias))

    def one(self, cell: int) -> "MLPField":
        """The field of a single cell."""
        single = copy.copy(self)
        single._parameters, single._modules = {}, {}
        for name in ("weights", "biases"):
            kept = torch.nn.ParameterList(p[cell : cell + 1].detach().clone() for p in getattr(self, name))
            setattr(single, name, kept)
        return single

    def sdf(self, points: torch.Tensor) -> torch.Tensor:
        """Distances (B, ...) at points (B, ..., 3)."""
        flat = points.reshape(len(points), -1, 3)
        bands = 2.0 ** torch.arange(self.encoding, device=flat.device)
        angles = (flat[..., None, :] * bands[:, None]).flatten(-2)
        encoded = torch.cat([flat, angles.sin(), angles.cos()], -1)
        x = encoded
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer == self.skip:
                x = torch.cat([x, encoded], -1) / math.sqrt(2)
            x = torch.baddbmm(bias, x, weight)
            if layer < last:
                x = F.softplus(x, beta=100)
        return x.view(points.shape[:-1])

    def eikonal(self, points: torch.Tensor) -> torch.Tensor:
        """(|∇f| − 1)² at points (B, ..., 3), by automatic differentiation; (B,)."""
        with torch.enable_grad():
            points = points.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(self.sdf(points).sum(), points, create_graph=True)
        return ((slope.norm(dim=-1) - 1) ** 2).flatten(1).mean(1)

    def roughness(self) -> torch.Tensor:
        """None: the network's own smoothness is the prior."""
        return torch.zeros(len(self.weights[0]), device=self.weights[0].device)
