"""Simulators fitted to images: what is read off a folder, and whether what is simulated is like it."""

import shutil

import numpy as np
import pytest
import tifffile
from conftest import field_of_view
from PIL import Image

from cascade.commands.cli import main
from cascade.data.calibrate import nuclei_like, quantiles
from cascade.data.like import like
from cascade.data.measures import Measures, measure_labels
from cascade.evaluation.realism import STATISTICS, realism, realism_floor
from cascade.reading import DataError
from cascade.rng import stream
from cascade.simulators.nuclei import NucleiSettings, nuclei

SPACING = (0.5, 0.5)


def population(count=6, **changes):
    options = dict(
        canvas_size=(150, 160), spacing_um=SPACING, num_cells=(9.0, 13.0), radius_um=(4.0, 6.0),
        elongation=(1.2, 1.6), deformation=(0.12,), touching=(0.4,), clustering=(0.5,),
    )  # fmt: skip
    settings = NucleiSettings(**(options | changes))
    return [nuclei(stream(3, "population", n), settings).labels for n in range(count)]


def raw_folder(folder, count=3, spacing=0.5):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for n in range(count):
        image, _ = field_of_view(rng, (160, 180), 10)
        tifffile.imwrite(
            folder / f"t{n}.tif", image, imagej=True, resolution=(1 / spacing,) * 2, metadata={"unit": "um"}
        )
    return folder


def test_what_is_simulated_has_the_measures_of_what_it_is_like():
    real = measure_labels(population(14), SPACING)
    settings = nuclei_like(real, (150, 160), SPACING)
    made = measure_labels((nuclei(stream(4, n), settings).labels for n in range(12)), SPACING)
    distances = realism(made, real)
    assert distances.pop("axial_elongation") is None
    assert all(value <= 0.6 for value in distances.values()), distances
    assert max(distances["size"], distances["elongation"], distances["solidity"]) <= 0.3, distances
    assert np.mean(settings.deformation) == pytest.approx(0.12, abs=0.02)
    assert np.mean(made.nearest_um) == pytest.approx(np.mean(real.nearest_um), rel=0.1)


def test_a_canvas_of_twice_the_room_holds_twice_the_cells():
    real = measure_labels(population(2, num_cells=(3.0, 5.0)), SPACING)
    settings = nuclei_like(real, (150, 160), SPACING, canvas_size=(300, 160))
    assert settings.canvas_size == (300, 160)
    assert np.mean(settings.num_cells) == pytest.approx(2 * np.mean(real.cells_per_image), rel=0.01)
    assert nuclei_like(real, (150, 160), SPACING, canvas_size=(300, 160)) == settings


def test_stacks_get_their_height():
    spacing = (1.5, 0.8, 0.8)
    options = dict(canvas_size=(16, 48, 48), spacing_um=spacing, num_cells=(5.0, 7.0), axial_elongation=(1.3, 1.5))
    options |= dict(radius_um=(3.0, 4.0))
    real = measure_labels(population(6, **options), spacing)
    settings = nuclei_like(real, (16, 48, 48), spacing)
    assert np.mean(settings.axial_elongation) == pytest.approx(1.4, abs=0.15)
    assert nuclei(np.random.default_rng(0), settings).ndim == 3


def test_quantiles_are_those_of_the_sample():
    values = np.random.default_rng(0).gamma(3, 2, 1000)
    found = quantiles(values)
    assert len(found) == 33
    assert found[16] == pytest.approx(np.median(values))
    assert (found[0], found[-1]) == (values.min(), values.max())


def test_distances_are_in_spreads_of_the_real():
    values = np.random.default_rng(0).normal(10, 2, 4000)
    real = Measures(**dict.fromkeys(Measures.__dataclass_fields__, values))
    moved = Measures(**dict.fromkeys(Measures.__dataclass_fields__, values + 3.0))
    assert realism(moved, real) == pytest.approx(dict.fromkeys(STATISTICS, 3.0 / values.std()))
    assert set(realism(real, real).values()) == {0.0}
    assert all(0 < value < 0.1 for value in realism_floor(real).values())


def test_raw_images_are_measured_and_shown(tmp_path):
    seen = like(raw_folder(tmp_path / "raw"))
    assert (seen.origin, seen.organism, seen.num_images) == ("raw images", "nuclei", 3)
    assert seen.spacing_um == pytest.approx(SPACING)
    assert seen.measures.cells_per_image.tolist() == [10, 10, 10]
    assert 120 < seen.measures.brightness.min() < seen.measures.brightness.max() < 1100
    assert "radius_um" in seen.table()
    seen.draw(tmp_path / "seen.png")
    with Image.open(tmp_path / "seen.png") as picture:
        assert picture.width > 600
    with pytest.raises(ValueError, match="canvas_size has 3 sides"):
        seen.settings(canvas_size=(8, 64, 64))


def test_labels_are_measured_where_there_are_some(tmp_path):
    rng = np.random.default_rng(0)
    for n in range(2):
        image, labels = field_of_view(rng, (160, 180), 9)
        tifffile.imwrite(tmp_path / f"{n}.tif", image)
        tifffile.imwrite(tmp_path / f"{n}_masks.tif", labels)
    seen = like(tmp_path)
    assert (seen.origin, seen.measures.cells_per_image.tolist()) == ("labels", [9, 9])
    assert like(tmp_path, raw=True).origin == "raw images"
    tifffile.imwrite(tmp_path / "0_masks.tif", np.where(labels < 2, labels, 0))
    tifffile.imwrite(tmp_path / "1_masks.tif", np.where(labels < 2, labels, 0))
    assert like(tmp_path).origin == "raw images"  # most cells have no label


