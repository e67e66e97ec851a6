import numpy as np
import pytest
from conftest import ellipse
from scipy import ndimage

from cascade.geometry.masks import ellipsoid_region
from cascade.population import placement
from cascade.population.clustering import fit_clustering, touching_fraction
from cascade.population.compositing import Cell, compose
from cascade.population.placement import UNPLACED, place
from cascade.population.room import Room


def discs(count, rng, low=5, high=9):
    masks = []
    for _ in range(count):
        radius = rng.uniform(low, high)
        side = 2 * int(np.ceil(radius)) + 1
        masks.append(ellipse((side, side), (side // 2, side // 2), (radius, radius)))
    return masks


def canvas_of(masks, corners, shape):
    cells = [Cell(mask, 50.0 * mask, tuple(0.5 * (n - 1) for n in mask.shape)) for mask in masks]
    return compose(cells, corners, shape)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_cells_never_overlap_and_labels_are_whole(p):
    rng = np.random.default_rng(0)
    masks = discs(60, rng)
    corners = place(masks, (256, 256), p, rng)
    image, labels, placed = canvas_of(masks, corners, (256, 256))
    assert labels.max() == len(placed) >= 55
    np.testing.assert_array_equal(np.unique(labels), np.arange(len(placed) + 1))
    np.testing.assert_array_equal(labels > 0, image > 0)
    shared = (image == 100).sum()  # light of two cells on one pixel
    if p == 0:
        assert set(np.unique(image)) == {0.0, 50.0}
    else:
        assert 0 < shared <= 0.01 * sum(mask.sum() for mask in masks)  # pressed together, and no more
    for label in range(1, labels.max() + 1):
        assert ndimage.label(labels == label, np.ones((3, 3)))[1] == 1


def test_clustering_rises_with_its_probability_in_2d_and_3d():
    rng = np.random.default_rng(1)
    ball = ellipsoid_region((11, 11, 11), (1, 1, 1), (5, 5, 5))
    for masks, shape in ((discs(40, rng), (400, 400)), ([ball] * 30, (60, 90, 90))):
        found = []
        for p in (0.0, 0.5, 1.0):
            _, labels, _ = canvas_of(masks, place(masks, shape, p, np.random.default_rng(2)), shape)
            found.append(touching_fraction(labels, (1.0,) * len(shape), 1.5))
        assert found[0] < found[1] < found[2]
        assert found[2] > 0.9


def test_the_clustering_probability_is_recovered():
    rng = np.random.default_rng(3)
    masks = discs(80, rng)
    _, labels, _ = canvas_of(masks, place(masks, (512, 512), 0.6, rng), (512, 512))
    touching = touching_fraction(labels, (1.0, 1.0), 1.5)
    radii = np.sqrt([mask.sum() / np.pi for mask in masks])
    assert fit_clustering(touching, radii, 80 / 512**2, 1.5, rng) == pytest.approx(0.6, abs=0.15)


def test_the_clustering_probability_is_the_same_of_cells_of_many_pixels():
    """On a camera with finer pixels everything is larger, and nothing else."""

    def fitted(radius, touching):
        density, rng = 1 / (6 * np.pi * radius**2), np.random.default_rng(0)
        return fit_clustering(touching, np.full(30, radius), density, 0.2 * radius, rng)

    large = [[fitted(radius, touching) for touching in (0.0, 0.6, 0.8)] for radius in (100.0, 200.0, 300.0)]
    np.testing.assert_allclose(large, [large[0]] * 3, atol=0.05)
    assert 0 == large[0][0] < large[0][1] < large[0][2] < 1


def test_a_region_holds_all_centres():
    rng = np.random.default_rng(4)
    region = ellipsoid_region((200, 200), (1, 1), (50, 80))
    masks = discs(30, rng)
    corners = place(masks, (200, 200), 0.5, rng, Room(region))
    for mask, corner in zip(masks, corners, strict=True):
        assert region[tuple(corner + np.array(mask.shape) // 2)]
    assert region.sum() == pytest.approx(np.pi * 50 * 80, rel=0.01)


@pytest.mark.parametrize("height", [6, 7])
def test_cells_of_a_layer_lie_at_its_heights_beside_each_other(height):
    cell = np.pad(ellipsoid_region((height, 21, 21), (1, 1, 1), (height / 2, 10, 10)), 2)
    middles = np.array([1.0, 1.0, 2.5])
    corners = np.concatenate(
        [place([cell] * 12, (6, 150, 150), p, np.random.default_rng(n), Room(None, middles))
         for n in range(12) for p in (0.0, 1.0)]
    )  # fmt: skip
    found = corners[:, 0] + 2 + 0.5 * (height - 1)
    assert set(found) == ({1.0, 3.0} if height == 7 else {1.5, 2.5})  # as near as slices allow
    assert np.mean(found < 2) == pytest.approx(2 / 3, abs=0.1)
    for some in corners.reshape(-1, 12, 3)[:, :, 1:].astype(float):
        apart = np.linalg.norm(some[:, None] - some[None], axis=-1)[np.triu_indices(12, 1)]
        assert apart.min() > 18  # none above another
    besides = [np.sort(np.linalg.norm(some - some[0], axis=1))[1] for some in corners.reshape(-1, 12, 3)[1::2, :, 1:]]
    assert max(besides) < 23  # p = 1: in contact
    region = np.zeros((150, 150), bool)
    region[:75] = True
    inside = place([cell] * 6, (6, 150, 150), 0.5, np.random.default_rng(0), Room(region, middles))
    assert (inside[:, 1] + 12 < 75).all()


def test_no_cell_takes_no_place():
    assert place([], (40, 40), 0.5, np.random.default_rng(0)).shape == (0, 2)
    light, labels, placed = compose([], np.zeros((0, 2), int), (40, 40))
    assert not placed
    assert not light.any()
    assert not labels.any()


def test_cells_without_room_are_told_apart():
    rng = np.random.default_rng(5)
    masks = discs(60, rng, 8, 9)
    corners = place(masks, (64, 64), 0.3, rng)
    lost = (corners == UNPLACED).any(1)
    assert 0 < lost.sum() < 60
    _, labels, placed = canvas_of(masks, corners, (64, 64))
    assert len(placed) == 60 - lost.sum()
    assert (labels > 0).mean() > 0.5  # it is crowded indeed


def test_overlap_stays_within_what_is_allowed_and_goes_to_the_cell_that_it_lies_deepest_in():
    masks = discs(60, np.random.default_rng(6), 8, 9)
    crowded = [
        (place(masks, (96, 96), 0.5, np.random.default_rng(7), max_overlap=m) != UNPLACED).all(1).sum()
        for m in (0.0, 0.3)
    ]
    assert crowded[1] > 1.2 * crowded[0]  # overlap makes room
    corners = place(masks, (96, 96), 0.5, np.random.default_rng(7), max_overlap=0.3)
    image, labels, placed = canvas_of(masks, corners, (96, 96))
    taken = np.zeros((96 + 64,) * 2, bool)  # padded: cells may reach over the border
    depth = np.zeros((len(placed) + 1, *taken.shape))
    for label, n in enumerate(placed, 1):
        window = tuple(slice(c + 32, c + 32 + s) for c, s in zip(corners[n], masks[n].shape, strict=True))
        assert (taken[window] & masks[n]).sum() <= 0.3 * masks[n].sum()
        taken[window] |= masks[n]
        visible = np.zeros_like(taken)
        visible[window] = masks[n]
        visible[:32], visible[-32:], visible[:, :32], visible[:, -32:] = False, False, False, False
        depth[label] = ndimage.distance_transform_edt(visible)
        assert ndimage.label(labels == label, np.ones((3, 3)))[1] == 1
    depth = depth[:, 32:-32, 32:-32]
    shown = labels > 0
    here = np.take_along_axis(depth, labels[None], 0)[0]
    np.testing.assert_array_equal(here[shown], depth.max(0)[shown])
    assert (shown | (depth.max(0) == 0)).mean() > 0.99  # all but what was cut off its cell
    assert image.max() >= 110  # light adds up
    with pytest.raises(ValueError, match="max_overlap"):
        place(masks, (96, 96), 0.5, np.random.default_rng(7), max_overlap=1.0)


@pytest.mark.parametrize("ndim", [2, 3])
def test_gaps_close_where_no_dark_line_is_seen_between_two_cells(ndim):
    shape = (25,) * ndim
    mask = ellipsoid_region(shape, (1,) * ndim, (8,) * ndim)
    blurred = ndimage.gaussian_filter(100 * mask.astype(np.float32), 2)
    for signal, gap, meet in ((blurred, 1, True), (blurred, 4, False), (100.0 * mask, 1, False)):
        corners = np.zeros((2, ndim), int)
        corners[1, -1] = mask.any(tuple(range(ndim - 1))).sum() + gap
        cells = [Cell(mask, signal.astype(np.float32), (12.0,) * ndim)] * 2
        light, labels, _ = compose(cells, corners, (*shape[:-1], 60))
        row = labels[(12,) * (ndim - 1)]
        inside = row[np.flatnonzero(row)[0] : np.flatnonzero(row)[-1] + 1]
        assert (inside > 0).all() == meet
        both, apart = (labels > 0).sum(), 2 * mask.sum()
        assert (both > apart) == meet
        assert both < 1.05 * apart
        for label in (1, 2):
            assert ndimage.label(labels == label)[1] == 1
        assert abs((labels == 1).sum() - (labels == 2).sum()) <= 0.02 * apart  # shared fairly
        np.testing.assert_allclose(light.sum(), 2 * signal.sum(), rtol=1e-4)


def test_cells_cut_by_the_border_stay_in_one_piece():
    horseshoe = np.ones((9, 9), bool)
    horseshoe[0:6, 3:6] = False  # cut below the bow it is two legs
    cells = [Cell(horseshoe, horseshoe * 1.0, (4.0, 4.0))]
    _, labels, placed = compose(cells, np.array([[14, 5]]), (20, 20))
    assert placed == [0]
    assert ndimage.label(labels)[1] == 1
    assert labels.sum() == 18


def test_the_same_stream_places_the_same():
    masks = discs(20, np.random.default_rng(0))
    one, two = (place(masks, (128, 128), 0.5, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"clustering_probability must be in \[0, 1\]"):
        place([], (10, 10), 1.5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="region is empty"):
        place([np.ones((2, 2), bool)], (10, 10), 0.5, np.random.default_rng(0), Room(np.zeros((10, 10), bool)))
    with pytest.raises(ValueError, match="must be equal"):
        place([np.ones((2, 2), bool)], (10, 10), 0.5, np.random.default_rng(0), Room(np.ones((10, 11), bool)))


@pytest.mark.parametrize("shape", [(61, 83), (21, 34, 47)])
def test_large_canvases_are_searched_on_a_coarser_grid(shape, monkeypatch):
    """A crowded canvas, of which only the coarser grid knows where there is room: still no overlap, none lost."""
    monkeypatch.setattr(placement, "_COARSE_BEYOND", 600)
    rng = np.random.default_rng(0)
    region = rng.random(shape) < 0.99
    region[tuple(slice(0, n // 2) for n in shape)] = False
    masks = [np.ones((5,) * len(shape), bool)] * 30
    corners = place(masks, shape, 0.0, rng, Room(region), max_tries=1)
    placed = corners[(corners != UNPLACED).all(1)]
    assert len(placed) >= 20
    count = np.zeros(shape, int)
    for corner in placed:
        count[tuple(slice(max(c, 0), max(c + 5, 0)) for c in corner)] += 1
        assert region[tuple(corner + 2)]
    assert count.max() == 1
