import numpy as np
import pytest
from scipy import stats

from cascade.geometry.grid import Grid, voxelize
from cascade.shapes.ellipsoid import ellipsoid, random_axes


@pytest.mark.parametrize("semi", [(8.0, 5.0), (9.0, 6.0, 4.0)])
def test_rotated_ellipsoids_have_their_volume_and_extent(semi):
    semi = np.array(semi)
    n = len(semi)
    grid = Grid.covering((20.0,) * n, (0.25,) * n)
    volume = {2: np.pi, 3: 4 / 3 * np.pi}[n] * semi.prod()
    for axes in random_axes(np.random.default_rng(0), n, 3):
        inside = np.argwhere(voxelize(ellipsoid(semi, axes), grid).array) * 0.25
        assert len(inside) * 0.25**n == pytest.approx(volume, rel=0.01)
        extent = 2 * np.linalg.norm(semi[:, None] * axes, axis=0)  # of the box around it: 2 √Σ (a_k R_ki)²
        np.testing.assert_allclose(np.ptp(inside, axis=0) + 0.25, extent, atol=0.5)
        moments = axes.T @ np.diag(semi**2 / (n + 2)) @ axes
        np.testing.assert_allclose(np.cov(inside.T), moments, atol=0.01 * semi.max() ** 2)


def test_its_zero_is_its_surface():
    semi, axes = np.array([7.0, 5.0, 3.0]), random_axes(np.random.default_rng(1), 3, 1)[0]
    directions = np.random.default_rng(2).normal(size=(200, 3))
    surface = (directions / np.linalg.norm(directions, axis=1, keepdims=True) * semi) @ axes
    sdf = ellipsoid(semi, axes)
    np.testing.assert_allclose(sdf(surface), 0, atol=1e-9)
    assert (sdf(0.99 * surface) < 0).all()
    assert (sdf(1.01 * surface) > 0).all()


def test_rotations_are_uniform():
    frames = random_axes(np.random.default_rng(3), 3, 20_000)
    np.testing.assert_allclose(np.linalg.det(frames), 1)
    for i in range(3):  # Archimedes: each entry of a uniform rotation is uniform in [−1, 1]
        for j in range(3):
            assert stats.kstest(frames[:, i, j], stats.uniform(-1, 2).cdf).pvalue > 0.001
    trace = (np.trace(frames, axis1=1, axis2=2) - 1) / 2
    angle = np.arccos(np.clip(trace, -1, 1))  # density (1 − cos θ) / π
    assert stats.kstest(angle, lambda t: (t - np.sin(t)) / np.pi).pvalue > 0.001
    plane = random_axes(np.random.default_rng(4), 2, 20_000)
    np.testing.assert_allclose(np.linalg.det(plane), 1)
    turn = np.arctan2(plane[:, 1, 0], plane[:, 0, 0])
    assert stats.kstest(turn, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 0.001


@pytest.mark.parametrize("semi", [(4.0, 0.0, 4.0), (4.0, -1.0), (4.0, np.nan), (4.0,), ()])
def test_refuses_what_is_no_ellipsoid(semi):
    with pytest.raises(ValueError, match="lengths above 0"):
        ellipsoid(np.array(semi))
