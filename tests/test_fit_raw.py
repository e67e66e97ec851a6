"""From raw images to a data set without any annotation, step by step as processes would."""

import json

import numpy as np
import pytest
import tifffile
from conftest import field_of_view
from made_up import tiny_sketch_pipeline

from cascade import processor
from cascade.commands import fit_raw
from cascade.commands.cli import main
from cascade.commands.fit import fit
from cascade.commands.settings import FitSettings
from cascade.data.conditioned import read_annotated
from cascade.data.images import read_scenes
from cascade.reading import DataError
from cascade.training import train_sketch_ddpm

SPACING = (0.5, 0.5)


@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(0)
    images = tmp_path / "images"
    images.mkdir()
    for n in range(3):
        tifffile.imwrite(
            images / f"t{n}.tif", field_of_view(rng, (96, 112), 8)[0], imagej=True, resolution=(2, 2),
            metadata={"unit": "um"},
        )  # fmt: skip
    tiny_sketch_pipeline(spacing_um=list(SPACING)).save_pretrained(tmp_path / "base")
    return images, tmp_path / "base", tmp_path / "out"


@pytest.fixture
def here(monkeypatch):
    """Steps that are processes of their own are done in this one; returns what was asked for."""
    asked = []

    def run_child(module, options, *, launched=False):
        asked.append(module if module != "cascade" else options[0])
        if module == "cascade":
            return main(options)
        train_sketch_ddpm.main(options)
        return 0

    monkeypatch.setattr(fit_raw, "run_child", run_child)
    monkeypatch.setattr(fit_raw, "_FEWEST", 3)
    monkeypatch.setattr(processor, "fast_bfloat16", lambda device: False)  # of one process, which trained otherwise
    return asked


def test_raw_images_in_a_data_set_out(folders, here):
    images, base, out = folders
    plan = FitSettings(images, output_dir=out, simulate="nuclei", base_model=str(base), budget=1e-4, num_images=2)
    assert fit(plan) == out / "synthetic"
    assert here == ["cascade.training.train_sketch_ddpm"] * 2 + ["tune", "generate"]
    assert json.loads((out / "fit.json").read_text())["train_steps"] == {"sketch": 3}
    index = json.loads((out / "model" / "model_index.json").read_text())
    assert index["t_start"] == json.loads((out / "tune" / "tune.json").read_text())["recommended"]["t_start"]
    assert main(["validate", str(out / "synthetic")]) == 0
    made = sorted((out / "synthetic" / "train").glob("sample_*[0-9].tif"))
    assert len(made) == 2
    assert not list(out.rglob("checkpoint-*"))
    assert tifffile.imread(made[0]).shape == (96, 112)
    fit(plan)
    assert len(here) == 4  # nothing is done twice
    with pytest.raises(ValueError, match="another plan"):
        fit(FitSettings(images, output_dir=out, base_model="nuclei2d"))


@pytest.mark.parametrize(("fast", "precision"), [(True, "bf16"), (False, "no")])
def test_training_is_in_bfloat16_where_that_is_fast(fast, precision, folders, monkeypatch):
    images, base, out = folders
    asked = []
    monkeypatch.setattr(processor, "fast_bfloat16", lambda device: fast)
    monkeypatch.setattr(fit_raw, "run_child", lambda module, options, *, launched: asked.append(options) or 1)
    with pytest.raises(RuntimeError, match="train_sketch_ddpm stopped"):
        fit(FitSettings(images, output_dir=out, simulate="nuclei", base_model=str(base), budget=1e-4))
    assert asked[0][asked[0].index("--mixed_precision") + 1] == precision


def test_the_test_set_is_looked_at_before_anything_is_done(folders, here):
    images, base, out = folders
    pytest.importorskip("cellpose")
    with pytest.raises(ValueError, match="no annotated images"):
        fit(FitSettings(images, output_dir=out, simulate="auto", base_model=str(base), test=images))
    assert here == []


def test_training_goes_on_from_the_nearest_embedded_model(folders, tmp_path):
    images, base, out = folders
    stacks = tmp_path / "stacks"
    stacks.mkdir()
    tifffile.imwrite(stacks / "t0.tif", np.zeros((8, 64, 64), np.uint16))
    wanted = {("auto", images): "sketch2d", ("auto", stacks): "sketch3d", ("celegans", stacks): "sketch3d",
              ("tissue", stacks): "membrane3d", ("meristem", stacks): "membrane3d"}  # fmt: skip
    for (organism, source), name in wanted.items():
        assert fit_raw.base_of(FitSettings(source, output_dir=out, simulate=organism)) == name
    assert fit_raw.base_of(FitSettings(stacks, output_dir=out, simulate="tissue", base_model=str(base))) == str(base)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"simulate": "nucleii"}, "there is no organism nucleii: `simulate` takes auto, "),
        ({"simulate": "labels"}, "there is no organism labels"),
        ({"simulate": "tribolium"}, "tribolium has its own voxels, which no model paints"),
        ({"simulate": "celegans"}, "celegans is of 3 axes, and .* holds images of 2"),
        ({"simulate": "nuclei", "bank": 5}, "bank means nothing with `simulate`"),
        ({"simulate": "nuclei", "sparse": True}, "sparse means nothing with `simulate`"),
    ],
)
def test_what_cannot_be_simulated_is_said_before_the_first_step(words, message, folders, here):
    images, base, out = folders
    with pytest.raises(ValueError, match=message):
        fit(FitSettings(images, output_dir=out, base_model=str(base), **words))
    assert here == []


def test_planes_of_tissue_go_on_from_the_model_of_planes(folders):
    images, _, out = folders
    assert fit_raw.base_of(FitSettings(images, output_dir=out, simulate="tissue")) == "sketch2d"


@pytest.mark.parametrize(("factor", "message"), [(1 / 65535, "intensities up to"), (-1.0, "intensities down to")])
def test_images_that_would_lose_as_whole_numbers_are_refused(factor, message, folders):
    images, _, _ = folders
    for path in images.iterdir():
        tifffile.imwrite(path, tifffile.imread(path).astype(np.float32) * factor)
    for read in (read_scenes, read_annotated):
        with pytest.raises(DataError, match=message):
            read(images)
