import json
import shutil

import numpy as np
import pytest
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from toy_training import run_script

from cascade.pipelines.texture import TexturePipeline
from cascade.training import train_controlnet


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory):
    """A folder laid out like Stable Diffusion 1.5: with text encoder and tokenizer, without a stored prompt."""
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


def test_any_stable_diffusion_is_a_base_model(tiny_crops, stable_diffusion, tmp_path):
    run_script(
        train_controlnet,
        "tiny_controlnet",
        "--base_model",
        stable_diffusion,
        "--data",
        tiny_crops,
        "--output_dir",
        tmp_path,
    )
    pipeline = TexturePipeline.from_pretrained(tmp_path)
    assert pipeline.prompt.embedding.shape == (1, 7, 12)  # what the text encoder makes of ""
    assert pipeline.prompt.embedding.std() > 0
    assert pipeline.vae.config.in_channels == 3
    masks = np.zeros((2, 32, 32), bool)
    masks[:, 8:20, 8:20] = True
    assert pipeline(masks, np.array([0.4, 0.6]), num_inference_steps=2).images.shape == (2, 32, 32)


def test_parts_that_do_not_fit_are_named(tiny_crops, stable_diffusion, tmp_path):
    shutil.copytree(stable_diffusion, tmp_path / "m")
    UNet2DConditionModel(
        sample_size=16, in_channels=9, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, cross_attention_dim=12,
    ).save_pretrained(tmp_path / "m" / "unet")  # fmt: skip
    with pytest.raises(ValueError, match="the UNet wants 9 latent channels, the autoencoder makes 4"):
        run_script(
            train_controlnet,
            "tiny_controlnet",
            "--base_model",
            tmp_path / "m",
            "--data",
            tiny_crops,
            "--output_dir",
            tmp_path,
        )
