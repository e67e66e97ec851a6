"""What pipelines leave in a folder, beside what diffusers writes."""

import json
import re
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from made_up import tiny_gan_pipeline, tiny_sketch_pipeline

import cascade
from cascade.hub.cards import card_data
from cascade.hub.embedded import embedded
from cascade.hub.folders import FEW_STEPS, ModelError, model_folder, model_index
from cascade.pipelines.cascade import CascadePipeline
from cascade.pipelines.conditional_gan import ConditionalGANPipeline
from cascade.pipelines.mask_ddpm import MaskDDPMPipeline
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.pipelines.texture import TexturePipeline

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


def test_the_cards_are_of_the_cascade_that_was_saved_last(flat, saved, tmp_path, caplog):
    deep = CascadePipeline.from_pretrained("nuclei3d")
    folder = shutil.copytree(saved, tmp_path / "model")
    deep.save_pretrained(folder)
    cards = [path.read_text() for path in sorted(folder.rglob("README.md"))]
    assert len(cards) == 4
    assert not any("BBBC039" in card or "CC0" in card for card in cards)
    assert "licence of the images: CC BY 3.0, BBBC050" in (folder / "README.md").read_text()
    assert "CC BY 3.0, BBBC050" in (folder / "texture" / "README.md").read_text()
    assert not caplog.text
    flat.save_pretrained(folder)
    for name in ("README.md", "mask/README.md", "texture/README.md"):
        assert (folder / name).read_text() == (saved / name).read_text()
    assert f"{folder / 'multiview'} is of another cascade" in caplog.text


def test_a_cascade_of_other_stages_is_not_pushed_with_the_first_ones_cards(flat):
    assert CascadePipeline.from_pretrained("nuclei2d", texture=flat.texture).name_or_path is None


@pytest.mark.parametrize(("name", "kind"), [("sketch2d", SketchPipeline), ("nuclei3d-gan", ConditionalGANPipeline)])
def test_a_stage_is_saved_with_its_card(name, kind, tmp_path, caplog):
    card = tmp_path / "README.md"
    kind.from_pretrained(name).save_pretrained(tmp_path)
    assert card_data(tmp_path).to_dict() == card_data(embedded(name)).to_dict()
    assert not re.search(r"!\[.*\]\((?!http)", card.read_text())  # pictures that stay where they were
    loaded, before = kind.from_pretrained(tmp_path), card.read_text() + "Mine.\n"
    card.write_text(before)
    loaded.save_pretrained(tmp_path)
    assert card.read_text() == before  # of the same model
    loaded.save_pretrained(tmp_path / "copy")
    assert "Mine." in (tmp_path / "copy" / "README.md").read_text()
    assert not caplog.text
    tiny_gan_pipeline().save_pretrained(tmp_path / "copy")  # of which nothing is known
    assert not (tmp_path / "copy" / "README.md").exists()
    (tmp_path / "copy" / "README.md").write_text("# My notes")
    tiny_gan_pipeline().save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / "README.md").read_text() == "# My notes"


@pytest.mark.parametrize("same_folder", [True, False])
def test_weights_for_few_steps_do_not_go_along_with_changed_ones(same_folder, saved, tmp_path, caplog):
    source = shutil.copytree(saved / "mask", tmp_path / "mask")
    stage = MaskDDPMPipeline.from_pretrained(source)
    with torch.no_grad():
        stage.unet.conv_out.weight *= 0.5
    target = source if same_folder else tmp_path / "other"
    stage.save_pretrained(target)
    assert not (target / FEW_STEPS).exists()
    assert f"{source / FEW_STEPS} is left out: the weights are not those" in caplog.text
    MaskDDPMPipeline.from_pretrained(target, few_steps=True)


def test_weights_for_few_steps_go_along_with_rounded_ones(saved, tmp_path):
    MaskDDPMPipeline.from_pretrained(saved / "mask", dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert (tmp_path / FEW_STEPS).is_file()


def test_a_stage_whose_folder_is_gone_is_saved_without_what_lay_there(saved, tmp_path, caplog):
    source = shutil.copytree(saved / "mask", tmp_path / "mask")
    stage = MaskDDPMPipeline.from_pretrained(source)
    shutil.rmtree(source)
    stage.save_pretrained(tmp_path / "other")
    assert f"{source / FEW_STEPS} is left out" in caplog.text
    assert f"{source} is gone, and with it the card" in caplog.text
    MaskDDPMPipeline.from_pretrained(tmp_path / "other")


def test_a_folder_that_is_called_as_an_embedded_model_is_told_of(tmp_path, monkeypatch, caplog):
    (tmp_path / "sketch2d").mkdir()
    assert model_folder("sketch2d") == embedded("sketch2d")
    assert not caplog.text
    monkeypatch.chdir(tmp_path)
    assert model_folder("sketch2d") == embedded("sketch2d")
    assert "sketch2d is the embedded model; write ./sketch2d for the folder" in caplog.text
    for here in ("./sketch2d", tmp_path.joinpath("sketch2d").relative_to(tmp_path)):
        assert model_folder(here).resolve() == tmp_path / "sketch2d"


@pytest.mark.parametrize(
    ("kind", "model", "named"),
    [
        (MaskDDPMPipeline, "sketch2d", "SketchPipeline"),
        (SketchPipeline, "nuclei2d", "CascadePipeline"),
        (CascadePipeline, "nuclei3d-gan", "ConditionalGANPipeline"),
        (TexturePipeline, embedded("nuclei2d") / "mask", "MaskDDPMPipeline"),
    ],
)
def test_a_model_of_another_class_says_which(kind, model, named):
    with pytest.raises(ModelError, match=rf": is a {named}: load it with {named}.from_pretrained$"):
        kind.from_pretrained(model)


def test_a_cascade_is_called_with_settings(flat):
    with pytest.raises(TypeError, match="settings must be CascadeSettings, got 2: how many images is num_images=…"):
        flat(2)
