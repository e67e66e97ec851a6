"""Fitting signed distances to the views of many cells at once, by volume rendering."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from cascade.cameras import Cameras, pixel_centres
from cascade.neus.field import GridField, MLPField
from cascade.neus.render import alphas, ray_points, refine_depths, render_opacity


@dataclass(frozen=True)
class NeuSSettings:
    """How a field is fitted. The defaults are the fast field's; `faithful()` are SyncDreamer's for NeuS."""

    field: str = "grid"
    """"grid": an SDF on nodes that starts as the visual hull. "mlp": NeuS's network, which starts as a sphere."""
    nodes: int = 33
    steps: int = 60
    rays: int = 512
    samples: int = 32
    importance_samples: int = 0
    upsampling_steps: int = 0
    learning_rate: float = 8e-3
    adam_eps: float = 1e-3
    """Large, so that nodes whose gradient is mere noise stay where they are."""
    warm_up: int = 0
    mask_weight: float = 1.0
    eikonal_weight: float = 0.1
    smooth_weight: float = 2e-2
    first_sharpness: float = 30.0
    last_sharpness: float = 90.0
    learn_sharpness: bool = False
    """NeuS's s-density: every cell's sharpness is a parameter that starts at `first_sharpness`, and views are compared
    as sharp silhouettes. Else it grows on a schedule, and views are blurred alike."""
    max_residual: float = 0.1
    """A cell whose mean 1 − IoU over the views is larger has not converged."""

    def __post_init__(self):
        if self.field not in ("grid", "mlp"):
            raise ValueError(f'field must be "grid" or "mlp", got {self.field!r}')

    @classmethod
    def faithful(cls, steps: int = 2000) -> "NeuSSettings":
        """SDF network 8 × 256, 64 + 64 samples in 4 up-sampling steps, eikonal 0.1, mask 1.0, lr 5e-4, learned s."""
        return cls(
            field="mlp",
            steps=steps,
            rays=512,
            samples=64,
            importance_samples=64,
            upsampling_steps=4,
            learning_rate=5e-4,
            adam_eps=1e-8,
            warm_up=min(100, steps // 4),
            smooth_weight=0.0,
            first_sharpness=20.0,
            learn_sharpness=True,
        )


@dataclass(frozen=True)
class NeuSFit:
    """Fitted solids in the frame [−1, 1]³, in its half-widths."""

    field: GridField | MLPField
    residual: torch.Tensor
    """(B, N): 1 − IoU between each view and the re-projected solid."""
    converged: torch.Tensor
    """(B,) bool."""
    sharpness: torch.Tensor
    """(B,) of the last step: how suddenly opacity sets in at the surface, per half-width of the frame."""

    def solid(self, cell: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """One cell as a signed-distance callable, points (P, 3) -> (P,)."""
        single = self.field.one(cell)

        @torch.no_grad()
        def sdf(points: torch.Tensor) -> torch.Tensor:
            return single.sdf(points[None])[0]

        return sdf


def fit_views(
    views: torch.Tensor,
    cameras: Cameras,
    settings: NeuSSettings | None = None,
    generator: torch.Generator | None = None,
    weights: torch.Tensor | None = None,
    truncation: float = 0.25,
    progress: bool = False,
) -> NeuSFit:
    """Fit solids to silhouettes: render each ray's opacity from the SDF and compare it with the silhouette (NeuS).

    Args:
        views: (B, N, H, W) distance maps in [−1, 1], negative inside, one per camera (see `SilhouetteRenderer`).
        cameras: the N cameras.
        settings: default the fast field.
        generator: chooses the rays, on the device of `views`.
        weights: (N,) how much each view counts, default equally; a view that the others contradict is left out, or
            weighed down by its residual on the way. Of jagged silhouettes a smoother solid is made.
        truncation: the distance at which `views` saturate, in half-widths of the frame.
        progress: show a bar over the steps.

    Raises ValueError where views and cameras do not fit.
    """
    settings = settings or NeuSSettings()
    if views.ndim != 4 or views.shape[1] != len(cameras):
        raise ValueError(f"views must be (B, {len(cameras)}, H, W), one per camera, got {tuple(views.shape)}")
    device = views.device
    generator = generator or torch.Generator(device).manual_seed(0)
    cameras = cameras.to(device)
    views = views.float()
    # A view that cuts away what nobody else disputes does not belong; slivers grow with the angle between views.
    trust = (carving(views, cameras, truncation) < 0.015 * (16 / len(cameras)) ** 2).float()
    if settings.field == "grid":
        field = GridField(visual_hull(views, cameras, settings.nodes, truncation, trust))
    else:
        field = MLPField(len(views), generator)
    weights = torch.ones(len(cameras), device=device) if weights is None else weights.to(device)
    view_weights = weights * trust  # (B, N)
    smooth = 0.02 + 3.2 / views.shape[-1]  # what the curvature of rendered and predicted outlines alone comes to
    rough = ((jaggedness(views, truncation) - smooth) / 0.02).clamp(0, 1)
    blunt = 0.45**rough
    smooth_weight = settings.smooth_weight * 5**rough
    # NeuS: s = e^{10 v}, so that one learning rate suits the field and v.
    variance = torch.full((len(views),), math.log(settings.first_sharpness) / 10, device=device, requires_grad=True)
    parameters = [*field.parameters(), variance] if settings.learn_sharpness else field.parameters()
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, eps=settings.adam_eps)
    for step in tqdm(range(settings.steps), desc="NeuS", disable=not progress):
        if step == settings.steps // 2:
            view_weights = weights * trust * _agreement(view_residuals(field.sdf, views, cameras))
        _set_rate(optimizer, settings, step)
        share = step / max(settings.steps - 1, 1)
        scheduled = settings.first_sharpness ** (1 - share) * settings.last_sharpness**share
        sharpness = torch.exp(10 * variance) if settings.learn_sharpness else scheduled * blunt
        loss = _loss(field, views, cameras, view_weights, sharpness, smooth_weight, truncation, settings, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    residual = view_residuals(field.sdf, views, cameras)
    # Judged on all views: a solid that fits half of them is no solid.
    converged = residual.mean(1) < settings.max_residual
    return NeuSFit(field.requires_grad_(False), residual, converged, sharpness.detach())


@torch.no_grad()
def visual_hull(
    views: torch.Tensor, cameras: Cameras, nodes: int, truncation: float, trust: torch.Tensor | None = None
) -> torch.Tensor:
    """The intersection of the back-projected silhouettes as a signed distance bound, (B, G, G, G).

    trust: (B, N); views with less than ½ are left out.
    """
    hull = torch.full((len(views), nodes**3), -1.0, device=views.device)
    for n, seen in enumerate(_back_project(views, cameras, nodes)):
        hull = torch.maximum(hull, seen if trust is None else torch.where(trust[:, n, None] < 0.5, -1.0, seen))
    return (hull * truncation).view(-1, nodes, nodes, nodes)


@torch.no_grad()
def carving(views: torch.Tensor, cameras: Cameras, truncation: float, nodes: int = 25) -> torch.Tensor:
    """How much of the solid each view cuts away that at most one other view disputes, (B, N), relative to the hull.

    Views of one solid only shave off slivers that thin; a view that does not belong cuts away more.
    """
    seen = torch.stack(list(_back_project(views, cameras, nodes)), 1) * truncation  # (B, N, P)
    outside = seen > 0.04
    alone = (seen > 0).sum(1, keepdim=True) <= 2
    solid = ((seen > 0).sum(1) <= 2).sum(1, keepdim=True)
    return (outside & alone).sum(2) / solid.clamp(min=1)


@torch.no_grad()
def jaggedness(views: torch.Tensor, truncation: float) -> torch.Tensor:
    """How far outlines wander from pixel to pixel, in pixels, (B,): the mean change near them under a blur of 1 px."""
    offset = torch.arange(-3, 4, device=views.device, dtype=views.dtype)
    kernel = torch.softmax(-0.5 * offset**2, 0)
    flat = F.pad(views.flatten(0, 1)[:, None], (3, 3, 3, 3), mode="replicate")
    blurred = F.conv2d(F.conv2d(flat, kernel.view(1, 1, 1, 7)), kernel.view(1, 1, 7, 1)).view(views.shape)
    near = views.abs() < 0.5
    change = ((views - blurred).abs() * near).sum((1, 2, 3)) / near.sum((1, 2, 3)).clamp(min=1)
    return change * truncation * views.shape[-1] / 2


def _back_project(views: torch.Tensor, cameras: Cameras, nodes: int):
    """Each view's distance at the nodes of the frame, (B, G³) per view."""
    axis = torch.linspace(-1, 1, nodes, device=views.device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).view(-1, 3)
    image = cameras.project(points).flip(-1)  # (N, P, 2) as (u, v) for grid_sample
    for n in range(len(cameras)):
        grid = image[n].expand(len(views), 1, -1, -1)
        yield F.grid_sample(views[:, n : n + 1], grid, padding_mode="border", align_corners=False)[:, 0, 0]


@torch.no_grad()
def view_residuals(
    sdf: Callable[[torch.Tensor], torch.Tensor], views: torch.Tensor, cameras: Cameras, samples: int = 32
) -> torch.Tensor:
    """1 − IoU of each view with the re-projected solid, (B, N), on at most 16² rays a view."""
    step = max(views.shape[-1] // 16, 1)
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


def _loss(
    field, views, cameras, view_weights, sharpness, smooth_weight, truncation, settings: NeuSSettings, generator
) -> torch.Tensor:
    view, image, distance = _draw_rays(views, settings.rays, generator)
    if settings.learn_sharpness:
        target = (distance < 0).float()
    else:
        target = torch.sigmoid(-sharpness[:, None] * truncation * distance)
    depth = _stratified_depths((*view.shape, settings.samples), generator)
    for _ in range(settings.upsampling_steps):
        with torch.no_grad():
            alpha = alphas(field.sdf(ray_points(cameras, view, image, depth)), sharpness.view(-1, 1, 1))
        depth = refine_depths(depth, alpha, settings.importance_samples // settings.upsampling_steps, generator)
    points = ray_points(cameras, view, image, depth)
    seen = render_opacity(field.sdf, points, sharpness)
    error = F.binary_cross_entropy(seen.clamp(1e-4, 1 - 1e-4), target, reduction="none")
    error = (error * view_weights.gather(1, view)).mean(1)
    some = points[:, ::8, ::4]
    penalty = settings.eikonal_weight * field.eikonal(some) + smooth_weight * field.roughness()
    return (settings.mask_weight * error + penalty).sum()


def _draw_rays(views: torch.Tensor, count: int, generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rays mostly at the silhouettes' rims: view (B, R), image (B, R, 2), distance (B, R) in [−1, 1]."""
    batch, cameras, height, width = views.shape
    likely = torch.where(views.abs() < 0.6, 1.0, 0.05).flatten(1)
    picked = torch.multinomial(likely, count, replacement=True, generator=generator)
    view, pixel = picked // (height * width), picked % (height * width)
    jitter = torch.rand((batch, count, 2), generator=generator, device=views.device)
    size = torch.tensor([height, width], device=views.device)
    image = (torch.stack([pixel // width, pixel % width], -1) + jitter) * 2 / size - 1
    volume = views[:, None]  # sample all views at once: the view index is a depth coordinate
    coordinate = (2 * view + 1) / cameras - 1
    grid = torch.stack([image[..., 1], image[..., 0], coordinate], -1)[:, :, None, None]
    distance = F.grid_sample(volume, grid, padding_mode="border", align_corners=False)
    return view, image, distance.view(batch, count)


def _stratified_depths(shape: tuple[int, ...], generator) -> torch.Tensor:
    jitter = torch.rand(shape, generator=generator, device=generator.device)
    return (torch.arange(shape[-1], device=generator.device) + jitter) * (2 / shape[-1]) - 1


def _agreement(residual: torch.Tensor) -> torch.Tensor:
    """Weights (B, N) that fall where a view's residual is far above the cell's median (Geman–McClure)."""
    scale = 2 * residual.median(1, keepdim=True).values + 0.02
    return 1 / (1 + (residual / scale) ** 2) ** 2


def _set_rate(optimizer, settings: NeuSSettings, step: int) -> None:
    warm = min((step + 1) / max(settings.warm_up, 1), 1.0)
    decay = 1 - 0.9 * step / max(settings.steps, 1)
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * warm * decay
