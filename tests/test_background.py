import numpy as np
import pytest
from scipy import ndimage, stats

from cascade.data.camera import fit_camera
from cascade.optics.background import Background
from cascade.optics.field import random_field
from cascade.optics.foreground import background_field, background_mask, half_sample_mode
from cascade.optics.noise import Noise
from cascade.optics.window import Window

WHITE = Noise(offset=100.0, read_variance=9.0, gain=2.0, kernel=[[1.0]])


def test_noise_has_the_variance_it_states():
    rng = np.random.default_rng(0)
    for level in (110.0, 200.0, 1000.0):
        noisy = WHITE.add(np.full((400, 400), level), rng)
        assert noisy.mean() == pytest.approx(level, abs=0.2)
        assert noisy.var() == pytest.approx(9 + 2 * (level - 100), rel=0.03)


def test_noise_is_skewed_like_photons():
    rng = np.random.default_rng(0)
    photons = Noise(offset=0.0, read_variance=0.0, gain=1.0, kernel=[[1.0]])
    drawn = photons.add(np.full((500, 500), 20.0), rng)
    skew = ((drawn - drawn.mean()) ** 3).mean() / drawn.std() ** 3
    assert skew == pytest.approx(2 / np.sqrt(20), rel=0.1)  # a gamma variable's; a Poisson count's is half of it


def test_noise_has_the_correlation_of_its_kernel():
    kernel = np.array([[0, 0.1, 0], [0.3, 0.9, 0.3], [0, 0.1, 0]])
    kernel /= np.sqrt((kernel**2).sum())
    field = Noise(0, 1, 0, kernel.tolist()).gaussian((3, 600, 600), np.random.default_rng(1))
    expected = (kernel[:, 1:] * kernel[:, :-1]).sum()
    assert (field[:, :, 1:] * field[:, :, :-1]).mean() == pytest.approx(expected, abs=0.01)
    assert field.var() == pytest.approx(1, rel=0.01)
    assert abs((field[0] * field[1]).mean()) < 0.01  # slices are independent


def test_the_camera_is_recovered_from_images_it_took():
    rng = np.random.default_rng(2)
    images, masks, inside = [], [], []
    truth = Background(levels=[200.0], field_sd=6.0, field_px=60.0, haze_sd=2.0, haze_px=4.0)
    for n in range(4):
        cells = np.zeros((400, 400), bool)
        for y, x in rng.uniform(30, 370, (25, 2)):
            yy, xx = np.indices(cells.shape)
            cells |= (yy - y) ** 2 + (xx - x) ** 2 < 15**2
        light = truth.draw((400, 400), 0, n) + 600 * ndimage.gaussian_filter(cells.astype(float), 1.5)
        images.append(WHITE.add(light, rng))
        masks.append(background_mask(images[-1], cells, 6))
        inside.append(cells)
    background, noise = fit_camera(images, masks, inside, 60.0)
    assert background.level == pytest.approx(200, abs=5)
    # Where slow field ends and haze begins is a matter of scale: their sum is what an image shows.
    assert np.hypot(background.field_sd, background.haze_sd) == pytest.approx(np.hypot(6, 2), rel=0.35)
    assert noise.gain == pytest.approx(2.0, rel=0.25)
    level = np.array([200.0, 700.0])
    np.testing.assert_allclose(noise.variance(level), WHITE.variance(level), rtol=0.25)


@pytest.mark.parametrize("level", [102.0, 106.0, 120.0, 180.0])
def test_few_photons_have_the_gamma_distribution(level):
    """Mean, variance and quantiles against scipy's gamma distribution, at shapes from 0.08 to 3.2."""
    photons = Noise(100.0, 0.0, 25.0, [[1.0]])
    drawn = photons.add(np.full((700, 700), level, np.float32), np.random.default_rng(0))
    truth = stats.gamma((level - 100) / 25, loc=100, scale=25)
    assert drawn.mean() == pytest.approx(truth.mean(), rel=2e-3)
    assert drawn.var() == pytest.approx(truth.var(), rel=0.03)
    share = [0.3, 0.5, 0.8, 0.95, 0.99]
    np.testing.assert_allclose(np.quantile(drawn, share), truth.ppf(share), atol=0.03 * truth.std())


def test_where_there_is_hardly_light_read_noise_is_gaussian():
    dark = Noise(100.0, 9.0, 0.5, [[1.0]]).add(np.full((500, 500), 100.5, np.float32), np.random.default_rng(0))
    assert dark.mean() == pytest.approx(100.5, abs=0.05)
    assert dark.std() == pytest.approx(np.sqrt(9.25), rel=0.01)
    assert abs(stats.skew(dark.ravel())) < 0.02


