"""Training losses of the diffusion stages, as modules whose forward(batch, generator) gives the scalar loss."""

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch.nn import functional as F

from cascade.diffusion.encoders import random_symmetry
from cascade.diffusion.latent_space import sample_posterior, to_channels

Batch = dict[str, torch.Tensor]
Encode = Callable[[Batch, torch.Generator], tuple[torch.Tensor, Batch]]


class AutoencoderLoss(torch.nn.Module):
    """ELBO of a KL autoencoder over crops, pixels inside cells counted five times.

    The decoder's spread is the camera noise of the data set that a crop is from: what lies below it is not worth
    encoding, and is put back as noise when cells are composed. So the autoencoder denoises. It is trained in float32
    whatever the precision of the rest: a step of bfloat16 is seen on a dark background.
    """

    def __init__(self, vae: AutoencoderKL, kl_weight: float):
        super().__init__()
        self.vae, self.kl_weight = vae, kl_weight

    def forward(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        images, masks = random_symmetry(torch.cat([batch["image"], batch["mask"]], 1), generator).split(1, 1)
        with torch.autocast(images.device.type, enabled=False):
            posterior = self.vae.encode(to_channels(images, self.vae)).latent_dist
            decoded = self.vae.decode(sample_posterior(posterior, generator)).sample.mean(1, keepdim=True)
        weight = (1 + 4 * masks) / (1 + 4 * masks.mean())
        variance = batch["noise_sd"].view(-1, 1, 1, 1).clamp(min=0.005) ** 2
        distortion = (weight * (decoded - images) ** 2 / (2 * variance)).mean()
        rate = posterior.kl().sum() / images.numel()
        return distortion + self.kl_weight * rate


class DenoisingLoss(torch.nn.Module):
    """‖target − network(x_t, t)‖² for `network(noisy, timesteps, batch)`; x_0 comes from `encode(batch, generator)`.

    The target is what the scheduler's prediction_type says: the noise (DDPM, Eq. 14), x_0, or v.
    """

    def __init__(self, network: torch.nn.Module, encode: Encode, scheduler: DDIMScheduler):
        super().__init__()
        self.network, self.encode, self.scheduler = network, encode, scheduler

    def forward(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        clean, batch = self.encode(batch, generator)
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        timesteps = torch.randint(
            0,
            self.scheduler.config.num_train_timesteps,
            (len(clean),),
            generator=generator,
            device=clean.device,
        )
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        kind = self.scheduler.config.prediction_type
        if kind == "epsilon":
            target = noise
        elif kind == "v_prediction":
            target = self.scheduler.get_velocity(clean, noise, timesteps)
        else:
            target = clean
        return F.mse_loss(self.network(noisy, timesteps, batch).float(), target)
