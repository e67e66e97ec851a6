import numpy as np
import pytest
from conftest import ellipse

from cascade.diffusion.alignment import otsu_alignment
from cascade.evaluation.shape import nearest_iou, outline_statistics


def test_a_crop_that_shows_its_mask_is_aligned():
    mask = ellipse((48, 48), (24, 24), (12, 8))
    noise = np.random.default_rng(0).normal(0, 5, mask.shape)
    good = 100 + 300 * mask + noise
    shifted = np.roll(good, 8, 1)
    scores = otsu_alignment(np.stack([good, shifted, np.full(mask.shape, 7.0)]), np.stack([mask] * 3))
    assert scores[0] > 0.98
    expected = (np.roll(mask, 8, 1) & mask).sum() / (np.roll(mask, 8, 1) | mask).sum()
    assert scores[1] == pytest.approx(expected, abs=0.03)
    assert scores[2] == 0


def test_outline_statistics_of_an_ellipse():
    found = outline_statistics(np.stack([ellipse((64, 64), (32, 32), (20, 10)), ellipse((64, 64), (32, 32), (9, 9))]))
    np.testing.assert_allclose(found.area, [np.pi * 200, np.pi * 81], rtol=0.02)
    np.testing.assert_allclose(found.eccentricity, [np.sqrt(1 - 0.25), 0], atol=0.05)
    assert (found.solidity > 0.93).all()


def test_the_nearest_outline_is_found():
    masks = np.stack([ellipse((32, 32), (16, 16), (r, r)) for r in (5, 5.2, 11)])
    near = nearest_iou(masks)
    assert near[0] == near[1] > 0.85
    assert near[2] < 0.3
    np.testing.assert_allclose(nearest_iou(masks, masks), 1)
