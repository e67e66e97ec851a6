"""Spherical-harmonic cells: random star-convex solids, and exactly what an orthographic camera sees of them."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import sph_harm_y

from cascade.geometry.cameras import Cameras, pixel_centres

_ANGLES = 96  # vertices of a silhouette
_SWEEP = 33  # directions between the two poles of a view in which a silhouette's rim is sought


@dataclass(frozen=True)
class ShapeLaw:
    """How random shapes are drawn.

    log r(d) = log r_ellipsoid(d) + Σ_{l=3}^{degree} Σ_m c_l^m Y_l^m(d),   c_l^m = strength · w · e^{−γ (l − 3)}

    with w ~ N(0, 1): the harmonic sum of the cGAN paper (Eq. 5, 6) with its exponentially falling coefficients
    (Eq. 7). Eq. 7 as printed lets e^{−γm} fall with the order m, which makes the shapes depend on the choice of the
    polar axis; here it falls with the degree l, so that the law is the same in every direction. On the logarithm of
    the radius every draw is star-convex. Degrees 0 to 2 are the ellipsoid, with axis ratios e^{anisotropy · w} and a
    random rotation. `strength` is uniform in [0, roughness].
    """

    degree: int = 8
    gamma: float = 0.5
    roughness: float = 0.12
    anisotropy: float = 0.25


@dataclass(frozen=True)
class HarmonicShapes:
    """B star-convex solids around the origin.

    form: (B, 3, 3), the ellipsoid dᵀ · form · d = r⁻². coefficients: (B, K) of the harmonics.
    """

    form: torch.Tensor
    coefficients: torch.Tensor

    def __len__(self) -> int:
        return len(self.form)

    def __getitem__(self, index: slice | torch.Tensor) -> "HarmonicShapes":
        return HarmonicShapes(self.form[index], self.coefficients[index])

    def radius(self, directions: torch.Tensor, basis: torch.Tensor | None = None) -> torch.Tensor:
        """Radii (B, P) in unit directions (P, 3); `basis` (P, K) saves evaluating the harmonics again."""
        if basis is None:
            basis = harmonics(directions, self.degree).to(directions)
        quadratic = torch.einsum("pi,bij,pj->bp", directions, self.form, directions)
        return quadratic.rsqrt() * torch.exp(self.coefficients @ basis.T)

    def sdf(self, points: torch.Tensor) -> torch.Tensor:
        """|p| − r(p/|p|), (B, P) at points (P, 3): its sign is exact, its size is a distance along the ray only."""
        distance = points.norm(dim=-1)
        return distance - self.radius(points / distance.clamp(min=1e-9)[:, None])

    @property
    def degree(self) -> int:
        """Highest degree of the harmonics; their number is (degree + 1)²."""
        return int(np.sqrt(self.coefficients.shape[1])) - 1

    def scaled(self, factor: torch.Tensor) -> "HarmonicShapes":
        """Every solid enlarged by its own factor (B,)."""
        return HarmonicShapes(self.form / (factor**2).view(-1, 1, 1), self.coefficients)


def draw_shapes(count: int, law: ShapeLaw, generator: torch.Generator) -> HarmonicShapes:
    """`count` random solids with mean radius about 1."""
    device = generator.device
    ratios = torch.exp(law.anisotropy * torch.randn((count, 3), generator=generator, device=device))
    ratios /= ratios.prod(1, keepdim=True) ** (1 / 3)
    rotation = _random_rotations(count, generator)
    form = rotation @ torch.diag_embed(ratios**-2) @ rotation.transpose(1, 2)
    degrees = _degrees(law.degree).to(device)
    scale = torch.where(degrees >= 3, torch.exp(-law.gamma * (degrees - 3)), 0)
    strength = law.roughness * torch.rand((count, 1), generator=generator, device=device)
    weights = torch.randn((count, len(degrees)), generator=generator, device=device)
    return HarmonicShapes(form, strength * scale * weights)


def sphere(count: int) -> torch.Tensor:
    """Directions (count, 3), evenly spread over the sphere (a Fibonacci lattice)."""
    n = torch.arange(count) + 0.5
    z, angle = 1 - 2 * n / count, n * np.pi * (1 + 5**0.5)
    flat = (1 - z * z).sqrt()
    return torch.stack([z, flat * angle.sin(), flat * angle.cos()], 1).float()


class SilhouetteRenderer:
    """Silhouettes of star-convex solids in a fixed set of cameras, as truncated signed distance maps.

    A star-convex solid's silhouette is star-convex too: its rim at the image angle φ is the maximum over the polar
    angle θ of r(θ, φ) · sin θ. The harmonics in all those directions are evaluated once, and a batch of shapes is
    then one matrix product.
    """

    def __init__(self, cameras: Cameras, degree: int, size: int, *, truncation: float = 0.25):
        self.size, self.truncation = size, truncation
        device = cameras.axes.device
        phi = torch.arange(_ANGLES, device=device) * (2 * np.pi / _ANGLES)
        theta = (torch.arange(_SWEEP, device=device) + 0.5) * (np.pi / _SWEEP)
        theta, phi = torch.meshgrid(theta, phi, indexing="ij")
        image = torch.stack([theta.sin() * phi.sin(), theta.sin() * phi.cos()], -1)
        self.directions = cameras.world(theta.cos(), image).reshape(-1, 3)  # (N·T·A, 3)
        self.basis = harmonics(self.directions, degree).to(device)
        self.sine = theta.sin()
        self.unit = torch.stack([phi[0].sin(), phi[0].cos()], -1)  # (A, 2)

    def rims(self, shapes: HarmonicShapes) -> torch.Tensor:
        """Radius of each silhouette at `_ANGLES` image angles, (B, N, A)."""
        radius = shapes.radius(self.directions, self.basis).view(len(shapes), -1, *self.sine.shape)
        return (radius * self.sine).amax(2)

    def __call__(self, shapes: HarmonicShapes) -> torch.Tensor:
        """Distance maps (B, N, size, size) in [−1, 1]: signed distance to the outline over the truncation length."""
        rims = self.rims(shapes)
        vertices = rims[..., None] * self.unit  # (B, N, A, 2)
        distance = polygon_distance(vertices.flatten(0, 1), pixel_centres(self.size, rims.device).view(-1, 2))
        return (distance / self.truncation).clamp(-1, 1).view(*rims.shape[:2], self.size, self.size)


def polygon_distance(vertices: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Signed distance (B, P) of points (P, 2) to closed polygons (B, A, 2) that are star-shaped about the origin."""
    ends = vertices.roll(-1, 1)
    edge = ends - vertices
    best = torch.full((len(vertices), len(points)), float("inf"), device=vertices.device)
    # Squared distance to each edge: expanding |p − a − t·e|² keeps everything (B, P) per edge.
    for k in range(vertices.shape[1]):
        a, e = vertices[:, k], edge[:, k]
        offset = points[None] - a[:, None]
        along = ((offset * e[:, None]).sum(-1) / (e * e).sum(-1, keepdim=True).clamp(min=1e-12)).clamp(0, 1)
        best = torch.minimum(best, ((offset - along[..., None] * e[:, None]) ** 2).sum(-1))
    angle = torch.atan2(points[:, 0], points[:, 1]) % (2 * np.pi)
    step = 2 * np.pi / vertices.shape[1]
    sector = (angle / step).long() % vertices.shape[1]
    a, b = vertices[:, sector], ends[:, sector]
    # Inside if p lies on the origin's side of the edge that its angle falls on.
    cross = (b - a)[..., 1] * (points - a)[..., 0] - (b - a)[..., 0] * (points - a)[..., 1]
    return torch.where(cross < 0, 1, -1) * best.sqrt()


def harmonics(directions: torch.Tensor, degree: int) -> torch.Tensor:
    """Real spherical harmonics Y_l^m in unit directions (P, 3) as (z, y, x): (P, (degree + 1)²), orthonormal."""
    z, y, x = directions.cpu().double().numpy().T
    theta, phi = np.arccos(np.clip(z, -1, 1)), np.arctan2(y, x)
    columns = []
    for l in range(degree + 1):  # noqa: E741 - the field's name for the degree
        for m in range(-l, l + 1):
            value = sph_harm_y(l, abs(m), theta, phi)
            columns.append(value.real if m == 0 else np.sqrt(2) * (value.imag if m < 0 else value.real))
    return torch.tensor(np.stack(columns, -1), dtype=torch.float32)


def _degrees(degree: int) -> torch.Tensor:
    return torch.cat([torch.full((2 * l + 1,), float(l)) for l in range(degree + 1)])  # noqa: E741


def _random_rotations(count: int, generator: torch.Generator) -> torch.Tensor:
    """Uniform rotations (count, 3, 3), from unit quaternions."""
    q = torch.randn((count, 4), generator=generator, device=generator.device)
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, 1).view(count, 3, 3)
