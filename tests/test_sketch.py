"""Sketches: every rule against a closed form, and what a whole sketch promises."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, special, stats

from cascade.annotation import Annotation
from cascade.rng import stream
from cascade.simulators.labels import layered
from cascade.simulators.nuclei import NucleiSettings, nuclei
from cascade.simulators.stemcells import StemCellSettings, stemcells
from cascade.sketch import rules
from cascade.sketch.draw import asked, draw_sketch, sketch_of_image
from cascade.sketch.settings import SketchSettings
from cascade.sketch.smooth import blurred

PLAIN = SketchSettings(brightness=(100.0,), background=(50.0,))


def rng(seed=0):
    return stream(seed, "sketch")


def grid_of_discs(rows=6, columns=8, pitch=24, radius=8, spacing=0.5) -> Annotation:
    y, x = np.mgrid[: rows * pitch, : columns * pitch]
    inside = (y % pitch - pitch // 2) ** 2 + (x % pitch - pitch // 2) ** 2 <= radius**2
    labels = np.where(inside, y // pitch * columns + x // pitch + 1, 0).astype(np.uint16)
    return Annotation.of_labels(labels, (spacing, spacing))


def means(image, annotation):
    return ndimage.mean(image, annotation.labels, [cell.label for cell in annotation.cells])


def given(annotation, **changes):
    return replace(annotation, cells=tuple(replace(cell, **changes) for cell in annotation.cells))


# Rules


def test_mean_intensity_is_that_of_each_cell_and_of_each_frame():
    labels = rng().integers(0, 4, (3, 20, 20)) * 7
    image = rng(1).normal(size=labels.shape)
    whole, frames = rules.mean_intensity(labels, image), rules.mean_intensity(labels, image, per_slice=True)
    for label in (7, 14, 21):
        np.testing.assert_allclose(whole[labels == label], image[labels == label].mean(), rtol=1e-5)
        for t in range(3):
            own = labels[t] == label
            np.testing.assert_allclose(frames[t][own], image[t][own].mean(), rtol=1e-4, atol=1e-6)
    assert not whole[labels == 0].any()


def test_random_intensity_of_a_cell_does_not_depend_on_the_others():
    labels = grid_of_discs().labels
    light = rules.random_intensity(labels, (10.0, 20.0, 80.0), rng())
    few = rules.random_intensity(np.where(labels % 3 == 1, labels, 0), (10.0, 20.0, 80.0), rng())
    np.testing.assert_array_equal(few[few > 0], light[few > 0])
    many = np.arange(1, 4001).reshape(40, 100)
    drawn = rules.random_intensity(many, (10.0, 20.0, 80.0), rng())
    np.testing.assert_allclose(np.quantile(drawn, [0.25, 0.5, 0.75]), [15, 20, 50], rtol=0.05)


def test_light_falls_linearly_along_z():
    labels = np.zeros((40, 16, 16), np.uint16)
    for n, z in enumerate(range(4, 40, 8), 1):
        labels[z - 2 : z + 3, 4:12, 4:12] = n
    annotation = Annotation.of_labels(labels, (2.0, 1.0, 1.0))
    sketch = draw_sketch(annotation, replace(PLAIN, axial_decay=0.01), rng())
    for z in range(2, 39):
        if labels[z].any():
            np.testing.assert_allclose(sketch[z][labels[z] > 0] - 50, 100 * (1 - 0.01 * 2 * z), rtol=1e-5)


def test_light_falls_linearly_towards_the_middle_of_a_ball():
    z, y, x = np.mgrid[:41, :41, :41] - 20.0
    r = np.sqrt(z**2 + y**2 + x**2)
    factor = rules.radial_decay(r <= 19, (1.0, 1.0, 1.0), 0.6)
    inside = r <= 19
    np.testing.assert_allclose(factor[inside], (1 - 0.6 * (1 - r / 19))[inside], atol=0.04)
    assert (factor[~inside] == 1).all()
    assert factor[20, 20, 20] == pytest.approx(0.4, abs=1e-6)


def test_depth_in_a_large_organism_is_that_of_a_small_one():
    z, y, x = np.mgrid[:60, :120, :120] - np.array([30, 60, 60]).reshape(3, 1, 1, 1)
    r = np.sqrt((2 * z) ** 2 + y**2 + x**2)
    depth = rules.organism_depth(r <= 55, (2.0, 1.0, 1.0))
    inside = r < 50
    assert np.abs(depth - (1 - r / 55))[inside].max() < 0.1
    assert np.abs(depth - (1 - r / 55))[inside].mean() < 0.03


def test_cells_without_an_outline_of_the_organism_fill_one():
    labels = np.pad(grid_of_discs(8, 8).labels, 40)
    annotation = Annotation.of_labels(labels, (0.5, 0.5))
    sketch = draw_sketch(annotation, replace(PLAIN, radial_decay=0.5), rng())
    light = (means(sketch, annotation) - 50).reshape(8, 8)
    rings = [light[n, n : 8 - n].mean() for n in range(4)]  # of which the first lies 8 pixels deep, the middle 92
    np.testing.assert_allclose(rings, [100 * (1 - 0.5 * (8 + 24 * n) / 92) for n in range(4)], atol=2)


def test_nucleoli_are_discs_as_dark_as_asked_within_their_cell():
    labels = np.ones((100, 100), np.uint16)
    labels[:, 60:] = 2
    factor = np.ones(labels.shape)
    rules.dark_spots(factor, labels, (0.5, 0.25), [(1, (25.0, 7.5, 4.0), 0.2), (2, (10.0, 15.0, 3.0), 0.5)])
    assert set(np.unique(factor)) == {0.2, 0.5, 1.0}
    assert (factor == 0.2).sum() * 0.5 * 0.25 == pytest.approx(np.pi * 4**2, rel=0.03)
    assert (factor == 0.5).sum() * 0.5 * 0.25 == pytest.approx(np.pi * 3**2 / 2, rel=0.06)  # cut where its cell ends
    assert (factor[:, :60] != 0.5).all()


def test_nucleoli_of_the_annotation_are_drawn_and_others_only_where_it_is_silent():
    annotation = stemcells(rng(), StemCellSettings(canvas_size=(400, 400), num_cells=(8.0,)))
    settings = replace(PLAIN, nucleoli=(2.0,), nucleolus_light=(0.0,))
    sketch = draw_sketch(annotation, settings, rng())
    for cell in annotation.cells:
        dark = (sketch == 50) & (annotation.labels == cell.label)
        assert dark.any() == bool(cell.nucleoli)
    silent = given(annotation, nucleoli=None)
    drawn = asked(silent, settings, rng())
    assert {len(cell.nucleoli or ()) for cell in drawn.cells} == {2}
    spacing = np.array(annotation.spacing_um)
    for cell in drawn.cells:
        for *centre, _ in cell.nucleoli or ():
            assert annotation.labels[tuple(np.rint(centre / spacing).astype(int))] == cell.label


def test_membranes_have_their_thickness_and_light_and_cells_their_inside():
    labels = np.repeat(np.repeat(np.array([[1, 2], [3, 4]], np.uint16), 40, 0), 40, 1)
    annotation = Annotation.of_labels(labels, (0.5, 0.5))
    settings = replace(PLAIN, structure="membranes", thickness_um=4.0, interior=(0.25,))
    sketch = draw_sketch(annotation, settings, rng())
    row = sketch[10] - 50
    assert (np.flatnonzero(row == 100) == np.arange(36, 44)).all()
    assert set(np.unique(sketch)) == {75.0, 150.0}
    soft = draw_sketch(annotation, replace(settings, softness_um=1.0, thickness_um=2.0), rng()) - 50
    wall = np.abs(np.arange(80) - 39.5) < 2
    assert soft[10][wall].mean() == pytest.approx(100, rel=0.02)
    at = (np.arange(80) - 39.5) / 2  # µm from the wall: a box of 2 µm, blurred by 1 µm
    box = 0.5 * (special.erf((at + 1) / np.sqrt(2)) - special.erf((at - 1) / np.sqrt(2)))
    expected = 25 + 75 * box / box[wall].mean()
    np.testing.assert_allclose(soft[10], expected, atol=3)


def test_the_outer_wall_of_a_tissue_is_as_bright_as_its_cells():
    labels = np.zeros((60, 60), np.uint16)
    labels[15:45, 15:30], labels[15:45, 30:45] = 1, 2
    sketch = draw_sketch(
        Annotation.of_labels(labels, (1.0, 1.0)), replace(PLAIN, structure="membranes", thickness_um=4.0), rng()
    )
    assert sketch[30, 13] == pytest.approx(150, rel=0.01)
    assert sketch[30, 5] == sketch[30, 22] == 50


def test_overlapping_cells_are_darker_by_a_tenth_each():
    y, x = np.mgrid[:60, :80]
    discs = [(y - 30) ** 2 + (x - c) ** 2 < 324 for c in (25, 38, 51)]
    annotation = layered(np.stack(discs).astype(np.uint16), (0.5, 0.5))
    sketch = draw_sketch(annotation, replace(PLAIN, overlap=0.1), rng())
    cover = np.sum(discs, 0)
    for count, factor in ((1, 1.0), (2, 0.9), (3, 0.8)):
        np.testing.assert_allclose(sketch[cover == count], 150 * factor, rtol=1e-5)
    with pytest.raises(ValueError, match="hold no layers"):
        draw_sketch(grid_of_discs(), replace(PLAIN, overlap=0.1), rng())


def test_the_background_has_its_field_and_length():
    empty = Annotation.of_labels(np.zeros((400, 400), np.uint16), (0.5, 0.5))
    fields = [
        draw_sketch(empty, SketchSettings(background=(200.0,), field_sd=10.0, field_um=10.0), rng(n)) for n in range(6)
    ]
    assert np.mean(fields) == pytest.approx(200, abs=2)
    assert np.std(fields) == pytest.approx(10, rel=0.1)
    lag = 20  # the length: correlation exp(−1/4)
    centred = np.stack(fields) - 200
    assert (centred[:, lag:] * centred[:, :-lag]).mean() / centred.var() == pytest.approx(np.exp(-0.25), abs=0.08)


def test_stray_light_of_a_straight_edge_is_an_error_function():
    labels = np.zeros((80, 200), np.uint16)
    labels[:, :100] = 1
    sketch = draw_sketch(Annotation.of_labels(labels, (0.5, 0.5)), replace(PLAIN, glow=(0.4,), glow_um=(5.0,)), rng())
    away = (np.arange(100, 150) - 99.5) * 0.5
    expected = 50 + 40 * 0.5 * special.erfc(away / (5 * np.sqrt(2)))
    np.testing.assert_allclose(sketch[40, 100:150], expected, atol=0.5)
    assert (sketch[labels > 0] == 150).all()


def test_stray_light_goes_as_much_farther_along_z_as_is_asked():
    labels = np.zeros((81, 60, 60), np.uint16)
    labels[:40] = 1
    settings = replace(PLAIN, glow=(0.4,), glow_um=(5.0,), glow_axial=3.0)
    sketch = draw_sketch(Annotation.of_labels(labels, (1.0, 0.5, 0.5)), settings, rng())
    away = np.arange(40, 70) - 39.5
    expected = 50 + 40 * 0.5 * special.erfc(away / (3 * 5 * np.sqrt(2)))
    np.testing.assert_allclose(sketch[40:70, 30, 30], expected, atol=0.5)
    flat = Annotation.of_labels(labels[:, 0], (0.5, 0.5))
    seen = [draw_sketch(flat, replace(settings, glow_axial=times), rng()) for times in (1.0, 3.0)]
    assert (seen[0] == seen[1]).all()


def test_light_of_a_cell_falls_towards_its_ends_along_z():
    labels = np.zeros((15, 20, 20), np.uint16)
    labels[2:11, 5:15, 5:15] = 1  # whole: nine planes
    labels[12:, :4, :4] = 2  # cut by the last plane, and widest there
    labels[12, 0, 0] = 0
    settings = replace(PLAIN, axial_profile=(0.2, 0.6, 1.0))
    sketch = draw_sketch(Annotation.of_labels(labels, (2.0, 1.0, 1.0)), settings, rng()) - 50
    np.testing.assert_allclose(
        sketch[2:11, 8, 8], 100 * np.array([0.2, 0.4, 0.6, 0.8, 1, 0.8, 0.6, 0.4, 0.2]), rtol=1e-5
    )
    cut = sketch[12:, 2, 2]
    np.testing.assert_allclose(cut / cut[2], [0.2, 0.6, 1], rtol=1e-5)
    through = Annotation.of_labels(np.ones((5, 8, 8), np.uint16), (2.0, 1.0, 1.0))
    assert (draw_sketch(through, settings, rng()) == 150).all()


def test_a_disc_has_the_profile_and_its_mean():
    y, x = np.mgrid[:101, :101] - 50.0
    r = np.hypot(y, x)
    annotation = Annotation.of_labels((r <= 40).astype(np.uint16), (1.0, 1.0))
    sketch = draw_sketch(annotation, replace(PLAIN, profile=(0.0, 1.0)), rng()) - 50
    assert sketch[r <= 40].mean() == pytest.approx(100, rel=1e-4)
    inside = r <= 39  # a cone: 300 (1 − r / R)
    np.testing.assert_allclose(sketch[inside], (300 * (1 - r / 40))[inside], atol=12)


def test_wide_blur_is_that_of_the_slow_way():
    image = (grid_of_discs().labels[:, :150] > 0).astype(np.float32)
    for sigma in ((0.7, 2.0), (9.0, 13.0), (30.0, 3.0)):
        slow = ndimage.gaussian_filter(image, sigma, mode="reflect", truncate=5)
        assert np.abs(blurred(image, sigma) - slow).max() < 3e-3


# Whole sketches


def test_the_same_rng_makes_the_same_bytes_and_cells_do_not_know_of_each_other():
    annotation = given(grid_of_discs(), nucleoli=None)
    settings = SketchSettings(
        brightness=(50.0, 400.0), profile=(0.5, 1.0), nucleoli=(-0.5, 2.5), field_sd=3.0, background=(80.0, 120.0)
    )
    sketch = draw_sketch(annotation, settings, rng())
    assert sketch.tobytes() == draw_sketch(annotation, settings, rng()).tobytes()
    assert not np.array_equal(sketch, draw_sketch(annotation, settings, rng(1)))
    fewer = Annotation.of_labels(np.where(annotation.labels % 2 == 1, annotation.labels, 0), annotation.spacing_um)
    odd = fewer.labels > 0
    np.testing.assert_allclose(draw_sketch(fewer, settings, rng())[odd], sketch[odd], rtol=1e-5)


@pytest.mark.parametrize("structure", ["cells", "membranes"])
def test_what_is_asked_is_what_is_drawn(structure):
    """`asked` says what a sketch gives to each cell, and drawing what it says gives the same sketch."""
    spacing = (1.5, 1.0, 1.0)
    annotation = nuclei(
        rng(), NucleiSettings(canvas_size=(24, 60, 60), spacing_um=spacing, num_cells=(8.0,), radius_um=(5.0, 7.0))
    )
    settings = SketchSettings(
        structure=structure, brightness=(100.0, 900.0), profile=(0.4, 1.0, 1.2), nucleoli=(1.0,), axial_decay=0.01,
        radial_decay=0.3, background=(60.0,), thickness_um=2.0, nucleolus_radius=(0.2,),
    )  # fmt: skip
    known = asked(annotation, settings, rng())
    sketch = draw_sketch(annotation, settings, rng())
    np.testing.assert_allclose(draw_sketch(known, settings, rng()), sketch, rtol=1e-4)
    if structure == "cells":
        for cell in known.cells:
            z = round(cell.centroid_um[0] / spacing[0])
            own = annotation.labels[z] == cell.label
            assert sketch[z][own].mean() == pytest.approx(cell.brightness, rel=1e-4)


def test_a_given_brightness_wins_on_the_reference_background():
    annotation = given(grid_of_discs(), brightness=333.0)
    settings = replace(PLAIN, background=(40.0, 60.0), profile=(0.5, 1.0))
    sketch = draw_sketch(annotation, settings, rng())
    level = sketch[0, 0]
    assert 40 <= level <= 60
    np.testing.assert_allclose(means(sketch, annotation), level + 333 - 50, rtol=1e-4)
    with pytest.raises(ValueError, match="cell 1 asks for a brightness that is no number"):
        draw_sketch(given(annotation, brightness=float("nan")), settings, rng())


def test_brightness_has_its_quantiles_and_what_images_share_of_it():
    annotation = grid_of_discs(16, 16, 12, 4)
    settings = SketchSettings(brightness=(100.0, 200.0, 1000.0), background=(0.0,))
    drawn = np.concatenate([means(draw_sketch(annotation, settings, rng(n)), annotation) for n in range(4)])
    expected = np.interp(np.linspace(0, 1, 2000), [0, 0.5, 1], settings.brightness)
    assert stats.kstest(drawn, expected).pvalue > 0.01
    alike = replace(settings, brightness_shared=0.6)
    images = np.array([means(draw_sketch(annotation, alike, rng(n)), annotation) for n in range(60)])
    scores = special.ndtri(np.interp(images, settings.brightness, [0, 0.5, 1]).clip(1e-6, 1 - 1e-6))
    share = scores.mean(1).var() / (scores.mean(1).var() + scores.var(1).mean())
    assert share == pytest.approx(0.6, abs=0.15)


def test_a_dim_cell_beside_a_bright_one_keeps_its_mean_and_has_no_dark_rim():
    labels = np.zeros((60, 90), np.uint16)
    labels[10:50, 10:45], labels[10:50, 45:80] = 1, 2
    annotation = Annotation.of_labels(labels, (1.0, 1.0))
    cells = tuple(replace(cell, brightness=b) for cell, b in zip(annotation.cells, (1050.0, 150.0), strict=True))
    settings = replace(PLAIN, glow=(0.5, 0.2), glow_um=(1.0, 8.0), profile=(0.5, 1.0))
    sketch = draw_sketch(replace(annotation, cells=cells), settings, rng())
    np.testing.assert_allclose(means(sketch, annotation), [1050, 150], rtol=1e-4)
    assert sketch[30, 45] > sketch[30, 60]


def test_stray_light_does_not_fill_nucleoli():
    annotation = given(grid_of_discs(), nucleoli=None)
    settings = replace(PLAIN, nucleoli=(1.0,), nucleolus_radius=(0.2,), nucleolus_light=(0.0,), profile=(0.6, 1.2))
    glowing = replace(settings, glow=(1.0, 0.4), glow_um=(0.5, 2.0))
    inside = annotation.labels > 0
    plain, bright = (draw_sketch(annotation, one, rng()) for one in (settings, glowing))
    np.testing.assert_allclose(bright[inside], plain[inside], rtol=1e-5)
    assert (plain[inside] == 50).any()


def test_cells_may_be_darker_than_the_background():
    annotation = grid_of_discs()
    settings = SketchSettings(brightness=(-80.0, -40.0), background=(200.0,), glow=(0.5,), glow_um=(1.0,))
    sketch = draw_sketch(annotation, settings, rng())
    assert (means(sketch, annotation) < 161).all()
    assert sketch[0, 0] == pytest.approx(200, abs=1)


def test_no_cells_are_a_background():
    empty = Annotation.of_labels(np.zeros((5, 8, 8), np.uint16), (1.0, 1.0, 1.0))
    for structure in ("cells", "membranes"):
        assert (draw_sketch(empty, replace(PLAIN, structure=structure, radial_decay=0.1), rng()) == 50).all()


def test_the_sketch_of_an_image_has_its_means():
    annotation = grid_of_discs()
    image = rng().normal(100, 10, annotation.labels.shape) + 5.0 * annotation.labels
    flat = sketch_of_image(annotation.labels, image)
    np.testing.assert_allclose(means(flat, annotation), means(image, annotation), rtol=1e-5)
    assert (flat[annotation.labels == 0] == flat[0, 0]).all()
    assert flat[0, 0] == pytest.approx(image[annotation.labels == 0].mean(), rel=1e-5)
    shaded = sketch_of_image(annotation.labels, image, replace(PLAIN, profile=(0.5, 1.0), glow=(0.3,), glow_um=(1.0,)))
    np.testing.assert_allclose(means(shaded, annotation), means(image, annotation), rtol=1e-4)
    with pytest.raises(ValueError, match="must be equally large"):
        sketch_of_image(annotation.labels, image[1:])


def test_the_sketch_of_a_tissue_has_the_means_of_walls_and_insides():
    labels = np.repeat(np.repeat(np.array([[1, 2], [3, 4]], np.uint16), 40, 0), 40, 1)
    annotation = Annotation.of_labels(labels, (0.5, 0.5))
    cells = tuple(replace(cell, brightness=100.0 * cell.label) for cell in annotation.cells)
    settings = SketchSettings(structure="membranes", thickness_um=2.0, background=(0.0,), interior=(0.3,))
    image = draw_sketch(replace(annotation, cells=cells), settings, rng())
    np.testing.assert_allclose(sketch_of_image(labels, image, settings, spacing_um=(0.5, 0.5)), image, rtol=1e-4)


# Settings


def test_settings_survive_json(tmp_path):
    settings = SketchSettings(structure="membranes", brightness=(1.0, 2.0, 5.0), glow=(0.1,), glow_um=(2.0,))
    assert SketchSettings(**json.loads(json.dumps(settings.record()))) == settings
    settings.save(tmp_path / "sketch.json")
    assert SketchSettings.load(tmp_path / "sketch.json") == settings
    for text, said in (
        ('{"brightnes": [1]}', "holds no settings of sketches"),
        ("{", "cannot be read"),
        ('{"overlap": 2}', "overlap must be from 0 to 1"),
    ):
        (tmp_path / "sketch.json").write_text(text)
        with pytest.raises(ValueError, match=said):
            SketchSettings.load(tmp_path / "sketch.json")
    with pytest.raises(ValueError, match="there is no such file"):
        SketchSettings.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"brightness": ()}, "brightness must be numbers that do not fall"),
        ({"background": (float("nan"),)}, "background must be numbers"),
        ({"profile": (0.0, 0.0)}, "profile must be numbers from 0"),
        ({"profile": ()}, "profile must be numbers from 0"),
        ({"axial_profile": (-1.0, 1.0)}, "axial_profile must be numbers from 0"),
        ({"glow_axial": 0.0}, "glow_axial must be"),
        ({"glow": (0.1,)}, "glow has 1 shares, `glow_um` 0 lengths"),
        ({"glow": (0.1,), "glow_um": (0.0,)}, "lengths above 0"),
        ({"overlap": 1.5}, "overlap must be from 0 to 1"),
        ({"thickness_um": 0.0}, "thickness_um must be a number above 0"),
        ({"radial_decay": 1.5}, "radial_decay must be from -1000 to 1"),
        ({"nucleolus_radius": (0.1, 0.9)}, "nucleolus_radius must be"),
        ({"field_sd": -1.0}, "field_sd must be from 0"),
        ({"structure": "nuclei"}, "structure must be one of cells, membranes"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        SketchSettings(**wrong)
