from dataclasses import replace

import numpy as np
import pytest
from made_up import statistics
from scipy import ndimage

from cascade.data.axial import Census
from cascade.data.region import fit_region, fit_shifts
from cascade.geometry.masks import ellipsoid_region
from cascade.population.scene import plan_scene
from cascade.population.settings import CascadeSettings

SPACING, SHAPE, AXES = (2.0, 1.0, 1.0), (50, 110, 110), (30.0, 25.0, 25.0)
EMBRYO = statistics(spacing_um=SPACING, image_shape=SHAPE, region_um=AXES, cells_per_image=[30] * 3)


def test_where_embryos_lie_is_recovered():
    rng = np.random.default_rng(0)
    truth = rng.normal((-9, 0, 2), (6, 0, 3), (80, 3))
    found = []
    for n, shift in enumerate(truth):
        points = rng.uniform(-1, 1, (400, 3))
        points = points[(points**2).sum(1) < 1][: 8 + n % 30] * AXES
        found.append(Census(len(points), points + shift + 0.5 * (np.array(SHAPE) - 1) * SPACING, {}))
    region = fit_region(found, np.array(SHAPE) * SPACING, False)
    assert region == pytest.approx(AXES, rel=0.1)
    found.append(Census(5, np.zeros((0, 3)), {}))  # of which nothing is known
    shifts = np.array(fit_shifts(found, SHAPE, region, SPACING))
    assert shifts.mean(0) == pytest.approx(truth.mean(0), abs=1)
    np.testing.assert_allclose(shifts[-1], truth.mean(0), atol=1.5)
    means = np.array([seen.centres_um.mean(0) for seen in found[:-1]]) - 0.5 * (np.array(SHAPE) - 1) * SPACING
    error = np.sqrt(((shifts[:-1] - truth) ** 2).mean(0))
    assert (error < np.sqrt(((means - truth) ** 2).mean(0))).all()
    assert error[1] < 0.6
    assert fit_shifts(found, SHAPE, None, SPACING) == []


def middle_um(region: np.ndarray) -> np.ndarray:
    return (np.array(ndimage.center_of_mass(region)) - 0.5 * (np.array(region.shape) - 1)) * SPACING


def test_embryos_lie_where_those_of_the_images_do_that_they_are_like():
    shifts = [[-10.0, 0.0, 4.0], [0.0, 0.0, 0.0], [12.0, -6.0, 0.0]]
    real = replace(EMBRYO, region_shift_um=shifts)
    for number in range(3):
        scene = plan_scene(real, CascadeSettings(), 0, number)
        np.testing.assert_allclose(middle_um(scene.room.region), shifts[scene.like], atol=0.5)
        assert scene.num_cells == 30
    half = CascadeSettings(canvas_size=(25, 110, 220))  # embryos as high as the canvas stay on it, half as far away
    for number in range(3):
        scene = plan_scene(real, half, 0, number)
        shift = shifts[scene.like]
        region = ellipsoid_region((25, 110, 220), SPACING, (25, 25, 25), (shift[0] / 2, *shift[1:]))
        np.testing.assert_array_equal(scene.room.region, region)
    far = plan_scene(replace(real, region_shift_um=[[90.0, 0.0, 0.0]] * 3), CascadeSettings(), 0, 0)
    assert far.room.region[-1].any()
    assert far.num_cells == 30
    given = ellipsoid_region(SHAPE, SPACING, AXES)
    np.testing.assert_array_equal(plan_scene(real, CascadeSettings(), 0, 0, region=given).room.region, given)
