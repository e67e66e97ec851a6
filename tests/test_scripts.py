import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import write_ctc_2d
from diffusers import AutoencoderKL

from cascade.data.dataset import CropDataset
from cascade.data.prepare import prepare
from cascade.data.settings import PrepareSettings
from cascade.hub.embedded import embedded
from cascade.pipelines.mask_ddpm import MaskDDPMPipeline, clean_mask
from cascade.pipelines.multiview import MultiviewPipeline
from cascade.pipelines.texture import TexturePipeline
from cascade.training import train_controlnet, train_ldm, train_mask_ddpm, train_multiview


def test_switches_need_no_true(tmp_path):
    from cascade.training.settings import parse

    given = ["--data", "crops", "--output_dir", "out", "--push_to_hub", "--from_scratch", "--use_ema", "false"]
    made = parse(train_controlnet.Settings, "", given)
    assert (made.push_to_hub, made.from_scratch, made.use_ema, made.gradient_checkpointing) == (
        True,
        True,
        False,
        False,
    )
    assert parse(train_controlnet.Settings, "", [*given, "--gradient_checkpointing"]).gradient_checkpointing


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    return prepare(
        PrepareSettings(write_ctc_2d(folder / "data"), output_dir=folder / "crops", crop_size=32, spacing_um=[1, 1])
    )


def run(script, config, *arguments):
    script.main(["--config", f"configs/{config}.yaml", "--report_to", "none", *map(str, arguments)])


@pytest.fixture(scope="module")
def base(crops, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    run(train_ldm, "tiny_ldm", "--data", crops, "--output_dir", folder)
    return folder


def test_two_processes_train_both_phases(crops, tmp_path):
    """The autoencoder, then the diffusion model; all random states are in the checkpoint."""
    few = ["--vae_max_train_steps", "2", "--max_train_steps", "2", "--checkpointing_steps", "2", "--preview_steps", "2"]
    command = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "cascade.training.train_ldm"]
    options = ["--config", "configs/tiny_ldm.yaml", "--report_to", "none", "--data", str(crops), *few]
    done = subprocess.run(
        [sys.executable, *command, *options, "--output_dir", str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "unet" / "config.json").is_file()
    for phase in ("training_vae", "training_unet"):
        states = (tmp_path / phase / "checkpoint-2").glob("random_states_*.pkl")
        assert sorted(p.name for p in states) == ["random_states_0.pkl", "random_states_1.pkl"]
    assert not list(tmp_path.rglob("partial-*"))


def test_the_mask_script_makes_a_stage(crops, tmp_path):
    run(train_mask_ddpm, "tiny_mask_ddpm", "--data", crops, "--output_dir", tmp_path)
    pipeline = MaskDDPMPipeline.from_pretrained(tmp_path)
    assert pipeline.config.crop_size == 32
    assert pipeline.config.pixel_size_um == 1.0
    assert (tmp_path / "preview_000300.png").is_file()
    card = (tmp_path / "README.md").read_text()
    assert "Data" in card
    assert "300 steps" in card


def test_an_embedded_model_is_gone_on_with(crops, tmp_path):
    few = ["--max_train_steps", "1", "--learning_rate", "0", "--sample_size", "32"]
    run(train_mask_ddpm, "tiny_mask_ddpm", "--data", crops, "--base_model", "nuclei2d", "--output_dir", tmp_path, *few)
    made, base = (
        MaskDDPMPipeline.from_pretrained(f).unet.state_dict() for f in (tmp_path, embedded("nuclei2d") / "mask")
    )
    assert all(torch.allclose(made[name], base[name], atol=1e-3) for name in base)


def test_the_multiview_script_makes_a_stage(tmp_path):
    run(train_multiview, "tiny_multiview", "--output_dir", tmp_path)
    assert len(MultiviewPipeline.from_pretrained(tmp_path).cameras) == 4


@pytest.mark.parametrize("options", [(), ("--trainable_unet", "decoder"), ("--from_scratch", "true")])
def test_the_controlnet_script_makes_a_stage(crops, base, tmp_path, options):
    run(train_controlnet, "tiny_controlnet", "--base_model", base, "--data", crops, "--output_dir", tmp_path, *options)
    pipeline = TexturePipeline.from_pretrained(tmp_path)
    assert pipeline.window.low < 120 < pipeline.window.high
    assert (tmp_path / "statistics.json").is_file()
    card = (tmp_path / "README.md").read_text()
    assert f"Finetuned from {base.parent.name}/{base.name}" in card
    assert str(base) not in card  # cards go to the Hub
    from diffusers import UNet2DConditionModel

    before = UNet2DConditionModel.from_pretrained(base / "unet").state_dict()
    after = pipeline.unet.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    if "decoder" in options:
        assert changed <= {"up_blocks", "conv_norm_out", "conv_out"}
    else:
        assert {"down_blocks", "up_blocks"} <= changed


def test_a_texture_stage_is_gone_on_with(crops, base, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run(train_controlnet, "tiny_controlnet", "--base_model", base, "--data", crops, "--output_dir", first)
    options = ["--output_dir", second, "--learning_rate", "0", "--max_train_steps", "1"]
    run(train_controlnet, "tiny_controlnet", "--base_model", first, "--data", crops, *options)
    before, after = (TexturePipeline.from_pretrained(folder).controlnet.state_dict() for folder in (first, second))
    assert all(torch.allclose(before[name], after[name]) for name in before)
    assert any(value.abs().max() > 0 for name, value in before.items() if "controlnet_down_blocks" in name)


def test_the_decoder_learns_the_datas_background_and_latents_stay(crops, base, tmp_path):
    options = ["--decoder_max_train_steps", "40", "--decoder_learning_rate", "3e-3", "--max_train_steps", "1"]
    options += ["--base_model", base, "--data", crops, "--output_dir", tmp_path]
    run(train_controlnet, "tiny_controlnet", *options)
    before = AutoencoderKL.from_pretrained(base / "vae")
    after = TexturePipeline.from_pretrained(tmp_path).vae
    images = CropDataset(str(crops)).columns["image"].float()
    with torch.no_grad():
        latents = [vae.encode(images).latent_dist.mode() for vae in (before, after)]
        errors = [float((vae.decode(latents[0]).sample - images).square().mean()) for vae in (before, after)]
    assert torch.equal(*latents)
    assert errors[1] < 0.5 * errors[0]
    saved = tmp_path / "training_decoder" / "vae" / "diffusion_pytorch_model.safetensors"
    written = saved.stat().st_mtime_ns
    run(train_controlnet, "tiny_controlnet", *options, "--resume_from_checkpoint", "latest")
    assert saved.stat().st_mtime_ns == written  # finished once


def test_missing_and_unknown_settings_are_named_in_one_line(crops, base, tmp_path, capsys):
    for arguments, words in (
        (["--data", str(crops), "--output_dir", str(tmp_path)], "--base_model"),
        (["--base_model", str(base), "--output_dir", str(tmp_path)], "data"),
        (["--base_model", "b", "--data", "c", "--output_dir", "d", "--learning_rat", "1"], "learning_rat"),
        (["--base_model", str(crops), "--data", str(crops), "--output_dir", str(tmp_path)], "holds crops of"),
    ):
        with pytest.raises((SystemExit, ValueError)) as error:
            train_controlnet.main(arguments)
        said = capsys.readouterr().err + str(error.value)
        assert words in said
        assert said.strip().count("\n") < 2


def test_masks_are_made_clean():
    mask = np.zeros((20, 20), bool)
    mask[4:12, 4:12] = True
    mask[7, 7] = False
    mask[15:17, 15:17] = True
    clean = clean_mask(mask)
    assert clean.sum() == 64
    assert not clean_mask(np.roll(mask, -4, 0)).any()  # touches the border
    assert not clean_mask(mask, min_area_px=65).any()
    assert not clean_mask(mask & False).any()


@pytest.fixture(scope="module")
def stable_diffusion(base, tmp_path_factory):
    """A folder laid out like Stable Diffusion 1.5: with text encoder and tokenizer, without a stored prompt."""
    import shutil

    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = tmp_path_factory.mktemp("sd") / "model"
    AutoencoderKL(
        block_out_channels=(8, 16), norm_num_groups=4, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).save_pretrained(folder / "vae")  # fmt: skip
    UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12,
    ).save_pretrained(folder / "unet")  # fmt: skip
    DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False).save_pretrained(
        folder / "scheduler"
    )
    config = CLIPTextConfig(
        hidden_size=12, intermediate_size=16, num_attention_heads=2, num_hidden_layers=2, vocab_size=514,
        max_position_embeddings=7, bos_token_id=512, eos_token_id=513,
    )  # fmt: skip
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    shutil.copytree(_tokenizer(tmp_path_factory.mktemp("tokenizer")), folder / "tokenizer")
    return folder


