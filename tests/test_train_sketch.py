"""The training on raw images: it makes a model, goes on exactly, and reads planes, stacks, sequences and channels."""

import json

import numpy as np
import pytest
import tifffile
import torch
from conftest import ball_stack
from safetensors.torch import load_file
from scipy import ndimage
from toy_training import run_script

from cascade.commands.cli import main
from cascade.data.detection import detect
from cascade.data.structure import FIND
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.training import train_distilled_sketch, train_sketch_ddpm

FEW = ["--max_train_steps", "4", "--preview_steps", "4", "--train_batch_size", "2"]


def write_images(folder, shapes, axes=None, *, channels=0, spacing=(1.0, 0.5, 0.5)):
    """Smooth random light with noise, and its voxel size."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for n, shape in enumerate(shapes):
        light = ndimage.gaussian_filter(
            rng.normal(size=shape), (0,) * (channels > 0) + (2,) * (len(shape) - (channels > 0))
        )
        image = rng.poisson(300 + 900 * (light > light.std())).astype(np.uint16)
        tifffile.imwrite(
            folder / f"t{n:03d}.tif", image, photometric="minisblack", metadata={"axes": axes} if axes else {}
        )
    (folder / "dataset.json").write_text(json.dumps({"spacing_um": list(spacing)}))
    return folder


@pytest.fixture(scope="module")
def planes(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("raw") / "planes", [(48, 64), (40, 40)])


@pytest.fixture(scope="module")
def trained(planes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    run_script(train_sketch_ddpm, "tiny_sketch_ddpm", "--data", planes, "--output_dir", folder, *FEW)
    return folder


def test_a_training_makes_a_model_of_raw_images(trained):
    pipeline = SketchPipeline.from_pretrained(trained)
    assert pipeline.spacing_um == (0.5, 0.5)
    assert pipeline.config.dtype == "uint16"
    window = pipeline.windows[0]
    assert window.low < 300 < 1200 < window.high
    assert window.gamma == 0.5
    assert pipeline.scheduler.config.beta_schedule == "squaredcos_cap_v2"
    assert pipeline.scheduler.config.prediction_type == "epsilon"
    assert pipeline.unet.last.weight.abs().max() > 0  # it learnt something
    assert pipeline.sketch_settings[0].background[0] == pytest.approx(300, rel=0.1)  # read off the raw images
    made = pipeline(sketches=np.full((40, 48), 500.0, np.float32), generator=torch.Generator().manual_seed(0))
    assert made.images[0].shape == (40, 48)
    card = (trained / "README.md").read_text()
    assert "planes, licence: not stated" in card
    assert "SketchPipeline" in card
    assert str(trained) not in card
    sheet = (trained / "preview_000004.png").read_bytes()
    assert sheet[:4] == b"\x89PNG"
    pickled = {path.suffix for path in trained.rglob("*") if path.is_file()} & {".bin", ".pt", ".pkl", ".pth"}
    assert not pickled


def test_it_goes_on_to_the_same_bytes(planes, trained, tmp_path):
    stopped = ["--max_train_steps", "2", "--preview_steps", "4", "--train_batch_size", "2"]
    schedule = ["--lr_scheduler", "constant"]
    folders = [tmp_path / "whole", tmp_path / "cut"]
    words = ["--data", planes, *schedule]
    run_script(train_sketch_ddpm, "tiny_sketch_ddpm", "--output_dir", folders[0], *words, *FEW)
    run_script(train_sketch_ddpm, "tiny_sketch_ddpm", "--output_dir", folders[1], *words, *stopped)
    resume = ["--resume_from_checkpoint", "latest"]
    run_script(train_sketch_ddpm, "tiny_sketch_ddpm", "--output_dir", folders[1], *words, *FEW, *resume)
    weights = [folder / "unet" / "diffusion_pytorch_model.safetensors" for folder in folders]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert (folders[0] / "preview_000004.png").read_bytes() == (folders[1] / "preview_000004.png").read_bytes()


@pytest.mark.parametrize(
    ("schedule", "name"), [("linear", "linear"), ("quadratic", "scaled_linear"), ("sigmoid", "sigmoid")]
)
def test_every_noise_schedule_trains(schedule, name, planes, tmp_path):
    few = ["--max_train_steps", "1", "--preview_steps", "1", "--noise_schedule", schedule, "--turns", "false"]
    run_script(train_sketch_ddpm, "tiny_sketch_ddpm", "--data", planes, "--output_dir", tmp_path, *few)
    assert SketchPipeline.from_pretrained(tmp_path).scheduler.config.beta_schedule == name


def test_a_model_is_gone_on_with(planes, trained, tmp_path):
    few = ["--max_train_steps", "1", "--preview_steps", "1", "--learning_rate", "1e-9", "--base_model", trained]
    run_script(train_sketch_ddpm, "tiny_sketch_ddpm", "--data", planes, "--output_dir", tmp_path, *few)
    before, after = (load_file(f / "unet" / "diffusion_pytorch_model.safetensors") for f in (trained, tmp_path))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


def test_what_a_base_model_learnt_by_and_paints_with_is_kept(planes, trained, tmp_path, caplog):
    tuned = dict(t_start=120, sigma=0.5, num_inference_steps=6, solver="ddim", guidance_um=1.6)
    base = SketchPipeline.from_pretrained(trained)
    base.register_to_config(**tuned)
    base.save_pretrained(tmp_path / "base")
    few = ["--max_train_steps", "1", "--preview_steps", "1", "--base_model", tmp_path / "base"]
    other = ["--prediction_type", "v_prediction", "--noise_schedule", "linear"]
    options = ["--data", planes, "--output_dir", tmp_path / "model", *few, *other]
    run_script(train_sketch_ddpm, "tiny_sketch_ddpm", *options)
    made = SketchPipeline.from_pretrained(tmp_path / "model")
    assert {name: made.config[name] for name in tuned} == tuned
    config = json.loads((tmp_path / "model" / "training_config.json").read_text())
    assert (config["prediction_type"], config["noise_schedule"]) == ("epsilon", "cosine")
    assert '"prediction_type": "epsilon"' in (tmp_path / "model" / "README.md").read_text()
    assert "prediction_type of the base model is epsilon: that holds, not v_prediction" in caplog.text


@pytest.mark.parametrize(
    ("shapes", "axes", "options", "spacing", "shape"),
    [
        ([(8, 24, 20), (5, 16, 16)], "ZYX", ["--patch_size", "4", "16", "16"], (1.0, 0.5, 0.5), (1, 4, 16, 16)),
        ([(2, 24, 40)] * 2, "CYX", ["--patch_size", "16", "16", "--channels", "2"], (0.5, 0.5), (2, 16, 16)),
        (
            [(2, 6, 20, 20)],
            "CZYX",
            ["--patch_size", "4", "16", "16", "--channels", "2"],
            (1.0, 0.5, 0.5),
            (2, 4, 16, 16),
        ),
    ],
)
def test_stacks_and_channels_are_learnt(shapes, axes, options, spacing, shape, tmp_path):
    data = write_images(tmp_path / "data", shapes, axes, channels=int(axes[0] == "C"))
    few = ["--max_train_steps", "1", "--preview_steps", "1", "--train_batch_size", "1", *options]
    run_script(train_sketch_ddpm, "tiny_sketch_ddpm", "--data", data, "--output_dir", tmp_path / "model", *few)
    pipeline = SketchPipeline.from_pretrained(tmp_path / "model")
    assert pipeline.spacing_um == spacing
    channels = shape[0]
    assert (pipeline.unet.config.dimensions, pipeline.unet.config.in_channels) == (len(shape) - 1, channels)
    assert len(pipeline.windows) == channels
    sketch = np.full(shape if channels > 1 else shape[1:], 500.0, np.float32)
    made = pipeline(sketches=sketch, t_start=20, num_inference_steps=1)
    assert made.images[0].shape == sketch.shape
    assert (tmp_path / "model" / "preview_000001.png").is_file()


def test_a_sequence_is_learnt_as_a_volume(tmp_path, monkeypatch):
    """Time along z: what a cell does from frame to frame is its shape; but cells are looked for in each frame."""
    looked_at = []
    monkeypatch.setitem(FIND, "cells", lambda image, spacing: looked_at.append(image.ndim) or detect(image, spacing))
    stack, _ = ball_stack(np.random.default_rng(0), (20, 40, 40), 2)
    for n, plane in enumerate(stack):
        (tmp_path / "data" / "01").mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(tmp_path / "data" / "01" / f"t{n:03d}.tif", plane)
    few = ["--max_train_steps", "1", "--preview_steps", "1", "--train_batch_size", "1", "--time_as_depth", "true"]
    size = ["--patch_size", "4", "16", "16", "--spacing_um", "2", "1", "1"]
    options = ["--data", tmp_path / "data", "--output_dir", tmp_path / "model", *few, *size]
    run_script(train_sketch_ddpm, "tiny_sketch_ddpm", *options)
    pipeline = SketchPipeline.from_pretrained(tmp_path / "model")
    assert pipeline.spacing_um == (2.0, 1.0, 1.0)
    assert pipeline.unet.config.dimensions == 3
    assert pipeline.sketch_settings[0].brightness[-1] > 200
    assert set(looked_at) == {2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--patch_size", "64", "64"], "smaller than a patch"),
        (["--patch_size", "4", "16", "16"], "give as many axes as it has"),
        (["--channels", "3"], "no axis of 3 channels"),
        (["--unet", '{"stem": 2}'], "unet needs block_out_channels"),
        (["--base_model", "nowhere/at all"], "neither a folder nor a model"),
    ],
)
def test_mistakes_are_one_line(options, message, planes, tmp_path, capsys):
    words = ["--config", "configs/tiny_sketch_ddpm.yaml", "--data", str(planes), *options]
    with pytest.raises(SystemExit) as ended:
        main(["train", "sketch", *words, "--output_dir", str(tmp_path / "model")])
    assert ended.value.code in (1, 2)
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1


def test_constant_images_are_refused(tmp_path, capsys):
    tifffile.imwrite(tmp_path / "a.tif", np.full((64, 64), 7, np.uint8))
    words = ["--config", "configs/tiny_sketch_ddpm.yaml", "--spacing_um", "1", "1", "--data", str(tmp_path)]
    with pytest.raises(SystemExit, match="1"):
        main(["train", "sketch", *words, "--output_dir", str(tmp_path / "model")])
    assert "the images have no contrast" in capsys.readouterr().err


def test_a_model_is_distilled_to_a_few_steps(planes, trained, tmp_path):
    words = ["--base_model", trained, "--data", planes, "--patch_size", "32", "32", "--num_inference_steps", "2"]
    words += ["--substeps", "3", "--learning_rate", "0.01", "--lr_warmup_steps", "0", "--report_to", "none"]
    run_script(train_distilled_sketch, "distilled_sketch2d", "--output_dir", tmp_path / "fast", *words, *FEW)
    before, base, fast = (
        SketchPipeline.from_pretrained(folder, few_steps=few)
        for folder, few in ((trained, False), (tmp_path / "fast", False), (tmp_path / "fast", True))
    )
    weights = [pipeline.unet.state_dict() for pipeline in (before, base, fast)]
    assert all(torch.equal(value, weights[0][name]) for name, value in weights[1].items())
    assert any(not torch.equal(value, weights[0][name]) for name, value in weights[2].items())
    how = fast.painting()
    assert (how.t_start, how.num_inference_steps, how.solver) == (before.config.t_start, 2, "ddim")
    assert base.painting() == before.painting()
    assert fast(sketches=np.full((40, 48), 500.0, np.float32)).images[0].shape == (40, 48)
    for name, other in (("t_start", 100), ("num_inference_steps", 4), ("solver", "dpm++")):
        with pytest.raises(ValueError, match=f"few-step weights paint with {name} .* alone: leave {name} out"):
            fast.painting(**{name: other})
    assert "distilled to 2 steps" in (tmp_path / "fast" / "README.md").read_text()
