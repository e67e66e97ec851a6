"""Settings of the cascade: refused where they cannot be, before any work; the same whoever builds them."""

import json
import math
import time

import pytest

from cascade import CascadePipeline, CascadeSettings
from cascade.generation.recipe import Recipe
from cascade.generation.settings import GenerationSettings
from cascade.population.scene import plan_scene


@pytest.fixture(scope="module")
def flat():
    return CascadePipeline.from_pretrained("nuclei2d")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"canvas_size": (0, 96)}, r"canvas_size must be .* got \(0, 96\)"),
        ({"canvas_size": (96,)}, "canvas_size must be"),
        ({"canvas_size": (96.5, 96)}, "canvas_size must be a whole number, got 96.5"),
        ({"cells_per_image": 0}, "cells_per_image must be a whole number from 1, got 0"),
        ({"cells_per_image": 2.5}, "cells_per_image must be a whole number"),
        ({"num_inference_steps": 0}, "num_inference_steps must be a whole number"),
        ({"num_inference_steps": 2.5}, "num_inference_steps must be a whole number"),
        ({"micro_batch_size": -1}, "micro_batch_size must be a whole number"),
        ({"clustering_probability": 1.1}, r"clustering_probability must be in \[0, 1\]"),
        ({"clustering_probability": math.nan}, r"clustering_probability must be in \[0, 1\]"),
        ({"max_overlap": 1.0}, r"max_overlap must be in \[0, 1\)"),
        ({"rho": -0.1}, "rho must be at least 0"),
        ({"rho": math.nan}, "rho must be at least 0"),
        ({"correlation_length_um": 0.0}, "correlation_length_um must be a length above 0"),
        ({"correlation_length_um": math.inf}, "correlation_length_um must be a length above 0"),
        ({"min_alignment": math.nan}, r"min_alignment must be in \[0, 1\]"),
        ({"min_alignment": 6}, r"min_alignment must be in \[0, 1\]"),
        ({"reading": "cut"}, "reading must be one of silhouette, section, got cut"),
        ({"shapes": "cubes"}, "multiview, inflated, harmonics, ellipsoids"),
    ],
)
def test_settings_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CascadeSettings(**fields)


def test_a_misspelt_setting_is_refused_everywhere(flat):
    with pytest.raises(TypeError, match=r"no setting .clustering_probabilty.: did you mean clustering_probability\?"):
        flat(clustering_probabilty=0.5)
    with pytest.raises(TypeError, match="no setting 'colour': there are canvas_size"):
        flat(CascadeSettings(), colour="red")
    with pytest.raises(TypeError):
        CascadeSettings(clustering_probabilty=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(num_images=0), "num_images must be a whole number from 1, got 0"),
        (dict(canvas_size=(8, 64, 64)), "this model makes 2D images"),
        (dict(canvas_size=(10, 500)), r"canvas_size \(10, 500\) is smaller than a cell"),
        (dict(canvas_size=(128, 128), cells_per_image=500), "cells_per_image 500 can never lie on a canvas of 128×128"),
        (dict(generator=7), "Generator"),
    ],
)
def test_what_does_not_fit_is_said_before_any_work(flat, arguments, message):
    start = time.process_time()
    with pytest.raises((ValueError, TypeError), match=message):
        flat(**arguments)
    assert time.process_time() - start < 2


def test_as_many_cells_as_could_lie_there_are_allowed(flat):
    """The limit is what geometry says, not what is likely: real images are far below it."""
    real = flat.statistics
    for most in (max(real.cells_per_image), 2 * max(real.cells_per_image)):
        settings = CascadeSettings(canvas_size=real.image_shape, cells_per_image=most)
        assert plan_scene(real, settings, 0, 0).num_cells == most


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_images": 0}, "num_images must be a whole number from 1"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"bank": 0}, "bank must be a whole number from 1"),
        ({"bank": 5, "meshes": True}, "bank goes without .meshes."),
        ({"tiles": True}, "tiles needs .bank."),
        ({"tiles": True, "bank": 5, "format": ("coco",)}, "tiles writes ome-zarr"),
        ({"slurm": "gpu", "device": "cuda"}, "device goes without .slurm."),
    ],
)
def test_data_sets_that_cannot_be_are_refused(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        GenerationSettings(output_dir=tmp_path, **fields)


def test_a_recipe_comes_back_from_its_record(tmp_path):
    """By way of JSON, as it lies in a job; the region is known by its content, wherever it is named from."""
    (tmp_path / "region.tif").write_bytes(b"a region")
    images = CascadeSettings(canvas_size=(64, 96), rho=math.inf, cells_per_image=3, reading="section")
    settings = GenerationSettings(output_dir=tmp_path, bank=7, region=tmp_path / "region.tif", dtype="bfloat16")
    recipe = Recipe.of(settings, images)
    assert Recipe.of_record(json.loads(json.dumps(recipe.record()))) == recipe
    (tmp_path / "region.tif").write_bytes(b"another")
    assert Recipe.of(settings, images).region_sha256 != recipe.region_sha256


def test_a_list_and_a_tuple_are_the_same_canvas():
    assert CascadeSettings(canvas_size=[64, 96]) == CascadeSettings(canvas_size=(64, 96))
