"""Fitting signed distances to the views of many cells at once, by volume rendering."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

from cascade.geometry.cameras import Cameras
from cascade.neus.field import GridField, MLPField
from cascade.neus.render import alphas, ray_points, refine_depths, render_opacity
from cascade.neus.settings import NeuSSettings
from cascade.neus.views import carving, jaggedness, view_residuals, visual_hull

_CARVED = (
    0.015  # share of the hull that a view of 16 cuts away alone where it belongs; grows with (angle between views)²
)
_SMOOTH_PX, _SMOOTH_SHARE = 0.02, 3.2  # jaggedness of smooth outlines: of a prediction, and of curvature, by image size
_ROUGH_PX = 0.02  # jaggedness beyond that at which outlines count as wholly rough
_BLUNT, _SMOOTHER = 0.45, 5  # factors on sharpness and smoothness where they do
_NEAR_RIM, _ELSEWHERE = (
    0.6,
    0.05,
)  # distances within which rays are drawn, and how rarely beyond: there opacity is plain
_SURE = 1e-4  # opacities are kept from 0 and 1, where their logarithm has no gradient
_EVERY_RAY, _EVERY_POINT = 8, 4  # of which the gradient's length is looked at: it is the costly part, and varies slowly
_LAST_RATE = 0.1  # of the learning rate, at the last step
_TOLERANCE = 0.02  # residual at which views are all right, so that among good ones none is called bad


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
    *,
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
    trust = (carving(views, cameras, truncation) < _CARVED * (16 / len(cameras)) ** 2).float()
    field: GridField | MLPField
    if settings.field == "grid":
        field = GridField(visual_hull(views, cameras, settings.nodes, truncation, trust))
    else:
        field = MLPField(len(views), generator)
    weights = torch.ones(len(cameras), device=device) if weights is None else weights.to(device)
    view_weights = weights * trust  # (B, N)
    smooth = (
        _SMOOTH_PX + _SMOOTH_SHARE / views.shape[-1]
    )  # what the curvature of rendered and predicted outlines alone comes to
    rough = ((jaggedness(views, truncation) - smooth) / _ROUGH_PX).clamp(0, 1)
    blunt = _BLUNT**rough
    smooth_weight = settings.smooth_weight * _SMOOTHER**rough
    # NeuS: s = e^{10 v}, so that one learning rate suits the field and v.
    variance = torch.full((len(views),), math.log(settings.first_sharpness) / 10, device=device, requires_grad=True)
    parameters = [*field.parameters(), variance] if settings.learn_sharpness else field.parameters()
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, eps=settings.adam_eps)
    for step in tqdm(range(settings.steps), desc="NeuS", disable=None if progress else True):
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


def _loss(
    field: GridField | MLPField,
    views: torch.Tensor,
    cameras: Cameras,
    view_weights: torch.Tensor,
    sharpness: torch.Tensor,
    smooth_weight: torch.Tensor,
    truncation: float,
    settings: NeuSSettings,
    generator: torch.Generator,
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
    error = F.binary_cross_entropy(seen.clamp(_SURE, 1 - _SURE), target, reduction="none")
    error = (error * view_weights.gather(1, view)).mean(1)
    some = points[:, ::_EVERY_RAY, ::_EVERY_POINT]
    penalty = settings.eikonal_weight * field.eikonal(some) + smooth_weight * field.roughness()
    return (settings.mask_weight * error + penalty).sum()


def _draw_rays(
    views: torch.Tensor, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rays mostly at the silhouettes' rims: view (B, R), image (B, R, 2), distance (B, R) in [−1, 1]."""
    batch, cameras, height, width = views.shape
    likely = torch.where(views.abs() < _NEAR_RIM, 1.0, _ELSEWHERE).flatten(1)
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


def _stratified_depths(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    jitter = torch.rand(shape, generator=generator, device=generator.device)
    return (torch.arange(shape[-1], device=generator.device) + jitter) * (2 / shape[-1]) - 1


def _agreement(residual: torch.Tensor) -> torch.Tensor:
    """Weights (B, N) that fall where a view's residual is far above the cell's median (Geman–McClure)."""
    scale = 2 * residual.median(1, keepdim=True).values + _TOLERANCE
    return 1 / (1 + (residual / scale) ** 2) ** 2


def _set_rate(optimizer: torch.optim.Optimizer, settings: NeuSSettings, step: int) -> None:
    warm = min((step + 1) / max(settings.warm_up, 1), 1.0)
    decay = 1 - (1 - _LAST_RATE) * step / max(settings.steps, 1)
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * warm * decay
