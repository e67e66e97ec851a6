"""The parts of a Stable-Diffusion-layout model, for finetuning."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel

from cascade.diffusion.prompt import EmptyPrompt
from cascade.diffusion.sampling import second_order
from cascade.extras import needed
from cascade.hub import folders as hub


class BaseModel(NamedTuple):
    """What a texture model is made of; controlnet is None where the folder has none.

    It learns by `scheduler`; `drawing`, a solver of the same noise schedule and the number of steps, is stored with it.
    """

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    controlnet: ControlNetModel | None
    prompt: EmptyPrompt
    scheduler: DDIMScheduler
    drawing: dict[str, Any]


def load_base(path_or_repo_id: str) -> BaseModel:
    """Load all parts, from a folder or the Hub; raises `hub.ModelError` for parts that are missing or do not fit."""
    folder = hub.base_model_folder(path_or_repo_id)
    vae = AutoencoderKL.from_pretrained(folder / "vae", use_safetensors=True)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=True)
    if unet.config.in_channels != vae.config.latent_channels:
        raise hub.ModelError(
            f"{folder}: the UNet wants {unet.config.in_channels} latent channels, the autoencoder makes "
            f"{vae.config.latent_channels}; take both from one model"
        )
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    controlnet = None
    if (folder / "controlnet" / "config.json").is_file():
        controlnet = ControlNetModel.from_pretrained(folder / "controlnet", use_safetensors=True)
    return BaseModel(vae, unet, controlnet, _empty_prompt(folder), scheduler, _drawing(folder, scheduler))


def freeze(unet: UNet2DConditionModel, trainable: str) -> None:
    """Leave "all", the "decoder" or "none" of a UNet's parameters to be trained."""
    unet.requires_grad_(trainable == "all")
    if trainable == "decoder":
        for part in (unet.up_blocks, unet.conv_norm_out, unet.conv_out):
            part.requires_grad_(True)


def _drawing(folder: Path, scheduler: DDIMScheduler) -> dict[str, Any]:
    """How `TexturePipeline` draws with this model, as far as the folder says."""
    index = hub.model_index(folder)
    faster = DPMSolverMultistepScheduler.__name__ in index.get("scheduler", ())
    steps = {name: value for name, value in index.items() if name == "num_inference_steps"}
    return {"scheduler": second_order(scheduler) if faster else scheduler, **steps}


def _empty_prompt(folder: Path) -> EmptyPrompt:
    """The stored embedding of "", or what the model's own text encoder makes of it."""
    if (folder / "prompt" / "config.json").is_file():
        return EmptyPrompt.from_pretrained(folder / "prompt", use_safetensors=True)
    hub.check_components(
        folder, "Stable Diffusion", {"tokenizer": "tokenizer_config.json", "text_encoder": "config.json"}
    )
    transformers: Any = needed("transformers", f"{folder}, whose text encoder is to be asked once")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = transformers.CLIPTextModel.from_pretrained(folder / "text_encoder", use_safetensors=True)
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    tokens = tokenizer("", padding="max_length", max_length=length, return_tensors="pt")
    with torch.no_grad():
        return EmptyPrompt.of(encoder(tokens.input_ids)[0])
