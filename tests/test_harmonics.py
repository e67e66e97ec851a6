import numpy as np
import pytest
import torch

from cascade.geometry.cameras import Cameras, along_z, hemisphere, look_along, pixel_centres, ring, view_set
from cascade.geometry.grid import Grid, voxelize
from cascade.shapes.harmonic_solids import harmonic_solids
from cascade.shapes.harmonics import (
    HarmonicShapes,
    ShapeLaw,
    SilhouetteRenderer,
    draw_shapes,
    harmonics,
    polygon_distance,
)
from cascade.shapes.surface import render_surface
from cascade.shapes.table import beyond_surface, radius_table


@pytest.mark.parametrize("cameras", [hemisphere(16), hemisphere(5), ring(16, 30), along_z()])
def test_camera_axes_are_right_handed_frames(cameras):
    identity = cameras.axes @ cameras.axes.transpose(1, 2)
    assert torch.allclose(identity, torch.eye(3).expand_as(identity), atol=1e-6)
    assert torch.allclose(torch.linalg.det(cameras.axes), torch.ones(len(cameras)))


def test_the_first_view_is_the_plane_of_the_image():
    for cameras in (along_z(), hemisphere(7)):
        assert torch.allclose(cameras.axes[0], torch.eye(3))
    point = torch.tensor([[0.3, 0.1, -0.2]])
    assert torch.allclose(hemisphere(4).project(point)[0, 0], point[0, 1:])


def test_projecting_undoes_world():
    cameras = hemisphere(9)
    depth, image = torch.rand(50) * 2 - 1, torch.rand(50, 2) * 2 - 1
    points = cameras.world(depth, image)  # (N, 50, 3)
    back = torch.stack([cameras.project(points[n])[n] for n in range(9)])
    assert torch.allclose(back, image.expand(9, -1, -1), atol=1e-6)
    assert torch.allclose((points * cameras.directions[:, None]).sum(-1), depth.expand(9, -1), atol=1e-6)


def test_the_ring_is_syncdreamers():
    cameras = ring(16, 30.0)
    elevation = torch.asin(cameras.directions[:, 1])
    assert torch.allclose(torch.rad2deg(elevation), torch.full((16,), 30.0), atol=1e-4)
    azimuth = torch.rad2deg(torch.atan2(cameras.directions[:, 2], cameras.directions[:, 0])) % 360
    assert torch.allclose(azimuth, torch.arange(16) * 22.5, atol=1e-3)
    with pytest.raises(ValueError, match="no view set"):
        view_set("sphere", 4)


def test_harmonics_are_orthonormal():
    k = torch.arange(40_000) + 0.5
    z, azimuth = 1 - 2 * k / 40_000, k * np.pi * (3 - np.sqrt(5))
    radius = (1 - z**2).sqrt()
    basis = harmonics(torch.stack([z, radius * azimuth.sin(), radius * azimuth.cos()], -1), 6)
    gram = 4 * np.pi * basis.T @ basis / len(k)
    assert torch.allclose(gram, torch.eye(49), atol=2e-3)


def sphere(radius, degree=4):
    return HarmonicShapes(torch.eye(3)[None] / radius**2, torch.zeros(1, (degree + 1) ** 2))


def test_a_sphere_looks_like_a_disc_from_everywhere():
    maps = SilhouetteRenderer(hemisphere(6), 4, 64)(sphere(0.5))[0] * 0.25
    expected = (pixel_centres(64).norm(dim=-1) - 0.5).clamp(-0.25, 0.25)
    assert torch.allclose(maps, expected.expand_as(maps), atol=5e-4)


