"""Sets of images beside each other: alike where they are alike, apart where they are not."""

import numpy as np
import pytest

from cascade.evaluation.feature_map import feature_map


def noise(seed, spread, count=3):
    rng = np.random.default_rng(seed)
    return [rng.normal(0.5, spread, (128, 128)) for _ in range(count)]


def test_sets_of_one_kind_lie_together_and_of_two_kinds_apart():
    found = feature_map({"real": noise(0, 0.05), "alike": noise(1, 0.05), "smooth": noise(2, 0.005)})
    centre = {name: points.mean(0) for name, points in found.items()}
    spread = found["real"].std(0).max()
    assert np.linalg.norm(centre["alike"] - centre["real"]) < spread
    assert np.linalg.norm(centre["smooth"] - centre["real"]) > 10 * spread
    assert [points.shape for points in found.values()] == [(12, 2)] * 3


def test_the_same_images_lie_at_the_same_places():
    found = feature_map({"a": noise(0, 0.05), "b": noise(0, 0.05)})
    np.testing.assert_allclose(found["a"], found["b"])


def test_a_single_patch_lies_beside_nothing():
    with pytest.raises(ValueError, match="a single patch in all"):
        feature_map({"real": [np.ones((64, 64))]})
