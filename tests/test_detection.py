"""Cells in raw images, and what label images say of a population."""

import numpy as np
import pytest
from conftest import ellipse
from scipy import ndimage
from skimage import measure

from cascade.data.detection import detect
from cascade.data.measures import contrasts, measure_labels, touching_ids
from cascade.geometry.masks import ellipsoid_region

PLACES = [(30, 30), (30, 90), (34, 150), (90, 30), (92, 96), (95, 160), (150, 40), (150, 64), (155, 130)]


def plane(levels=(20, 200), noise=3.0, semi=(12, 12)):
    """Discs of tenfold brightness, two of them in contact, on a ground of 50; and their labels."""
    rng, labels = np.random.default_rng(0), np.zeros((192, 200), np.int32)
    image = np.zeros(labels.shape)
    for n, (place, level) in enumerate(zip(PLACES, np.linspace(*levels, len(PLACES)), strict=True), 1):
        mask = ellipse(labels.shape, place, semi)
        labels[mask & (labels == 0)] = n
        image[mask] = level
    image = ndimage.gaussian_filter(image, 1.5)
    return 50 + image + noise * rng.normal(size=image.shape), labels


def test_cells_of_tenfold_brightness_are_found_each_with_its_size():
    image, labels = plane()
    found = detect(image, (0.5, 0.5))
    assert found.max() == len(PLACES)
    owners = [found[place] for place in PLACES]
    assert sorted(owners) == list(range(1, len(PLACES) + 1))
    for number, (place, owner) in enumerate(zip(PLACES, owners, strict=True), 1):
        own, seen = labels == number, found == owner
        assert (own & seen).sum() / (own | seen).sum() > 0.8, place


def test_dark_cells_on_a_bright_ground_are_the_same_cells():
    image, _ = plane()
    np.testing.assert_array_equal(detect(image, (1, 1)) > 0, detect(1000 - image, (1, 1)) > 0)


def test_the_unit_of_length_does_not_matter():
    image, _ = plane()
    np.testing.assert_array_equal(detect(image, (0.1, 0.1)), detect(image, (2.0, 2.0)))


def test_dark_nucleoli_are_inside_their_cells():
    image, _ = plane(levels=(150, 200))
    for y, x in PLACES:
        image[y - 3 : y + 3, x - 4 : x + 2] -= 120
    found = detect(image, (1, 1))
    assert found.max() == len(PLACES)
    assert all(found[place] for place in PLACES)


@pytest.mark.parametrize("shape", [(128, 128), (20, 64, 64)])
def test_noise_is_no_cell(shape):
    image = np.random.default_rng(1).normal(100, 5, shape)
    assert not detect(image, (1.0,) * len(shape)).any()


@pytest.mark.parametrize("value", [0, 7])
def test_an_even_image_has_no_cell(value):
    assert not detect(np.full((64, 64), value, np.uint16), (1, 1)).any()


def test_cells_of_a_stack_of_flat_voxels():
    rng, spacing = np.random.default_rng(0), (2.0, 0.8, 0.8)
    image, centres = np.zeros((32, 96, 96)), [(10, 25, 25), (20, 30, 70), (14, 70, 30), (16, 66, 70), (15, 66, 47)]
    ball = ellipsoid_region((11, 21, 21), spacing, (9.6, 7.2, 7.2))
    for level, (z, y, x) in zip((60, 100, 150, 200, 120), centres, strict=True):
        image[z - 5 : z + 6, y - 10 : y + 11, x - 10 : x + 11][ball] = level
    image = 100 + ndimage.gaussian_filter(image, (1.0, 1.2, 1.2)) + rng.normal(0, 8, image.shape)
    found = detect(image, spacing)
    assert found.max() == len(centres)
    assert sorted(found[tuple(np.array(centres).T)]) == [1, 2, 3, 4, 5]
    radii = np.cbrt(0.75 / np.pi * np.bincount(found.ravel())[1:] * np.prod(spacing))
    assert np.abs(radii / np.cbrt(0.75 / np.pi * ball.sum() * np.prod(spacing)) - 1).max() < 0.2


def test_wide_cells_of_a_shallow_stack_are_whole_whatever_their_nucleoli():
    rng, spacing = np.random.default_rng(0), (1.0, 0.2, 0.2)
    centres, y, x = [(60, 60), (55, 150), (60, 240), (150, 55), (145, 150), (160, 240)], *np.mgrid[:300, :300]
    truth, light = np.zeros((300, 300), int), np.zeros((300, 300))
    grain = ndimage.gaussian_filter(rng.normal(size=truth.shape), 3)
    for n, (row, column) in enumerate(centres, 1):
        own = ((y - row) / 38) ** 2 + ((x - column) / 28) ** 2 < 1
        truth[own], light[own] = n, (100 + 20 * grain / grain.std())[own]
        for down, right in ((-9, 4), (12, -3)):
            light[(y - row - down) ** 2 + (x - column - right) ** 2 < 49] = 10
    image = 20 + ndimage.gaussian_filter(np.stack([light] * 5), (0, 1, 1)) + rng.normal(0, 6, (5, *truth.shape))
    found = detect(image, spacing)
    assert found.max() == len(centres)
    kept = [np.bincount(found[2][truth == n]).max() / (truth == n).sum() for n in range(1, len(centres) + 1)]
    assert min(kept) > 0.9
    assert 0.9 < (found[2] > 0).sum() / (truth > 0).sum() < 1.2


