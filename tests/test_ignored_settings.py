"""Settings that mean nothing for what is asked are refused, not passed over; mistakes name the flags of the command."""

import re

import numpy as np
import pytest
import tifffile
from made_up import tiny_sketch_pipeline

from cascade.commands.cli import main
from cascade.commands.fit import fit
from cascade.commands.settings import FitSettings
from cascade.commands.simulate import contents
from cascade.export.annotations import annotation_path, load_annotation
from cascade.simulators.celegans import CElegansSettings, celegans
from cascade.simulators.labels import LabelsSettings
from cascade.simulators.meristem import MeristemSettings


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells") / "set"
    words = ["--canvas_size", "96", "96", "--spacing_um", "0.65", "0.65", "--num_cells", "4"]
    assert main(["simulate", "nuclei", *words, "--output_dir", str(folder)]) == 0
    return folder


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (dict(slices=4), "slices goes with `reading` slice"),
        (dict(slices=4, reading="time"), "slices goes with `reading` slice"),
        (dict(step_um=2.0), "step_um goes with `reading` slice or time"),
        (dict(step_um=2.0, reading="layers"), "step_um goes with `reading` slice or time"),
    ],
)
def test_numbers_of_a_reading_go_with_it(given, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        LabelsSettings(source="masks", **given)
    LabelsSettings(source="masks", **given | {"reading": "slice"})


@pytest.mark.parametrize("given", [dict(dome=(0.5, 0.4, 0.4)), dict(roughness=0.2)])
@pytest.mark.parametrize("organism", ["shape_model", "foreground"])
def test_an_organism_that_is_given_has_no_dome(given, organism):
    with pytest.raises(ValueError, match=f"{next(iter(given))} goes without `shape_model` and `foreground`"):
        MeristemSettings(**given, **{organism: "a.tif"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (dict(simulate="auto", truth="st"), "truth means nothing with `simulate`"),
        (dict(test_truth="st"), "test_truth goes with `test`"),
        (dict(test_sequences=("01",)), "test_sequences goes with `test`"),
    ],
)
def test_a_fit_is_not_asked_for_what_it_does_not_look_at(given, said):
    with pytest.raises(ValueError, match=said):
        FitSettings("images", output_dir="cells", **given)


def test_steps_of_the_other_kind_of_fit_cannot_be_left_out(tmp_path):
    for given in (dict(skip=("sketch",)), dict(skip=("mask",), simulate="auto")):
        with pytest.raises(ValueError, match=f"skip names {given['skip'][0]}, which is none of the steps here: "):
            fit(FitSettings(tmp_path / "images", output_dir=tmp_path / "cells", **given))


@pytest.mark.parametrize(
    "given",
    [
        ["--cells_per_image", "50"], ["--clustering_probability", "0.5"], ["--max_overlap", "0.1"],
        ["--reading", "section"], ["--shapes", "inflated"],
    ],
)  # fmt: skip
def test_a_cascade_takes_no_population_for_annotations_that_exist(given, cells, tmp_path, capsys):
    words = ["generate", "--model", "nuclei2d", "--annotations", str(cells), "--output_dir", str(tmp_path / "out")]
    assert main([*words, *given]) == 2
    assert f"{given[0]} means nothing for annotations that nuclei2d paints" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_asked_of_images_goes_with_images(cells, tmp_path, capsys):
    words = ["sketch", str(cells), "--output_dir", str(tmp_path / "out")]
    assert main([*words, "--like_sequences", "01"]) == 2
    assert "--like_sequences goes with --like FOLDER" in capsys.readouterr().err
    assert main([*words, "--settings", "a.json", "--like_channel", "2"]) == 2
    assert "--like_channel goes without --settings" in capsys.readouterr().err


def test_images_that_changed_are_seen_wherever_the_output_lies(tmp_path):
    """An output beside the images has the folder that they are in for its own."""
    images = tmp_path / "images"
    (images / "out").mkdir(parents=True)
    (images / "a.tif").write_bytes(b"one")
    for place in (tmp_path, tmp_path / "elsewhere", images / "out"):
        before = contents(images, place)
        (images / "out" / "mine.tif").write_bytes(b"made")
        assert (contents(images, place) == before) == (place == images / "out")
        (images / "out" / "mine.tif").unlink()
        (images / "a.tif").write_bytes(b"other")
        assert contents(images, place) != before
        (images / "a.tif").write_bytes(b"one")


def test_cells_that_are_too_small_are_told_without_flags_of_other_organisms():
    settings = CElegansSettings(canvas_size=(10, 40, 40), num_cells=(180.0,))
    with pytest.raises(ValueError, match=r"^a cell of radius 0\.\d+ µm is too small .* a smaller `spacing_um`$"):
        celegans(np.random.default_rng(0), settings)


def test_frames_follow_each_other_by_their_numbers(tmp_path):
    """As file names they do not: frame_10 comes before frame_2."""
    (tmp_path / "masks").mkdir()
    for time in range(1, 12):
        labels = np.zeros((40, 80), np.uint16)
        labels[10:20, 5 * time : 5 * time + 8] = 1
        tifffile.imwrite(tmp_path / "masks" / f"frame_{time}_masks.tif", labels)
    words = ["simulate", "labels", "--source", str(tmp_path / "masks"), "--reading", "time"]
    assert main([*words, "--spacing_um", "0.5", "0.5", "--output_dir", str(tmp_path / "out")]) == 0
    volume = load_annotation(annotation_path(tmp_path / "out", 0)).labels
    assert [int(np.flatnonzero(frame.any(0))[0]) for frame in volume] == [5 * time for time in range(1, 12)]


def test_one_that_is_made_again_with_other_settings_says_which(cells, tmp_path, capsys):
    words = ["simulate", "nuclei", "--canvas_size", "96", "96", "--spacing_um", "0.65", "0.65", "--num_cells", "5"]
    assert main([*words, "--only", "0", "--output_dir", str(cells)]) == 1
    assert "The data set was made with other num_cells: give what it was made with" in capsys.readouterr().err
    tiny_sketch_pipeline(spacing_um=[0.65, 0.65]).save_pretrained(tmp_path / "model")
    words = ["generate", "--model", str(tmp_path / "model"), "--annotations", str(cells)]
    words += ["--output_dir", str(tmp_path / "out")]
    assert main(words) == 0
    assert main([*words, "--only", "0", "--t_start", "30"]) == 1
    assert "The data set was made with other t_start: give what it was made with" in capsys.readouterr().err
    assert main([*words, "--only", "0"]) == 0
