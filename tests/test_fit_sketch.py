"""Sketch settings read off images made with known ones; and `cascade sketch`, end to end."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from conftest import field_of_view
from scipy import ndimage
from scipy.spatial import KDTree
from test_sketch import grid_of_discs

from cascade.annotation import Annotation
from cascade.commands.cli import main
from cascade.data.sketch_spots import count_quantiles
from cascade.data.sketches import fit_sketch
from cascade.data.spacing import stored_spacing
from cascade.draws import draw
from cascade.reading import DataError
from cascade.rng import stream
from cascade.sketch.draw import draw_sketch
from cascade.sketch.settings import SketchSettings

SPACING = (0.5, 0.5)


def scenes(settings, annotation, count=4, noise=6.0):
    """Noisy images of one annotation, and its labels."""
    images = []
    for n in range(count):
        light = draw_sketch(annotation, settings, stream(n, "scene"))
        images.append(light + stream(n, "noise").normal(0, noise, light.shape))
    return images, [annotation.labels] * count


def discs(radius=12, pitch=40, rows=7, columns=8):
    labels = np.pad(grid_of_discs(rows, columns, pitch, radius).labels, 20)
    return Annotation.of_labels(labels, SPACING)


def median(values):
    return float(np.median(values))


@pytest.fixture(scope="module")
def planes():
    known = SketchSettings(
        brightness=(200.0, 300.0, 800.0), background=(100.0, 120.0), profile=(0.6, 1.0, 1.2),
        glow=(0.5, 0.1), glow_um=(1.0, 9.5), field_sd=8.0, field_um=12.0, nucleoli=(-0.5, 1.5),
        nucleolus_radius=(0.2,), nucleolus_light=(0.3,),
    )  # fmt: skip
    return known, *scenes(known, discs())


@pytest.fixture(scope="module")
def fitted(planes):
    _, images, labels = planes
    return fit_sketch(images, labels, spacing_um=SPACING)


def test_brightness_and_background_are_recovered(planes, fitted):
    known, _, _ = planes
    drawn = draw(np.random.default_rng(0), known.brightness, 4000)
    found = draw(np.random.default_rng(0), fitted.brightness, 4000)
    np.testing.assert_allclose(np.quantile(found, [0.1, 0.5, 0.9]), np.quantile(drawn, [0.1, 0.5, 0.9]), rtol=0.1)
    assert 98 <= median(fitted.background) <= 122
    assert fitted.field_sd == pytest.approx(8, rel=0.35)
    assert fitted.field_um == pytest.approx(12, rel=0.4)
    assert fitted.brightness_shared < 0.1
    assert (fitted.structure, fitted.dtype) == ("cells", "uint16")


def test_rim_and_stray_light_are_recovered(planes, fitted):
    known, _, _ = planes
    depth = np.linspace(0, 1, len(fitted.profile))
    expected = np.interp(depth, [0, 0.5, 1], known.profile)
    ratio = np.array(fitted.profile)[:-1] / expected[:-1]
    np.testing.assert_allclose(ratio / ratio.mean(), 1, atol=0.06)
    labels = np.zeros((60, 200), np.uint16)
    labels[:, :80] = 1
    edge = Annotation.of_labels(labels, SPACING)
    seen = [
        draw_sketch(edge, replace(one, brightness=(300.0,), background=(0.0,), field_sd=0.0, nucleoli=(0.0,)),
                    stream(0))[30, 80:140:4]
        for one in (known, fitted)
    ]  # fmt: skip
    np.testing.assert_allclose(seen[1], seen[0], atol=0.05 * 300)  # the field is half as strong


def test_how_a_stack_is_blurred_along_z_is_recovered():
    spacing, balls = (1.0, 0.5, 0.5), np.zeros((40, 150, 150), np.uint16)
    z, y, x = np.ogrid[:40, :150, :150]
    for n, (row, column) in enumerate([(25, 25), (25, 75), (25, 125), (75, 50), (75, 110), (125, 30), (125, 100)], 1):
        balls[((z - 20) / 9) ** 2 + ((y - row) / 14) ** 2 + ((x - column) / 14) ** 2 < 1] = n
    known = SketchSettings(
        brightness=(200.0, 600.0), background=(100.0,), profile=(0.6, 1.0, 1.0), axial_profile=(0.3, 0.8, 1.0),
        glow=(0.2,), glow_um=(2.0,), glow_axial=4.0,
    )  # fmt: skip
    images, labels = scenes(known, Annotation.of_labels(balls, spacing), count=2)
    found = fit_sketch(images, labels, spacing_um=spacing)
    assert found.glow_axial == 4.0
    heights = np.linspace(0, 1, len(found.axial_profile))[1:]
    np.testing.assert_allclose(found.axial_profile[1:], np.interp(heights, [0, 0.5, 1], known.axial_profile), atol=0.06)
    images, _ = scenes(
        replace(known, glow_axial=1.0, axial_profile=(1.0,)), Annotation.of_labels(balls, spacing), count=2
    )
    even = fit_sketch(images, labels, spacing_um=spacing)
    assert even.glow_axial == 1.0
    np.testing.assert_allclose(even.axial_profile[1:], 1, atol=0.06)


def test_nucleoli_are_recovered(fitted):
    counts = np.rint(draw(np.random.default_rng(0), fitted.nucleoli, 4000)).astype(int)
    assert (counts > 0).mean() == pytest.approx(0.5, abs=0.12)
    assert counts.max() <= 2
    assert median(fitted.nucleolus_radius) == pytest.approx(0.2, abs=0.03)
    assert median(fitted.nucleolus_light) == pytest.approx(0.3, abs=0.1)


def test_cells_without_spots_get_none_and_flat_ones_no_stray_light():
    plain = SketchSettings(brightness=(100.0, 300.0), background=(50.0,), dtype="uint8")
    images, labels = scenes(plain, discs(), 3)
    found = fit_sketch([image.clip(0, 255).astype(np.uint8) for image in images], labels, spacing_um=SPACING)
    assert np.mean(np.rint(draw(np.random.default_rng(0), found.nucleoli, 1000)) > 0) < 0.03
    assert sum(found.glow) < 0.03
    assert (found.axial_decay, found.radial_decay, found.dtype) == (0, 0, "uint8")
    assert found.field_sd < 2


def test_what_images_share_of_the_brightness_is_recovered():
    settings = SketchSettings(brightness=(100.0, 300.0), background=(50.0,), brightness_shared=0.6)
    images, labels = scenes(settings, discs(8, 24, 6, 6), 12)
    assert fit_sketch(images, labels, spacing_um=SPACING).brightness_shared == pytest.approx(0.6, abs=0.25)


def test_dark_cells_are_fitted_as_dark():
    images, labels = scenes(SketchSettings(brightness=(-120.0, -60.0), background=(200.0,)), discs(), 2)
    found = fit_sketch(images, labels, spacing_um=SPACING)
    assert median(found.brightness) == pytest.approx(-90, abs=8)
    assert found.brightness[-1] < 0


def ball_of_cells(shape=(26, 100, 100), spacing=(2.0, 1.0, 1.0), pitch=9.0):
    """Balls on a lattice in an ellipsoid."""
    grid = np.stack(np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij"), -1)
    middle = np.array(shape) * spacing / 2
    cell = np.floor(grid / pitch)
    away = np.linalg.norm(grid - (cell + 0.5) * pitch, axis=-1)
    inside = np.linalg.norm(((cell + 0.5) * pitch - middle) / (0.9 * middle), axis=-1) < 1
    names = cell[..., 0] * 10_000 + cell[..., 1] * 100 + cell[..., 2] + 1
    labels = np.where((away < 4) & inside, names, 0)
    _, number = np.unique(labels, return_inverse=True)
    foreground = np.linalg.norm((grid - middle) / (0.95 * middle), axis=-1) < 1
    return Annotation.of_labels(number.reshape(shape).astype(np.uint16), spacing, foreground=foreground)


@pytest.mark.parametrize(("axial", "radial"), [(0.01, 0.0), (0.0, 0.6), (0.008, 0.5)])
def test_light_that_falls_along_z_and_inwards_is_recovered(axial, radial):
    known = SketchSettings(brightness=(350.0, 450.0), background=(100.0,), axial_decay=axial, radial_decay=radial)
    annotation = ball_of_cells()
    images, labels = scenes(known, annotation, 2)
    found = fit_sketch(images, labels, spacing_um=annotation.spacing_um)
    assert found.axial_decay == pytest.approx(axial, abs=0.002)
    assert found.radial_decay == pytest.approx(radial, abs=0.12)
    assert median(found.brightness) == pytest.approx(400, rel=0.12)  # without an outline, the surface is a cell's rim


def tissue(shape=(20, 80, 80), spacing=(0.5, 0.25, 0.25), count=25):
    points = np.argwhere(np.ones(shape)) * spacing
    seeds = stream(0, "tissue").random((count, 3)) * np.array(shape) * spacing
    labels = KDTree(seeds).query(points)[1].reshape(shape) + 1
    return Annotation.of_labels(labels.astype(np.uint16), spacing)


@pytest.mark.parametrize("softness", [0.0, 0.2, 0.4])
def test_membranes_are_recovered(softness):
    annotation = tissue()
    known = SketchSettings(
        structure="membranes", brightness=(300.0, 500.0), background=(20.0,), thickness_um=1.0, softness_um=softness,
        interior=(0.2,),
    )  # fmt: skip
    images, labels = scenes(known, annotation, 2, noise=15)
    found = fit_sketch(images, labels, spacing_um=annotation.spacing_um)
    assert found.structure == "membranes"
    drawn = [draw_sketch(annotation, one, stream(5)) for one in (known, found)]
    depth = ndimage.distance_transform_edt(
        ndimage.minimum_filter(annotation.labels, 3) == ndimage.maximum_filter(annotation.labels, 3),
        annotation.spacing_um,
    )
    profiles = [[one[np.abs(depth - d) < 0.13].mean() for d in (0, 0.5, 1.0, 1.5)] for one in drawn]
    np.testing.assert_allclose(profiles[1], profiles[0], atol=0.1 * 400)
    # Where cells fill the image no background is seen: the darkest inside stands for it.
    assert median(found.brightness) + median(found.background) == pytest.approx(420, rel=0.1)
    if softness < 0.3:
        assert found.thickness_um == pytest.approx(1.0, abs=0.15)
        assert found.softness_um == pytest.approx(softness, abs=0.1)


def test_membranes_nobody_labelled_are_found_first():
    annotation = tissue((20, 100, 100), (0.5, 0.5, 0.5), 20)
    known = SketchSettings(
        structure="membranes",
        brightness=(400.0,),
        background=(100.0,),
        thickness_um=1.0,
        softness_um=0.3,
        interior=(0.1,),
    )
    images, _ = scenes(known, annotation, 1, noise=15)
    found = fit_sketch(images, spacing_um=annotation.spacing_um, structure="membranes")
    labelled = fit_sketch(images, [annotation.labels], spacing_um=annotation.spacing_um)
    assert found.thickness_um == pytest.approx(labelled.thickness_um, rel=0.15)
    assert found.softness_um == pytest.approx(labelled.softness_um, abs=0.15)
    assert median(found.brightness) == pytest.approx(median(labelled.brightness), rel=0.1)
    with pytest.raises(DataError, match="no cell is known"):
        fit_sketch([np.zeros((9, 30, 30))], spacing_um=(1, 1, 1), structure="membranes")


def test_cells_nobody_labelled_are_found_first():
    rng = np.random.default_rng(0)
    images, brightness = [], []
    for _ in range(3):
        image, labels = field_of_view(rng, (160, 180), 10)
        images.append(image)
        brightness += (ndimage.mean(image, labels, range(1, labels.max() + 1)) - 120).tolist()
    found = fit_sketch(images, spacing_um=SPACING)
    assert median(found.brightness) == pytest.approx(median(brightness), rel=0.15)
    assert median(found.background) == pytest.approx(120, abs=4)


def test_counts_are_drawn_as_often_as_they_were_found():
    counts = [0] * 50 + [1] * 30 + [2] * 20
    drawn = np.rint(draw(np.random.default_rng(0), count_quantiles(counts), 20_000))
    np.testing.assert_allclose(np.bincount(drawn.astype(int)) / len(drawn), [0.5, 0.3, 0.2], atol=0.04)
    assert count_quantiles([0, 0]) == (0.0,)


def test_images_that_cannot_be_fitted_to_are_refused():
    image, labels = field_of_view(np.random.default_rng(0), (80, 90), 4)
    for images, known, said in (
        ([], None, "there is no image"),
        ([image, image[None]], None, "image 1 has 3 axes"),
        ([np.full((40, 40), 7.0)], [np.eye(40, dtype=np.uint16)], "image 0: all pixels are 7"),
        ([image], [labels[:50]], r"image \(80, 90\) and labels \(50, 90\) differ in size"),
        ([image], [np.zeros_like(labels)], "no cell is known in any of 1 images"),
        ([image], [labels, labels], "there are 1 images and 2 labels"),
        ([np.where(labels > 0, np.nan, 1.0)], None, "values that are no numbers"),
    ):
        with pytest.raises(ValueError, match=said):
            fit_sketch(images, known, spacing_um=SPACING)
    with pytest.raises(ValueError, match="spacing_um must be 2 lengths"):
        fit_sketch([image], [labels], spacing_um=(1.0,))
    with pytest.raises(DataError, match="no such folder"):
        fit_sketch("nowhere")


# The command


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Labelled images like a camera's, and annotations without images."""
    root = tmp_path_factory.mktemp("sketches")
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    for n in range(2):
        image, labels = field_of_view(rng, (120, 130), 8)
        for name, array in (("", image), ("_masks", labels)):
            tifffile.imwrite(
                root / "images" / f"t{n}{name}.tif", array, imagej=True, resolution=(2, 2), metadata={"unit": "um"}
            )
    words = ["simulate", "nuclei", "--canvas_size", "90", "96", "--num_cells", "5", "--num_images", "3"]
    assert main([*words, "--radius_um", "3", "5", "--spacing_um", "0.5", "0.5", "--output_dir", str(root / "ann")]) == 0
    return root