def test_an_ellipsoid_has_its_volume_and_its_silhouettes():
    form = torch.diag(torch.tensor([0.6, 0.3, 0.45]) ** -2)[None]
    shape = HarmonicShapes(form, torch.zeros(1, 25))
    grid = Grid.centred((64,) * 3, (1 / 32,) * 3)
    inside = voxelize(lambda p: shape.sdf(torch.from_numpy(p))[0].numpy(), grid).array
    assert inside.sum() / 32**3 == pytest.approx(4 / 3 * np.pi * 0.6 * 0.3 * 0.45, rel=0.01)
    views = look_along(np.eye(3))  # along z, y, x
    areas = (SilhouetteRenderer(views, 4, 128)(shape)[0] < 0).sum((1, 2)) / 64**2
    np.testing.assert_allclose(areas, np.pi * np.array([0.3 * 0.45, 0.6 * 0.45, 0.6 * 0.3]), rtol=0.01)


def test_shapes_are_star_convex_and_as_rough_as_asked():
    generator = torch.Generator().manual_seed(0)
    smooth = draw_shapes(50, ShapeLaw(roughness=0.0, anisotropy=0.0), generator)
    rough = draw_shapes(50, ShapeLaw(roughness=0.3), generator)
    directions = torch.nn.functional.normalize(torch.randn(2000, 3, generator=generator), dim=1)
    assert torch.allclose(smooth.radius(directions), torch.ones(50, 2000), atol=1e-4)
    radius = rough.radius(directions)
    assert (radius > 0).all()
    assert radius.log().std() > 0.1
    assert torch.allclose(rough.scaled(torch.full((50,), 0.5)).radius(directions), 0.5 * radius, atol=1e-5)


def test_the_law_is_the_same_in_every_direction():
    shapes = draw_shapes(4000, ShapeLaw(roughness=0.3), torch.Generator().manual_seed(1))
    axes = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.0, 0.8]])
    spread = shapes.radius(axes).log().std(0)
    assert spread.max() / spread.min() < 1.08


def test_polygon_distances_are_those_of_a_square():
    angles = torch.arange(64) * (2 * np.pi / 64)
    unit = torch.stack([angles.sin(), angles.cos()], -1)
    square = unit * (0.5 / unit.abs().amax(1, keepdim=True))
    points = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    q = points.abs() - 0.5
    exact = q.clamp(min=0).norm(dim=1) + q.amax(1).clamp(max=0)
    assert torch.allclose(polygon_distance(square[None], points)[0], exact, atol=1e-5)


def test_silhouettes_agree_with_open3ds_ray_casting():
    from cascade.export import viewer
    from cascade.export.mesh import solid_mesh
    from cascade.geometry.grid import to_xyz

    try:
        o3d = viewer.open3d()
    except ImportError as error:
        pytest.skip(str(error))
    shape = draw_shapes(1, ShapeLaw(), torch.Generator().manual_seed(4)).scaled(torch.tensor([0.5]))
    cameras = hemisphere(5)
    maps = SilhouetteRenderer(cameras, 8, 48)(shape)[0]
    mesh = solid_mesh(lambda p: shape.sdf(torch.from_numpy(p))[0].numpy(), (2.0, 2.0, 2.0), 1 / 28)
    scene = viewer.scene_of(mesh)
    origins = cameras.world(torch.full((48, 48), -2.0), pixel_centres(48)).numpy()
    for n in range(len(cameras)):
        rays = np.concatenate([to_xyz(origins[n]), np.broadcast_to(to_xyz(cameras.directions[n]), (48, 48, 3))], -1)
        hit = np.isfinite(scene.cast_rays(o3d.core.Tensor(rays.astype(np.float32)))["t_hit"].numpy())
        seen = (maps[n] < 0).numpy()
        assert (hit & seen).sum() / (hit | seen).sum() > 0.98


