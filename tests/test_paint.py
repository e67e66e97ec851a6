"""`cascade generate` of annotations that exist or are simulated: the same bytes by one process or several, killed or
not, by a DDPM from sketches and by a cascade."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from made_up import tiny_gan_pipeline, tiny_sketch_pipeline
from test_simulate import files

from cascade.commands.cli import main
from cascade.data.settings import ValidateSettings
from cascade.data.validate import validate
from cascade.export.annotations import annotation_path, load_annotation
from cascade.pipelines.conditional_gan import ConditionalGANPipeline
from cascade.pipelines.sketch_ddpm import SketchPipeline

SMALL = ["--canvas_size", "64", "80", "--num_images", "5", "--seed", "3", "--shard_size", "2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sketches") / "model"
    tiny_sketch_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def annotations(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("annotations") / "cells"
    words = ["simulate", "nuclei", "--spacing_um", "0.5", "0.5", "--num_cells", "3", "6", *SMALL]
    assert main([*words, "--output_dir", str(folder)]) == 0
    return folder


def painted(model: Path, annotations: Path, output: Path, *more: str) -> int:
    words = ["generate", "--model", str(model), "--annotations", str(annotations), "--seed", "3", "--shard_size", "2"]
    return main([*words, "--format", "ctc", "annotations", "--output_dir", str(output), *more])


@pytest.fixture(scope="module")
def whole(model, annotations, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("painted") / "set"
    assert painted(model, annotations, folder) == 0
    return folder


def test_annotations_become_a_sound_data_set(whole, annotations, capsys):
    found = validate(ValidateSettings(whole / "ctc"))
    assert (found.errors, found.frames) == ([], 5)
    for number in range(5):
        given = load_annotation(annotation_path(annotations, number))
        kept = load_annotation(annotation_path(whole / "annotations", number))
        np.testing.assert_array_equal(kept.labels, given.labels)
        assert all(cell.brightness is not None for cell in kept.cells)  # what the sketch gave them
        image = tifffile.imread(whole / "ctc" / "01" / f"t{number:03d}.tif")
        assert (image.shape, image.dtype) == (given.labels.shape, np.uint16)
    lines = [json.loads(line) for line in (whole / "provenance.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(5))
    assert main(["validate", str(whole / "ctc")]) == 0
    assert "is sound: 5 frames" in capsys.readouterr().out


def test_two_processes_paint_the_same_bytes(whole, model, annotations, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        assert painted(model, annotations, tmp_path / "set") == 0
    assert files(tmp_path / "set") == files(whole)


def test_a_killed_run_goes_on_to_the_same_bytes(whole, model, annotations, tmp_path, monkeypatch, capsys):
    paint = SketchPipeline.paint

    def killed(self, annotation, seed, index, how=None, *, vary=0.0):
        if index == 3:
            raise KeyboardInterrupt
        return paint(self, annotation, seed, index, how, vary=vary)

    monkeypatch.setattr(SketchPipeline, "paint", killed)
    assert painted(model, annotations, tmp_path / "set") == 130
    assert "what is finished is kept" in capsys.readouterr().err
    monkeypatch.setattr(SketchPipeline, "paint", paint)
    assert painted(model, annotations, tmp_path / "set") == 0
    assert files(tmp_path / "set") == files(whole)


def test_one_image_is_painted_again(whole, model, annotations, capsys):
    assert painted(model, annotations, whole, "--only", "4") == 0
    assert "sample 4 is the same, byte for byte" in capsys.readouterr().out


def test_another_painting_is_another_data_set(whole, model, annotations, capsys):
    assert painted(model, annotations, whole, "--t_start", "30") == 1
    assert "t_start" in capsys.readouterr().err


@pytest.mark.parametrize("organism", ["gowt1", "nuclei"])
def test_simulated_scenes_are_painted(organism, model, tmp_path):
    words = ["generate", "--model", str(model), "--simulate", organism, "--canvas_size", "96", "128"]
    output = tmp_path / "set"
    assert main([*words, "--num_images", "2", "--seed", "5", "--output_dir", str(output)]) == 0
    found = validate(ValidateSettings(output))
    assert (found.errors, found.frames, found.spacing_um) == ([], 2, (0.5, 0.5))
    images = [tifffile.imread(path) for path in sorted((output / "01").glob("*.tif"))]
    assert all(image.shape == (96, 128) for image in images)
    assert not np.array_equal(*images)
    assert main([*words, "--num_images", "2", "--seed", "5", "--output_dir", str(output), "--only", "1"]) == 0


def test_stacks_are_painted(tmp_path):
    tiny_sketch_pipeline(3).save_pretrained(tmp_path / "model")
    words = ["generate", "--model", str(tmp_path / "model"), "--simulate", "nuclei", "--canvas_size", "10", "40", "48"]
    assert main([*words, "--output_dir", str(tmp_path / "set")]) == 0
    found = validate(ValidateSettings(tmp_path / "set"))
    assert (found.errors, found.frames, found.spacing_um) == ([], 1, (1.0, 0.5, 0.5))


def test_the_embedded_cascade_paints_the_same_annotations(tmp_path):
    words = ["--seed", "3", "--canvas_size", "96", "96", "--spacing_um", "0.65", "0.65", "--num_cells", "3"]
    assert main(["simulate", "nuclei", *words, "--output_dir", str(tmp_path / "cells")]) == 0
    tiny_sketch_pipeline(spacing_um=[0.65, 0.65]).save_pretrained(tmp_path / "model")
    labels = load_annotation(annotation_path(tmp_path / "cells", 0)).labels
    images = []
    for name, model in (("cascade", "nuclei2d"), ("sketch", str(tmp_path / "model"))):
        output = tmp_path / name
        words = ["generate", "--model", model, "--annotations", str(tmp_path / "cells"), "--num_inference_steps", "2"]
        assert main([*words, "--output_dir", str(output)]) == 0
        assert validate(ValidateSettings(output)).errors == []
        images.append(tifffile.imread(output / "01" / "t000.tif"))
        kept = tifffile.imread(output / "01_GT" / "SEG" / "man_seg000.tif")
        np.testing.assert_array_equal(kept > 0, labels > 0)
        assert len(np.unique(kept)) == len(np.unique(labels))
    assert images[0][labels > 0].mean() > 1.2 * images[0][labels == 0].mean()


WRONG = [
    ([], "there are none: give --annotations FOLDER, or --simulate gowt1"),
    (["--annotations", "{cells}", "--simulate", "gowt1"], "--annotations goes without --simulate"),
    (["--simulate", "unicorn"], "--simulate takes an organism, "),
    (["--simulate", "nuclei", "--like", "nowhere"], "no such folder"),
    (["--simulate", "tribolium"], "tribolium has its own voxels"),
    (["--simulate", "celegans"], "--canvas_size must be given for celegans in 2D"),
    (["--annotations", "nowhere"], "no such folder"),
    (["--annotations", "{cells}", "--num_images", "9"], "--num_images asks for 9, and"),
    (["--annotations", "{cells}", "--canvas_size", "64", "64"], "--canvas_size means nothing"),
    (["--simulate", "gowt1", "--meshes"], "--meshes means nothing"),
    (["--simulate", "gowt1", "--cells_per_image", "4"], "--cells_per_image means nothing"),
    (["--simulate", "gowt1", "--few_steps"], "no weights for few steps"),
    (["--annotations", "{cells}", "--t_start", "1200"], "t_start must be from 1 to 1000"),
    (["--annotations", "{cells}", "--t_start", "5", "--num_inference_steps", "8"], "from 1 to"),
    (["--annotations", "{cells}", "--sigma", "-1"], "--sigma must be a number from 0, got -1"),
    (["--annotations", "{cells}", "--tile_size", "33", "33"], "multiples of 2 for this network"),
    (["--annotations", "{cells}", "--solver", "euler"], "--solver must be one of"),
    (["--annotations", "{cells}", "--output_dir", "{cells}"], "the annotations"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_what_cannot_be_is_one_line(words, message, model, annotations, tmp_path, capsys):
    words = [word.replace("{cells}", str(annotations)) for word in words]
    output = [] if "--output_dir" in words else ["--output_dir", str(tmp_path / "set")]
    assert main(["generate", "--model", str(model), *words, *output]) in (1, 2)
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert not list((tmp_path / "set").rglob("*.tif"))


def test_a_cell_too_wide_is_named_with_its_file_before_anything_is_painted(tmp_path, capsys):
    masks = tmp_path / "masks"
    masks.mkdir()
    for n in range(3):
        labels = np.zeros((96, 96), np.uint16)
        labels[10 : 30 + 50 * (n == 2), 10:30] = 1
        tifffile.imwrite(
            masks / f"{n}_masks.tif", labels, imagej=True, resolution=(1 / 0.65,) * 2, metadata={"unit": "um"}
        )
    words = ["generate", "--model", "nuclei2d", "--annotations", str(masks), "--output_dir", str(tmp_path / "out")]
    assert main(words) == 1
    assert "2_masks.tif: cell 1 is 45.5 µm wide, and this model paints crops of 41.6 µm" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_annotations_at_another_spacing_are_refused(annotations, tmp_path, capsys):
    tiny_sketch_pipeline(spacing_um=[0.2, 0.2]).save_pretrained(tmp_path / "model")
    assert painted(tmp_path / "model", annotations, tmp_path / "set") == 1
    assert "resample its labels" in capsys.readouterr().err


def test_a_model_without_sketch_settings_says_what_to_do(annotations, tmp_path, capsys):
    tiny_sketch_pipeline(sketch=None).save_pretrained(tmp_path / "model")
    assert painted(tmp_path / "model", annotations, tmp_path / "set") == 1
    assert "does not say how sketches are drawn" in capsys.readouterr().err


def test_a_cascade_is_told_nothing_of_sketches(annotations, tmp_path, capsys):
    words = ["generate", "--model", "nuclei2d", "--annotations", str(annotations), "--t_start", "400"]
    assert main([*words, "--output_dir", str(tmp_path)]) == 2
    assert "--t_start means nothing for annotations that nuclei2d paints" in capsys.readouterr().err


@pytest.fixture(scope="module")
def gan(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gan") / "model"
    tiny_gan_pipeline().save_pretrained(folder)
    return folder


def test_a_gan_paints_the_same_bytes_by_one_process_two_and_after_a_kill(gan, annotations, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    assert painted(gan, annotations, whole) == 0
    found = validate(ValidateSettings(whole / "ctc"))
    assert (found.errors, found.frames) == ([], 5)
    lines = [json.loads(line) for line in (whole / "provenance.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(5))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        assert painted(gan, annotations, tmp_path / "two") == 0
    assert files(tmp_path / "two") == files(whole)
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name)
    paint = ConditionalGANPipeline.paint

    def killed(self, annotation, seed, index, how=None):
        if index == 3:
            raise KeyboardInterrupt
        return paint(self, annotation, seed, index, how)

    monkeypatch.setattr(ConditionalGANPipeline, "paint", killed)
    assert painted(gan, annotations, tmp_path / "set") == 130
    monkeypatch.setattr(ConditionalGANPipeline, "paint", paint)
    assert painted(gan, annotations, tmp_path / "set") == 0
    assert files(tmp_path / "set") == files(whole)
    assert painted(gan, annotations, whole, "--only", "4") == 0


def test_quality_is_a_part_of_what_a_data_set_is(gan, tmp_path, capsys):
    tiny_gan_pipeline(3, spacing_um=[1.0, 0.5, 0.5]).save_pretrained(tmp_path / "model")
    words = ["generate", "--model", str(tmp_path / "model"), "--simulate", "celegans"]
    words += ["--canvas_size", "20", "80", "160"]
    words += ["--output_dir", str(tmp_path / "set")]
    assert main([*words, "--alpha", "10", "--beta", "20"]) == 0
    found = validate(ValidateSettings(tmp_path / "set"))
    assert (found.errors, found.frames, found.spacing_um) == ([], 1, (1.0, 0.5, 0.5))
    assert main([*words, "--alpha", "500", "--beta", "20"]) == 1
    assert "alpha" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--alpha", "0"], "--alpha must be a number above 0, got 0"),
        (["--beta", "-1"], "--beta must be a number above 0, got -1"),
        (["--t_start", "300"], "--t_start means nothing"),
        (["--rho", "0.5"], "--rho means nothing"),
        (["--few_steps"], "--few_steps means nothing"),
        (["--tile_size", "33", "33"], "multiples of 2 for this network"),
    ],
)
def test_what_a_gan_cannot_be_told_is_one_line(words, message, gan, annotations, tmp_path, capsys):
    assert painted(gan, annotations, tmp_path / "set", *words) in (1, 2)
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_ddpm_is_told_nothing_of_quality(model, annotations, tmp_path, capsys):
    assert painted(model, annotations, tmp_path / "set", "--alpha", "10") == 2
    assert "--alpha means nothing for annotations that" in capsys.readouterr().err
