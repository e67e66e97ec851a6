"""Cards of models and data sets, read back by the Hub's own library."""

import json
import re

import numpy as np
import pytest
from huggingface_hub import DatasetCard, ModelCard
from made_up import statistics

from cascade.annotation import Annotation, Sample
from cascade.export import huggingface
from cascade.export.records import SampleRecord
from cascade.hub.cards import LIBRARY, Origin, licence_id, write_card, write_cascade_card
from cascade.hub.embedded import NAMES, embedded
from cascade.hub.folders import model_index

RECIPE = {"max_train_steps": 80, "train_batch_size": 4, "model_license": "cc-by-4.0", "output_dir": "/somewhere/mine"}
MINE = Origin("Planes: mine", "CC BY 4.0, me")
METRICS = {"share of usable outlines": 0.98765, "mean area, drawn / real": float("nan")}


def written(folder, load="MaskDDPMPipeline", base=None, data=(MINE,), **changed):
    folder.mkdir(parents=True, exist_ok=True)
    write_card(folder, "Outlines: of cells", load, data, RECIPE | changed, 0.5, base, None, METRICS)
    return ModelCard.load(folder / "README.md")


def test_the_front_matter_is_read_back(tmp_path):
    card = written(tmp_path)
    assert card.data.library_name == LIBRARY
    assert card.data.license == "cc-by-4.0"
    assert LIBRARY in card.data.tags
    assert card.data.model_name == "Outlines: of cells"
    (found,) = card.data.eval_results  # what is no number is not among them
    assert (found.metric_name, found.metric_value) == ("share of usable outlines", 0.9877)
    assert (found.dataset_name, found.dataset_type) == ("Planes: mine", "planes-mine")
    assert "- Planes: mine, licence: CC BY 4.0, me" in card.text
    assert "80 steps of 4" in card.text
    assert "/somewhere/mine" not in card.content
    mine = tmp_path / "patients" / "sketch.json"
    mine.parent.mkdir()
    mine.touch()
    words = "CC BY 4.0, " + "whom to cite, " * 100  # longer than a file's name may be
    said = written(tmp_path, annotations="/somewhere/theirs", sketch=str(mine), licence=words).content
    assert words in said
    assert "theirs" not in said
    assert str(tmp_path) not in said
    assert '"sketch": "patients/sketch.json"' in said


def test_an_unknown_licence_has_a_name_and_made_up_shapes_are_data(tmp_path):
    card = written(tmp_path, data=(), model_license="other")
    assert (card.data.license, card.data.license_name) == ("other", "see-data-below")
    assert card.data.eval_results[0].dataset_name == "made-up shapes"


def test_base_models_are_repositories_of_the_hub_alone(tmp_path):
    assert written(tmp_path / "a", base="nuclei2d").data.base_model is None
    first = written(tmp_path / "b", base="someone/diffusion")
    assert first.data.base_model == ["someone/diffusion"]
    second = written(tmp_path / "c", base=str(tmp_path / "b"))  # a folder's own card says what that is made from
    assert second.data.base_model == ["someone/diffusion"]
    assert "Finetuned from" in second.text
    assert str(tmp_path) not in second.content
    (tmp_path / "b" / "README.md").write_text("---\n: [\n---\n")
    assert written(tmp_path / "d", base=str(tmp_path / "b")).data.base_model is None


def test_a_whole_cascade_tells_what_its_stages_know(tmp_path):
    written(tmp_path / "mask")
    written(tmp_path / "texture", load="TexturePipeline", base="someone/diffusion")
    write_cascade_card(tmp_path, statistics())
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.base_model == ["someone/diffusion"]
    assert {one.task_type for one in card.data.eval_results} == {"unconditional-image-generation", "image-to-image"}
    assert "CascadePipeline.from_pretrained" in card.text
    written(tmp_path / "mask", model_license="cc0-1.0")
    written(tmp_path / "multiview", model_license="mit")  # which 2D ones do not have
    write_cascade_card(tmp_path, statistics())
    assert ModelCard.load(tmp_path / "README.md").data.license == "other"  # they differ
    assert "MultiviewPipeline" not in str(ModelCard.load(tmp_path / "README.md"))
    written(tmp_path / "texture", model_license="cc0-1.0")
    write_cascade_card(tmp_path, statistics())
    assert ModelCard.load(tmp_path / "README.md").data.license == "cc0-1.0"


def test_a_card_that_the_tool_did_not_write_is_kept_aside(tmp_path, caplog):
    card, aside = tmp_path / "README.md", tmp_path / ".cascade" / "changed"
    written(tmp_path)
    written(tmp_path, model_license="cc0-1.0")  # its own make room
    assert not aside.exists()
    assert not caplog.text
    ours = card.read_text()
    card.write_text("# My notes\n")
    assert written(tmp_path).data.license == "cc-by-4.0"
    assert (aside / "README.md").read_text() == "# My notes\n"
    assert f"what it held is now in {aside / 'README.md'}" in caplog.text
    for changed in (ours.replace("# Outlines", "# My outlines"), ours + "More of them.\n"):
        card.write_text(changed)
        written(tmp_path)
        assert sorted(aside.iterdir())[-1].read_text() == changed
    assert len(list(aside.iterdir())) == 3


@pytest.mark.parametrize("name", NAMES)
def test_embedded_models_have_such_cards(name):
    for path in embedded(name).rglob("README.md"):
        card = ModelCard.load(path)
        assert card.data.library_name == LIBRARY, path
        assert card.data.license, path
        load = re.search(r"(\w+)\.from_pretrained", card.text)[1]
        assert model_index(path.parent)["_class_name"] == load


def test_data_sets_have_cards_too(tmp_path):
    sample = Sample(np.zeros((8, 8), np.uint16), Annotation(np.zeros((8, 8), np.uint16), (1.0, 1.0), ()), 0, 0)
    records = [SampleRecord.of(sample, number) for number in range(2)]
    huggingface.finish(tmp_path, records, (0.5, 0.5), {"made_by": "cascade"})
    card = DatasetCard.load(tmp_path / "README.md")
    assert card.data.task_categories == ["image-segmentation"]
    assert card.data.size_categories == ["n<1K"]
    assert card.data.pretty_name == "2 synthetic annotated images"
    assert card.data.to_dict()["configs"] == [{"config_name": "default", "data_files": "data/*.parquet"}]
    assert json.dumps({"made_by": "cascade"}, indent=1) in card.text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CC0", "cc0-1.0"),
        ("cc by 4.0", "cc-by-4.0"),
        ("CC-BY-SA-3.0, someone", "cc-by-sa-3.0"),
        ("not stated", None),
        ("not CC BY 4.0", None),
        ("CC BY", None),
    ],
)
def test_usual_licences_are_named_as_the_hub_does(text, name):
    assert licence_id(text) == name
