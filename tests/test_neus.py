from dataclasses import replace

import numpy as np
import pytest
import torch

from cascade.geometry.cameras import hemisphere
from cascade.geometry.grid import Grid
from cascade.multiview.renders import HarmonicRenders
from cascade.neus.field import GridField, MLPField, trilinear
from cascade.neus.fit import fit_views
from cascade.neus.render import alphas, opacity, ray_points, refine_depths
from cascade.neus.settings import NeuSSettings
from cascade.neus.views import jaggedness, view_residuals, visual_hull
from cascade.shapes.harmonics import HarmonicShapes, ShapeLaw, SilhouetteRenderer


def points64():
    return torch.from_numpy(Grid.centred((64,) * 3, (1 / 32,) * 3).points_um())


def iou(field, shapes):
    points = points64()
    with torch.no_grad():
        found = field.sdf(points.expand(len(shapes), -1, -1)) < 0
    truth = shapes.sdf(points) < 0
    return (found & truth).sum(1) / (found | truth).sum(1)


def test_indexing_is_interpolation_with_its_gradient():
    """What a GPU fits with; points on nodes, on the faces and beyond them, too."""
    generator = torch.Generator().manual_seed(0)
    field = GridField(torch.randn(2, 7, 7, 7, dtype=torch.float64, generator=generator))
    points = 1.3 * (2 * torch.rand(2, 200, 5, 3, dtype=torch.float64, generator=generator) - 1)
    points[0, 0] = torch.tensor([[-1.0, 1, 0], [1, 1, 1], [-1, -1, -1], [0, 0, 0], [1 / 3, 2 / 3, -1 / 3]])
    weights = torch.randn(2, 200, 5, dtype=torch.float64, generator=generator)
    values, gradients = [], []
    for sdf in (field.sdf, lambda p: trilinear(field.values, p)):
        values.append(sdf(points))
        gradients.append(*torch.autograd.grad((values[-1] * weights).sum(), field.values))
    assert torch.allclose(*values)
    assert torch.allclose(*gradients)


def test_alpha_is_equation_13_and_opacity_telescopes():
    distances = torch.tensor([0.5, 0.2, -0.1, -0.4], dtype=torch.float64)
    phi = torch.sigmoid(10 * distances)
    expected = (phi[:-1] - phi[1:]) / phi[:-1]
    assert torch.allclose(alphas(distances, torch.tensor(10.0)), expected, atol=1e-4)
    # 1 − Π (1 − α) = 1 − Φ(last) / Φ(first) as long as the ray only enters
    assert opacity(alphas(distances, torch.tensor(10.0))) == pytest.approx(float(1 - phi[-1] / phi[0]), abs=1e-4)
    leaving = torch.tensor([-0.4, -0.1, 0.3])
    assert (alphas(leaving, torch.tensor(10.0)) < 1e-4).all()


def test_a_tangent_ray_is_half_opaque():
    """Opacity as a function of a ray's distance to a sphere is the logistic function, so its ½ is the silhouette."""
    depth = torch.linspace(-1, 1, 400)
    for offset in (0.45, 0.5, 0.55):
        points = torch.stack([depth, torch.full_like(depth, offset), torch.zeros_like(depth)], -1)
        seen = opacity(alphas(points.norm(dim=-1) - 0.5, torch.tensor(40.0)))
        assert seen == pytest.approx(float(torch.sigmoid(torch.tensor(40 * (0.5 - offset)))), abs=5e-3)


def test_refined_depths_gather_where_the_surface_is():
    depth = torch.linspace(-1, 1, 16).expand(1, 1, -1)
    alpha = torch.zeros(1, 1, 15)
    alpha[..., 5] = 0.9
    more = refine_depths(depth, alpha, 32, torch.Generator().manual_seed(0))
    assert more.shape == (1, 1, 48)
    assert (more.diff() >= 0).all()
    inside = (more >= depth[0, 0, 5]) & (more <= depth[0, 0, 6])
    assert inside.sum() >= 32


