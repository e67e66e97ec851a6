import numpy as np
import pytest
from conftest import ellipse
from scipy import ndimage, stats

from cascade.data.crops import cut_crops, fit_halo, longer_sides_um, plane_of
from cascade.geometry.masks import one_piece

LEVEL = 100.0


def scene(neighbour: bool, labelled: bool):
    """A cell of brightness 500 and perhaps a bright neighbour two pixels away, blurred: image and labels."""
    shape = (120, 120)
    cell, other = ellipse(shape, (60, 50), (12, 9)), ellipse(shape, (60, 70.5), (12, 9))
    light = 500.0 * cell + (900.0 * other if neighbour else 0)
    labels = cell * 1 + (other * 2 if neighbour and labelled else 0)
    image = LEVEL + ndimage.gaussian_filter(light, 1.2) + np.random.default_rng(0).normal(0, 3, shape)
    return image, labels


def test_ids_in_pieces_keep_the_largest():
    labels = np.zeros((20, 20), np.uint16)
    labels[1:4, 1:4], labels[8:16, 8:16], labels[1:3, 10:12] = 5, 5, 2
    kept, split = one_piece(labels)
    assert split == 1
    assert (kept == 5).sum() == 64
    assert (kept == 2).sum() == 4


@pytest.mark.parametrize("labelled", [True, False])
def test_neighbours_leave_the_crop(labelled):
    alone = plane_of(*scene(False, True), 40.0)
    crowded = plane_of(*scene(True, labelled), 40.0)
    halo = fit_halo([alone])
    (wanted,), _ = cut_crops(alone, (1.0, 1.0), 48, 1.0, halo, LEVEL)
    found = cut_crops(crowded, (1.0, 1.0), 48, 1.0, halo, LEVEL)[0][0]
    far = ndimage.distance_transform_edt(~wanted.mask) > halo.radius_px + 2
    np.testing.assert_allclose(found.image[far], LEVEL, atol=1e-3)  # nothing but background
    assert np.abs(found.image - wanted.image)[~found.mask].max() < 60  # of the 800 the neighbour would leave
    assert found.brightness == pytest.approx(wanted.brightness, rel=0.06)


def test_a_cell_that_stands_alone_keeps_its_light():
    plane = plane_of(*scene(False, True), 40.0)
    halo = fit_halo([plane])
    (crop,), _ = cut_crops(plane, (1.0, 1.0), 48, 1.0, halo, LEVEL)
    y, x = (round(c) - round(m) for c, m in zip((60, 50), np.argwhere(crop.mask).mean(0), strict=True))
    true = plane.signal[y : y + 48, x : x + 48]
    distance = ndimage.distance_transform_edt(~crop.mask)
    for d, tolerance in ((1, 0.03), (2, 0.25)):  # it begins to fade two thirds of its reach away
        ring = np.rint(distance) == d
        assert (crop.image - LEVEL)[ring].mean() == pytest.approx(true[ring].mean(), rel=tolerance)
    # The cell was blurred with sigma 1.2: what is left 1 and 2 pixels from a straight edge, in parts of its light.
    expected = [1 - stats.norm.cdf(d - 0.5, scale=1.2) for d in (1, 2)]
    at_rim = stats.norm.cdf(np.array([0.5, 1.5, 2.5]), scale=1.2).mean()  # five pixels wide, as the rim's light is
    np.testing.assert_allclose(halo.at(np.array([1.0, 2.0])), np.array(expected) / at_rim, atol=0.07)


def test_crops_are_centred_and_keep_area_at_any_pixel_size():
    plane = plane_of(*scene(False, True), 40.0)
    halo = fit_halo([plane])
    true_area = np.pi * 12 * 9 * 0.5 * 0.5
    for pixel, size in ((0.5, 48), (0.25, 96), (1.0, 32)):
        (crop,), _ = cut_crops(plane, (0.5, 0.5), size, pixel, halo, LEVEL)
        assert crop.mask.shape == crop.image.shape == (size, size)
        assert crop.area_um2 == pytest.approx(true_area, rel=0.05)
        assert crop.mask.sum() * pixel**2 == pytest.approx(crop.area_um2, rel=0.03)  # symmetric cells have ties
        np.testing.assert_allclose(np.argwhere(crop.mask).mean(0), (size - 1) / 2, atol=0.75)
        inner = ndimage.binary_erosion(crop.mask, iterations=max(int(2 / pixel), 1))
        assert crop.image[inner].mean() == pytest.approx(LEVEL + 500, rel=0.03)


def test_cells_that_cannot_be_cut_are_counted():
    labels = np.zeros((80, 80), int)
    labels[0:10, 5:15], labels[20:70, 20:70], labels[75:77, 30:33], labels[5:15, 40:50] = 1, 2, 3, 4
    plane = plane_of(np.random.default_rng(0).normal(100, 2, (80, 80)) + 200 * (labels > 0), labels, 30.0)
    crops, skipped = cut_crops(plane, (1.0, 1.0), 32, 1.0, fit_halo([plane]), LEVEL)
    assert [crop.label for crop in crops] == [4]
    assert list(skipped.values()) == [1, 1, 1]
    assert sorted(longer_sides_um(plane, (0.5, 0.25))) == [5, 25]  # of 4 and 2
