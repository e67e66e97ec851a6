import json
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import field_of_view

import cascade
from cascade.annotation import Annotation, Sample
from cascade.commands import assemble as module
from cascade.commands.assemble import assemble
from cascade.commands.cli import main
from cascade.commands.settings import AssembleSettings


class CascadePipeline:
    """Stands in for the real one: it saves what it was loaded from."""

    def __init__(self, folder):
        self.folder = folder

    def to(self, *_):
        return self

    def __call__(self, **_):
        image, labels = field_of_view(np.random.default_rng(0), (48, 48), 2)
        return SimpleNamespace(samples=[Sample(image, Annotation.of_labels(labels, (1.0, 1.0)), 0, 0)])

    def save_pretrained(self, folder):
        (folder / "mask").mkdir()
        (folder / "mask" / "model_index.json").write_text('{"_class_name": "MaskDDPMPipeline"}')
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "CascadePipeline"}))


@pytest.fixture
def stages(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "load", CascadePipeline)
    (tmp_path / "work" / "stages" / "mask" / "checkpoint-5").mkdir(parents=True)
    (tmp_path / "work" / "stages" / "mask" / "model_index.json").write_text('{"_class_name": "MaskDDPMPipeline"}')
    return tmp_path / "work" / "stages"


@pytest.mark.parametrize("older", [False, True])
def test_what_lies_beside_the_source_stays_when_its_parent_is_written(stages, older):
    work = stages.parent
    before = {p for p in work.rglob("*")}
    if older:  # assembled before, by a version that kept no list
        (work / "model_index.json").write_text('{"_class_name": "CascadePipeline"}')
    else:
        with pytest.raises(FileExistsError, match="holds something else than a model"):
            assemble(AssembleSettings(stages, output_dir=work))
        (work / ".cascade").mkdir()
        (work / ".cascade" / "files.json").write_text('{"kind": "model", "files": {}}')
    for _ in range(2):
        assemble(AssembleSettings(stages, output_dir=work))
    assert before <= set(work.rglob("*"))
    assert json.loads((work / "model_index.json").read_text())["_class_name"] == "CascadePipeline"


def test_the_stages_themselves_are_not_written_over(stages):
    with pytest.raises(ValueError, match="is the folder of the stages themselves"):
        assemble(AssembleSettings(stages, output_dir=stages / ".." / "stages"))
    with pytest.raises(FileExistsError, match="holds something else than a model"):
        assemble(AssembleSettings(stages, output_dir=stages / "mask"))
    assert (stages / "mask" / "checkpoint-5").is_dir()


def test_a_data_set_inside_its_model_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path / "model")
    for output in (".", "synthetic", str(tmp_path / "model" / "a" / "b")):
        assert main(["generate", "--model", str(tmp_path / "model"), "--output_dir", output]) == 1
        assert "is, or lies inside, the model" in capsys.readouterr().err
    assert not list((tmp_path / "model").iterdir())


def test_the_bars_of_stages_are_not_drawn(tmp_path, monkeypatch, capfd):
    def drawn(self, generator, **_):
        self.mask(1, num_inference_steps=1, generator=generator)
        return CascadePipeline(None)()

    monkeypatch.setattr(cascade.CascadePipeline, "__call__", drawn)
    assemble(AssembleSettings(cascade.embedded("nuclei2d"), output_dir=tmp_path / "model"))
    assert not capfd.readouterr().err
