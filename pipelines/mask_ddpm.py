"""MaskDDPM: noise to outlines of cells."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline, SchedulerMixin, UNet2DModel
from diffusers.utils import BaseOutput
from scipy import ndimage
from torch.nn import functional as F

from cascade.diffusion.arguments import check_count, check_generator
from cascade.diffusion.sampling import denoise
from cascade.geometry.masks import largest_piece
from cascade.hub.stages import HubStage
from cascade.memory import micro_batch
from cascade.rng import seed_from, torch_stream


@dataclass
class MaskOutput(BaseOutput):
    """masks: (N, H, W) bool, one connected piece each, no holes. rejected: how many draws were not usable."""

    masks: npt.NDArray[Any]
    pixel_size_um: float
    rejected: int


class MaskDDPMPipeline(HubStage, DiffusionPipeline):
    """Draws 2D outlines of cells (MaskDDPM: cascaded diffusion paper, §2 "Mask Synthesis in 2D").

    Args:
        unet: a DDPM's UNet over one channel.
        scheduler: the noise schedule.
        crop_size: pixels of the masks that come out; the UNet may work at a lower resolution.
        pixel_size_um: of those masks.
        representation: "distance", the signed distance to the outline cut off at `truncation_px`, or "binary", the
            mask itself as in the paper.
        truncation_px: in pixels of the masks.
        num_inference_steps: with which it draws well.
    """

    networks: ClassVar = {"unet": UNet2DModel}

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        crop_size: int = 64,
        pixel_size_um: float = 1.0,
        representation: str = "distance",
        truncation_px: float = 8.0,
        num_inference_steps: int = 10,
    ):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(
            crop_size=crop_size,
            pixel_size_um=pixel_size_um,
            representation=representation,
            truncation_px=truncation_px,
            num_inference_steps=num_inference_steps,
        )

    @torch.inference_mode()
    def __call__(
        self,
        num_masks: int = 1,
        *,
        num_inference_steps: int | None = None,
        generator: torch.Generator | None = None,
        micro_batch_size: int | None = None,
        min_area_px: int = 12,
        max_rounds: int = 10,
    ) -> MaskOutput:
        """Draw `num_masks` outlines.

        A draw that touches the border or is smaller than `min_area_px` is drawn again from new noise, at most
        `max_rounds` times; RuntimeError if that was not enough. `micro_batch_size` are drawn at once, default as many
        as the free memory allows, 32 on a CPU. Mask n depends on the seed and on n alone (to the rounding of the batch
        it is computed in).
        """
        check_count("num_masks", num_masks)
        num_inference_steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        check_count("num_inference_steps", num_inference_steps)
        check_count("micro_batch_size", micro_batch_size)
        check_count("min_area_px", min_area_px)
        check_count("max_rounds", max_rounds)
        check_generator(generator)
        # 1. How many at once, and from which seed
        seed = seed_from(generator)
        if micro_batch_size is None:
            each = 300 * self.unet.config.block_out_channels[0] * self.unet.config.sample_size**2
            micro_batch_size = micro_batch(each, self.device, on_cpu=32, on_gpu=512)
        # 2. Draw those that are missing, and keep what is whole
        masks = np.zeros((num_masks, self.config.crop_size, self.config.crop_size), bool)
        missing, rejected = np.arange(num_masks), 0
        for attempt in range(max_rounds):
            for part in np.split(missing, range(micro_batch_size, len(missing), micro_batch_size)):
                masks[part] = [
                    clean_mask(d < 0, min_area_px) for d in self._draw(part, seed, attempt, num_inference_steps)
                ]
            missing = np.flatnonzero(~masks.any((1, 2)))
            rejected += len(missing)
            if not len(missing):
                return MaskOutput(masks=masks, pixel_size_um=self.config.pixel_size_um, rejected=rejected)
        raise RuntimeError(
            f"{len(missing)} of {num_masks} outlines were unusable {max_rounds} times over: "
            f"the model in {self.name_or_path or 'memory'} is not trained well enough"
        )

    def _draw(self, numbers: npt.NDArray[Any], seed: int, attempt: int, steps: int) -> npt.NDArray[Any]:
        """Distance-like maps (B, crop_size, crop_size), negative inside."""
        side = self.unet.config.sample_size
        noise = [
            torch.randn((1, side, side), generator=torch_stream(seed, "outline", int(n), attempt)) for n in numbers
        ]
        sample = denoise(
            lambda x, t, _: self.unet(x, t).sample,
            self.scheduler,
            torch.stack(noise).to(self.device, self.unet.dtype),
            {},
            steps,
        )
        size = self.config.crop_size
        return F.interpolate(sample.float(), size=(size, size), mode="bicubic")[:, 0].cpu().numpy()


def clean_mask(mask: npt.NDArray[Any], min_area_px: int = 12) -> npt.NDArray[Any]:
    """The largest connected piece without holes; empty if it is too small or touches the border. (H, W) bool."""
    largest = ndimage.binary_fill_holes(largest_piece(mask, corners=False))
    border = np.concatenate([largest[0], largest[-1], largest[:, 0], largest[:, -1]])
    return largest if largest.sum() >= min_area_px and not border.any() else np.zeros_like(mask)
