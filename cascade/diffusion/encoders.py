"""What the diffusion stages are trained on: x_0 of a batch, turned and flipped at random."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from cascade.diffusion.conditioning import conditioning_image
from cascade.diffusion.latent_space import sample_posterior, scale_latents, to_channels
from cascade.geometry.grid import signed_distance


class OutlineEncoder:
    """x_0 of the MaskDDPM: outlines turned by any angle and flipped, as distance maps or binary masks in [−1, 1].

    masks: (N, H, W) bool, of which batches name rows.
    """

    def __init__(self, masks: npt.NDArray[Any], size: int, representation: str, truncation_px: float):
        if representation not in ("distance", "binary"):
            raise ValueError(f'representation must be "distance" or "binary", got {representation!r}')
        self.distances = torch.from_numpy(np.stack([signed_distance(mask, (1, 1)) for mask in masks]))[:, None]
        self.size = size
        self.representation, self.truncation_px = representation, truncation_px

    @torch.no_grad()
    def __call__(
        self, batch: dict[str, torch.Tensor], generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
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


class LatentEncoder:
    """x_0 of latent diffusion: crops, randomly turned and flipped, through the frozen autoencoder.

    The batch it hands on carries the conditioning image of the turned masks.
    """

    def __init__(self, vae: AutoencoderKL):
        self.vae = vae.requires_grad_(False).eval()

    @torch.no_grad()
    def __call__(
        self, batch: dict[str, torch.Tensor], generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images, masks = random_symmetry(torch.cat([batch["image"], batch["mask"]], 1), generator).split(1, 1)
        posterior = self.vae.encode(to_channels(images, self.vae)).latent_dist
        latents = scale_latents(sample_posterior(posterior, generator), self.vae).float()
        return latents, {**batch, "condition": conditioning_image(masks, batch["brightness"])}


class PatchEncoder:
    """x_0 of a diffusion of whole scenes: patches of raw images as they are, flipped and turned in the plane.

    turns: by quarters as well, where patches are square. Never along z: a stack's top is not like its bottom.
    """

    def __init__(self, *, turns: bool = True):
        self.turns = turns

    def __call__(
        self, batch: dict[str, torch.Tensor], generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return random_symmetry(batch["image"], generator, turns=self.turns), {}


def random_symmetry(batch: torch.Tensor, generator: torch.Generator, *, turns: bool = True) -> torch.Tensor:
    """One of the eight flips and quarter turns of a square for every sample, (B, C, …, H, H) -> the same shape.

    Without turns, and where planes are not square, one of the four flips.
    """
    shape = (-1,) + (1,) * (batch.ndim - 1)
    kinds = torch.randint(0, 8, (len(batch),), generator=generator, device=generator.device).view(shape)
    quarter, flip = kinds % 4, kinds >= 4
    if not turns or batch.shape[-1] != batch.shape[-2]:
        turned = torch.where(quarter >= 2, batch.flip(-2), batch)
        return torch.where(flip, turned.flip(-1), turned)
    # Quarter turns are a transposition and flips; chosen by `where`, nothing has to be known of the kinds on the CPU.
    turned = torch.where(quarter % 2 == 1, batch.transpose(-2, -1), batch)
    turned = torch.where((quarter == 1) | (quarter == 2), turned.flip(-2), turned)
    return torch.where((quarter >= 2) ^ flip, turned.flip(-1), turned)
