"""Networks with the random weights that a training from scratch starts from."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel, UNet2DModel


def new_outline_unet(arguments: Mapping[str, Any], *, side: int, seed: int) -> UNet2DModel:
    """Of the MaskDDPM, for maps of `side` pixels; `arguments` of diffusers' class win over the defaults here."""
    levels = len(arguments["block_out_channels"])
    defaults = dict(
        sample_size=side,
        in_channels=1,
        out_channels=1,
        down_block_types=["DownBlock2D"] * (levels - 1) + ["AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D"] + ["UpBlock2D"] * (levels - 1),
        norm_num_groups=16,
        attention_head_dim=16,
    )
    torch.manual_seed(seed)  # diffusers draws weights from the global stream
    return UNet2DModel(**{**defaults, **arguments})


def new_autoencoder(arguments: Mapping[str, Any], *, side: int, seed: int) -> AutoencoderKL:
    """For grey crops of `side` pixels; `arguments` of diffusers' class win over the defaults here."""
    levels = len(arguments["block_out_channels"])
    defaults = dict(
        in_channels=1,
        out_channels=1,
        latent_channels=4,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        norm_num_groups=16,
        sample_size=side,
    )
    torch.manual_seed(seed)
    return AutoencoderKL(**{**defaults, **arguments})


def new_latent_unet(arguments: Mapping[str, Any], *, channels: int, side: int, seed: int) -> UNet2DConditionModel:
    """For latents (channels, side, side); `arguments` of diffusers' class win over the defaults here."""
    levels = len(arguments["block_out_channels"])
    defaults = dict(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        down_block_types=["DownBlock2D"] + ["CrossAttnDownBlock2D"] * (levels - 1),
        up_block_types=["CrossAttnUpBlock2D"] * (levels - 1) + ["UpBlock2D"],
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=16,
    )
    torch.manual_seed(seed)
    return UNet2DConditionModel(**{**defaults, **arguments})


def new_controlnet(unet: UNet2DConditionModel, vae: AutoencoderKL) -> ControlNetModel:
    """A ControlNet that starts as a copy of the UNet's encoder and sees three channels of the crop's own size."""
    channels = (16, 32, 96, 256)[: len(vae.config.block_out_channels)]
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=channels, conditioning_channels=3)
