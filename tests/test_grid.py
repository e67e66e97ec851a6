import numpy as np
import pytest
from scipy import ndimage

from cascade.geometry.grid import Grid, Volume, signed_distance, to_xyz, voxelize
from cascade.geometry.resample import resample, unresampled


def ball(radius):
    return lambda points: np.linalg.norm(points, axis=1) - radius


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.5, 0.7)])
def test_a_ball_has_its_volume_at_any_spacing(spacing):
    volume = voxelize(ball(10), Grid.covering((24, 24, 24), spacing), chunk=5000)
    assert volume.array.sum() * np.prod(volume.spacing_um) == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.02)


def test_slices_are_discs_at_equal_distances():
    slices = voxelize(ball(10), Grid.covering((20, 24, 24), (2.5, 0.25, 0.25)))
    assert len(slices.array) == 9  # -10, -7.5, … 10
    heights = 2.5 * (np.arange(9) - 4)
    areas = slices.array.sum((1, 2)) * 0.25**2
    np.testing.assert_allclose(areas, np.pi * np.maximum(100 - heights**2, 0), rtol=0.02, atol=0.1)


def test_points_follow_the_axes_of_the_array():
    grid = Grid.centred((2, 3, 4), (3.0, 2.0, 1.0))
    points = grid.points_um().reshape(2, 3, 4, 3)
    np.testing.assert_allclose(points[1, 2, 3], (1.5, 2.0, 1.5))
    np.testing.assert_allclose(points.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_array_equal(to_xyz(points)[..., 0], points[..., 2])


def test_resampling_keeps_places_and_total_light():
    y, x = np.indices((40, 60))
    image = np.exp(-((y - 14.5) ** 2 + (x - 37.5) ** 2) / 50).astype(np.float32)
    for target in ((0.5, 0.5), (2.0, 2.0)):
        other = resample(image, (1.0, 1.0), target)
        assert other.shape == (40 / target[0], 60 / target[1])
        yy, xx = np.indices(other.shape)
        centre = [((c + 0.5) * t - 0.5) for c, t in zip((14.5, 37.5), (1 / target[0],) * 2, strict=True)]
        found = [(yy * other).sum() / other.sum(), (xx * other).sum() / other.sum()]
        np.testing.assert_allclose(found, centre, atol=0.06)
        assert other.sum() * target[0] * target[1] == pytest.approx(image.sum(), rel=0.01)


def test_signed_distance_of_a_half_plane_is_exact():
    mask = np.zeros((10, 10), bool)
    mask[:, :4] = True
    np.testing.assert_allclose(signed_distance(mask, (2.0, 2.0))[5], (np.arange(10) - 3.5) * 2.0)
    assert np.isposinf(signed_distance(np.zeros((3, 3), bool), (1, 1))).all()


def test_a_volume_wants_one_spacing_per_axis():
    with pytest.raises(ValueError, match="one spacing per axis"):
        Volume(np.zeros((3, 3)), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("target", [0.8, 1.1])
def test_what_was_interpolated_comes_back(target):
    rng = np.random.default_rng(0)
    coarse = ndimage.gaussian_filter(rng.random((3, 32, 44)), (0, 0.8, 0.8)).astype(np.float32)
    fine = np.stack([resample(plane, (target,) * 2, (0.4, 0.4)) for plane in coarse])
    back = unresampled(fine, (0.4, 0.4), (target,) * 2)
    np.testing.assert_allclose(back, coarse, atol=2e-3)
    blurred = np.stack([resample(plane, (0.4, 0.4), (target,) * 2) for plane in fine])
    assert np.abs(blurred - coarse).max() > 20 * np.abs(back - coarse).max()


def test_to_finer_pixels_nothing_is_undone():
    planes = np.random.default_rng(1).random((2, 16, 16)).astype(np.float32)
    np.testing.assert_array_equal(unresampled(planes, (1.0, 1.0), (1.0, 1.0)), planes)
    assert unresampled(planes, (1.0, 1.0), (0.5, 0.5)).shape == (2, 32, 32)