def _tokenizer(folder):
    """CLIP's byte tokens, no merges."""
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    printable = [chr(n) for n in (*range(33, 127), *range(161, 173), *range(174, 256))]
    symbols = printable + [chr(256 + n) for n in range(256 - len(printable))]
    names = [*symbols, *(s + "</w>" for s in symbols), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({name: n for n, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=7)
    tokenizer.save_pretrained(folder)
    return folder


def test_any_stable_diffusion_is_a_base_model(crops, stable_diffusion, tmp_path):
    run(
        train_controlnet, "tiny_controlnet", "--base_model", stable_diffusion, "--data", crops, "--output_dir", tmp_path
    )
    pipeline = TexturePipeline.from_pretrained(tmp_path)
    assert pipeline.prompt.embedding.shape == (1, 7, 12)  # what the text encoder makes of ""
    assert pipeline.prompt.embedding.std() > 0
    assert pipeline.vae.config.in_channels == 3
    masks = np.zeros((2, 32, 32), bool)
    masks[:, 8:20, 8:20] = True
    assert pipeline(masks, np.array([0.4, 0.6]), num_inference_steps=2).images.shape == (2, 32, 32)


def test_parts_that_do_not_fit_are_named(crops, stable_diffusion, tmp_path):
    import shutil

    from diffusers import UNet2DConditionModel

    shutil.copytree(stable_diffusion, tmp_path / "m")
    UNet2DConditionModel(
        sample_size=16, in_channels=9, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, cross_attention_dim=12,
    ).save_pretrained(tmp_path / "m" / "unet")  # fmt: skip
    with pytest.raises(ValueError, match="the UNet wants 9 latent channels, the autoencoder makes 4"):
        run(
            train_controlnet,
            "tiny_controlnet",
            "--base_model",
            tmp_path / "m",
            "--data",
            crops,
            "--output_dir",
            tmp_path,
        )
