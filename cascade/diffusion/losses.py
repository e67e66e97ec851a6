"""Training losses of the diffusion stages, as modules whose forward(batch, generator) gives the scalar loss."""

import torch
from torch.nn import functional as F

from cascade.data.dataset import random_symmetry
from cascade.diffusion.conditioning import conditioning_image


class AutoencoderLoss(torch.nn.Module):
    """ELBO of a KL autoencoder over crops, pixels inside cells counted five times.

    The decoder's spread is the camera noise of the data set that a crop is from: what lies below it is not worth
    encoding, and is put back as noise when cells are composed. So the autoencoder denoises. It is trained in float32
    whatever the precision of the rest: a step of bfloat16 is seen on a dark background.
    """

    def __init__(self, vae, kl_weight: float):
        super().__init__()
        self.vae, self.kl_weight = vae, kl_weight

    def forward(self, batch: dict, generator: torch.Generator) -> torch.Tensor:
        images, masks = random_symmetry(torch.cat([batch["image"], batch["mask"]], 1), generator).split(1, 1)
        with torch.autocast(images.device.type, enabled=False):
            posterior = self.vae.encode(to_channels(images, self.vae)).latent_dist
            decoded = self.vae.decode(_sample(posterior, generator)).sample.mean(1, keepdim=True)
        weight = (1 + 4 * masks) / (1 + 4 * masks.mean())
        variance = batch["noise_sd"].view(-1, 1, 1, 1).clamp(min=0.005) ** 2
        distortion = (weight * (decoded - images) ** 2 / (2 * variance)).mean()
        rate = posterior.kl().sum() / images.numel()
        return distortion + self.kl_weight * rate


class DenoisingLoss(torch.nn.Module):
    """‖target − network(x_t, t)‖² for `network(noisy, timesteps, batch)`; x_0 comes from `encode(batch, generator)`.

    The target is what the scheduler's prediction_type says: the noise (DDPM, Eq. 14), x_0, or v.
    """

    def __init__(self, network: torch.nn.Module, encode, scheduler):
        super().__init__()
        self.network, self.encode, self.scheduler = network, encode, scheduler

    def forward(self, batch: dict, generator: torch.Generator) -> torch.Tensor:
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


class OutlineEncoder:
    """x_0 of the MaskDDPM: outlines turned by any angle and flipped, as distance maps or binary masks in [−1, 1].

    distances: signed distances (N, 1, H, W) to the outlines in pixels, negative inside; batches name rows of it.
    """

    def __init__(self, distances: torch.Tensor, size: int, representation: str, truncation_px: float):
        if representation not in ("distance", "binary"):
            raise ValueError(f'representation must be "distance" or "binary", got {representation!r}')
        self.distances, self.size = distances, size
        self.representation, self.truncation_px = representation, truncation_px

    @torch.no_grad()
    def __call__(self, batch: dict, generator: torch.Generator) -> tuple[torch.Tensor, dict]:
        device = generator.device
        self.distances = self.distances.to(device)  # once
        distance = self.distances[batch["row"]]
        angle = 2 * torch.pi * torch.rand(len(distance), generator=generator, device=device)
        flip = 1 - 2 * torch.randint(0, 2, (len(distance),), generator=generator, device=device)
        cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        turn = torch.stack([cosine * flip, -sine, zero, sine * flip, cosine, zero], 1).view(-1, 2, 3)
        grid = F.affine_grid(turn, list(distance.shape), align_corners=False)
        turned = F.grid_sample(distance, grid, padding_mode="border", align_corners=False)
        edge = torch.cat([turned[..., 0, :], turned[..., -1, :], turned[..., :, 0], turned[..., :, -1]], -1)
        cut = edge.amin((1, 2)) < 1  # too long to be turned: left as it is
        turned = torch.where(cut[:, None, None, None], distance, turned)
        if self.representation == "binary":
            clean = torch.where(turned < 0, -1.0, 1.0)
        else:
            clean = (turned / self.truncation_px).clamp(-1, 1)
        return F.interpolate(clean, size=(self.size, self.size), mode="area"), {}


class Outlines(torch.nn.Module):
    """The MaskDDPM's UNet as the denoising loss calls it."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, batch: dict) -> torch.Tensor:
        return self.unet(noisy, timesteps).sample


class LatentEncoder:
    """x_0 of latent diffusion: crops, randomly turned and flipped, through the frozen autoencoder.

    The batch it hands on carries the conditioning image of the turned masks.
    """

    def __init__(self, vae):
        self.vae = vae.requires_grad_(False).eval()

    @torch.no_grad()
    def __call__(self, batch: dict, generator: torch.Generator) -> tuple[torch.Tensor, dict]:
        images, masks = random_symmetry(torch.cat([batch["image"], batch["mask"]], 1), generator).split(1, 1)
        posterior = self.vae.encode(to_channels(images, self.vae)).latent_dist
        latents = scale_latents(_sample(posterior, generator), self.vae).float()
        return latents, {**batch, "condition": conditioning_image(masks, batch["brightness"])}


class Unconditional(torch.nn.Module):
    """A Stable-Diffusion UNet that is told nothing but the empty prompt."""

    def __init__(self, unet, prompt):
        super().__init__()
        self.unet, self.prompt = unet, prompt

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, batch: dict) -> torch.Tensor:
        return self.unet(noisy, timesteps, self.prompt(len(noisy))).sample


class Controlled(torch.nn.Module):
    """A Stable-Diffusion UNet steered by a ControlNet that sees batch["condition"]."""

    def __init__(self, unet, controlnet, prompt):
        super().__init__()
        self.unet, self.controlnet, self.prompt = unet, controlnet, prompt

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, batch: dict) -> torch.Tensor:
        prompt = self.prompt(len(noisy))
        down, middle = self.controlnet(noisy, timesteps, prompt, batch["condition"], return_dict=False)
        return self.unet(
            noisy,
            timesteps,
            prompt,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample


def to_channels(images: torch.Tensor, vae) -> torch.Tensor:
    """Grey images (B, 1, H, W) as the autoencoder wants them: repeated to its number of channels."""
    return images.expand(-1, vae.config.in_channels, -1, -1)


def scale_latents(latents: torch.Tensor, vae) -> torch.Tensor:
    """Autoencoder latents to unit variance: (z − shift) · scaling_factor."""
    return (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor


def unscale_latents(latents: torch.Tensor, vae) -> torch.Tensor:
    """Inverse of `scale_latents`."""
    return latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)


def _sample(posterior, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(posterior.mean.shape, generator=generator, device=posterior.mean.device)
    return posterior.mean + posterior.std * noise
