"""What pipelines leave in a folder, beside what diffusers writes."""

import json
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from made_up import tiny_gan_pipeline, tiny_sketch_pipeline

import cascade
from cascade.hub.cards import card_data
from cascade.hub.embedded import embedded
from cascade.hub.folders import FEW_STEPS, model_index
from cascade.pipelines.cascade import CascadePipeline
from cascade.pipelines.conditional_gan import ConditionalGANPipeline
from cascade.pipelines.mask_ddpm import MaskDDPMPipeline
from cascade.pipelines.sketch_ddpm import SketchPipeline

SCREEN = 50  # lines


@pytest.fixture(scope="module")
def flat():
    return CascadePipeline.from_pretrained("nuclei2d")


@pytest.fixture(scope="module")
def saved(flat, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    flat.save_pretrained(folder)
    return folder


def state_of(stage):
    return stage.unet.state_dict()


def test_a_cascade_keeps_its_statistics_in_a_file_of_their_own(flat, saved):
    assert len(repr(flat).splitlines()) < SCREEN
    assert "statistics" not in json.loads((saved / "model_index.json").read_text())
    assert CascadePipeline.from_pretrained(saved).statistics == flat.statistics


@pytest.mark.parametrize(
    ("make", "kind"), [(tiny_sketch_pipeline, SketchPipeline), (tiny_gan_pipeline, ConditionalGANPipeline)]
)
def test_sketches_are_told_in_a_file_of_their_own(make, kind, tmp_path):
    pipeline = make()
    assert len(repr(pipeline).splitlines()) < SCREEN
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert "sketch" not in index
    assert kind.from_pretrained(tmp_path).sketch_settings == pipeline.sketch_settings
    other = json.loads((tmp_path / "sketch.json").read_text()) | {"background": [7.0]}
    wanted = kind.from_pretrained(tmp_path, sketch=other).sketch_settings
    assert wanted != pipeline.sketch_settings
    # as earlier versions had it
    (tmp_path / "sketch.json").unlink()
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"sketch": other}))
    assert kind.from_pretrained(tmp_path).sketch_settings == wanted


def test_no_sketch_of_another_model_is_left_behind(tmp_path):
    tiny_sketch_pipeline().save_pretrained(tmp_path)
    tiny_sketch_pipeline(sketch=None).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not say how sketches are drawn"):
        _ = SketchPipeline.from_pretrained(tmp_path).sketch_settings


@pytest.mark.parametrize("stage", ["mask", "texture"])
def test_weights_for_few_steps_go_along(saved, stage):
    assert (saved / stage / FEW_STEPS).read_bytes() == (embedded("nuclei2d") / stage / FEW_STEPS).read_bytes()
    assert card_data(saved / stage).eval_results == card_data(embedded("nuclei2d") / stage).eval_results


def test_a_copy_draws_in_few_steps_as_the_first_does(saved, tmp_path):
    first = MaskDDPMPipeline.from_pretrained(embedded("nuclei2d") / "mask", few_steps=True)
    copy = MaskDDPMPipeline.from_pretrained(saved / "mask", few_steps=True)
    assert copy.in_few_steps
    assert copy.config.num_inference_steps == first.config.num_inference_steps
    assert all(torch.equal(value, state_of(first)[name]) for name, value in state_of(copy).items())
    # What was added to the weights is not added again
    shutil.copytree(saved / "mask", tmp_path / "mask")
    copy.save_pretrained(tmp_path / "mask")
    assert not (tmp_path / "mask" / FEW_STEPS).exists()
    again = MaskDDPMPipeline.from_pretrained(tmp_path / "mask", few_steps=True)
    assert all(torch.equal(value, state_of(first)[name]) for name, value in state_of(again).items())


@pytest.mark.parametrize("make", [tiny_sketch_pipeline, tiny_gan_pipeline, None])
def test_the_generic_loader_says_what_to_call(make, saved, tmp_path):
    folder = saved
    if make is not None:
        folder = tmp_path / "model"
        make().save_pretrained(folder)
    name = model_index(folder)["_class_name"]
    with pytest.raises(AttributeError) as caught:
        DiffusionPipeline.from_pretrained(folder)
    assert str(caught.value).endswith(f" cascade.{name}")
    assert len(str(caught.value).splitlines()) == 1
    assert getattr(cascade, name).from_pretrained(folder).__class__.__name__ == name
    # and of an older folder, which does not name the package
    index = json.loads((folder / "model_index.json").read_text())
    shutil.copytree(folder, tmp_path / "older")
    (tmp_path / "older" / "model_index.json").write_text(json.dumps(index | {"_class_name": name}))
    assert model_index(tmp_path / "older")["_class_name"] == name


def test_weights_for_few_steps_stay_where_a_stage_is_saved_over_itself_and_not_with_others(saved, tmp_path):
    shutil.copytree(saved / "mask", tmp_path / "mask")
    stage = MaskDDPMPipeline.from_pretrained(tmp_path / "mask")
    stage.save_pretrained(tmp_path / "mask")
    assert (tmp_path / "mask" / FEW_STEPS).is_file()
    MaskDDPMPipeline.from_pretrained(tmp_path / "mask", unet=stage.unet).save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other" / FEW_STEPS).exists()
