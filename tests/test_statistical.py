import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.sparse.linalg import eigsh

from cascade.geometry.grid import Grid, Volume, voxelize
from cascade.shapes.ellipsoid import ellipsoid, random_axes
from cascade.shapes.modes import picture_of_modes
from cascade.shapes.rays import measured_radii, rays, star_solid
from cascade.shapes.statistical import ShapeModel, fit_shape_model, shape_model_of


def ellipsoid_radii(semi):
    """Closed form: 1 / |d / a| in the directions d."""
    return 1 / np.linalg.norm(rays()[0] / semi, axis=1)


def family(count, seed=0):
    """Ellipsoids that vary in size and in one ratio."""
    rng = np.random.default_rng(seed)
    size, ratio = np.exp(rng.normal(0, 0.1, count)), np.exp(rng.normal(0, 0.1, count))
    return np.stack([9 * size * ratio, 6 * size, 4 * size / ratio], 1)


def mask_of(semi, axes=None, spacing=(1.0, 0.5, 0.5)):
    return voxelize(ellipsoid(np.array(semi), axes), Grid.covering((26.0, 26.0, 26.0), spacing)).array


def test_radii_of_a_mask_are_those_of_its_ellipsoid():
    radii, centre, frame = measured_radii(mask_of((9.0, 6.0, 4.0)), (1.0, 0.5, 0.5), align=False)
    exact = ellipsoid_radii((9.0, 6.0, 4.0))
    assert np.abs(radii / exact - 1).mean() < 0.03
    np.testing.assert_allclose(centre, 13, atol=0.3)
    assert np.array_equal(frame, np.eye(3))


def test_alignment_undoes_a_rotation():
    for axes in random_axes(np.random.default_rng(1), 3, 4):
        radii, _, frame = measured_radii(mask_of((9.0, 6.0, 4.0), axes, (0.5,) * 3), (0.5,) * 3, align=True)
        assert np.linalg.det(frame) == pytest.approx(1)
        assert (np.abs((frame * axes).sum(1)) > 0.99).all()
        assert np.abs(radii / ellipsoid_radii((9.0, 6.0, 4.0)) - 1).mean() < 0.03


def test_a_solid_of_radii_is_its_solid():
    axes = random_axes(np.random.default_rng(2), 3, 1)[0]
    made = voxelize(star_solid(ellipsoid_radii((9.0, 6.0, 4.0)), axes), Grid.covering((26,) * 3, (0.5,) * 3)).array
    exact = mask_of((9.0, 6.0, 4.0), axes, (0.5,) * 3)
    assert (made & exact).sum() / (made | exact).sum() > 0.99
    points = np.random.default_rng(3).normal(0, 5, (2000, 3))
    np.testing.assert_allclose(star_solid(np.full(2048, 4.0))(points), np.linalg.norm(points, axis=1) - 4, atol=1e-9)


def test_modes_are_the_eigenvectors_of_the_covariance_matrix():
    radii = np.array([ellipsoid_radii(semi) for semi in family(40)])
    model = shape_model_of(radii)
    root = np.sqrt(rays()[1])
    values, vectors = eigsh(np.cov((radii * root).T), k=6)  # the covariance of the paper, area for area
    order = np.argsort(-values)
    values, vectors = values[order], vectors[:, order]
    np.testing.assert_allclose(model.variances[:6], values, rtol=1e-3)
    for mode in range(3):
        phi = model.modes_um[mode] * root / np.sqrt(model.variances[mode])
        assert abs(phi @ vectors[:, mode]) == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(model.mean_um, radii.mean(0), rtol=1e-5)
    np.testing.assert_allclose(model.radii(np.array([2.0, -1.0])), radii.mean(0) + [2, -1] @ model.modes_um[:2], 1e-5)


def test_balls_vary_in_one_mode():
    sizes = np.array([4.0, 5.0, 7.0])
    model = shape_model_of(np.repeat(sizes[:, None], 2048, 1))
    assert model.variances[0] == pytest.approx(sizes.var(ddof=1), rel=1e-4)
    assert model.variances[1:].max() < 1e-6
    assert model.radii(np.array([1.0]))[0] == pytest.approx(sizes.mean() + sizes.std(ddof=1), rel=1e-5)


def test_shapes_left_out_are_known_by_the_others():
    radii = np.array([ellipsoid_radii(semi) for semi in family(30)])
    for n in range(0, 30, 6):
        known = shape_model_of(np.delete(radii, n, 0)).fitted(radii[n], num_modes=6)
        assert np.abs(known / radii[n] - 1).max() < 0.02
    few = shape_model_of(radii[1:]).fitted(radii[0], num_modes=1)
    assert np.abs(few - radii[0]).max() > np.abs(shape_model_of(radii[1:]).fitted(radii[0]) - radii[0]).max()


