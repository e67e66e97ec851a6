import numpy as np
import pytest
from conftest import ellipse
from scipy import ndimage

from cascade.evaluation.solids import cells_of, distances, solid_statistics
from cascade.geometry.grid import Grid, voxelize
from cascade.multiview.outlines import silhouettes_of_slices
from cascade.shapes.ellipsoid import ellipsoid, ellipsoid_of_outline
from cascade.shapes.inflated import inflated_outline

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


def test_an_inflated_disc_is_an_ellipsoid_and_a_sausage_has_elliptic_cross_sections():
    disc = ellipse((96, 96), (47.5, 47.5), (40, 40))
    grid = Grid.centred((70, 60, 60), (0.5, 0.5, 0.5))
    made = voxelize(inflated_outline(disc, 0.25, 1.5), grid).array
    exact = voxelize(ellipsoid(np.array([15.0, 10.0, 10.0])), grid).array
    assert (made & exact).sum() / (made | exact).sum() > 0.96
    sausage = np.zeros((40, 120), bool)
    sausage[10:30, 10:110] = True
    made = voxelize(inflated_outline(sausage, 1.0, 0.5), Grid.centred((41, 41, 121), (1.0, 1.0, 1.0))).array
    semi = 0.25 * 2 * np.sqrt(2000 / np.pi)
    for across in made[:, :, 40:81].transpose(2, 0, 1):
        assert across.sum() == pytest.approx(np.pi * semi * 10, rel=0.06)
    assert (made == made[::-1]).all()


def test_an_inflated_outline_has_that_silhouette_whatever_its_form():
    """A horseshoe, whose centroid lies outside of it, in a crop that it nearly fills."""
    y, x = np.mgrid[-31:32, -31:32]
    horseshoe = (np.hypot(y, x) < 30) & (np.hypot(y, x) > 15) & (y < 8)
    grid = Grid.centred((81, 121, 121), (1.0, 1.0, 1.0))
    sdf = inflated_outline(horseshoe, 1.0, 1.0)
    silhouette = voxelize(sdf, grid).array.any(0)
    middle = np.rint(60 - np.argwhere(horseshoe).mean(0)).astype(int)
    (top, left), (height, width) = middle, horseshoe.shape
    seen = silhouette[top : top + height, left : left + width]
    assert (seen & horseshoe).sum() / (seen | horseshoe).sum() > 0.93
    assert silhouette.sum() == seen.sum()  # nothing beyond the crop
    assert sdf(np.array([[0.0, 0.0, 0.0], [0.0, 200.0, 0.0]])).min() > 0
    full = voxelize(inflated_outline(np.ones((9, 15), bool), 1.0, 1.0), grid).array.any(0)
    assert full.sum() == pytest.approx(9 * 15, abs=4)  # it ends where its crop does
    with pytest.raises(ValueError, match="the outline is empty"):
        inflated_outline(np.zeros((8, 8), bool), 1.0, 1.0)


def test_with_relief_solids_stay_in_one_piece_with_the_same_silhouette():
    y, x = np.mgrid[-31:32, -31:32]
    grid = Grid.centred((101, 101, 101), (1.0, 1.0, 1.0))
    rng = np.random.default_rng(0)
    angle = np.arctan2(y, x)
    for n in range(6):
        bumps = sum(rng.normal(0, 0.12) * np.cos(m * angle + rng.uniform(0, 6)) for m in range(2, 7))
        blob = np.hypot(y, x) < 18 * np.exp(bumps)
        plain, made = (voxelize(inflated_outline(blob, 1.0, 1.2, r), grid).array for r in (None, rng))
        assert ndimage.label(made)[1] == 1, n
        assert (made.any(0) == plain.any(0)).mean() > 0.999
        along = np.diff(np.pad(made, ((1, 1), (0, 0), (0, 0))).astype(int), axis=0)
        assert ((along == 1).sum(0) <= 1).all()  # a line along z meets it once
        assert made.any((1, 2)).sum() <= 1 + 1.3 * 1.2 * 2 * np.sqrt(blob.sum() / np.pi)
        assert (made != plain).mean() > 1e-3


def test_an_inflated_outlines_relief_is_as_rough_as_the_outline():
    """By the distance of the top from that without relief, in mean radii, where the top is flat."""
    y, x = np.mgrid[-40:41, -40:41]
    lines = np.stack(np.meshgrid(np.linspace(0, 35, 281), *[np.arange(-8, 9, 4)] * 2, indexing="ij"), -1)
    rough = {}
    for name, waves in {"disc": 0.0, "wavy": 0.08}.items():
        mask = np.hypot(y, x) < 25 * (1 + waves * np.sin(7 * np.arctan2(y, x)))

        def tops(rng, mask=mask):
            inside = inflated_outline(mask, 1.0, 1.0, rng)(lines.reshape(-1, 3)) < 0
            return inside.reshape(lines.shape[:3]).sum(0) * 35 / 280

        off = [tops(np.random.default_rng(seed)) - tops(None) for seed in range(12)]
        rough[name] = np.std(off) / 25
    assert rough["disc"] < 0.02
    assert rough["wavy"] == pytest.approx(0.08 / np.sqrt(2), rel=0.35)
    again = [inflated_outline(mask, 1.0, 1.0, np.random.default_rng(1))(lines.reshape(-1, 3)) for _ in range(2)]
    assert (again[0] == again[1]).all()


def test_slices_are_grown_to_silhouettes():
    masks = np.stack([ellipse((64, 64), (32, 32), (12, 9))] * 3)
    grown = silhouettes_of_slices(masks, np.array([0.0, 0.6, -0.95]))
    areas = grown.sum((1, 2)) / masks.sum((1, 2))
    np.testing.assert_allclose(areas, [1, 1 / (1 - 0.36), 1 / (1 - 0.64)], rtol=0.06)
    (wide,) = silhouettes_of_slices(ellipse((64, 64), (32, 30), (12, 27))[None], np.array([0.6]))
    assert not wide[:, [0, -1]].any()  # what has no room grows less, and is not cut off
    assert np.ptp(np.flatnonzero(wide.any(0))) == pytest.approx(57, abs=2)


def test_cells_that_are_cut_are_left_out():
    labels = np.zeros((10, 10, 10), int)
    labels[0:3, 2:4, 2:4], labels[4:8, 4:8, 4:8] = 1, 3
    assert [m.sum() for m in cells_of(labels)] == [64]
    assert len(cells_of(labels, whole=False)) == 2
