import numpy as np
import pytest
from scipy import ndimage

from cascade.geometry.grid import Grid, voxelize
from cascade.shapes.deformation import BSplineField, deformed, random_displacements
from cascade.shapes.ellipsoid import ellipsoid


def scipys(coefficients, box, points):
    """The same field by scipy: B-spline coefficients without prefiltering, mirrored at the border."""
    shape = np.array(coefficients.shape[:-1])
    t = np.clip((points / box + 0.5) * (shape - 1), 0, shape - 1)
    sampled = [
        ndimage.map_coordinates(c, t.T, order=3, prefilter=False, mode="mirror")
        for c in np.moveaxis(coefficients, -1, 0)
    ]
    return np.stack(sampled, -1)


@pytest.mark.parametrize("lattice", [(4, 4), (2, 7), (4, 5, 6), (2, 3, 2)])
def test_fields_are_scipys_splines(lattice):
    rng = np.random.default_rng(0)
    n = len(lattice)
    coefficients, box = random_displacements(rng, lattice, 2.0, 3), rng.uniform(5, 20, (3, n))
    field = BSplineField(coefficients, box)
    points, cell = rng.uniform(-12, 12, (600, n)), rng.integers(0, 3, 600)  # also outside the boxes
    corners = np.array([[-0.5] * n, [0.5] * n, [0] * n])
    for b in range(3):
        exact = scipys(coefficients[b], box[b], points)
        np.testing.assert_allclose(field(points, b), exact, atol=1e-10)
        np.testing.assert_allclose(field(points, cell)[cell == b], exact[cell == b], atol=1e-10)
        edges = corners * box[b]
        np.testing.assert_allclose(field(edges, b), scipys(coefficients[b], box[b], edges), atol=1e-10)


@pytest.mark.parametrize("lattice", [(4, 6), (5, 4, 3)])
def test_grids_are_their_points(lattice):
    rng = np.random.default_rng(1)
    n = len(lattice)
    field = BSplineField(random_displacements(rng, lattice, 1.0, 4), rng.uniform(6, 9, (4, n)))
    axes = [rng.uniform(-6, 6, (4, size)) for size in (7, 5, 6)[:n]]
    grids = field.on_grids(axes)
    assert grids.shape == (4, *(7, 5, 6)[:n], n)
    for b in range(4):
        points = np.stack(np.meshgrid(*[axis[b] for axis in axes], indexing="ij"), -1)
        np.testing.assert_allclose(grids[b], field(points.reshape(-1, n), b).reshape(points.shape), atol=1e-12)


@pytest.mark.parametrize("lattice", [(12, 12), (9, 9, 9)])
def test_displacements_spread_as_asked(lattice):
    rng = np.random.default_rng(2)
    n = len(lattice)
    field = BSplineField(random_displacements(rng, lattice, 1.7, 200), np.full(n, 10.0))
    moved = np.concatenate([field(rng.uniform(-4, 4, (50, n)), b) for b in range(200)])
    assert moved.std() == pytest.approx(1.7, rel=0.03)
    assert abs(moved.mean()) < 0.06


def test_a_smooth_field_stays_one_and_slopes_by_its_coefficients():
    lattice = np.stack(np.meshgrid(*[np.linspace(-5, 5, 6)] * 2, indexing="ij"), -1)
    field = BSplineField(0.3 * lattice[None], np.array([10.0, 10.0]))
    inner = np.random.default_rng(3).uniform(-3, 3, (50, 2))  # B-splines reproduce lines away from the border
    np.testing.assert_allclose(field(inner), 0.3 * inner, atol=1e-12)
    outside = np.array([[7.0, 1.0], [70.0, 1.0]])
    np.testing.assert_allclose(*field(outside), atol=1e-12)


def test_a_stretched_ball_is_an_ellipsoid():
    lattice = np.stack(np.meshgrid(*[np.linspace(-12, 12, 9)] * 3, indexing="ij"), -1)
    stretch = np.array([0.5, 0.0, -0.25])  # x + u(x) = (1.5, 1, 0.75) x
    solid = deformed(ellipsoid(np.array([6.0, 6.0, 6.0])), stretch * lattice, (24.0, 24.0, 24.0))
    grid = Grid.covering((20, 20, 20), (0.5, 0.5, 0.5))
    made = voxelize(solid, grid).array
    exact = voxelize(ellipsoid(np.array([4.0, 6.0, 8.0])), grid).array
    assert (made & exact).sum() / (made | exact).sum() > 0.999


def test_deforms_in_the_plane():
    def disc(points):
        return np.linalg.norm(points, axis=1) - 5

    plain = voxelize(deformed(disc, np.zeros((4, 4, 2)), (12.0, 12.0)), Grid.covering((14, 14), (0.25, 0.25)))
    bent = random_displacements(np.random.default_rng(4), (4, 4), 0.6)
    moved = voxelize(deformed(disc, bent, (12.0, 12.0)), Grid.covering((14, 14), (0.25, 0.25)))
    assert plain.array.sum() / 16 == pytest.approx(25 * np.pi, rel=0.01)
    assert 0.02 < (plain.array ^ moved.array).mean() < 0.3


def test_refuses_what_is_no_field():
    box = (10.0, 10.0)
    with pytest.raises(ValueError, match=r"\(B, K, K, 2\)"):
        deformed(np.sum, np.zeros((4, 4, 3)), box)
    with pytest.raises(ValueError, match="at least 2"):
        deformed(np.sum, np.zeros((1, 4, 2)), box)
    with pytest.raises(ValueError, match="above 0"):
        deformed(np.sum, np.zeros((4, 4, 2)), (10.0, 0.0))
    with pytest.raises(ValueError, match="finite"):
        deformed(np.sum, np.full((4, 4, 2), np.nan), box)
    with pytest.raises(ValueError, match="0 or more"):
        random_displacements(np.random.default_rng(0), (4, 4), -1.0)
