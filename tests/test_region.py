from dataclasses import replace

import numpy as np
import pytest
from made_up import statistics
from scipy import ndimage

from cascade.data.axial import Census
from cascade.data.region import fit_region, fit_shells, fit_shifts
from cascade.geometry.masks import ellipsoid_region
from cascade.optics.statistics import Statistics
from cascade.population.room import room_of
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


def shell_of_cells(count: int, inner: float, outer: float, rng: np.random.Generator) -> Census:
    """Cells that are spread evenly between two ellipsoids, as factors on `AXES`: rejected from a box, by the other way
    than the code under test."""
    points = rng.uniform(-outer, outer, (80 * count, 3))
    radius = np.linalg.norm(points, axis=1)
    points = points[(radius < outer) & (radius > inner)][:count]
    assert len(points) == count
    return Census(count, points * AXES + rng.normal(0, 5, 3), {})


def test_how_large_and_hollow_embryos_are_is_recovered():
    rng = np.random.default_rng(0)
    kinds = [(0.0, 1.0)] * 40 + [(1.2, 1.5)] * 10
    found = [shell_of_cells(40, *kind, rng) for kind in kinds] + [Census(2, np.zeros((2, 3)), {})]
    shells = np.array(fit_shells(found, AXES, False, 0))
    assert shells.shape == (51, 2)
    full, hollow = shells[:40], shells[40:50]
    assert full[:, 1].mean() == pytest.approx(1, abs=0.03)
    assert full[:, 1].std() < 0.05
    assert full[:, 0].mean() < 0.3
    assert hollow.mean(0) == pytest.approx((1.2, 1.5), abs=0.1)
    assert shells[50, 1] == pytest.approx(shells[:50, 1].mean(), abs=0.1)  # of two cells nothing is told
    alike = np.array(fit_shells([shell_of_cells(12, 0.0, 1.0, rng) for _ in range(60)], AXES, False, 0))
    assert alike[:, 1].std() < 0.02  # by chance they differ by a tenth
    assert fit_shells(found, None, False, 0) == fit_shells(found[:1], AXES, False, 0) == []
    two = np.concatenate([rng.normal(-30, 1, (900, 3)), rng.normal(30, 1, (100, 3))])  # far from any shell
    apart = np.array(fit_shells([*found[:9], Census(1000, two, {})], AXES, False, 0))
    assert np.isfinite(apart).all()
    assert apart[9, 0] < 0.1 * apart[9, 1]
    level = [replace(one, centres_um=one.centres_um * (0, 1, 1)) for one in found[:9]]  # all at one height
    assert np.isfinite(fit_shells(level, (0.0, 25.0, 25.0), False, 0)).all()
    rings = []  # of a layer only the plane is looked at
    for radius in np.linspace(0.8, 1.2, 10):
        angle = rng.uniform(0, 2 * np.pi, 40)
        ring = np.stack([rng.uniform(0, 9, 40), 25 * radius * np.sin(angle), 25 * radius * np.cos(angle)], 1)
        rings.append(Census(40, ring, {}))
    inner, outer = np.transpose(fit_shells(rings, AXES, True, 0))
    assert outer / outer.mean() == pytest.approx(np.linspace(0.8, 1.2, 10), abs=0.05)
    assert (inner > 0.6 * outer).all()


def test_cells_surround_a_cavity_as_in_the_images_that_they_are_like():
    shells = [[0.0, 1.0], [0.8, 1.2], [0.5, 0.6]]
    real = replace(EMBRYO, region_shell=shells, region_shift_um=[[4.0, 0.0, 0.0]] * 3)
    for number in range(3):
        scene = plan_scene(real, CascadeSettings(), 0, number)
        inner, outer = shells[scene.like]
        wanted = ellipsoid_region(SHAPE, SPACING, outer * np.array(AXES), (4, 0, 0))
        if inner:
            wanted &= ~ellipsoid_region(SHAPE, SPACING, inner * np.array(AXES), (4, 0, 0))
        np.testing.assert_array_equal(scene.room.region, wanted)
    thin = room_of((4, 8, 8), (2.0, 1.0, 1.0), AXES, shell=(0.999, 1.0))  # no voxel is between the two
    assert thin.region is not None
    assert thin.region.any()
    flat = statistics(cells_per_image=[30] * 3)
    with pytest.raises(ValueError, match="region_shell must be pairs"):
        Statistics.from_dict(replace(flat, region_shell=[[1.0, 0.5]] * 3).to_dict())
    with pytest.raises(ValueError, match="region_shell must be as long as"):
        Statistics.from_dict(replace(flat, region_shell=shells[:2]).to_dict())


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
