"""Masks to textured cells: a Stable-Diffusion-layout model steered by a ControlNet."""

import torch

from cascade.diffusion.losses import unscale_latents


@torch.inference_mode()
def denoise(network, scheduler, latents: torch.Tensor, batch: dict, num_inference_steps: int) -> torch.Tensor:
    """DDIM with η = 0 from noise `latents` to clean ones, in place of diffusers' own loop; returns (B, C, h, w)."""
    scheduler.set_timesteps(num_inference_steps, device=latents.device)
    for t in scheduler.timesteps:
        prediction = network(scheduler.scale_model_input(latents, t), t, batch)
        latents = scheduler.step(prediction, t, latents, return_dict=False)[0]
    return latents


@torch.inference_mode()
def decode_latents(vae, latents: torch.Tensor) -> torch.Tensor:
    """Clean latents to grey images, (B, H, W) float32 in [0, 1]."""
    decoded = vae.decode(unscale_latents(latents, vae)).sample.float().mean(1)
    return (decoded / 2 + 0.5).clamp(0, 1)
