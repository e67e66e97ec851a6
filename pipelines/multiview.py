"""One outline to N consistent views of a solid."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput

from cascade.diffusion.sampling import denoise, ideal_prediction
from cascade.geometry.cameras import Cameras, along_z, view_set
from cascade.hub import folders as hub
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


class MultiviewPipeline(DiffusionPipeline):
    """Imagines views of the solid whose silhouette along z is a given outline (SyncDreamer; cascaded paper, Eq. 1).

    Args:
        network: the joint denoiser.
        scheduler: the noise schedule.
        view_set: "hemisphere" or "ring", see `cascade.cameras`.
        num_views: cameras in it.
        law: the shapes that it was trained on, for the record (`ShapeLaw`).
        truncation: distance at which the maps saturate, in half-widths of the frame.
    """

    def __init__(
        self,
        network: MultiviewNetwork,
        scheduler,
        view_set: str = "hemisphere",
        num_views: int = 16,
        law: dict[str, Any] | None = None,
        truncation: float = 0.25,
    ):
        super().__init__()
        self.register_modules(network=network, scheduler=scheduler)
        self.register_to_config(view_set=view_set, num_views=num_views, law=law, truncation=truncation)

    @classmethod
    def from_pretrained(cls, path_or_repo_id, revision: str | None = None, token: str | None = None, **kwargs):
        """Load from a folder or a Hub repository; raises `hub.ModelError` if something is missing or pickled."""
        folder = hub.model_folder(path_or_repo_id, revision, token)
        hub.check_components(folder, cls.__name__, {"network": "config.json", "scheduler": "scheduler_config.json"})
        return super().from_pretrained(folder, use_safetensors=True, **kwargs)

    def push_to_hub(self, repo_id: str, private: bool | None = None, token: str | None = None) -> str:
        """Upload the stage with its card; returns the commit's address."""
        return hub.push(self, repo_id, private, token)

    @property
    def cameras(self) -> Cameras:
        """The N cameras of its views."""
        return view_set(self.config.view_set, self.config.num_views)

    @torch.inference_mode()
    def __call__(
        self,
        masks: npt.NDArray[Any],
        pixel_size_um: float,
        num_inference_steps: int = 12,
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
        seed = seed_from(generator)
        cameras = (cameras or self.cameras).to(self.device)
        size = self.network.config.sample_size
        framed = frame_outlines(masks, pixel_size_um, size, self.config.truncation)
        condition = torch.from_numpy(framed.maps)
        shape = (len(cameras), size, size)
        noise = [torch.randn(shape, generator=torch_stream(seed, "views", n)) for n in range(len(masks))]

        if micro_batch_size is None:
            width = self.network.config.block_out_channels[0]
            micro_batch_size = micro_batch(60 * width * len(cameras) * size**2, self.device, on_cpu=8, on_gpu=256)
        known = (cameras.axes - along_z().axes.to(cameras.axes)).abs().amax((1, 2)) < 1e-4

        def predict(noisy, t, batch):
            condition = batch["condition"]
            guided = self.network(noisy, t, condition, cameras)
            if guidance_scale != 1.0:
                free = self.network(noisy, t, torch.ones_like(condition), cameras)
                guided = free + guidance_scale * (guided - free)
            if keep_outline and known.any():
                guided[:, known] = ideal_prediction(self.scheduler, noisy[:, known], t, condition[:, None])
            return guided

        views = []
        with self.progress_bar(total=len(masks)) as bar:
            for start in range(0, len(masks), micro_batch_size):
                part = slice(start, start + micro_batch_size)
                batch = {"condition": condition[part].to(self.device, self.network.dtype)}
                start_noise = torch.stack(noise[part]).to(self.device, self.network.dtype)
                views.append(denoise(predict, self.scheduler, start_noise, batch, num_inference_steps).float())
                bar.update(len(start_noise))
        return MultiviewOutput(
            views=torch.cat(views).clamp(-1, 1),
            condition=condition.to(self.device),
            cameras=cameras,
            unit_um=framed.unit_um,
            truncation=self.config.truncation,
        )
