"""One outline to N consistent views of a solid."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from diffusers.utils import BaseOutput

from cascade.diffusion.arguments import check_count, check_generator, check_number
from cascade.diffusion.sampling import Batch, denoise, guided, ideal_prediction
from cascade.geometry.cameras import Cameras, along_z, view_set
from cascade.hub.stages import HubStage
from cascade.memory import micro_batch
from cascade.multiview.network import MultiviewNetwork
from cascade.multiview.outlines import frame_outlines
from cascade.rng import seed_from, torch_stream


@dataclass
class MultiviewOutput(BaseOutput):
    """views: (B, N, S, S) distance maps in [−1, 1], negative inside, over `truncation` half-widths of the frame.

    condition: (B, S, S), the framed outlines. unit_um: (B,) µm per half-width of the frame.
    """

    views: torch.Tensor
    condition: torch.Tensor
    cameras: Cameras
    unit_um: npt.NDArray[Any]
    truncation: float

    def constraints(self) -> tuple[torch.Tensor, Cameras, torch.Tensor]:
        """What a solid is fitted to: the views and the outline itself, their cameras, and how much each counts.

        The outline is no prediction, and counts four times as much.
        """
        cameras = Cameras(torch.cat([self.cameras.axes, along_z().axes.to(self.cameras.axes)]))
        weights = torch.tensor([1.0] * len(self.cameras) + [4.0])
        return torch.cat([self.views, self.condition[:, None]], 1), cameras, weights


class MultiviewPipeline(HubStage, DiffusionPipeline):
    """Imagines views of the solid whose silhouette along z is a given outline (SyncDreamer; cascaded paper, Eq. 1).

    Args:
        network: the joint denoiser.
        scheduler: the noise schedule.
        view_set: "hemisphere" or "ring", see `cascade.geometry.cameras`.
        num_views: cameras in it.
        law: the shapes that it was trained on, for the record (`ShapeLaw`).
        truncation: distance at which the maps saturate, in half-widths of the frame.
        num_inference_steps: with which it draws well.
    """

    networks: ClassVar = {"network": MultiviewNetwork}

    def __init__(
        self,
        network: MultiviewNetwork,
        scheduler: SchedulerMixin,
        view_set: str = "hemisphere",
        num_views: int = 16,
        law: dict[str, Any] | None = None,
        truncation: float = 0.25,
        num_inference_steps: int = 8,
    ):
        super().__init__()
        self.register_modules(network=network, scheduler=scheduler)
        self.register_to_config(
            view_set=view_set,
            num_views=num_views,
            law=law,
            truncation=truncation,
            num_inference_steps=num_inference_steps,
        )

    @property
    def cameras(self) -> Cameras:
        """The N cameras of its views."""
        return view_set(self.config.view_set, self.config.num_views)

    @torch.inference_mode()
    def __call__(
        self,
        masks: npt.NDArray[Any],
        pixel_size_um: float,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
        generator: torch.Generator | None = None,
        micro_batch_size: int | None = None,
        cameras: Cameras | None = None,
        keep_outline: bool = True,
    ) -> MultiviewOutput:
        """Views for outlines (B, H, W) bool, one piece each; `cameras` replaces the view set it was trained with.

        guidance_scale: classifier-free guidance; 1 is none and costs nothing.
        micro_batch_size: cells per network call; default as many as the free memory allows, 8 on a CPU.
        keep_outline: a camera that looks along z sees the outline itself: its view is known, not predicted, at every
            step, and the others are denoised beside it.
        """
        masks = np.asarray(masks, bool)
        if masks.ndim != 3:
            raise ValueError(f"masks must be (B, H, W), got {masks.shape}: add the batch axis")
        if not masks.size:
            raise ValueError(f"masks must be at least one outline, got {masks.shape}")
        check_number("pixel_size_um", pixel_size_um, above=0)
        num_inference_steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        check_count("num_inference_steps", num_inference_steps)
        check_number("guidance_scale", guidance_scale)
        check_count("micro_batch_size", micro_batch_size)
        check_generator(generator)
        # 1. Outlines and noise, each from its own stream
        seed = seed_from(generator)
        cameras = (cameras or self.cameras).to(self.device)
        size = self.network.config.sample_size
        framed = frame_outlines(masks, pixel_size_um, size, truncation=self.config.truncation)
        condition = torch.from_numpy(framed.maps)
        shape = (len(cameras), size, size)
        noise = [torch.randn(shape, generator=torch_stream(seed, "views", n)) for n in range(len(masks))]

        # 2. How many at once
        if micro_batch_size is None:
            width = self.network.config.block_out_channels[0]
            micro_batch_size = micro_batch(60 * width * len(cameras) * size**2, self.device, on_cpu=8, on_gpu=256)
        # 3. The network, guided towards the outline; a view that is known needs no network
        known = (cameras.axes - along_z().axes.to(cameras.axes)).abs().amax((1, 2)) < 1e-4

        def predict(noisy: torch.Tensor, t: torch.Tensor, batch: Batch) -> torch.Tensor:
            return self.network(noisy, t, batch["condition"], cameras)

        towards = guided(predict, guidance_scale, nothing=1.0)

        def with_known(noisy: torch.Tensor, t: torch.Tensor, batch: Batch) -> torch.Tensor:
            seen = towards(noisy, t, batch)
            if keep_outline and known.any():
                clean = batch["condition"][:, None]
                seen[:, known] = ideal_prediction(self.scheduler, noisy[:, known], t, clean)
            return seen

        # 4. Denoise
        views = []
        with self.progress_bar(total=len(masks)) as bar:
            for start in range(0, len(masks), micro_batch_size):
                part = slice(start, start + micro_batch_size)
                batch = {"condition": condition[part].to(self.device, self.network.dtype)}
                start_noise = torch.stack(noise[part]).to(self.device, self.network.dtype)
                views.append(denoise(with_known, self.scheduler, start_noise, batch, num_inference_steps).float())
                bar.update(len(start_noise))
        return MultiviewOutput(
            views=torch.cat(views).clamp(-1, 1),
            condition=condition.to(self.device),
            cameras=cameras,
            unit_um=framed.unit_um,
            truncation=self.config.truncation,
        )
