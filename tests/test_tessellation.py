import numpy as np
import pytest

from cascade.shapes.tessellation import weighted_voronoi


def brute_force(foreground, spacing, centres, weights):
    """Eq. 3 by its letter."""
    points = np.argwhere(foreground) * np.array(spacing)
    distance = np.linalg.norm(points[:, None] - centres, axis=2) / weights
    labels = np.zeros(foreground.shape, int)
    labels[foreground] = distance.argmin(1) + 1
    return labels


@pytest.mark.parametrize("seed", range(12))
def test_labels_are_those_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    n = 2 + seed % 2
    shape = tuple(int(s) for s in (rng.integers(1, 150, 2) if n == 2 else rng.integers(1, 45, 3)))
    spacing = tuple(rng.uniform(0.2, 2, n))
    size = np.array(shape) * spacing
    count = int(rng.integers(1, 120))
    centres = rng.uniform(-0.2, 1.2, (count, n)) * size
    spread = rng.choice([0.0, 0.1, 0.5, 2.0])
    foreground = rng.random(shape) < rng.choice([0.02, 0.5, 1.0])
    weights = np.exp(rng.normal(0, spread, count))
    made = weighted_voronoi(foreground, spacing, centres, weights)
    assert np.array_equal(made, brute_force(foreground, spacing, centres, weights))


@pytest.mark.parametrize("shape", [(40, 40), (24, 20, 22)])
def test_ties_go_to_the_first_cell_as_in_brute_force(shape):
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 20, (30, len(shape))).astype(float)  # on voxels, some twice: many ties
    for weights in (np.ones(30), rng.choice([1.0, 2.0], 30)):
        made = weighted_voronoi(np.ones(shape, bool), (1.0,) * len(shape), centres, weights)
        assert np.array_equal(made, brute_force(np.ones(shape, bool), (1.0,) * len(shape), centres, weights))


def test_two_cells_meet_in_a_circle_of_apollonius():
    """All points twice as far from one centre as from the other lie on a circle."""
    made = weighted_voronoi(
        np.ones((400, 400), bool), (0.1, 0.1), np.array([[20.0, 14.0], [20.0, 23.0]]), np.array([1.0, 2.0])
    )
    y, x = np.indices(made.shape) * 0.1
    beyond = (y - 20) ** 2 + (x - 11) ** 2 - 36
    clear = np.abs(beyond) > 1e-9
    assert np.array_equal((made == 1)[clear], (beyond < 0)[clear])


def test_nothing_to_fill():
    empty = weighted_voronoi(np.zeros((9, 9), bool), (1.0, 1.0), np.zeros((1, 2)), np.ones(1))
    assert not empty.any()


@pytest.mark.parametrize(
    ("centres", "weights", "said"),
    [
        (np.zeros((0, 2)), np.ones(0), "one or more"),
        (np.zeros((2, 3)), np.ones(2), r"\(J, 2\)"),
        (np.array([[np.nan, 0]]), np.ones(1), "finite"),
        (np.zeros((2, 2)), np.ones(3), "one for each"),
        (np.zeros((2, 2)), np.array([1.0, 0.0]), "above 0"),
        (np.zeros((2, 2)), np.array([1.0, np.nan]), "above 0"),
    ],
)
def test_refuses_what_is_no_tessellation(centres, weights, said):
    with pytest.raises(ValueError, match=said):
        weighted_voronoi(np.ones((9, 9), bool), (1.0, 1.0), centres, weights)
    with pytest.raises(ValueError, match="one spacing"):
        weighted_voronoi(np.ones((9, 9), bool), (1.0, 0.0), np.zeros((1, 2)), np.ones(1))
