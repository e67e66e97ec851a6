"""Measuring the finest texture of real cells, which an autoencoder's few latents cannot carry."""

import numpy as np
import torch
from diffusers import AutoencoderKL
from scipy import ndimage

from cascade.data.dataset import CropDataset
from cascade.evenly import evenly
from cascade.optics.grain import Grain

_MARGIN = 3  # pixels at a cell's edge that are not looked at: there the residual is the edge's


_CROPS = 192


@torch.no_grad()
def measure_grain(vae: AutoencoderKL, crops: CropDataset) -> Grain:
    """What decoding misses inside real cells beyond camera noise, whose variance and correlation are taken off."""
    statistics = crops.statistics[0]
    batch = crops[evenly(len(crops), _CROPS)]
    device = next(vae.parameters()).device
    decoded = [
        vae.decode(vae.encode(part.to(device).expand(-1, vae.config.in_channels, -1, -1)).latent_dist.mode()).sample
        for part in batch["image"].split(32)
    ]
    seen = torch.cat(decoded).float().mean(1).cpu().numpy() / 2 + 0.5
    residual = batch["image"][:, 0].numpy() / 2 + 0.5 - seen
    inside = np.stack([ndimage.binary_erosion(mask, iterations=_MARGIN) for mask in batch["mask"][:, 0].numpy() > 0])
    if inside.sum() < 100:
        return Grain()
    residual = np.where(inside, residual - residual[inside].mean(), 0)
    camera = float((batch["noise_sd"].numpy()[0] / 2) ** 2)
    kernel = np.asarray(statistics.noise.kernel)
    along = float((kernel[:, 1:] * kernel[:, :-1]).sum()) if kernel.size > 1 else 0.0  # camera correlation at lag 1
    variance = float((residual[inside] ** 2).mean()) - camera
    if variance <= 0:
        return Grain()
    neighbours = [
        (residual[:, 1:] * residual[:, :-1])[inside[:, 1:] & inside[:, :-1]].mean(),
        (residual[:, :, 1:] * residual[:, :, :-1])[inside[:, :, 1:] & inside[:, :, :-1]].mean(),
    ]
    correlation = float(np.clip((np.mean(neighbours) - along * camera) / variance, 0, 0.9))
    length = 0.5 / np.sqrt(-np.log(correlation)) if correlation > 0.01 else 0.0  # exp(−d²/4ℓ²) at d = 1
    return Grain(float(np.sqrt(variance / (seen[inside] ** 2).mean())), float(length))
