import numpy as np
import pytest
from conftest import ball_stack, glass_stack
from scipy import ndimage

from cascade.data.axial import _middle, fit_axial, measure_axial
from cascade.optics.axial import Axial

SPACING = (2.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def stacks():
    rng = np.random.default_rng(3)
    return [ball_stack(rng) for _ in range(12)]


def test_single_slices_tell_how_tall_cells_are(stacks):
    """Every cell is twice as tall as wide, and only one slice of each stack is annotated."""
    rng = np.random.default_rng(0)
    planes = rng.integers(5, 19, len(stacks))
    cut = [
        (image, labels[z], z, len(np.unique(labels[z])) - 1) for (image, labels), z in zip(stacks, planes, strict=True)
    ]
    axial, cells = fit_axial(cut, SPACING)
    assert axial.elongation[0] == pytest.approx(2.0, rel=0.15)
    assert axial.at(np.zeros(1))[0] == 1.0
    assert np.all(np.diff(axial.profile) <= 0)
    truth = [labels.max() for _, labels in stacks]
    assert np.mean([c.num_cells for c in cells]) == pytest.approx(np.mean(truth), rel=0.25)
    for (_, labels), found in zip(stacks, cells, strict=True):
        centres = np.array(ndimage.center_of_mass(labels > 0, labels, range(1, labels.max() + 1))) * SPACING
        nearest = np.linalg.norm(centres[:, None] - found.centres_um[None], axis=-1).min(1)
        assert np.median(nearest) < 3  # µm; the cells' radius is 7
    heights = np.concatenate([list(c.relative_height.values()) for c in cells])
    assert np.abs(heights).mean() == pytest.approx(0.5, abs=0.08)  # uniform between −1 and 1


def test_whole_stacks_are_measured(stacks):
    axial, cells = measure_axial(stacks[:4], SPACING)
    assert axial.elongation[0] == pytest.approx(2.0, rel=0.1)
    assert [c.num_cells for c in cells] == [labels.max() for _, labels in stacks[:4]]


def test_where_cells_on_glass_lie_is_seen_in_shallow_stacks():
    """Five slices of flat cells whose middles lie in the first or the second; one slice is annotated."""
    rng = np.random.default_rng(0)
    stacks = [glass_stack(rng) for _ in range(8)]
    for z in (0, 2):  # also where all cells are cut near their middles
        cut = [(image, labels[z], z, 4) for image, labels, _ in stacks]
        axial, cells = fit_axial(cut, (1.0, 0.5, 0.5), one_layer=True)
        middles = [middle for seen in cells for middle in seen.middles_um]
        assert np.abs(np.subtract(middles, [middle for *_, some in stacks for middle in some])).max() < 0.6
        assert 5 < axial.elongation[0] * axial.diameter_um < 9
        assert axial.diameter_um == pytest.approx(14, rel=0.05)  # whether or not the slice shows cells as wide


def test_too_few_cells_give_no_fit(stacks):
    image, labels = stacks[0]
    assert fit_axial([(image, labels[12] * (labels[12] == labels[12].max()), 12, 1)], SPACING) is None


def test_cells_of_slices_of_which_few_are_annotated_are_counted(stacks):
    """Half of the cells that a slice shows are annotated; how many it shows is known."""
    rng = np.random.default_rng(0)
    cut = []
    for (image, labels), z in zip(stacks, rng.integers(5, 19, len(stacks)), strict=True):
        shown = np.unique(labels[z])[1:]
        cut.append((image, np.where(np.isin(labels[z], shown[::2]), labels[z], 0), z, len(shown)))
    axial, cells = fit_axial(cut, SPACING)
    truth = [labels.max() for _, labels in stacks]
    assert np.mean([c.num_cells for c in cells]) == pytest.approx(np.mean(truth), rel=0.25)
    assert axial.elongation[0] == pytest.approx(2.0, rel=0.25)


def test_blur_adds_to_heights_and_flatness_multiplies():
    diameters = np.array([8.0, 10.0, 20.0])
    blurred = Axial((2.0, 0.1), [0, 1], [1, 0], diameter_um=10.0)
    np.testing.assert_allclose(blurred.elongations(diameters) * diameters, diameters + 10)
    assert blurred.elongations(np.array([1.0])) == 3.0  # not without bound
    flat = Axial((0.5, 0.1), [0, 1], [1, 0], diameter_um=10.0)
    np.testing.assert_allclose(flat.elongations(diameters), 0.5)


def test_the_middle_of_a_cell_is_found_where_its_peak_is_off_it_and_a_neighbour_follows():
    z = np.arange(40)
    cell = np.clip(np.minimum((z - 5) / 5, (21 - z) / 5), 0, 1)  # half of its light at 7.5 and 18.5
    tilted = cell * (1 + 0.01 * z)
    assert _middle(tilted, int(np.argmax(tilted))) == pytest.approx(13, abs=0.5)
    neighbour = np.clip(np.minimum((z - 19) / 2, (40 - z) / 5), 0, 1)  # leaves a valley above half the light
    assert _middle(np.maximum(cell, 0.6 * (z < 30) * (z > 18)) + neighbour, 12) < 14


def test_outlines_of_the_middle_half_are_sections(stacks):
    cut = [(image, labels[z], z, len(np.unique(labels[z])) - 1) for image, labels in stacks for z in (8, 14)]
    axial, _ = fit_axial(cut, SPACING)
    assert 0.9 < axial.section < 1


def test_the_glow_around_cells_is_recovered(stacks):
    """A known glow is added to stacks; where only slices are annotated, it is found just as well."""
    truth = Axial((2.0, 0.1), [0.0, 1.0], [1.0, 0.5], glow=0.25, glow_um=9.3)
    lit = []
    for image, labels in stacks:
        light = image.astype(np.float32) - np.median(image[labels == 0])
        lit.append((image + truth.with_glow(light, SPACING) - light, labels))
    planes = [(image, labels[z], z, labels[z].max()) for (image, labels), z in zip(lit, np.arange(6, 18), strict=True)]
    plain = measure_axial(stacks, SPACING)[0]
    for axial in (measure_axial(lit, SPACING)[0], fit_axial(planes, SPACING)[0]):
        assert axial.glow_um == pytest.approx(truth.glow_um, rel=0.15)
        assert axial.glow - plain.glow == pytest.approx(truth.glow, rel=0.3)
