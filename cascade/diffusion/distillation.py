"""Distilling a diffusion model into one of a few steps: multistep consistency (Heek et al., arXiv 2403.06807)."""

from collections.abc import Sequence

import torch
from diffusers import SchedulerMixin
from torch.nn import functional as F

from cascade.diffusion.losses import Encode
from cascade.diffusion.sampling import Batch


class ConsistencyLoss(torch.nn.Module):
    """What a student is taught: to get in one step of DDIM where its teacher gets in `substeps` of them.

    The steps of the student cut time into segments (e, t_k]. Of x_t within one the teacher makes a step of its own to
    s; from there the student as it is now jumps to the segment's end e. What would have led there from x_t at once,
    x* = (x_e − x_t σ_e/σ_t) / (α_e − α_t σ_e/σ_t), is what the student is to predict at t (their Eq. 8, 10); where s is
    e it is the teacher's own prediction.

    teacher: its parameters are frozen here. scheduler: whose `alphas_cumprod` and prediction_type it was trained with.
    times: of the teacher's steps, falling, the last of which ends in x_0; the student's are every `substeps`-th. Raises
    ValueError where they do not fall, lie outside the schedule, or are no whole number of segments.
    """

    alpha: torch.Tensor
    sigma: torch.Tensor
    times: torch.Tensor

    def __init__(
        self,
        student: torch.nn.Module,
        teacher: torch.nn.Module,
        encode: Encode,
        scheduler: SchedulerMixin,
        *,
        times: Sequence[int],
        substeps: int,
    ):
        super().__init__()
        whole = scheduler.config.num_train_timesteps
        falling = all(later < earlier for earlier, later in zip([whole, *times], [*times, -1], strict=True))
        if not times or not falling or len(times) % substeps:
            raise ValueError(
                f"times must fall from below {whole} to 0 at least and be a multiple of {substeps} substeps, "
                f"got {' '.join(map(str, times))}"
            )
        self.network, self.teacher, self.encode = student, teacher.requires_grad_(False).eval(), encode
        self.kind, self.substeps = scheduler.config.prediction_type, substeps
        kept = torch.cat([scheduler.alphas_cumprod.double(), torch.ones(1, dtype=torch.float64)])  # the last is t = −1
        self.register_buffer("alpha", kept.sqrt(), persistent=False)
        self.register_buffer("sigma", (1 - kept).sqrt(), persistent=False)
        self.register_buffer("times", torch.tensor([*times, -1]), persistent=False)

    def forward(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        clean, batch = self.encode(batch, generator)
        device, count = clean.device, len(clean)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        index = torch.randint(0, len(self.times) - 1, (count,), generator=generator, device=device)
        t, s = self.times[index], self.times[index + 1]
        end = self.times[(index // self.substeps + 1) * self.substeps]
        noisy = _at(self.alpha, t, clean) * clean + _at(self.sigma, t, clean) * noise
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
        alpha, sigma = _at(self.alpha, t, sample), _at(self.sigma, t, sample)
        if self.kind == "epsilon":
            clean = (sample - sigma * prediction) / alpha
        else:
            clean = alpha * sample - sigma * prediction if self.kind == "v_prediction" else prediction
        return _at(self.alpha, to, sample) * clean + _at(self.sigma, to, sample) / sigma * (sample - alpha * clean)

    def _target(self, noisy: torch.Tensor, t: torch.Tensor, end: torch.Tensor, reached: torch.Tensor) -> torch.Tensor:
        """What has to be predicted at t for a step of DDIM to end in `reached`."""
        alpha, sigma = _at(self.alpha, t, noisy), _at(self.sigma, t, noisy)
        ratio = _at(self.sigma, end, noisy) / sigma
        clean = (reached - ratio * noisy) / (_at(self.alpha, end, noisy) - ratio * alpha)
        noise = (noisy - alpha * clean) / sigma
        return {"epsilon": noise, "v_prediction": alpha * noise - sigma * clean, "sample": clean}[self.kind]


def trailing_times(scheduler: SchedulerMixin, num_inference_steps: int, substeps: int) -> list[int]:
    """The times of a teacher whose student draws with trailing timesteps, even ones from the last of the schedule on.

    Raises ValueError where they do not divide the schedule, or it spaces them otherwise.
    """
    steps, whole = num_inference_steps * substeps, scheduler.config.num_train_timesteps
    if whole % steps or scheduler.config.timestep_spacing != "trailing":
        raise ValueError(
            f"{num_inference_steps} steps of {substeps} substeps must divide the schedule's {whole}, whose spacing "
            f"must be trailing, got {scheduler.config.timestep_spacing}"
        )
    return list(range(whole - 1, -1, -(whole // steps)))


def _at(values: torch.Tensor, t: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
    """A schedule's values at times (B,), to be multiplied with samples (B, C, *size)."""
    return values[t].float().view(-1, *[1] * (sample.ndim - 1))
