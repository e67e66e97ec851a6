import numpy as np
import pytest
from scipy import ndimage

from cascade.geometry.islands import islands_to_neighbours
from cascade.shapes.membranes import membranes
from cascade.shapes.tessellation import weighted_voronoi


def pieces(labels, label):
    return ndimage.label(labels == label)[1]


@pytest.mark.parametrize("seed", range(8))
def test_every_cell_is_one_piece_and_none_is_lost(seed):
    rng = np.random.default_rng(seed)
    n = 2 + seed % 2
    shape = (90, 80) if n == 2 else (25, 30, 28)
    centres = rng.permutation(np.argwhere(np.ones(shape)))[:60].astype(float)
    torn = weighted_voronoi(np.ones(shape, bool), (1.0,) * n, centres, np.exp(rng.normal(0, 0.8, 60)))
    made, lost = islands_to_neighbours(torn)
    ids = np.unique(torn)
    assert max(pieces(torn, label) for label in ids) > 1
    assert [pieces(made, label) for label in ids] == [1] * len(ids)
    assert np.array_equal(np.unique(made), ids)
    assert lost == 0
    assert (made > 0).all()
    for label in ids:  # the largest piece stays where it was
        whole = ndimage.label(torn == label)[0]
        largest = whole == np.argmax(np.bincount(whole.ravel())[1:]) + 1
        assert (made[largest] == label).all()


def test_islands_go_to_the_neighbour_with_most_faces():
    labels = np.array([[2, 2, 2, 2, 2], [2, 1, 1, 3, 3], [2, 2, 3, 3, 3], [1, 1, 1, 1, 1]])
    made, lost = islands_to_neighbours(labels)
    assert made.tolist() == [[2, 2, 2, 2, 2], [2, 2, 2, 3, 3], [2, 2, 3, 3, 3], [1, 1, 1, 1, 1]]
    assert lost == 0


def test_an_island_among_islands_waits():
    labels = np.array([[1, 1, 1, 2, 2, 2, 3, 3, 3, 1, 2, 1]])
    made, lost = islands_to_neighbours(labels)
    assert made.tolist() == [[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3]]
    assert lost == 0


def test_slivers_are_islands_if_asked():
    labels = np.array([[1, 1, 1, 2, 3, 3, 3, 0, 4]])
    assert np.array_equal(islands_to_neighbours(labels)[0], labels)
    made, lost = islands_to_neighbours(labels, fewest=2)
    assert made.tolist() in ([[1, 1, 1, 1, 3, 3, 3, 0, 0]], [[1, 1, 1, 3, 3, 3, 3, 0, 0]])
    assert lost == 1


def test_what_no_cell_reaches_is_counted():
    labels = np.array([[1, 1, 0, 1, 0, 2, 2]], np.uint16)
    made, lost = islands_to_neighbours(labels)
    assert made.tolist() == [[1, 1, 0, 0, 0, 2, 2]]
    assert (lost, made.dtype) == (1, np.uint16)


@pytest.mark.parametrize(("spacing", "thickness"), [((1.0, 1.0), 2.0), ((0.5, 0.5), 3.0), ((0.3, 0.3, 0.3), 1.0)])
def test_membranes_are_as_thick_as_asked(spacing, thickness):
    shape = (30,) * (len(spacing) - 1) + (60,)
    labels = np.ones(shape, np.uint16)
    labels[..., 30:] = 2
    wall = membranes(labels, spacing, thickness)
    across = wall.reshape(-1, 60)
    assert (across == across[0]).all()
    assert abs(across[0].sum() * spacing[-1] - thickness) <= spacing[-1]
    assert np.array_equal(across[0], across[0, ::-1])


def test_a_round_wall_has_its_radii():
    y, x = np.indices((121, 121)) - 60
    radius = np.hypot(y, x) * 0.5
    wall = membranes((radius < 20).astype(np.uint8), (0.5, 0.5), 4.0)
    assert radius[wall].min() == pytest.approx(18, abs=0.5)
    assert radius[wall].max() == pytest.approx(22, abs=0.5)
    assert wall[(radius > 18.5) & (radius < 21.5)].all()


def test_membranes_by_distance_to_other_labels():
    """An independent count: a distance transform for each label."""
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 30, (12, 3))
    labels = weighted_voronoi(rng.random((30, 30, 30)) < 0.99, (1.0, 1.0, 1.0), centres, np.ones(12))
    wall = np.zeros(labels.shape, bool)
    for label in np.unique(labels):
        wall |= (labels == label) & (ndimage.distance_transform_edt(labels == label) <= 2.5)
    assert np.array_equal(membranes(labels, (1.0, 1.0, 1.0), 4.0), wall)


def test_thin_membranes_have_no_holes():
    labels = np.ones((8, 9, 9), np.uint16)
    labels[4:] = 2
    wall = membranes(labels, (2.0, 0.2, 0.2), 0.4)  # thinner than a slice
    assert wall[3:5].all()
    assert wall.sum() == 2 * 81
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="thickness_um"):
            membranes(labels, (1.0, 1.0, 1.0), wrong)
