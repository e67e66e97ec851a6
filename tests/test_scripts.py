import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import write_ctc_2d
from diffusers import AutoencoderKL, UNet2DConditionModel
from toy_training import run_script

from cascade.data.dataset import CropDataset
from cascade.data.prepare import prepare
from cascade.data.settings import PrepareSettings
from cascade.diffusion.sampling import second_order
from cascade.hub.embedded import embedded
from cascade.pipelines.mask_ddpm import MaskDDPMPipeline
from cascade.pipelines.multiview import MultiviewPipeline
from cascade.pipelines.texture import TexturePipeline
from cascade.training import train_controlnet, train_distilled, train_mask_ddpm, train_multiview


def test_two_processes_train_both_phases(tiny_crops, tmp_path):
    """The autoencoder, then the diffusion model; nothing that has to be unpickled is written."""
    few = ["--vae_max_train_steps", "2", "--max_train_steps", "2", "--checkpointing_steps", "2", "--preview_steps", "2"]
    command = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "cascade.training.train_ldm"]
    options = ["--config", "configs/tiny_ldm.yaml", "--report_to", "none", "--data", str(tiny_crops), *few]
    done = subprocess.run(
        [sys.executable, *command, *options, "--output_dir", str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "unet" / "config.json").is_file()
    for phase in ("training_vae", "training_unet"):
        written = {path.suffix for path in (tmp_path / phase / "checkpoint-2").iterdir()}
        assert written == {".safetensors", ".json"}
    assert not list(tmp_path.rglob("partial-*"))


def test_the_mask_script_makes_a_stage(tiny_crops, tmp_path):
    few = ["--max_train_steps", "80", "--preview_steps", "80"]
    run_script(train_mask_ddpm, "tiny_mask_ddpm", "--data", tiny_crops, "--output_dir", tmp_path, *few)
    pipeline = MaskDDPMPipeline.from_pretrained(tmp_path)
    assert pipeline.config.crop_size == 32
    assert pipeline.config.pixel_size_um == 1.0
    assert (tmp_path / "preview_000080.png").is_file()
    card = (tmp_path / "README.md").read_text()
    assert "Data" in card
    assert "80 steps" in card


def test_an_embedded_model_is_gone_on_with(tiny_crops, tmp_path):
    few = ["--max_train_steps", "1", "--learning_rate", "1e-9", "--sample_size", "32"]
    run_script(
        train_mask_ddpm,
        "tiny_mask_ddpm",
        "--data",
        tiny_crops,
        "--base_model",
        "nuclei2d",
        "--output_dir",
        tmp_path,
        *few,
    )
    made, base = (
        MaskDDPMPipeline.from_pretrained(f).unet.state_dict() for f in (tmp_path, embedded("nuclei2d") / "mask")
    )
    assert all(torch.allclose(made[name], base[name], atol=1e-3) for name in base)


@pytest.mark.parametrize(
    ("script", "config", "kind", "learnt"),
    [
        (train_mask_ddpm, "tiny_mask_ddpm", MaskDDPMPipeline, {"representation": "binary", "truncation_px": 5.0}),
        (train_multiview, "tiny_multiview", MultiviewPipeline, {}),
    ],
)
def test_a_base_model_is_gone_on_with_as_it_learnt(script, config, kind, learnt, tiny_crops, tmp_path):
    few = ["--max_train_steps", "1", *([] if script is train_multiview else ["--data", tiny_crops])]
    other = [word for name, value in (learnt | {"prediction_type": "epsilon"}).items() for word in (f"--{name}", value)]
    run_script(script, config, "--output_dir", tmp_path / "base", *few, *other)
    run_script(script, config, "--output_dir", tmp_path / "made", *few, "--base_model", tmp_path / "base")
    made, config = kind.from_pretrained(tmp_path / "made"), (tmp_path / "made" / "training_config.json").read_text()
    assert made.scheduler.config.prediction_type == json.loads(config)["prediction_type"] == "epsilon"
    for name, value in learnt.items():
        assert made.config[name] == json.loads(config)[name] == value


@pytest.mark.parametrize(("stage", "kind"), [("mask", MaskDDPMPipeline), ("texture", TexturePipeline)])
def test_a_stage_is_distilled_to_a_few_steps(stage, kind, tiny_crops, tmp_path):
    few = ["--base_model", "nuclei2d", "--stage", stage, "--max_train_steps", "2", "--preview_steps", "2"]
    few += ["--output_dir", tmp_path, "--data"]
    with pytest.raises(ValueError, match=r"crops of 1 µm a pixel, and nuclei2d draws at 0.65: .* --pixel_size_um 0.65"):
        run_script(train_distilled, "tiny_distilled", *few, tiny_crops)
    data = write_ctc_2d(tmp_path / "data")
    crops = prepare(PrepareSettings(data, output_dir=tmp_path / "crops", crop_size=32, spacing_um=(0.65, 0.65)))
    run_script(train_distilled, "tiny_distilled", *few, crops)
    before, base, fast = (
        kind.from_pretrained(folder, few_steps=few_steps)
        for folder, few_steps in ((embedded("nuclei2d") / stage, False), (tmp_path, False), (tmp_path, True))
    )
    steps = [pipeline.config.num_inference_steps for pipeline in (before, base, fast)]
    assert steps == [steps[0], steps[0], 2]
    weights = [pipeline.unet.state_dict() for pipeline in (before, base, fast)]
    assert all(torch.equal(value, weights[0][name]) for name, value in weights[1].items())
    assert any(not torch.equal(value, weights[0][name]) for name, value in weights[2].items())
    assert "distilled to 2 steps" in (tmp_path / "README.md").read_text()


def test_the_multiview_script_makes_a_stage(tmp_path):
    run_script(train_multiview, "tiny_multiview", "--output_dir", tmp_path)
    assert len(MultiviewPipeline.from_pretrained(tmp_path).cameras) == 4


@pytest.mark.parametrize("options", [(), ("--trainable_unet", "decoder"), ("--from_scratch", "true")])
def test_the_controlnet_script_makes_a_stage(tiny_crops, tiny_base, tmp_path, options):
    run_script(
        train_controlnet,
        "tiny_controlnet",
        "--base_model",
        tiny_base,
        "--data",
        tiny_crops,
        "--output_dir",
        tmp_path,
        *options,
    )
    pipeline = TexturePipeline.from_pretrained(tmp_path)
    assert pipeline.window.low < 120 < pipeline.window.high
    assert (tmp_path / "statistics.json").is_file()
    card = (tmp_path / "README.md").read_text()
    assert f"Finetuned from {tiny_base.parent.name}/{tiny_base.name}" in card
    assert str(tiny_base) not in card  # cards go to the Hub
    before = UNet2DConditionModel.from_pretrained(tiny_base / "unet").state_dict()
    after = pipeline.unet.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    if "decoder" in options:
        assert changed <= {"up_blocks", "conv_norm_out", "conv_out"}
    else:
        assert {"down_blocks", "up_blocks"} <= changed


def test_a_texture_stage_is_gone_on_with(tiny_crops, tiny_base, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run_script(
        train_controlnet, "tiny_controlnet", "--base_model", tiny_base, "--data", tiny_crops, "--output_dir", first
    )
    solver = second_order(TexturePipeline.from_pretrained(first).scheduler)
    TexturePipeline.from_pretrained(first, scheduler=solver, num_inference_steps=6).save_pretrained(first)
    options = ["--output_dir", second, "--learning_rate", "1e-9", "--max_train_steps", "1"]
    run_script(train_controlnet, "tiny_controlnet", "--base_model", first, "--data", tiny_crops, *options)
    stages = [TexturePipeline.from_pretrained(folder) for folder in (first, second)]
    assert all(type(stage.scheduler) is type(solver) and stage.config.num_inference_steps == 6 for stage in stages)
    before, after = (stage.controlnet.state_dict() for stage in stages)
    assert all(torch.allclose(before[name], after[name]) for name in before)
    assert any(value.abs().max() > 0 for name, value in before.items() if "controlnet_down_blocks" in name)


def test_the_decoder_learns_the_datas_background_and_latents_stay(tiny_crops, tiny_base, tmp_path):
    options = ["--decoder_max_train_steps", "40", "--decoder_learning_rate", "3e-3", "--max_train_steps", "1"]
    options += ["--base_model", tiny_base, "--data", tiny_crops, "--output_dir", tmp_path]
    run_script(train_controlnet, "tiny_controlnet", *options)
    before = AutoencoderKL.from_pretrained(tiny_base / "vae")
    after = TexturePipeline.from_pretrained(tmp_path).vae
    images = CropDataset(str(tiny_crops)).columns["image"].float()
    with torch.no_grad():
        latents = [vae.encode(images).latent_dist.mode() for vae in (before, after)]
        errors = [float((vae.decode(latents[0]).sample - images).square().mean()) for vae in (before, after)]
    assert torch.equal(*latents)
    assert errors[1] < 0.5 * errors[0]
    saved = tmp_path / "training_decoder" / "vae" / "diffusion_pytorch_model.safetensors"
    written = saved.stat().st_mtime_ns
    run_script(train_controlnet, "tiny_controlnet", *options, "--resume_from_checkpoint", "latest")
    assert saved.stat().st_mtime_ns == written  # finished once