def test_a_camera_that_counts_few_photons_is_recovered():
    """Variance far above what the darkest pixel would allow, were it the offset: most pixels see no photon at all."""
    rng = np.random.default_rng(5)
    truth = Noise(100.0, 0.0, 25.0, [[1.0]])
    images, masks, inside = [], [], []
    for _ in range(4):
        cells = ndimage.zoom(rng.random((8, 8)) < 0.25, 40, order=0)
        light = 106 + 150 * ndimage.gaussian_filter(cells.astype(float), 1.5)
        images.append(np.rint(truth.add(light, rng) + 2 * rng.standard_normal(cells.shape)))
        masks.append(background_mask(images[-1], cells, 6))
        inside.append(cells)
    _, noise = fit_camera(images, masks, inside, 60.0)
    assert noise.gain == pytest.approx(25, rel=0.15)
    np.testing.assert_allclose(noise.variance(np.array([106.0, 250.0])), [150, 3750], rtol=0.2)


def test_drawn_backgrounds_have_the_spread_they_state():
    truth = Background(levels=[100.0], field_sd=5.0, field_px=20.0, haze_sd=0.0, haze_px=3.0)
    drawn = np.stack([truth.draw((200, 200), 0, n) for n in range(8)])
    assert drawn.std() == pytest.approx(5, rel=0.15)
    stack = truth.draw((4, 50, 50), 0, 0, level=40.0)
    assert stack.mean() == pytest.approx(40, abs=10)
    np.testing.assert_array_equal(stack[0], stack[3])


@pytest.mark.parametrize("length", [1.0, 2.5, 12.0, 60.0])
def test_random_fields_have_unit_variance_and_their_length(length):
    field = random_field((600, 600), length, (0, "test"))
    small = length < 20
    assert field.var() == pytest.approx(1, rel=0.1 if small else 0.4)
    lag = max(round(length), 1)
    if small and length > 2:
        correlation = (field[:, lag:] * field[:, :-lag]).mean() / field.var()
        assert correlation == pytest.approx(np.exp(-(lag**2) / (4 * length**2)), abs=0.08)


def test_windows_of_a_field_fit_together():
    truth = Background(levels=[100.0], field_sd=5.0, field_px=30.0, haze_sd=2.0, haze_px=3.3)
    whole = truth.draw((2, 300, 400), 3, 1, 100.0)
    for y, x in ((0, 0), (150, 120), (37, 251)):
        part = truth.draw((2, 100, 80), 3, 1, 100.0, origin=(y, x))
        np.testing.assert_allclose(part, whole[:, y : y + 100, x : x + 80], atol=2e-3)


def test_the_mode_ignores_a_bright_majority():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(50, 1, 3000), rng.uniform(60, 400, 5000)])
    assert half_sample_mode(values) == pytest.approx(50, abs=1.5)


def test_the_local_background_follows_a_gradient():
    y, x = np.indices((200, 240))
    image = 100 + 0.2 * x + np.random.default_rng(0).normal(0, 1, x.shape)
    cells = (y // 20 % 2 == 0) & (x // 20 % 2 == 0)
    field = background_field(image + 500 * cells, ~cells, 20.0)
    np.testing.assert_allclose(field[40:160, 40:200], (100 + 0.2 * x)[40:160, 40:200], atol=1.0)


def test_the_window_is_inverted_inside_its_range():
    window = Window(90.0, 2000.0)
    values = np.linspace(90, 2000, 50)
    np.testing.assert_allclose(window.restore(window.stretch(values)), values, rtol=1e-5)
    assert window.stretch(np.array([0.0, 5000.0])).tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="high > low"):
        Window(5.0, 5.0)


def test_a_background_that_was_cut_off_has_no_noise():
    rng = np.random.default_rng(0)
    cells = np.zeros((200, 200), bool)
    cells[40:80, 40:90], cells[120:160, 100:150] = True, True
    image = np.where(cells, rng.normal(800, 30, cells.shape), 0).clip(0).astype(np.uint16)
    background, noise = fit_camera([image] * 2, [~ndimage.binary_dilation(cells, iterations=6)] * 2, [cells] * 2, 60.0)
    assert background.level == 0
    drawn = noise.add(np.zeros((50, 50)), rng)
    assert np.isfinite(drawn).all()
    assert np.abs(drawn).max() < 1
