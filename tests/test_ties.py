"""What goes together in images: measured, simulated, and fitted."""

import numpy as np
import pytest
import tifffile

from cascade.data.like import like
from cascade.data.measures import measure_labels
from cascade.data.ties import Ties, measure_ties
from cascade.draws import at_rank, scores, tied
from cascade.rng import stream
from cascade.simulators.nuclei import NucleiSettings, nuclei

SPACING = (0.5, 0.5)
ASKED = dict(radius_by_number=-0.6, radius_shared=0.5, touching_by_number=0.7, brightness_by_number=0.6)


def scenes(count, **ties):
    settings = NucleiSettings(
        canvas_size=(160, 160), spacing_um=SPACING, num_cells=(2.0, 22.0), radius_um=(2.5, 5.0), touching=(0.0, 0.9),
        brightness=(100.0, 900.0), deformation=(0.0,), elongation=(1.0,), **ties,
    )  # fmt: skip
    return [nuclei(stream(5, "ties", n), settings) for n in range(count)]


def with_light(annotations):
    """Labels, and images in which each cell is as bright as it is asked to be."""
    images = []
    for one in annotations:
        light = np.zeros(int(one.labels.max()) + 1)
        light[[cell.label for cell in one.cells]] = [cell.brightness for cell in one.cells]
        images.append(light[one.labels])
    return [one.labels for one in annotations], images


@pytest.fixture(scope="module")
def population():
    return scenes(80, brightness_shared=0.4, **ASKED)


def test_what_is_asked_for_is_measured(population):
    found = vars(measure_ties(*with_light(population)))
    for name, value in {**ASKED, "brightness_shared": 0.4}.items():
        assert found[name] == pytest.approx(value, abs=0.2), name


def test_what_goes_by_itself_has_no_ties():
    found = measure_ties(*with_light(scenes(60)))
    assert (found.radius_by_number, found.radius_shared, found.brightness_by_number) == (0.0, 0.0, 0.0)
    assert found.brightness_shared == 0.0


def test_ties_leave_sizes_and_light_as_they_are_over_all_cells(population):
    """Crowded images hold most cells, and must not draw the distribution to their side."""
    light = np.array([cell.brightness for one in population for cell in one.cells])
    asked = at_rank((100.0, 900.0), np.linspace(0.1, 0.9, 5))
    np.testing.assert_allclose(np.quantile(light, np.linspace(0.1, 0.9, 5)), asked, atol=70)
    radius = measure_labels([one.labels for one in population], SPACING).radius_um
    asked = at_rank((2.5, 5.0), np.linspace(0.1, 0.9, 5))
    np.testing.assert_allclose(np.quantile(radius, np.linspace(0.1, 0.9, 5)), asked, atol=0.25)


def test_the_rank_of_its_number_says_what_an_image_is_like():
    """Most cells in the fullest image, and by a full tie the largest."""
    settings = NucleiSettings(
        canvas_size=(160, 160), spacing_um=SPACING, num_cells=(2.0, 22.0), radius_um=(2.5, 5.0), radius_by_number=1.0
    )
    few, many = (nuclei(np.random.default_rng(0), settings, number_rank=rank) for rank in (0.0, 1.0))
    assert (len(few.cells), len(many.cells)) == (2, 22)
    assert np.mean([cell.size for cell in few.cells]) == pytest.approx(np.pi * 2.5**2, rel=0.1)
    assert np.mean([cell.size for cell in many.cells]) == pytest.approx(np.pi * 5.0**2, rel=0.1)


def test_a_few_images_say_nothing(population):
    assert measure_ties(*with_light(population[:7])) == Ties()
    assert measure_ties([np.zeros((8, 8), int)] * 9) == Ties()


def test_the_size_of_cells_that_do_not_stand_out_is_passed_over():
    """Dim cells, whose outlines noise draws, would say that cells of full images are small."""
    labels, images = [], []
    for n in range(14):
        plane = np.zeros((72, 60), int)
        for k in range(n + 2):
            side, row, column = (8 if k < 2 else 4), 5 + 14 * (k // 4), 4 + 14 * (k % 4)
            plane[row : row + side, column : column + side - k % 2] = k + 1
        labels.append(plane)
        noise = np.random.default_rng(n).normal(0, 10, plane.shape)
        images.append(500.0 * ((plane > 0) & (plane < 3)) + 5.0 * (plane > 2) + noise)
    assert measure_ties(labels, images).radius_by_number < -0.2
    assert measure_ties(labels, images, least_contrast=5.0).radius_by_number == 0.0


@pytest.mark.parametrize(("by", "shared"), [(0.7, 0.0), (-0.5, 0.6), (0.0, 0.3)])
def test_normal_scores_are_tied_as_asked(by, shared):
    rng = np.random.default_rng(0)
    cause, image = rng.random(4000), rng.standard_normal(4000)
    made = np.array(
        [tied(rng.random(4), by=by, cause=c, shared=shared, image=i) for c, i in zip(cause, image, strict=True)]
    )
    score = scores(made)
    assert score.std() == pytest.approx(1, abs=0.03)
    assert np.corrcoef(score[:, 0], scores(cause))[0, 1] == pytest.approx(by, abs=0.04)
    left = score - by * scores(cause)[:, None]
    assert np.cov(left[:, 0], left[:, 1])[0, 1] == pytest.approx(shared * (1 - by**2), abs=0.04)


def test_a_folder_is_simulated_with_what_goes_together_there(population, tmp_path):
    for n, (labels, image) in enumerate(zip(*with_light(population[:24]), strict=True)):
        tifffile.imwrite(tmp_path / f"{n:02d}.tif", image.astype(np.uint16))
        tifffile.imwrite(tmp_path / f"{n:02d}_masks.tif", labels)
    settings = like(tmp_path, spacing_um=SPACING).settings()
    assert settings.touching_by_number > 0.4
    assert settings.radius_by_number < -0.3
    assert settings.brightness_by_number > 0.3


@pytest.mark.parametrize("name", ["radius_by_number", "touching_by_number", "brightness_by_number"])
def test_a_correlation_is_no_larger_than_one(name):
    with pytest.raises(ValueError, match=f"{name} must be from -1 to 1, got 1.5"):
        NucleiSettings(**{name: 1.5})


@pytest.mark.parametrize("name", ["radius_shared", "brightness_shared"])
def test_a_share_is_a_share(name):
    with pytest.raises(ValueError, match=f"{name} must be from 0 to 1, got -0.1"):
        NucleiSettings(**{name: -0.1})