def written(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if ".cascade" not in p.parts and p.is_file()
    }


def test_sketches_of_simulated_annotations_like_images(folders, tmp_path, capsys, monkeypatch):
    words = ["sketch", str(folders / "ann"), "--like", str(folders / "images"), "--shard_size", "2", "--output_dir"]
    assert main([*words, str(tmp_path / "one")]) == 0
    said = capsys.readouterr().out
    assert "2 of 2 images (labels), cells" in said
    assert "3 sketches in" in said
    assert (tmp_path / "one_like.png").is_file()
    pairs = sorted((tmp_path / "one" / "train").glob("sample_*.tif"))
    assert len(pairs) == 6
    with tifffile.TiffFile(pairs[0]) as tiff:
        assert tiff.imagej_metadata["unit"] in ("um", "micron", "\\u00B5m")
        assert (
            tiff.pages[0].tags["XResolution"].value == (2, 1)
            or np.divide(*tiff.pages[0].tags["XResolution"].value) == 2
        )
        image = tiff.asarray()
    assert stored_spacing(pairs[0], 2) == pytest.approx((0.5, 0.5))
    labels = tifffile.imread(pairs[1])
    assert image.dtype == np.uint16
    assert image[labels > 0].mean() > 250
    assert image[labels == 0].min() == pytest.approx(120, abs=10)

    monkeypatch.setenv("WORLD_SIZE", "2")  # two processes make the same bytes
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert main([*words, str(tmp_path / "two")]) == 0
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    assert written(tmp_path / "two") == written(tmp_path / "one")
    assert main([*words, str(tmp_path / "one"), "--only", "1"]) == 0

    # Its numbers are a file that can be changed and given.
    settings = SketchSettings.load(tmp_path / "one" / "sketch.json")
    replace(settings, background=(1000.0,)).save(tmp_path / "mine.json")
    words = ["sketch", str(folders / "ann"), "--settings", str(tmp_path / "mine.json"), "--num_images", "4"]
    assert main([*words, "--output_dir", str(tmp_path / "mine")]) == 0
    assert len(list((tmp_path / "mine" / "train").glob("*_masks.tif"))) == 4  # the first one once more
    again, first = (tifffile.imread(tmp_path / "mine" / "train" / f"sample_00000{n}.tif") for n in (3, 0))
    assert first.min() > 950
    assert not np.array_equal(again, first)


