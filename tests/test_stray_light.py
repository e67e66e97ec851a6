from dataclasses import replace

import numpy as np
import pytest
from made_up import small_statistics
from scipy import ndimage

from cascade.data.camera import fit_camera
from cascade.data.glow import fit_glow, fit_haze
from cascade.optics.axial import Axial, spread_light
from cascade.optics.glow import Glow
from cascade.optics.noise import Noise
from cascade.population.placement import place
from cascade.population.room import Room
from cascade.population.scene import plan_scene
from cascade.population.settings import CascadeSettings

SPACING = (0.5, 0.5)


def discs(rng: np.random.Generator, count: int, side: int = 320) -> np.ndarray:
    y, x = np.indices((side, side))
    centres = rng.uniform(0, side, (count, 2))
    return np.any([(y - a) ** 2 + (x - b) ** 2 < 12**2 for a, b in centres], 0)


def test_stray_light_is_what_was_stated_and_cells_keep_theirs():
    cells = discs(np.random.default_rng(0), 20)
    light = 500 * cells.astype(np.float32)
    glow = Glow(0.1, 5.0, 0.4, 3.0)
    seen = glow.add(light, SPACING, 0, 0)
    smooth = Glow(0.1, 5.0).add(light, SPACING, 0, 0)
    stray = 0.1 * spread_light(light, 5.0, SPACING)
    np.testing.assert_allclose(smooth, np.maximum(light, stray), rtol=1e-5)
    relative = (seen - smooth)[stray > 1] / stray[stray > 1]
    assert relative.std() == pytest.approx(0.4, rel=0.1)
    assert seen[cells].mean() == pytest.approx(500, rel=0.01)
    window = glow.add(light[100:, 60:], SPACING, 0, 0, (100, 60))
    far = glow.reach(SPACING)
    np.testing.assert_allclose(window[far:, far:], seen[100 + far :, 60 + far :], atol=0.5)


def test_stray_light_of_planes_is_recovered():
    rng, truth = np.random.default_rng(1), Glow(0.1, 5.4, 0.4, 3.0)
    images, masks = [], []
    for n in range(4):
        cells = discs(rng, 15)
        light = truth.add(500 * cells.astype(np.float32), SPACING, 7, n)
        images.append(100 + light + rng.normal(0, 3, light.shape))
        masks.append(~ndimage.binary_dilation(cells, iterations=3))
    found = fit_glow(images, masks, 12.0, 48.0, SPACING)
    assert found.length_um == pytest.approx(5.4)
    assert found.share == pytest.approx(0.1, rel=0.2)
    assert found.roughness == pytest.approx(0.4, rel=0.35)
    assert found.roughness_px == pytest.approx(3.0, rel=0.35)
    dull = [100 + 500 * ~mask + rng.normal(0, 3, mask.shape) for mask in masks]
    nothing = fit_glow(dull, masks, 12.0, 48.0, SPACING)
    assert nothing is None or nothing.share < 0.003


@pytest.mark.parametrize(("haze_um", "slope"), [((80.0, 10.0), 0.0), ((80.0, 2.0), 0.35)])
def test_haze_of_stacks_is_recovered(haze_um, slope):
    rng, spacing = np.random.default_rng(2), (2.0, 1.0, 1.0)
    truth = Axial((1.0, 0.1), [0.0, 1.0], [1.0, 0.0], 10.0, haze=1.5, haze_um=haze_um, haze_slope=slope)
    images, masks, covers = [], [], []
    for _ in range(3):
        cells = np.zeros((24, 80, 80), bool)
        cells[tuple(rng.integers([6, 10, 10], [18, 70, 70], (9, 3)).T)] = True
        cells = ndimage.distance_transform_edt(~cells, sampling=spacing) < 5
        images.append(100 + truth.with_glow(400 * cells.astype(np.float32), spacing) + rng.normal(0, 4, cells.shape))
        masks.append(images[-1] < 106)
        covers.append(cells)
    blind = replace(truth, haze=0.0, haze_um=(0.0, 0.0), haze_slope=0.0)
    found = fit_haze(blind, images, masks, covers, spacing)
    assert found.haze_um == pytest.approx(haze_um)
    assert found.haze_slope == slope
    assert found.haze == pytest.approx(1.5, rel=0.2)
    assert found.glow < 0.1
    assert fit_haze(blind, [np.full_like(images[0], 100.0)], masks[:1], covers[:1], spacing) == blind
    few = replace(blind, diameter_um=0.0)  # too few cells to tell their size
    assert fit_haze(few, images, masks, covers, spacing) == few


