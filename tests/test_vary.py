"""Other microscopes: what each of them does to light and noise, in closed form; and what becomes of a data set."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import tifffile
from made_up import bank, small_statistics, statistics, tiny_sketch_pipeline

from cascade.annotation import Annotation
from cascade.commands.cli import main
from cascade.evaluation.sources import Source
from cascade.optics.noise import Noise
from cascade.optics.vary import ATTENUATION_PER_UM, EXPOSURE, GAIN, SLICES, Microscope, draw_microscope
from cascade.optics.window import Window
from cascade.population.picture import expose, take_picture
from cascade.population.reslicing import resliced
from cascade.population.scene import plan_scene
from cascade.population.settings import CascadeSettings

FLAT = np.full((200, 200), 400.0, np.float32)
STACK = (2.0, 0.5, 0.5)


def shown(microscope: Microscope | None, light: np.ndarray = FLAT, level: float = 100.0, **changes) -> np.ndarray:
    return expose(light, level, statistics(**changes), 3, 0, microscope).astype(float)


def balls(shape=(24, 96, 96), spacing=STACK, seed=0) -> Annotation:
    """Ten balls of 4.4 µm."""
    rng, labels = np.random.default_rng(seed), np.zeros(shape, np.uint16)
    at = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij"), -1)
    for label in range(1, 11):
        y, x = divmod(label - 1, 4)
        centre = (rng.uniform(8, 38), 8 + 15 * y, 6 + 11 * x)
        labels[((at - centre) ** 2).sum(-1) < 4.4**2] = label
    return Annotation.of_labels(labels, spacing)


def test_gain_multiplies_the_spread_as_the_signal():
    usual, twice = shown(None), shown(Microscope(gain=2.0))
    dark = statistics().noise.offset
    assert twice.mean() - dark == pytest.approx(2 * (usual.mean() - dark), rel=1e-2)
    assert twice.var() == pytest.approx(4 * usual.var(), rel=0.02)


def test_exposure_multiplies_photons():
    dark = statistics().noise.offset
    for exposure in (0.25, 4.0):
        usual, other = shown(None), shown(Microscope(exposure=exposure))
        assert other.mean() - dark == pytest.approx(exposure * (usual.mean() - dark), rel=1e-2)
        noise = statistics().noise
        assert other.var() == pytest.approx(noise.read_variance + exposure * noise.gain * (500 - dark), rel=0.03)


def test_the_offset_shifts_the_mean_alone():
    usual, shifted = shown(None), shown(Microscope(offset=37.0))
    assert shifted.mean() == pytest.approx(usual.mean() + 37, abs=0.1)
    assert shifted.std() == pytest.approx(usual.std(), rel=0.01)


def test_the_background_grows_by_a_share_of_a_cells_light_and_stays_above_the_dark():
    empty = np.zeros_like(FLAT)
    cell = statistics().cell_brightness[0] - 100  # above the background's level
    brighter = shown(Microscope(background=0.4), empty)
    assert brighter.mean() == pytest.approx(100 + 0.4 * cell, rel=5e-3)
    assert brighter.var() == pytest.approx(statistics().noise.variance(np.array(100 + 0.4 * cell)), rel=0.03)
    assert shown(Microscope(background=-0.9), empty).mean() == pytest.approx(statistics().noise.offset, abs=1.0)
    below = shown(Microscope(background=-0.9), empty, level=50.0)  # real images may be darker than the fitted offset
    assert below.mean() == pytest.approx(shown(None, empty, level=50.0).mean(), abs=0.5)


def test_a_points_blur_is_as_wide_as_stated():
    point = np.zeros((33, 65, 65), np.float32)
    point[16, 32, 32] = 1.0
    seen = Microscope(blur_px=2.0).light(point, STACK)
    assert seen.sum() == pytest.approx(1, rel=1e-3)
    for axis, sigma_px in enumerate((1.0, 2.0, 2.0)):  # along z twice as long: 2 µm are one slice
        at = np.arange(seen.shape[axis]) - seen.shape[axis] // 2
        profile = seen.sum(tuple({0, 1, 2} - {axis}))
        assert np.sqrt((profile * at**2).sum()) == pytest.approx(sigma_px, rel=0.03)


def test_light_fades_with_depth_from_either_side():
    light = np.ones((11, 2, 2), np.float32)
    for attenuation, order in ((0.01, slice(None)), (-0.01, slice(None, None, -1))):
        seen = Microscope(attenuation_per_um=attenuation).light(light, STACK)[order, 0, 0]
        np.testing.assert_allclose(seen, np.exp(-0.01 * 2.0 * np.arange(11)), rtol=1e-5)


@pytest.mark.parametrize("slice_um", [1.4, 2.0, 3.0, 3.7])
def test_slices_of_another_distance_show_the_same_cells(slice_um):
    before = balls()
    after = resliced(before, slice_um)
    assert after.spacing_um == (slice_um, 0.5, 0.5)
    assert (len(after.labels) - 1) * slice_um <= 46 < len(after.labels) * slice_um
    assert [cell.label for cell in after.cells] == list(range(1, 11))
    volume = [sum(cell.size for cell in one.cells) for one in (before, after)]
    assert volume[1] == pytest.approx(volume[0], rel=0.08)
    apart = [np.subtract(a.centroid_um, b.centroid_um) for a, b in zip(before.cells, after.cells, strict=True)]
    assert np.abs(apart).max(0).tolist() <= [0.5 * slice_um, 0.25, 0.25]
    assert np.mean(apart, 0) == pytest.approx(0, abs=0.5)
    light = Microscope(slice_um=slice_um).light((before.labels > 0).astype(np.float32), STACK)
    assert light.shape == after.labels.shape
    np.testing.assert_array_equal(light > 0.51, (after.labels > 0) & (light > 0.51))
    assert not after.split_ids()


def test_cells_between_slices_are_gone_and_pieces_are_not_kept():
    labels = np.zeros((9, 12, 12), np.uint16)
    labels[3, :4, :4] = 1  # between the slices at 2 and 4
    labels[2:7, 6:8, 6:8], labels[2:5, 6:8, 9:11], labels[3, 7, 8] = 2, 2, 2  # a bridge that no slice shows
    after = resliced(Annotation.of_labels(labels, STACK), 4.0)
    assert [cell.label for cell in after.cells] == [2]
    assert after.labels[..., 9:11].sum() == 0
    assert after.labels[:, 6, 6].tolist() == [0, 2, 2, 2, 0]


def test_a_microscope_of_the_fitted_kind_changes_no_byte():
    light = np.random.default_rng(0).uniform(0, 400, (32, 32)).astype(np.float32)
    np.testing.assert_array_equal(shown(Microscope(), light), shown(None, light))
    assert draw_microscope(0.0, 1, 2, statistics().window, "uint16", (0.5, 0.5)) is None
    assert Microscope().record() == {}


def test_what_is_drawn_lies_within_the_stated_ranges():
    window = statistics().window
    for vary in (0.3, 1.0):
        drawn = [asdict(draw_microscope(vary, 5, n, window, "uint16", STACK)) for n in range(400)]
        column = {name: np.array([one[name] for one in drawn]) for name in drawn[0]}
        for name, most in (("exposure", EXPOSURE), ("gain", GAIN)):
            logs = np.log(column[name]) / np.log(most)
            assert np.abs(logs).max() <= vary
            assert np.abs(logs).max() == pytest.approx(vary, rel=0.05)
            assert logs.mean() == pytest.approx(0, abs=0.1 * vary)
        assert np.abs(column["attenuation_per_um"]).max() <= vary * ATTENUATION_PER_UM
        low, high = (np.log(s) * vary for s in SLICES)
        assert low <= np.log(column["slice_um"] / 2).min() < low + 0.05 * (high - low)
        assert 0.95 * (high - low) < np.log(column["slice_um"] / 2).max() - low <= high - low
    assert draw_microscope(1.0, 5, 7, window, "uint16", STACK) == Microscope(**drawn[7])
    assert draw_microscope(1.0, 5, 7, window, "uint16", (0.5, 0.5)).slice_um is None


def test_small_integers_are_not_overrun():
    """Eight bits whose window ends at 200."""
    window = replace(statistics().window, low=10.0, high=200.0)
    drawn = [draw_microscope(1.0, 0, n, window, "uint8", (0.5, 0.5)) for n in range(100)]
    assert max(one.exposure * one.gain for one in drawn) <= (255 - 10) / (200 - 10) + 1e-6
    assert min(one.exposure for one in drawn) < 0.3


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_sample_says_what_it_was_seen_with(ndim):
    real = replace(small_statistics(ndim), noise=Noise(60.0, 4.0, 0.5, [[1.0]]))
    cells = bank(ndim)

    def made(vary: float, index: int = 0):
        settings = CascadeSettings(canvas_size=(12, 96, 96)[-ndim:], cells_per_image=4, vary=vary)
        return take_picture(cells, plan_scene(real, settings, 1, index), real, 1, index, counts={})

    usual, varied = made(0.0), made(1.0)
    assert usual.microscope == {}
    names = {"exposure", "gain", "offset", "background", "blur_px"}
    assert set(varied.microscope) == names | ({"attenuation_per_um", "slice_um"} if ndim == 3 else set())
    assert varied.image.shape == varied.labels.shape
    if ndim == 3:
        assert varied.spacing_um == (varied.microscope["slice_um"], 0.5, 0.5)
        assert len(varied.labels) == int(11 * 2.0 / varied.microscope["slice_um"]) + 1
        assert "cells between slices" in varied.counts
    else:
        np.testing.assert_array_equal(varied.labels, usual.labels)
    np.testing.assert_array_equal(made(1.0).image, varied.image)
    assert made(1.0, 1).microscope["gain"] != varied.microscope["gain"]


def test_sketches_follow_gain_offset_background_and_depth():
    sketch = np.full((4, 8, 8), 100.0, np.float32)
    cells = np.zeros(sketch.shape, bool)
    cells[:, 2:6, 2:6] = True
    sketch[cells] = 300
    seen = Microscope(background=0.5, attenuation_per_um=0.01).of_sketch(sketch, cells, STACK)
    np.testing.assert_allclose(seen[~cells], 200, rtol=1e-5)
    np.testing.assert_allclose(seen[3, 3, 3], 200 + 200 * np.exp(-0.06), rtol=1e-5)
    image = np.random.default_rng(0).normal(100, 3, (64, 64))
    windows = [Window(90, 1000)]
    seen = Microscope(gain=2.0, offset=5.0).of_image(image, windows)
    assert seen.mean() == pytest.approx(95 + 2 * (image.mean() - 90))
    assert Microscope(gain=2.0).of_image(image, windows).var() == pytest.approx(4 * image.var())
    pipeline = tiny_sketch_pipeline()
    labels = np.zeros((32, 32), np.uint16)
    labels[8:24, 8:24] = 1
    annotation = Annotation.of_labels(labels, (0.5, 0.5))
    usual, same, varied = (pipeline.paint(annotation, 3, 0, **more) for more in ({}, {"vary": 0.0}, {"vary": 1.0}))
    np.testing.assert_array_equal(usual.image, same.image)
    assert usual.microscope == {}
    assert set(varied.microscope) == {"gain", "offset", "background"}
    assert (varied.image != usual.image).mean() > 0.5


def test_a_varied_data_set_goes_on_as_it_was_begun(tmp_path, capsys):
    words = ["generate", "--model", "nuclei3d", "--canvas_size", "16", "48", "48", "--cells_per_image", "2", "--bank"]
    words += ["2", "--shapes", "ellipsoids", "--num_inference_steps", "1", "--min_alignment", "0", "--shard_size", "1"]
    words += ["--num_images", "2", "--seed", "4", "--output_dir", str(tmp_path / "set"), "--vary", "0.9"]
    assert main(words) == 0
    lines = [json.loads(line) for line in (tmp_path / "set" / "provenance.jsonl").read_text().splitlines()]
    images = Source(tmp_path / "set").load()
    for line, one in zip(lines, images, strict=True):
        assert line["microscope"]["slice_um"] == line["spacing_um"][0] == pytest.approx(one.spacing_um[0], rel=1e-5)
        assert one.image.shape == one.labels.shape == (int(15 * 1.75 / one.spacing_um[0]) + 1, 48, 48)
    assert lines[0]["spacing_um"] != lines[1]["spacing_um"]
    path = tmp_path / "set" / "01" / "t001.tif"
    before = tifffile.imread(path)
    path.unlink()
    assert main(words) == 0
    np.testing.assert_array_equal(tifffile.imread(path), before)
    assert main([*words[:-1], "0.5"]) == 1
    assert "made with other vary" in capsys.readouterr().err
    assert main([*words[:-4], "--output_dir", str(tmp_path / "tiles"), "--vary", "1", "--tiles"]) == 1
    assert "--tiles goes without --vary" in capsys.readouterr().err
    assert main([*words[:-1], "1.5"]) == 2
    assert "--vary must be in [0, 1], got 1.5" in capsys.readouterr().err