def test_samples_vary_as_the_shapes_do():
    radii = np.array([ellipsoid_radii(semi) for semi in family(60)])
    model = shape_model_of(radii)
    weights = model.draw(np.random.default_rng(4), 4000)
    assert np.abs(weights).max() <= 3
    drawn = np.array([model.radii(w) for w in weights])
    np.testing.assert_allclose(drawn.mean(0), radii.mean(0), rtol=0.02)
    np.testing.assert_allclose(drawn.std(0), radii.std(0), rtol=0.08)
    again = model.draw(np.random.default_rng(4), 4000)
    assert np.array_equal(weights, again)


def test_fits_labels_and_organisms(tmp_path):
    labels = np.zeros((44, 40, 120), np.uint16)
    semi = ((9.0, 8.0, 8.0), (12.0, 9.0, 8.0), (16.0, 12.0, 9.0))
    for n, (axes_um, x) in enumerate(zip(semi, (20, 60, 100), strict=True)):
        grid = Grid((44, 40, 40), (1.0,) * 3, (-22.0, -20.0, -20.0))
        labels[:, :, x - 20 : x + 20][voxelize(ellipsoid(np.array(axes_um)), grid).array] = 7 * n + 3
    model = fit_shape_model([Volume(labels, (0.5, 0.5, 0.5))])
    assert (model.num_shapes, len(model.modes_um)) == (3, 2)
    volume = (model.mean_um**3 @ rays()[1]) ** (1 / 3)
    assert volume == pytest.approx(np.mean([np.prod(s) ** (1 / 3) for s in semi]) / 2, rel=0.03)
    organisms = [Volume(labels == label, (0.5, 0.5, 0.5)) for label in (3, 10, 17)]
    alike = fit_shape_model(organisms)
    np.testing.assert_allclose(alike.mean_um, model.mean_um, rtol=1e-5)
    cut = labels[:, 12:]
    assert fit_shape_model([Volume(cut, (1.0,) * 3)]).num_shapes == 3
    with pytest.raises(ValueError, match="two shapes or more, got 1"):
        fit_shape_model([Volume(cut, (1.0,) * 3)], cut=False)
    path = tmp_path / "shapes.safetensors"
    model.save(path)
    back = ShapeModel.load(path)
    assert np.array_equal(back.modes_um, model.modes_um)
    assert np.array_equal(back.mean_um, model.mean_um)
    assert back.num_shapes == 3
    picture_of_modes(back, tmp_path / "modes.png", num_modes=2)
    assert (tmp_path / "modes.png").stat().st_size > 5000


def test_a_model_of_thin_shapes_makes_solids_still():
    radii = np.abs(np.random.default_rng(5).normal(1, 1, (5, 2048)))
    model = shape_model_of(radii)
    assert model.radii(np.full(4, -3.0)).min() > 0


def test_refuses_what_is_no_shape_model(tmp_path):
    one = np.zeros((9, 9, 9), np.uint8)
    one[3:6, 3:6, 3:6] = 4
    with pytest.raises(ValueError, match="two shapes or more, got 1"):
        fit_shape_model([Volume(one, (1.0,) * 3)])
    with pytest.raises(ValueError, match="got 0"):
        fit_shape_model([Volume(np.zeros((4, 4, 4), bool), (1.0,) * 3)])
    with pytest.raises(ValueError, match=r"\(Z, Y, X\)"):
        fit_shape_model([Volume(one[0], (1.0, 1.0))])
    with pytest.raises(ValueError, match=r"\(Z, Y, X\)"):
        fit_shape_model([Volume(one.astype(np.float32), (1.0,) * 3)])
    radii = np.array([ellipsoid_radii(semi) for semi in family(4)])
    with pytest.raises(ValueError, match="from 1 to 3, got 4"):
        shape_model_of(radii, num_modes=4)
    broken = radii.copy()
    broken[1, 5] = np.nan
    with pytest.raises(ValueError, match="finite"):
        shape_model_of(broken)
    model = shape_model_of(radii)
    with pytest.raises(ValueError, match="from 0 to 3, got 4"):
        model.draw(np.random.default_rng(0), 1, num_modes=4)
    with pytest.raises(ValueError, match="within ±3"):
        model.radii(np.array([3.5]))
    with pytest.raises(ValueError, match="within ±3"):
        model.radii(np.array([np.nan]))
    with pytest.raises(ValueError, match="up to 3"):
        model.radii(np.zeros(4))
    with pytest.raises(ValueError, match="must be"):
        ShapeModel(np.ones(7), np.ones((2, 7)), 3)
    with pytest.raises(ValueError, match="finite"):
        ShapeModel(np.full(2048, np.nan), np.ones((2, 2048)), 3)
    for name, write in (("none", None), ("text", lambda p: p.write_text("x")), ("other", lambda p: save_file({}, p))):
        if write:
            write(tmp_path / name)
        with pytest.raises(ValueError, match="holds no shape model"):
            ShapeModel.load(tmp_path / name)