def test_the_network_starts_as_a_sphere_with_unit_slope():
    field = MLPField(2, torch.Generator().manual_seed(0))
    directions = torch.nn.functional.normalize(torch.randn(300, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    with torch.no_grad():
        at_surface = field.sdf((0.5 * directions).expand(2, -1, -1))
        inside, outside = field.sdf(torch.zeros(2, 1, 3)), field.sdf((0.9 * directions).expand(2, -1, -1))
    assert at_surface.abs().mean() < 0.08
    assert (inside < -0.1).all()
    assert (outside > 0.1).all()
    assert (field.eikonal(0.7 * directions.expand(2, -1, -1)) < 0.2).all()


def test_the_grid_field_is_trilinear():
    axis = torch.linspace(-1, 1, 9)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    field = GridField((0.5 * z - 0.2 * y + 0.8 * x + 0.1)[None])
    points = torch.rand(1, 200, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = points @ torch.tensor([0.5, -0.2, 0.8]) + 0.1
    assert torch.allclose(field.sdf(points), expected, atol=1e-5)


@pytest.fixture(scope="module")
def solids():
    renders = HarmonicRenders(hemisphere(16), ShapeLaw(), 32)
    shapes, _, views = renders.draw(8, torch.Generator().manual_seed(11))
    return shapes, views


def test_true_views_give_the_solid_back(solids):
    shapes, views = solids
    fit = fit_views(views, hemisphere(16))
    found = iou(fit.field, shapes)
    assert found.mean() > 0.97
    assert found.min() > 0.93
    assert fit.converged.all()
    hull = GridField(visual_hull(views, hemisphere(16), 33, 0.25))
    assert found.mean() > iou(hull, shapes).mean()  # it adds something to what it starts from
    single = fit.solid(3)(points64())
    with torch.no_grad():
        assert torch.allclose(single, fit.field.sdf(points64().expand(8, -1, -1))[3], atol=1e-6)


def test_the_faithful_field_fits_too():
    """Far fewer steps than its own 2000, so from its start, a ball of radius ½, only to about one of 0.4."""
    ball = HarmonicShapes(torch.eye(3)[None] / 0.4**2, torch.zeros(1, 9))
    cameras = hemisphere(4)
    views = SilhouetteRenderer(cameras, 2, 16)(ball)
    settings = NeuSSettings(field="mlp", steps=40, rays=128, samples=16, learning_rate=1e-3, adam_eps=1e-8)
    fit = fit_views(views, cameras, settings)
    points = torch.nn.functional.normalize(torch.randn(1, 300, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    with torch.no_grad():
        assert (fit.field.sdf(0.3 * points) < 0).float().mean() > 0.9
        assert (fit.field.sdf(0.5 * points) > 0).float().mean() > 0.9


def test_the_learned_sharpness_comes_from_the_data():
    """NeuS's s-density: from a blurred start it sharpens, and the solid is found with it."""
    ball = HarmonicShapes(torch.eye(3)[None] / 0.4**2, torch.zeros(1, 9))
    cameras = hemisphere(6)
    views = SilhouetteRenderer(cameras, 2, 24)(ball)
    settings = NeuSSettings(learn_sharpness=True, first_sharpness=8.0, steps=120)
    fit = fit_views(views, cameras, settings)
    assert fit.converged.all()
    assert (fit.sharpness > 10).all()
    assert iou(fit.field, ball).min() > 0.93


def test_the_faithful_field_samples_where_the_surface_is():
    """Two cells at once, with up-sampling as NeuS has it; each is then evaluated alone."""
    ball = HarmonicShapes(
        torch.eye(3).expand(2, -1, -1) / torch.tensor([0.4, 0.6]).view(-1, 1, 1) ** 2, torch.zeros(2, 9)
    )
    cameras = hemisphere(4)
    views = SilhouetteRenderer(cameras, 2, 16)(ball)
    settings = replace(
        NeuSSettings.faithful(30), rays=96, samples=12, importance_samples=12, upsampling_steps=2, learning_rate=1e-3
    )
    fit = fit_views(views, cameras, settings)
    points = torch.linspace(0, 0.9, 30)[:, None] * torch.tensor([[0.0, 0.6, 0.8]])
    with torch.no_grad():
        both = fit.field.sdf(points.expand(2, -1, -1))
    for cell in range(2):
        assert torch.allclose(fit.solid(cell)(points), both[cell], atol=1e-5)
    assert both[0][-10:].mean() > both[1][-10:].mean()  # the smaller ball is farther from the outer points


def test_views_that_contradict_each_other_are_rejected(solids):
    _, views = solids
    scrambled = views[:2].roll(1, 0)
    scrambled = torch.cat([scrambled[..., 8:, :], torch.ones_like(scrambled[..., :8, :])], -2)
    scrambled[:, ::2] = views[:2, ::2]
    assert not fit_views(scrambled, hemisphere(16)).converged.all()


def test_two_bad_views_of_sixteen_hardly_matter(solids):
    shapes, views = solids
    spoilt = views.clone()
    spoilt[:, [4, 9]] = views[:, [4, 9]].roll(1, 0).roll(4, -1)
    clean, bad = (
        iou(fit_views(views, hemisphere(16)).field, shapes),
        iou(fit_views(spoilt, hemisphere(16)).field, shapes),
    )
    assert clean.mean() - bad.mean() < 0.03


@pytest.mark.parametrize("size", [16, 32, 64])
def test_jagged_outlines_are_told_from_smooth_ones(size):
    """Smooth ones change by their curvature, about 2.5 / size; flipped pixels add a tenth of a pixel."""
    _, _, views = HarmonicRenders(hemisphere(4), ShapeLaw(), size).draw(16, torch.Generator().manual_seed(3))
    assert (jaggedness(views, 0.25) < 0.02 + 3.2 / size).all()
    generator = torch.Generator().manual_seed(0)
    flips = (torch.rand(views.shape, generator=generator) < 0.2) & (views.abs() < 0.5)
    assert (jaggedness(torch.where(flips, -views, views), 0.25) > jaggedness(views, 0.25)).all()


def test_residuals_are_measured_against_the_views():
    sphere = HarmonicShapes(torch.eye(3)[None] * 4, torch.zeros(1, 9))
    cameras = hemisphere(4)
    views = SilhouetteRenderer(cameras, 2, 32)(sphere)
    exact = view_residuals(lambda p: p.norm(dim=-1) - 0.5, views, cameras)
    smaller = view_residuals(lambda p: p.norm(dim=-1) - 0.4, views, cameras)
    assert (exact < 0.08).all()
    np.testing.assert_allclose(smaller, 1 - (0.4 / 0.5) ** 2, atol=0.08)


def test_rays_start_where_their_pixel_is():
    cameras = hemisphere(3)
    view = torch.tensor([[0, 2]])
    image = torch.tensor([[[0.2, -0.3], [0.5, 0.1]]])
    points = ray_points(cameras, view, image, torch.tensor([[[-1.0, 1.0], [-1.0, 1.0]]]))
    assert torch.allclose(cameras.project(points[0, 1])[2], image[0, 1].expand(2, -1), atol=1e-6)


def test_views_and_cameras_must_agree():
    with pytest.raises(ValueError, match=r"views must be \(B, 3, H, W\)"):
        fit_views(torch.zeros(1, 4, 8, 8), hemisphere(3))
    with pytest.raises(ValueError, match='"grid" or "mlp"'):
        NeuSSettings(field="hash")
