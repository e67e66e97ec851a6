"""The multiview model's training loss."""

import torch

from cascade.geometry.cameras import Cameras
from cascade.multiview.network import MultiviewNetwork
from cascade.multiview.renders import HarmonicRenders


class MultiviewEncoder:
    """x_0 of the multiview model: freshly drawn solids' views; the batch carries the condition.

    With probability `drop_condition` a solid's condition is blanked (all outside), for classifier-free guidance.
    """

    def __init__(self, renders: HarmonicRenders, drop_condition: float = 0.1):
        self.renders, self.drop_condition = renders, drop_condition

    @torch.no_grad()
    def __call__(
        self, batch: dict[str, torch.Tensor], generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        count = len(batch["row"])
        _, condition, views = self.renders.draw(count, generator)
        dropped = torch.rand(count, generator=generator, device=views.device) < self.drop_condition
        condition = torch.where(dropped[:, None, None], torch.ones_like(condition), condition)
        return views, {"condition": condition}


class Multiview(torch.nn.Module):
    """The network with its cameras, as the denoising loss and loop call it."""

    def __init__(self, network: MultiviewNetwork, cameras: Cameras):
        super().__init__()
        self.network = network
        self.cameras = cameras

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.network(noisy, timesteps, batch["condition"], self.cameras.to(noisy.device))
