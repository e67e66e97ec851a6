"""What is read off the walls of a tissue against made-up ones: their light, their blur, labels that lie beside them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from test_fit_sketch import median, tissue

from cascade.annotation import Annotation
from cascade.data.sketch_light import LitImage
from cascade.data.sketch_walls import fitted_walls, on_ridges
from cascade.data.sketches import fit_sketch
from cascade.geometry.slices import matched_slices, renumbered_slices
from cascade.rng import stream
from cascade.shapes.membranes import cells_beyond, membranes
from cascade.sketch.draw import draw_sketch, sketch_of_image
from cascade.sketch.membranes import measured_walls, membrane_light, single_walls
from cascade.sketch.settings import SketchSettings

PIXEL = 0.25
WALLS = SketchSettings(
    structure="membranes", brightness=(400.0,), background=(20.0,), thickness_um=0.5, softness_um=0.2, interior=(0.2,)
)


def columns(size=96, step=24, slices=6):
    """Cells on a grid, straight walls across all slices."""
    at = np.arange(size) // step
    plane = at[:, None] * (size // step) + at + 1
    return np.repeat(plane[None], slices, 0).astype(np.uint16)


def seen(labels, settings, spacing=(PIXEL,) * 3, noise=10.0):
    light = draw_sketch(Annotation.of_labels(labels, spacing), settings, stream(0, "scene"))
    return light + stream(0, "noise").normal(0, noise, light.shape)


def moved(labels, by):
    """Along both axes of the plane, by so many pixels."""
    return np.pad(labels, ((0, 0), (by, 0), (by, 0)), "edge")[:, : labels.shape[1], : labels.shape[2]]


def profile(distance, thickness, softness):
    """Of a box blurred by a Gaussian, by the sum over thin sheets."""
    sheets = (np.arange(400) + 0.5) / 400 * thickness - 0.5 * thickness
    return np.exp(-0.5 * ((distance[:, None] - sheets) / softness) ** 2).mean(1) * thickness / softness


@pytest.mark.parametrize(("thickness", "softness"), [(0.5, 0.4), (1.5, 0.25), (2.0, 0.6)])
def test_thickness_and_blur_of_a_known_profile(thickness, softness):
    distance = (np.arange(28) + 0.5) * 0.5 * PIXEL
    light = 30 + 100 * profile(distance, thickness, softness)
    found = fitted_walls(np.stack([light * 1000, np.full(28, 1000.0)]), PIXEL)
    assert (found.thickness_um, found.softness_um) == pytest.approx((thickness, softness), abs=0.03)
    assert not found.glow


def test_stray_light_of_a_known_profile():
    distance = (np.arange(28) + 0.5) * 0.5 * PIXEL
    sharp, wide = (profile(distance, 0.5, softness) for softness in (0.3, 1.2))
    found = fitted_walls(np.stack([(50 + 100 * sharp + 300 * wide) * 1000, np.full(28, 1000.0)]), PIXEL)
    assert found.softness_um == pytest.approx(0.3, abs=0.05)
    assert found.glow == pytest.approx((3.0,), rel=0.1)
    assert found.glow_um == pytest.approx((1.2,), rel=0.1)


@pytest.mark.parametrize("beside", [0, 2])
def test_walls_are_as_bright_as_they_are_though_labels_lie_beside_them(beside):
    """Labels moved by two pixels read 72 % of the light off the walls."""
    labels = columns()
    image = seen(labels, WALLS)
    found = fit_sketch([image], [moved(labels, beside)], spacing_um=(PIXEL,) * 3)
    # The background, which no voxel shows, is taken to be the darkest inside.
    assert median(found.brightness) + median(found.background) == pytest.approx(420, rel=0.05)
    inside = median(found.background) + median(found.interior) * median(found.brightness)
    assert inside == pytest.approx(100, rel=0.1)
    assert found.softness_um == pytest.approx(0.2, abs=0.08)


def test_borders_move_onto_ridges_and_stay_where_there_are_none():
    labels = columns()
    lit = LitImage.of(seen(labels, WALLS), moved(labels, 2), (PIXEL,) * 3)
    inner = (slice(None), slice(4, -4), slice(4, -4))
    assert (lit.place != labels)[inner].mean() > 0.1
    assert (on_ridges(lit).place != labels)[inner].mean() < 0.01
    dark = LitImage.of(np.linspace(1, 2, labels.size).reshape(labels.shape), labels, (PIXEL,) * 3)
    assert set(np.unique(on_ridges(dark).place)) == set(np.unique(labels))


def test_a_slice_numbered_otherwise_is_no_wall():
    annotation = tissue((12, 60, 60), count=12)
    image = seen(annotation.labels, WALLS, annotation.spacing_um)
    odd = annotation.labels.copy()
    odd[5] = 100 + (odd[5] * 7) % 13
    assert renumbered_slices(odd) == [5]
    assert not renumbered_slices(annotation.labels)
    same = matched_slices(odd)
    assert (same == annotation.labels).mean() > 0.98
    assert np.array_equal(same[[4, 6]], annotation.labels[[4, 6]])
    found, known = (
        fit_sketch([image], [one], spacing_um=annotation.spacing_um, structure="membranes")
        for one in (odd, annotation.labels)
    )
    assert median(found.brightness) == pytest.approx(median(known.brightness), rel=0.03)


def test_layers_of_cells_and_planes_are_left_alone():
    layers = np.arange(1, 61).reshape(60, 1, 1) // 10 * 10 + columns(slices=60)
    assert not renumbered_slices(layers)
    assert matched_slices(layers) is layers
    plane = layers[0]
    assert matched_slices(plane) is plane


def test_what_is_beyond_a_membrane():
    labels = columns(48, 16, 4)
    beyond = cells_beyond(labels, (PIXEL,) * 3, 1.0)
    assert np.array_equal(beyond >= 0, membranes(labels, (PIXEL,) * 3, 1.0))
    assert (beyond != labels)[beyond >= 0].all()
    distance = [ndimage.distance_transform_edt(labels != n) for n in range(1, 10)]
    for n, far in enumerate(distance, 1):  # no other cell is nearer
        nearest = np.min([np.where(labels == m, np.inf, d) for m, d in enumerate(distance, 1) if m != n], 0)
        assert (far <= nearest + 1e-9)[beyond == n].all()


def test_single_walls_have_lights_of_their_own_that_depend_on_their_cells_alone():
    labels = columns(48, 16, 4).astype(np.int32)
    ids = np.arange(1, 10)
    own = replace(WALLS, wall_light=(0.5, 1.5))
    light = np.full(9, 400.0), np.full(9, 100.0)
    assert single_walls(labels, ids, (PIXEL,) * 3, WALLS, *light, 1) is None
    drawn = single_walls(labels, ids, (PIXEL,) * 3, own, *light, 1)
    assert drawn[0, 8, 15] == drawn[0, 8, 16]  # both sides of one wall
    walls = drawn[drawn > 0]
    assert len(np.unique(walls)) == 12  # as many as a grid of nine cells has
    assert 250 <= walls.min() < 350 < 450 < walls.max() <= 550
    part = (slice(None), slice(None), slice(16, None))
    table = np.append(0, np.searchsorted(np.unique(labels[part]), ids) + 1)
    fewer = table[labels[part]].astype(np.int32), np.unique(labels[part])
    again = single_walls(*fewer, (PIXEL,) * 3, own, light[0][:6], light[1][:6], 1)
    assert np.array_equal(again[..., 3:], drawn[part][..., 3:])
    assert not np.array_equal(single_walls(labels, ids, (PIXEL,) * 3, own, *light, 2), drawn)


def test_the_sketch_of_an_image_has_its_single_walls():
    labels = columns()
    known = replace(WALLS, wall_light=(0.4, 1.6), background=(0.0,))
    image = draw_sketch(Annotation.of_labels(labels, (PIXEL,) * 3), known, stream(0, "scene"))
    sketch, alike = (
        sketch_of_image(labels, image, settings, spacing_um=(PIXEL,) * 3)
        for settings in (known, replace(known, wall_light=(1.0,)))
    )
    errors = [float(np.sqrt(((one - image) ** 2).mean())) for one in (sketch, alike)]
    assert errors[0] < 0.25 * errors[1]


def test_the_spread_of_single_walls_is_recovered():
    labels = columns(144, 18, 5)
    known = replace(WALLS, wall_light=(0.4, 1.6))
    found = fit_sketch([seen(labels, known)], [labels], spacing_um=(PIXEL,) * 3)
    low, middle, high = np.quantile(found.wall_light, [0.1, 0.5, 0.9])
    # Corners and blur mix neighbouring walls, which takes a quarter of the spread.
    assert (low, middle, high) == pytest.approx((0.65, 1.0, 1.36), abs=0.08)
    alike = fit_sketch([seen(labels, WALLS)], [labels], spacing_um=(PIXEL,) * 3)
    assert np.ptp(np.quantile(alike.wall_light, [0.1, 0.9])) < 0.1


def test_light_that_blurred_has_the_means_of_an_image():
    place = columns(64, 16, 4).astype(np.int32)
    settings = replace(WALLS, glow=(4.0,), glow_um=(0.6,))
    wall = membranes(place, (PIXEL,) * 3, settings.thickness_um)
    rng = np.random.default_rng(0)
    contrast, inside = rng.uniform(200, 400, 16), rng.uniform(20, 60, 16)
    light = membrane_light(place, wall, (PIXEL,) * 3, settings, contrast, inside)
    found = measured_walls(place, wall, (PIXEL,) * 3, settings, light)
    again = membrane_light(place, wall, (PIXEL,) * 3, settings, *found)
    np.testing.assert_allclose(again, light, atol=0.05 * 300)
    means = [np.bincount(place[wall], image[wall], 17)[1:] / np.bincount(place[wall])[1:] for image in (light, again)]
    np.testing.assert_allclose(means[1], means[0], rtol=0.02)