def test_labelled_images_are_fitted_to_by_themselves(folders, tmp_path):
    assert main(["sketch", str(folders / "images"), "--output_dir", str(tmp_path / "out"), "--format", "ome-tiff"]) == 0
    settings = json.loads((tmp_path / "out" / "sketch.json").read_text())
    image, labels = (tifffile.imread(folders / "images" / f"t0{name}.tif") for name in ("", "_masks"))
    sketch = tifffile.imread(tmp_path / "out" / "images" / "sample_000000.ome.tif")
    assert median(settings["background"]) == pytest.approx(120, abs=5)
    assert sketch[labels > 0].mean() == pytest.approx(image[labels > 0].mean(), rel=0.3)


def test_commands_that_cannot_be_are_refused_in_a_line(folders, tmp_path, capsys):
    stacks = tmp_path / "stacks"
    stacks.mkdir()
    rng = np.random.default_rng(0)
    tifffile.imwrite(stacks / "a.tif", rng.integers(0, 9, (5, 40, 40)).astype(np.uint16), metadata={"axes": "ZYX"})
    labels = np.zeros((5, 40, 40), np.uint16)
    labels[1:4, 10:20, 10:20] = 1
    tifffile.imwrite(stacks / "a_masks.tif", labels, metadata={"axes": "ZYX"})
    (stacks / "dataset.json").write_text('{"spacing_um": [2, 1, 1]}')
    annotations = str(folders / "ann")
    for words, said in (
        ([str(tmp_path / "none")], "no such folder"),
        ([annotations, "--like", str(stacks)], "holds stacks"),
        ([annotations, "--like", annotations], "labels without images"),
        ([annotations, "--settings", str(tmp_path / "none.json")], "there is no such file"),
        ([annotations, "--like", str(stacks), "--settings", "x.json"], "--like and --settings both say"),
        ([annotations, "--format", "annotations"], "--format annotations holds no images"),
        ([annotations, "--num_images", "0"], "--num_images must be a whole number from 1"),
    ):
        assert main(["sketch", *words, "--output_dir", str(tmp_path / "out")]) in (1, 2)
        error = capsys.readouterr().err
        assert said in error, error
        assert not (tmp_path / "out").exists()