def test_numbers_of_cells_are_those_of_images_of_the_typical_size(tmp_path):
    rng = np.random.default_rng(0)
    for n, (shape, count) in enumerate([((160, 160), 12)] * 3 + [((320, 320), 48)]):
        image, labels = field_of_view(rng, shape, count)
        tifffile.imwrite(tmp_path / f"{n}.tif", image)
        tifffile.imwrite(tmp_path / f"{n}_masks.tif", labels)
    seen = like(tmp_path, spacing_um=SPACING)
    assert seen.image_shape == (160, 160)
    assert seen.measures.cells_per_image == pytest.approx([12] * 4, abs=1)


def test_dense_stacks_of_labels_are_tissue(tmp_path):
    y = np.arange(3).repeat(8)
    cubes = np.pad((9 * y[:, None, None] + 3 * y[:, None] + y + 1).astype(np.uint16), 1)
    tifffile.imwrite(tmp_path / "x_masks.tif", cubes, photometric="minisblack")
    seen = like(tmp_path, spacing_um=(1.0, 1.0, 1.0))
    assert seen.organism == "tissue"
    settings = seen.tissue_settings(canvas_size=(20, 30, 30))
    assert settings.canvas_size == (20, 30, 30)
    assert np.median(settings.diameter_um) == pytest.approx(2 * np.cbrt(0.75 * 512 / np.pi), rel=0.01)
    assert settings.elongation[0] == pytest.approx(1.0)


def _split(folder):
    labels = np.zeros((64, 64), np.uint16)
    labels[5:15, 5:15] = labels[40:50, 40:50] = 3
    labels[20:30, 20:30] = 4
    tifffile.imwrite(folder / "x.tif", labels)
    tifffile.imwrite(folder / "x_masks.tif", labels)


def _noise(folder):
    tifffile.imwrite(folder / "x.tif", np.random.default_rng(0).normal(100, 5, (96, 96)).astype(np.uint16))


def _two_spacings(folder):
    raw_folder(folder, 1)
    (folder / "t0.tif").rename(folder / "a.tif")
    raw_folder(folder, 1, spacing=0.25)


def _two_dimensions(folder):
    raw_folder(folder, 1)
    tifffile.imwrite(folder / "z.tif", np.zeros((6, 64, 64), np.uint16), photometric="minisblack")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_split, "x_masks.tif: .*3 .*pieces"),
        (_noise, "no cell can be seen in any of 1 images"),
        (_two_spacings, "t0.tif: voxels of 0.25 × 0.25 µm, but those of .*a.tif are 0.5 × 0.5"),
        (_two_dimensions, "z.tif: another number of axes"),
        (lambda folder: None, "no images"),
    ],
)
def test_one_line_says_what_is_wrong_with_a_folder(tmp_path, make, said):
    make(tmp_path)
    with pytest.raises(DataError, match=said) as error:
        like(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="no such folder"):
        like(tmp_path / "nowhere")


def test_the_command_simulates_what_is_like_a_folder(tmp_path, capsys, monkeypatch):
    folder, output = raw_folder(tmp_path / "raw", 2), tmp_path / "made"
    words = ["simulate", "auto", "--like", folder, "--output_dir", output, "--num_images", "2", "--touching", "0"]
    assert main(list(map(str, words))) == 0
    said = capsys.readouterr().out
    assert "cells_per_image" in said
    assert "nuclei" in said
    assert (tmp_path / "made_like.png").is_file()
    annotations = sorted(p.name for p in output.rglob("*") if p.is_file())
    assert any("000001" in name for name in annotations), annotations
    record, made = (
        (tmp_path / "made_like.json").read_bytes(),
        {p.name: p.read_bytes() for p in output.rglob("*.safet*")},
    )
    shutil.rmtree(output)
    assert main(list(map(str, words))) == 0
    assert "as it was fitted before" in capsys.readouterr().out
    assert {p.name: p.read_bytes() for p in output.rglob("*.safet*")} == made
    shutil.rmtree(output)
    for rank in ("1", "0"):  # two processes, one shard each
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert main([*map(str, words), "--shard_size", "1"]) == 0
    assert {p.name: p.read_bytes() for p in output.rglob("*.safet*")} == made
    assert (tmp_path / "made_like.json").read_bytes() == record
    assert main(["simulate", "auto", "--like", str(tmp_path), "--output_dir", str(tmp_path / "x")]) == 1


def test_nothing_is_put_among_the_images_that_are_looked_at(tmp_path, capsys):
    folder = raw_folder(tmp_path / "raw", 2)
    before = sorted(folder.iterdir())
    for command in (["simulate", "auto", "--touching", "0"], ["sketch", str(tmp_path / "cells")]):
        if command[0] == "sketch":
            made = ["simulate", "nuclei", "--spacing_um", "0.5", "0.5", "--num_cells", "3"]
            assert main([*made, "--output_dir", str(tmp_path / "cells")]) == 0
        assert main([*command, "--like", str(folder), "--output_dir", str(folder / "made")]) == 1
        assert "is where the images are read from; name another folder" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_a_fit_is_found_again_beside_what_was_made_inside_the_folder(tmp_path, capsys):
    folder = raw_folder(tmp_path / "raw", 2)
    words = ["simulate", "auto", "--like", str(folder), "--touching", "0"]
    words += ["--output_dir", str(folder / "results" / "made")]
    assert main(words) == main(words) == 0
    assert "as it was fitted before" in capsys.readouterr().out