def test_read_out_noise_goes_below_the_offset():
    noise = Noise(100.0, 0.0, 25.0, [[1.0]], read_sd=2.0)
    drawn = noise.add(np.full((500, 500), 103.0, np.float32), np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(103, abs=0.1)
    assert drawn.var() == pytest.approx(25 * 3 + 4, rel=0.03)
    assert np.percentile(drawn, 1) == pytest.approx(96, abs=0.7)
    assert float(noise.variance(np.array(103.0))) == pytest.approx(79)


def test_cells_beyond_the_border_are_as_dense_there_as_inside():
    discs_ = [np.hypot(*np.indices((21, 21)) - 10) <= 10] * 30
    inside, beyond = (
        np.concatenate([place(discs_, (200, 200), 0.0, np.random.default_rng(n), room) + 10 for n in range(30)])
        for room in (Room(), Room(beyond=True))
    )
    assert inside.min() >= 0
    assert beyond.min() == -8  # a tenth of the box stays on the canvas
    at_border = (beyond.min(1) < 20) | (beyond.max(1) >= 180)
    assert at_border.mean() == pytest.approx(1 - 160**2 / 216**2, abs=0.04)


def test_images_have_the_background_of_the_one_they_are_like():
    statistics = small_statistics(2)
    count = len(statistics.cells_per_image)
    levels = [100.0 + n for n in range(count)]
    scenes = [plan_scene(replace(statistics, image_level=levels), CascadeSettings(), 0, n) for n in range(2 * count)]
    assert all(scene.level == levels[scene.like] for scene in scenes)


@pytest.mark.parametrize("light", [3.0, 13.0, 60.0])
def test_an_avalanche_is_a_poisson_number_of_exponentials(light):
    rng = np.random.default_rng(0)
    drawn = Noise(100.0, 0.0, 25.0, [[1.0]], avalanche=True).add(np.full((500, 500), 100 + light, np.float32), rng)
    photons = rng.poisson(light / 12.5, 250_000)
    truth = 100 + rng.gamma(np.maximum(photons, 1e-9), 12.5) * (photons > 0)
    assert drawn.mean() == pytest.approx(100 + light, abs=0.02 * light + 0.05)
    assert drawn.var() == pytest.approx(25 * light, rel=0.03)
    share = [0.05, 0.3, 0.6, 0.9, 0.99]
    np.testing.assert_allclose(np.quantile(drawn, share), np.quantile(truth, share), atol=0.05 * truth.std())


def test_noise_is_read_where_haze_lights_the_background_and_not_in_rough_cells():
    rng, truth = np.random.default_rng(3), Noise(100.0, 0.0, 24.0, [[1.0]], read_sd=2.0, avalanche=True)
    images, masks, covers, strays, hazy = [], [], [], [], []
    for _ in range(3):
        z, y, _ = np.indices((20, 160, 160), np.float32)
        haze = 40 * np.exp(-0.5 * (((z - 10) / 8) ** 2 + ((y - 80) / 40) ** 2))
        cells = np.zeros(haze.shape, bool)
        cells[4:16:4, 60:100, 30:130:20] = True
        cells = ndimage.binary_dilation(cells, iterations=3)
        rough = np.where(cells, 300 * rng.lognormal(0, 0.3, haze.shape), 0)
        images.append(truth.add((104 + haze + rough).astype(np.float32), rng))
        masks.append((haze < 6) & ~cells)
        covers.append(cells)
        strays.append(haze)
        hazy.append(~ndimage.binary_dilation(cells, iterations=4))
    _, found = fit_camera(images, masks, covers, 40.0, strays, hazy)
    assert found.gain == pytest.approx(24, rel=0.03)
    light = np.array([105.0, 110.0, 140.0])
    np.testing.assert_allclose(found.variance(light), truth.variance(light), rtol=0.08)
    assert found.avalanche
    _, of_cells = fit_camera(images, masks, covers, 40.0, strays)
    assert of_cells.gain > 1.1 * 24
    even = [np.full_like(stack, False) for stack in hazy]  # nowhere: cells have to tell
    assert fit_camera(images, masks, covers, 40.0, strays, even)[1] == of_cells
