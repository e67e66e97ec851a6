"""Between grey images and the latents of a KL autoencoder."""

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution


def to_channels(images: torch.Tensor, vae: AutoencoderKL) -> torch.Tensor:
    """Grey images (B, 1, H, W) as the autoencoder wants them: repeated to its number of channels."""
    return images.expand(-1, vae.config.in_channels, -1, -1)


def scale_latents(latents: torch.Tensor, vae: AutoencoderKL) -> torch.Tensor:
    """Autoencoder latents to unit variance: (z − shift) · scaling_factor."""
    return (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor


def unscale_latents(latents: torch.Tensor, vae: AutoencoderKL) -> torch.Tensor:
    """Inverse of `scale_latents`."""
    return latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)


def sample_posterior(posterior: DiagonalGaussianDistribution, generator: torch.Generator) -> torch.Tensor:
    """One draw of what an encoder says of its images."""
    noise = torch.randn(posterior.mean.shape, generator=generator, device=posterior.mean.device)
    return posterior.mean + posterior.std * noise