def test_a_balls_surface_is_a_balls():
    ball = HarmonicShapes(torch.eye(3)[None] / 0.6**2, torch.zeros(1, 9))
    depth, normals = render_surface(ball, hemisphere(3), 32)
    plane = pixel_centres(32)
    square = (plane**2).sum(-1)
    inside = (square < 0.55**2).expand(3, -1, -1)
    exact = -(0.36 - square).clamp(min=0).sqrt()
    assert torch.allclose(depth[0][inside], exact.expand(3, -1, -1)[inside], atol=2e-3)
    assert torch.isinf(depth[0][(square > 0.62**2).expand(3, -1, -1)]).all()
    towards = torch.cat([exact[..., None], plane], -1) / 0.6
    assert torch.allclose(normals[0][inside], towards.expand(3, -1, -1, -1)[inside], atol=0.02)


def test_surfaces_agree_with_open3ds_ray_casting():
    from cascade.export import viewer
    from cascade.export.mesh import solid_mesh
    from cascade.geometry.grid import to_xyz

    try:
        o3d = viewer.open3d()
    except ImportError as error:
        pytest.skip(str(error))
    shapes = draw_shapes(2, ShapeLaw(), torch.Generator().manual_seed(4)).scaled(torch.tensor([0.5, 0.45]))
    cameras = hemisphere(5)
    depth, normals = render_surface(shapes, cameras, 48)
    origins = cameras.world(torch.full((48, 48), -2.0), pixel_centres(48)).numpy()
    for shape in range(2):
        solid = shapes[shape : shape + 1]
        mesh = solid_mesh(lambda p, s=solid: s.sdf(torch.from_numpy(p))[0].numpy(), (2.0, 2.0, 2.0), 1 / 28)
        scene = viewer.scene_of(mesh)
        for n in range(len(cameras)):
            rays = np.concatenate([to_xyz(origins[n]), np.broadcast_to(to_xyz(cameras.directions[n]), (48, 48, 3))], -1)
            cast = scene.cast_rays(o3d.core.Tensor(rays.astype(np.float32)))
            theirs = cast["t_hit"].numpy() - 2
            ours = depth[shape, n].numpy()
            both = np.isfinite(theirs) & np.isfinite(ours)
            assert both.sum() > 0.97 * max(np.isfinite(theirs).sum(), np.isfinite(ours).sum())
            assert np.median(np.abs(theirs[both] - ours[both])) < 0.005
            outwards = to_xyz(torch.einsum("hwi,ij->hwj", normals[shape, n], cameras.axes[n]).numpy())
            angle = np.degrees(np.arccos(np.clip((outwards * cast["primitive_normals"].numpy()).sum(-1), -1, 1)))
            assert np.median(angle[both]) < 6


def test_tabulated_radii_are_the_radii():
    generator = torch.Generator().manual_seed(2)
    shapes = draw_shapes(20, ShapeLaw(), generator)
    points = torch.randn(3000, 3, generator=generator)
    points[:4] = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1e-7, 1], [0, -1e-7, 1]])  # the poles, and where 2π is 0
    assert torch.allclose(beyond_surface(radius_table(shapes), points), shapes.sdf(points), atol=2e-3)


def test_cameras_refuse_other_shapes():
    with pytest.raises(ValueError, match=r"\(N, 3, 3\)"):
        Cameras(torch.eye(3))


def test_solids_have_the_areas_and_heights_asked_for():
    area, elongation = np.array([60.0, 150.0, 300.0]), np.array([1.0, 1.5, 2.0])
    solids, heights = harmonic_solids(area, elongation, torch.Generator().manual_seed(3))
    round_solids, _ = harmonic_solids(area, np.ones(3), torch.Generator().manual_seed(3))
    grid = Grid.covering((60, 34, 34), (0.5, 0.5, 0.5))
    for n in range(3):
        tall, plain = (voxelize(one[n], grid).array for one in (solids, round_solids))
        assert tall.any(0).sum() * 0.25 == pytest.approx(area[n], rel=0.05)
        height, before = (0.5 * volume.any((1, 2)).sum() for volume in (tall, plain))
        assert height == pytest.approx(elongation[n] * before, abs=0.51 * (1 + elongation[n]))
        assert height <= heights[n] + 0.5
