"""Networks as the denoising loop and the denoising loss call them: `network(noisy, timesteps, batch)`."""

import torch
from diffusers import ControlNetModel, UNet2DConditionModel, UNet2DModel

from cascade.diffusion.pixel_shuffle_unet import PixelShuffleUNet
from cascade.diffusion.prompt import EmptyPrompt
from cascade.diffusion.sampling import Batch


class Outlines(torch.nn.Module):
    """The MaskDDPM's UNet as the denoising loss calls it."""

    def __init__(self, unet: UNet2DModel):
        super().__init__()
        self.unet = unet

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self.unet(noisy, timesteps).sample


class Scenes(torch.nn.Module):
    """The U-Net that paints sketches as the denoising loss calls it."""

    def __init__(self, unet: PixelShuffleUNet):
        super().__init__()
        self.unet = unet

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self.unet(noisy, timesteps).sample


class Unconditional(torch.nn.Module):
    """A Stable-Diffusion UNet that is told nothing but the empty prompt."""

    def __init__(self, unet: UNet2DConditionModel, prompt: EmptyPrompt):
        super().__init__()
        self.unet, self.prompt = unet, prompt

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self.unet(noisy, timesteps, self.prompt(len(noisy))).sample


class Controlled(torch.nn.Module):
    """A Stable-Diffusion UNet steered by a ControlNet that sees batch["condition"]."""

    def __init__(self, unet: UNet2DConditionModel, controlnet: ControlNetModel, prompt: EmptyPrompt):
        super().__init__()
        self.unet, self.controlnet, self.prompt = unet, controlnet, prompt

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, batch: Batch) -> torch.Tensor:
        prompt = self.prompt(len(noisy))
        down, middle = self.controlnet(noisy, timesteps, prompt, batch["condition"], return_dict=False)
        return self.unet(
            noisy,
            timesteps,
            prompt,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample
