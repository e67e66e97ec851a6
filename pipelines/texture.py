"""Masks to textured cells: a Stable-Diffusion-layout model steered by a ControlNet."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, ControlNetModel, DiffusionPipeline, SchedulerMixin, UNet2DConditionModel
from diffusers.utils import BaseOutput

from cascade.diffusion.alignment import otsu_alignment
from cascade.diffusion.arguments import check_count, check_finite, check_generator, check_number
from cascade.diffusion.conditioning import conditioning_image
from cascade.diffusion.latent_space import unscale_latents
from cascade.diffusion.latents import slice_latents
from cascade.diffusion.networks import Controlled
from cascade.diffusion.prompt import EmptyPrompt
from cascade.diffusion.sampling import denoise, guided
from cascade.hub.stages import HubStage
from cascade.memory import micro_batch
from cascade.optics.grain import Grain
from cascade.optics.window import Window
from cascade.rng import seed_from


@dataclass
class TextureOutput(BaseOutput):
    """images: (S, H, W) float32 in [0, 1] after the data set's intensity window (`TexturePipeline.window`)."""

    images: npt.NDArray[Any]


MIN_ALIGNMENT = 0.6  # IoU of Otsu's segmentation of a textured cell with its mask; real crops reach 0.73 to 0.92


@dataclass
class AlignedTextureOutput(TextureOutput):
    """alignment: (C,) of each cell, the mean over its slices weighted by area, −1 where all its masks are empty.

    failed: how many cells fell short of what was asked for, after each draw; the last are the rejected ones.
    """

    alignment: npt.NDArray[Any]
    failed: list[int]


class TexturePipeline(HubStage, DiffusionPipeline):
    """Gives slices of cells their texture (cascaded diffusion paper, §2 "Cell Texture Generation").

    Components have Stable Diffusion's classes and layout; the prompt is empty and its embedding stored, so there is
    no text encoder. DDIM with η = 0 makes the image a function of its latent, and latents of one cell's slices are
    correlated (Eq. 2).

    Args:
        vae, unet, controlnet, scheduler: as in diffusers' Stable Diffusion pipelines.
        prompt: the empty prompt's embedding.
        pixel_size_um: pixel size of the crops that it was finetuned on.
        window: `low`, `high`, `gamma` of their intensity window.
        grain: `sd`, `length_px` of the fine texture that the autoencoder cannot carry and that is added as noise.
        num_inference_steps: with which it draws well.
    """

    networks: ClassVar = {
        "vae": AutoencoderKL,
        "unet": UNet2DConditionModel,
        "controlnet": ControlNetModel,
        "prompt": EmptyPrompt,
    }

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        controlnet: ControlNetModel,
        scheduler: SchedulerMixin,
        prompt: EmptyPrompt,
        pixel_size_um: float = 1.0,
        window: dict[str, float] | None = None,
        grain: dict[str, float] | None = None,
        num_inference_steps: int = 8,
    ):
        super().__init__()
        self.register_modules(vae=vae, unet=unet, controlnet=controlnet, scheduler=scheduler, prompt=prompt)
        window, grain = window or {"low": 0.0, "high": 65535.0}, grain or asdict(Grain())
        Window(**window), Grain(**grain)  # what cannot be is said now
        self.register_to_config(
            pixel_size_um=pixel_size_um, window=window, grain=grain, num_inference_steps=num_inference_steps
        )

    @property
    def window(self) -> Window:
        """Camera units to [0, 1] and back."""
        return Window(**self.config.window)

    @property
    def factor(self) -> int:
        """Pixels per latent along an axis."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @torch.inference_mode()
    def __call__(
        self,
        masks: npt.NDArray[Any],
        brightness: npt.NDArray[Any],
        cell_index: npt.NDArray[Any] | None = None,
        *,
        rho: float = 0.7,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
        generator: torch.Generator | None = None,
        micro_batch_size: int | None = None,
        attempt: int = 0,
        heights_um: npt.NDArray[Any] | None = None,
        correlation_length_um: float | None = None,
    ) -> TextureOutput:
        """Texture for slices, all of them one batch dimension.

        Args:
            masks: (S, H, W) bool; H and W multiples of `factor`. A slice whose mask is empty costs nothing and
                comes back as zeros.
            brightness: (S,) wanted mean inside the mask, in [0, 1] after the window.
            cell_index: (S,) int, which cell a slice belongs to; default: every slice its own.
            rho: strength of the texture that a cell's slices share (Eq. 2), 0 to inf.
            num_inference_steps: DDIM steps; default those with which the stage draws well.
            guidance_scale: guidance towards the mask, against an empty one; 1 is none and costs nothing.
            generator: one seed is drawn from it; each cell then has its own stream.
            micro_batch_size: slices per network call; default as many as the free memory allows, 32 on a CPU. Results
                are reproducible for one size on one machine; sizes differ in the last digits.
            attempt: further draws for the same seed and cells.
            heights_um, correlation_length_um: (S,) and a length: the correlation between a cell's slices then falls
                off with their distance, exp(−d / length), and `rho` has no say.

        Raises ValueError for shapes that do not fit.
        """
        masks = np.asarray(masks, bool)
        if masks.ndim != 3 or any(n % self.factor for n in masks.shape[1:]):
            raise ValueError(f"masks must be (S, H, W), H and W multiples of {self.factor}, got {masks.shape}")
        if not masks.size:
            raise ValueError(f"masks must be at least one slice, got {masks.shape}")
        if len(brightness) != len(masks):
            raise ValueError(f"{len(brightness)} brightness values for {len(masks)} masks")
        check_finite("brightness", brightness)
        if correlation_length_um is not None and (heights_um is None or len(heights_um) != len(masks)):
            raise ValueError("correlation_length_um needs heights_um, one per mask")
        if heights_um is not None:
            check_finite("heights_um", heights_um)
        num_inference_steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        check_count("num_inference_steps", num_inference_steps)
        check_number("guidance_scale", guidance_scale)
        check_count("micro_batch_size", micro_batch_size)
        check_generator(generator)
        # 1. Latents, correlated between the slices of a cell; slices that show nothing are left out
        seed = seed_from(generator)
        images = np.zeros(masks.shape, np.float32)
        filled = np.flatnonzero(masks.any((1, 2)))
        cell_index = np.arange(len(masks)) if cell_index is None else np.asarray(cell_index)
        channels = self.unet.config.in_channels
        shape = (channels, masks.shape[1] // self.factor, masks.shape[2] // self.factor)
        depth: dict[str, Any] = {}
        if correlation_length_um is not None:
            heights = torch.as_tensor(np.asarray(heights_um, np.float32)[filled])
            depth = {"heights_um": heights, "length_um": correlation_length_um}
        owners = torch.as_tensor(cell_index[filled])
        latents = slice_latents(owners, shape, rho, seed, attempt=attempt, **depth)
        # 2. What the network is told, and how many slices at once
        mask = torch.from_numpy(masks[filled]).float()[:, None]
        light = torch.as_tensor(np.asarray(brightness, np.float32)[filled])
        if micro_batch_size is None:
            each = bytes_of_a_crop(self.vae, masks[0].size)
            micro_batch_size = micro_batch(each, self.device, on_cpu=32, on_gpu=512)
        # 3. Denoise and decode
        network = guided(Controlled(self.unet, self.controlnet, self.prompt), guidance_scale, nothing=0.0)
        with self.progress_bar(total=len(filled)) as bar:
            for start in range(0, len(filled), micro_batch_size):
                part = slice(start, start + micro_batch_size)
                given = (mask[part].to(self.device), light[part].to(self.device))
                condition = conditioning_image(*given).to(self.unet.dtype)
                noise = latents[part].to(self.device, self.unet.dtype)
                told = {"condition": condition}
                clean = denoise(network, self.scheduler, noise, told, num_inference_steps)
                images[filled[part]] = decode_latents(self.vae, clean).cpu().numpy()
                bar.update(len(noise))
        # 4. The fine texture that the autoencoder cannot carry
        grain = Grain(**self.config.grain)
        if grain.sd > 0:
            fine = slice_latents(owners, masks.shape[1:], rho, seed, attempt=attempt, name="grain", **depth)
            images[filled] = grain.add(images[filled], fine.numpy())
        return TextureOutput(images=images)

    def draw_aligned(
        self,
        masks: npt.NDArray[Any],
        brightness: npt.NDArray[Any],
        cell_index: npt.NDArray[Any],
        *,
        min_alignment: float = MIN_ALIGNMENT,
        max_draws: int = 3,
        generator: torch.Generator | None = None,
        heights_um: npt.NDArray[Any] | None = None,
        **options: Any,
    ) -> AlignedTextureOutput:
        """The same, but cells whose texture does not show their mask are drawn again, `max_draws` times in all.

        cell_index: (S,) int from 0 to C − 1. options: of `__call__`. min_alignment: see `otsu_alignment`.
        """
        if not len(cell_index):
            raise ValueError("masks must be at least one slice, got none")
        check_number("min_alignment", min_alignment)
        check_count("max_draws", max_draws)
        check_generator(generator)
        seed, count = seed_from(generator), int(cell_index.max()) + 1
        images, score = np.zeros(masks.shape, np.float32), np.full(count, -1.0)
        failed: list[int] = []
        for attempt in range(max_draws):
            chosen = np.isin(cell_index, np.flatnonzero(score < min_alignment))
            drawn = self(
                masks[chosen],
                brightness[chosen],
                cell_index[chosen],
                generator=torch.Generator().manual_seed(seed),
                attempt=attempt,
                heights_um=None if heights_um is None else heights_um[chosen],
                **options,
            ).images
            images[chosen] = drawn
            area = masks[chosen].sum((1, 2))
            share = np.bincount(cell_index[chosen], area, count)
            total = np.bincount(cell_index[chosen], area * otsu_alignment(drawn, masks[chosen]), count)
            score = np.where(share > 0, total / np.maximum(share, 1), score)
            failed.append(int((score < min_alignment).sum()))
            if not failed[-1]:
                break
        return AlignedTextureOutput(images=images, alignment=score, failed=failed)


def bytes_of_a_crop(vae: AutoencoderKL, pixels: int) -> float:
    """Memory that a crop of so many pixels takes while it is drawn, measured: most of it in the decoder."""
    return 50 * vae.config.block_out_channels[0] * pixels


@torch.inference_mode()
def decode_latents(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Clean latents to grey images, (B, H, W) float32 in [0, 1]."""
    decoded = vae.decode(unscale_latents(latents, vae)).sample.float().mean(1)
    return (decoded / 2 + 0.5).clamp(0, 1)
