import numpy as np
import pytest
from conftest import ellipse

from cascade.evaluation.solids import cells_of, distances, solid_statistics
from cascade.geometry.grid import Grid, voxelize
from cascade.multiview.outlines import silhouettes_of_slices
from cascade.shapes.ellipsoid import ellipsoid, ellipsoid_of_outline

SPACING = (1.0, 0.5, 0.5)


def solid(semi):
    return voxelize(ellipsoid(np.array(semi)), Grid.covering((40, 40, 40), SPACING)).array


def test_statistics_of_balls_and_ellipsoids():
    found = solid_statistics([solid((10, 10, 10)), solid((16, 8, 8))], SPACING)
    np.testing.assert_allclose(found.volume, 4 / 3 * np.pi * np.array([1000, 1024]), rtol=0.02)
    assert found.sphericity[0] == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(found.elongation, [1, 2], rtol=0.05)
    np.testing.assert_allclose(found.height_ratio, [1.0, 2.0], rtol=0.06)
    assert (found.roughness < 0.04).all()
    lumpy = solid((10, 10, 10)) | np.roll(solid((5, 5, 5)), 20, 1)
    assert solid_statistics([lumpy], SPACING).roughness[0] > 1.5 * found.roughness[0]


def test_a_thread_has_a_surface():
    thread = np.zeros((30, 3, 3), bool)
    thread[:, 1, 1] = True
    found = solid_statistics([thread], (1.0, 1.0, 1.0))
    assert found.volume[0] == 30
    assert 0 < found.sphericity[0] < 0.8
    assert found.elongation[0] > 10


def test_equal_sets_are_at_no_distance():
    rng = np.random.default_rng(0)
    a = solid_statistics([solid(rng.uniform(6, 12, 3)) for _ in range(8)], SPACING)
    b = solid_statistics([solid(rng.uniform(10, 16, 3)) for _ in range(8)], SPACING)
    assert max(distances(a, a).values()) < 1e-9
    assert distances(b, a)["volume"] > 0.5


def test_the_ellipsoids_distance_is_exact_for_a_ball():
    points = np.random.default_rng(0).normal(0, 10, (200, 3))
    ball = ellipsoid(np.array([7.0, 7.0, 7.0]))
    np.testing.assert_allclose(ball(points), np.linalg.norm(points, axis=1) - 7, atol=1e-9)
    assert ball(np.zeros((1, 3)))[0] < 0


def test_an_outlines_ellipsoid_has_its_area_and_direction():
    mask = ellipse((64, 64), (32, 32), (20, 8), 0.6)
    grid = Grid.covering((60, 50, 50), (0.5, 0.5, 0.5))
    volume = voxelize(ellipsoid_of_outline(mask, 0.5, 2.0), grid).array
    silhouette = volume.any(0)
    assert silhouette.sum() == pytest.approx(mask.sum(), rel=0.03)
    y, x = (np.array(silhouette.shape) - 1) // 2 - 32
    centred = silhouette[y : y + 64, x : x + 64]
    assert (centred & mask).sum() / (centred | mask).sum() > 0.9
    height = volume.any((1, 2)).sum() * 0.5
    assert height == pytest.approx(2 * 2 * np.sqrt(160) * 0.5, rel=0.05)


def test_slices_are_grown_to_silhouettes():
    masks = np.stack([ellipse((64, 64), (32, 32), (12, 9))] * 3)
    grown = silhouettes_of_slices(masks, np.array([0.0, 0.6, -0.95]))
    areas = grown.sum((1, 2)) / masks.sum((1, 2))
    np.testing.assert_allclose(areas, [1, 1 / (1 - 0.36), 1 / (1 - 0.64)], rtol=0.06)


def test_cells_that_are_cut_are_left_out():
    labels = np.zeros((10, 10, 10), int)
    labels[0:3, 2:4, 2:4], labels[4:8, 4:8, 4:8] = 1, 3
    assert [m.sum() for m in cells_of(labels)] == [64]
    assert len(cells_of(labels, whole=False)) == 2
