"""Distilling a diffusion model into one of a few steps: multistep consistency (Heek et al., arXiv 2403.06807)."""

import torch
from diffusers import DDIMScheduler
from torch.nn import functional as F

from cascade.diffusion.losses import Encode
from cascade.diffusion.sampling import Batch


class ConsistencyLoss(torch.nn.Module):
    """What a student is taught: to get with `num_inference_steps` steps of DDIM where its teacher gets with
    `substeps` times as many.

    The steps of the student cut time into segments (e, t_k]. Of x_t within one the teacher makes a step of its own to
    s; from there the student as it is now jumps to the segment's end e. What would have led there from x_t at once,
    x* = (x_e − x_t σ_e/σ_t) / (α_e − α_t σ_e/σ_t), is what the student is to predict at t (their Eq. 8, 10); where s is
    e it is the teacher's own prediction.

    teacher: its parameters are frozen here. scheduler: DDIM with trailing timesteps, its training steps a multiple of
    num_inference_steps × substeps, else ValueError.
    """

    alpha: torch.Tensor
    sigma: torch.Tensor

    def __init__(
        self,
        student: torch.nn.Module,
        teacher: torch.nn.Module,
        encode: Encode,
        scheduler: DDIMScheduler,
        *,
        num_inference_steps: int,
        substeps: int,
    ):
        super().__init__()
        steps, whole = num_inference_steps * substeps, scheduler.config.num_train_timesteps
        if whole % steps or scheduler.config.timestep_spacing != "trailing":
            raise ValueError(
                f"{num_inference_steps} steps of {substeps} substeps must divide the schedule's {whole}, whose spacing "
                f"must be trailing, got {scheduler.config.timestep_spacing}"
            )
        self.network, self.teacher, self.encode = student, teacher.requires_grad_(False).eval(), encode
        self.kind, self.whole, self.substeps, self.stride = (
            scheduler.config.prediction_type,
            whole,
            substeps,
            whole // steps,
        )
        kept = torch.cat([scheduler.alphas_cumprod.double(), torch.ones(1, dtype=torch.float64)])  # the last is t = −1
        self.register_buffer("alpha", kept.sqrt(), persistent=False)
        self.register_buffer("sigma", (1 - kept).sqrt(), persistent=False)

    def forward(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        clean, batch = self.encode(batch, generator)
        device, count = clean.device, len(clean)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        index = torch.randint(0, self.whole // self.stride, (count,), generator=generator, device=device)
        t = self.whole - 1 - index * self.stride
        s = t - self.stride
        end = self.whole - 1 - (index // self.substeps + 1) * self.substeps * self.stride
        noisy = self._of(self.alpha, t) * clean + self._of(self.sigma, t) * noise
        with torch.no_grad():
            reached = self._step(noisy, t, s, self.teacher(noisy, t, batch).float())
            on_the_way = (s != end).nonzero()[:, 0]
            if len(on_the_way):
                here = {name: value[on_the_way] for name, value in batch.items()}
                places = (s[on_the_way], end[on_the_way])
                jump = self.network(reached[on_the_way], places[0], here).float()
                reached[on_the_way] = self._step(reached[on_the_way], *places, jump)
            target = self._target(noisy, t, end, reached)
        return F.mse_loss(self.network(noisy, t, batch).float(), target)

    def _step(self, sample: torch.Tensor, t: torch.Tensor, to: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
        """One step of DDIM, η = 0."""
        alpha, sigma = self._of(self.alpha, t), self._of(self.sigma, t)
        if self.kind == "epsilon":
            clean = (sample - sigma * prediction) / alpha
        else:
            clean = alpha * sample - sigma * prediction if self.kind == "v_prediction" else prediction
        return self._of(self.alpha, to) * clean + self._of(self.sigma, to) / sigma * (sample - alpha * clean)

    def _target(self, noisy: torch.Tensor, t: torch.Tensor, end: torch.Tensor, reached: torch.Tensor) -> torch.Tensor:
        """What has to be predicted at t for a step of DDIM to end in `reached`."""
        alpha, sigma = self._of(self.alpha, t), self._of(self.sigma, t)
        ratio = self._of(self.sigma, end) / sigma
        clean = (reached - ratio * noisy) / (self._of(self.alpha, end) - ratio * alpha)
        noise = (noisy - alpha * clean) / sigma
        return {"epsilon": noise, "v_prediction": alpha * noise - sigma * clean, "sample": clean}[self.kind]

    def _of(self, values: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """A schedule's values at times (B,), to be multiplied with samples (B, C, H, W)."""
        return values[t].float().view(-1, 1, 1, 1)
