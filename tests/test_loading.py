"""Stages and statistics that are not whole: one error that names the file."""

import json
import shutil

import pytest
import torch
from conftest import tiny_texture
from made_up import statistics
from safetensors.torch import load_file, save_file

from cascade.hub.folders import ModelError
from cascade.hub.statistics import saved_statistics
from cascade.optics.statistics import Statistics
from cascade.pipelines.texture import TexturePipeline

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "texture"
    tiny_texture().save_pretrained(folder)
    return folder


@pytest.fixture
def model(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "texture")


def said_of(model):
    with pytest.raises(ModelError) as error:
        TexturePipeline.from_pretrained(model)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_a_whole_stage_is_loaded(model):
    loaded = TexturePipeline.from_pretrained(model)
    assert torch.equal(loaded.vae.encoder.conv_in.weight, load_file(model / "vae" / WEIGHTS)["encoder.conv_in.weight"])
    assert not loaded.unet.training
    half = TexturePipeline.from_pretrained(model, unet=loaded.unet, dtype=torch.bfloat16)
    assert half.unet is loaded.unet
    assert half.vae.dtype == torch.bfloat16


@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"a": 1', "cannot be read"),
        (b"", "cannot be read"),
        (b"null", "holds null"),
        ('{"ä"'.encode("utf-16"), "utf-8"),
    ],
    ids=["cut", "empty", "null", "utf-16"],
)
def test_a_config_that_cannot_be_read_is_named(model, file, content, why):
    (model / file).write_bytes(content)
    said = said_of(model)
    assert str(model / file) in said
    assert why in said


def test_settings_that_make_no_network_are_named(model):
    path = model / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"block_out_channels": "many"}))
    assert "unet/config.json" in said_of(model)


def test_a_window_upside_down_is_named(model):
    path = model / "model_index.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"window": {"low": 9.0, "high": 1.0}}))
    assert "needs high > low, got [9.0, 1.0]" in said_of(model)
    path.write_text(json.dumps(record | {"window": {"lower": 9.0}}))
    assert "lower" in said_of(model)


def test_cut_weights_are_named(model):
    path = model / "controlnet" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])
    assert str(path) in said_of(model)
    path.unlink()
    assert "controlnet" in said_of(model)


def changed(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})
    return str(path)


def test_missing_weights_are_named(model):
    path = changed(model / "unet" / WEIGHTS, lambda tensors: tensors.pop("conv_in.bias"))
    assert path in (said := said_of(model))
    assert "conv_in.bias is missing" in said
    changed(model / "unet" / WEIGHTS, lambda tensors: tensors.pop("conv_out.bias"))
    assert "conv_in.bias and 1 other tensors are missing" in said_of(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(model, value):
    path = changed(model / "prompt" / WEIGHTS, lambda tensors: tensors["embedding"].view(-1)[-1:].fill_(value))
    assert path in (said := said_of(model))
    assert "embedding is not finite" in said


def test_weights_of_another_shape_are_named(model):
    path = changed(model / "vae" / WEIGHTS, lambda tensors: tensors.update({"quant_conv.bias": torch.zeros(3)}))
    assert path in (said := said_of(model))
    assert "quant_conv.bias" in said


def test_statistics_are_read_back(tmp_path):
    whole = statistics(region_um=(5.0, 4.0))
    whole.save(tmp_path)
    assert Statistics.load(tmp_path) == whole
    assert saved_statistics(tmp_path) == whole.to_dict()


@pytest.mark.parametrize("content", [b'{"source": "made', b"", b"null", b"[1]", '{"ä"'.encode("utf-16")])
def test_statistics_that_cannot_be_read_are_named(tmp_path, content):
    (tmp_path / "statistics.json").write_bytes(content)
    with pytest.raises(ValueError, match=str(tmp_path / "statistics.json")):
        Statistics.load(tmp_path)
    with pytest.raises(ModelError, match=str(tmp_path / "statistics.json")):
        saved_statistics(tmp_path)


WRONG = {
    "spacing_um": ([0.5, -0.5], [0.5], None, ["a", "b"], [0.0, 1.0], [float("nan"), 1.0]),
    "image_shape": ([256], [0, 256], [2.5, 3]),
    "dtype": ("uint17", None, "object"),
    "window": ({"low": 5, "high": 1}, None, {"low": 0, "high": float("inf")}, {"low": 0, "high": 9, "gamma": 0}),
    "background": ({"levels": []}, {"levels": [float("nan")]}, {"haze_sd": -1.0}),
    "noise": ({"kernel": []}, {"kernel": [[1.0], [1.0, 2.0]]}, {"gain": -1.0}, {"offset": None}),
    "halo": ({"profile": [float("nan")]}, {"profile": None}),
    "cells_per_image": ([], [-1], None, [1.5]),
    "region_um": ([1.0], [1.0, -1.0]),
    "middles_um": ([-1.0], [1.0], None),
    "clustering_probability": (1.5, float("nan"), None),
    "cell_area_um2": ([], [0.0]),
    "cell_brightness": ([], [float("inf")]),
    "cell_image": ([5], ["a"], []),
    "image_clustering": ([2.0], [0.1, 0.1]),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_statistics_that_cannot_be_are_named(key, value):
    record = statistics().to_dict()
    whole = record[key]
    record[key] = whole | value if isinstance(value, dict) and isinstance(whole, dict) else value
    with pytest.raises(ValueError, match=key.removesuffix("_um")):
        Statistics.from_dict(record)


def test_stacks_need_to_know_of_light_along_z():
    record = statistics().to_dict() | {"spacing_um": [2.0, 1.0, 1.0], "image_shape": [8, 64, 64]}
    with pytest.raises(ValueError, match="axial must be there for stacks"):
        Statistics.from_dict(record)
    axial = {"elongation": [1.0, 0.1], "u": [0.0, 1.0], "profile": [1.0]}
    with pytest.raises(ValueError, match=r"axial.profile must be 2 finite numbers"):
        Statistics.from_dict(record | {"axial": axial})
    with pytest.raises(ValueError, match=r"axial.haze_um must be 2 .* above 0"):
        Statistics.from_dict(record | {"axial": axial | {"profile": [1.0, 0.2], "haze": 1.0, "haze_um": [80.0, 0.0]}})
    record["axial"] = axial | {"profile": [1.0, 0.2]}
    assert Statistics.from_dict(record).axial.elongation == (1.0, 0.1)
    assert Statistics.from_dict(record | {"middles_um": [1.0]}).middles_um == [1.0]


def test_statistics_in_a_saved_cascade_are_named(tmp_path):
    record = {"statistics": statistics().to_dict() | {"cells_per_image": []}}
    (tmp_path / "model_index.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"model_index.json: cells_per_image must be"):
        saved_statistics(tmp_path)