def test_axes_and_spacings_must_be_as_many():
    with pytest.raises(ValueError, match="two or three axes"):
        detect(np.zeros((8, 8)), (1, 1, 1))
    with pytest.raises(ValueError, match="the spacing 3"):
        measure_labels([np.zeros((8, 8), int)], (1, 1, 1))


def test_shapes_are_those_of_ellipses():
    labels = np.zeros((200, 200), np.int32)
    labels[ellipse(labels.shape, (60, 60), (20, 40), 0.4)] = 1
    labels[ellipse(labels.shape, (140, 130), (30, 30))] = 2
    found = measure_labels([labels], (0.5, 0.5))
    np.testing.assert_allclose(found.elongation, [2, 1], rtol=0.02)
    np.testing.assert_allclose(found.radius_um, [0.5 * np.sqrt(800), 15], rtol=0.01)
    own = [region.solidity for region in measure.regionprops(labels)]
    np.testing.assert_allclose(found.solidity, own)
    np.testing.assert_allclose(found.nearest_um, 0.5 * np.hypot(80, 70), rtol=0.01)
    assert found.touching.tolist() == [0.0]


def test_shapes_are_those_of_ellipsoids():
    spacing = (1.0, 0.5, 0.5)
    labels = np.pad(ellipsoid_region((41, 61, 81), spacing, (18, 9, 12)), 2).astype(np.uint16)
    found = measure_labels([labels], spacing)
    assert found.elongation[0] == pytest.approx(12 / 9, rel=0.02)
    assert found.axial_elongation[0] == pytest.approx(18 / np.sqrt((81 + 144) / 2), rel=0.02)
    assert found.radius_um[0] == pytest.approx(np.cbrt(18 * 9 * 12), rel=0.01)
    box = measure_labels([np.pad(np.ones((6, 9, 9), int), 1)], spacing)
    assert box.solidity.tolist() == pytest.approx([1.0])


def test_cells_that_the_border_cuts_count_but_have_no_shape():
    labels = np.zeros((60, 60), int)
    labels[:20, :20], labels[30:50, 30:50] = 1, 2
    found = measure_labels([labels, np.zeros((60, 60), int)], (1, 1), [10 * labels + 5, labels])
    assert found.cells_per_image.tolist() == [2, 0]
    assert len(found.radius_um) == len(found.solidity) == 1
    assert len(found.nearest_um) == 2
    assert found.brightness.tolist() == [15.0, 25.0]


def test_cells_that_noise_outlines_count_but_have_no_shape():
    labels = np.zeros((120, 120), int)
    labels[ellipse(labels.shape, (35, 35), (20, 20))] = 1
    labels[ellipse(labels.shape, (85, 85), (20, 15))] = 2
    image = 100 + np.array([0, 50, 8])[labels] + np.random.default_rng(0).normal(0, 10, labels.shape)
    assert contrasts(labels, image, np.array([1, 2])) == pytest.approx([5, 0.8], abs=0.2)
    found = measure_labels([labels], (1, 1), [image], least_contrast=1.5)
    assert found.radius_um == pytest.approx([20], rel=0.02)
    assert found.cells_per_image.tolist() == [2]
    assert len(found.brightness) == 2
    faint = measure_labels([labels], (1, 1), [image], least_contrast=9)  # of whom else
    assert len(faint.radius_um) == 2
    with pytest.raises(ValueError, match="give as many as there are labels"):
        measure_labels([labels], (1, 1), least_contrast=1.5)


@pytest.mark.filterwarnings("error")
def test_what_is_one_pixel_wide_shows_no_noise():
    labels = np.zeros((20, 20), int)
    labels[3:9, 5] = 1
    image = np.random.default_rng(0).normal(size=labels.shape)
    assert contrasts(labels, image, np.array([1])).tolist() == [np.inf]


@pytest.mark.parametrize(("gap", "touching"), [(0, [1, 2]), (1, [1, 2]), (2, []), (5, [])])
def test_cells_touch_up_to_a_pixel_of_background(gap, touching):
    labels = np.zeros((30, 40), np.uint16)
    labels[10:20, 5:15], labels[10:20, 15 + gap : 25 + gap] = 1, 2
    assert touching_ids(labels).tolist() == touching
