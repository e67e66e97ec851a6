"""From a sketch that is noised up to t_start back to an image, in as many or as few steps as asked for."""

from collections.abc import Callable

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from torch.nn import functional as F

from cascade.diffusion.painting import Solver

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x_t, t) -> what the scheduler's prediction_type asks for."""
Adjust = Callable[[torch.Tensor], torch.Tensor]
"""A predicted x_0 -> the one to go on with."""


def denoise_from(
    predict: Predict,
    scheduler: DDPMScheduler,
    sketch: torch.Tensor,
    noise: torch.Tensor,
    t_start: int,
    num_inference_steps: int,
    *,
    solver: Solver = "dpm++",
    adjust: Adjust | None = None,
    generator: Callable[[], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Noise (B, C, *size) sketches in [−1, 1] up to t_start and denoise them (DDPM from sketches, journal, Fig. 1).

    solver: "ddim", deterministic (Song et al., ICLR 2021), "dpm++", of second order (Lu et al., 2022), or "ancestral",
    the paper's own, through the posterior of each step, which draws more noise from `generator`; with as many steps as
    t_start it is the reference. adjust: changes each predicted x_0 before the step is made of it.

    Raises ValueError for t_start outside 1 … T and more steps than t_start.
    """
    times = timesteps(t_start, num_inference_steps, scheduler.config.num_train_timesteps, solver=solver)
    kept = scheduler.alphas_cumprod.to(sketch.device)[times[0]].to(sketch.dtype)
    sample = kept.sqrt() * sketch + (1 - kept).sqrt() * noise
    if solver == "ancestral":
        return _ancestral(predict, scheduler, sample, times, adjust, generator)
    steps = DPMSolverMultistepScheduler.from_config(
        scheduler.config,
        trained_betas=scheduler.betas.tolist(),  # not all schedules are known to both schedulers
        algorithm_type="dpmsolver++",
        solver_order=1 if solver == "ddim" else 2,
        prediction_type="sample",
        final_sigmas_type="zero",
        lower_order_final=True,
        euler_at_final=False,
    )
    steps.set_timesteps(timesteps=times.tolist(), device=sketch.device)
    for t in steps.timesteps:
        clean = _clean(predict(sample, t), sample, t, scheduler, adjust)
        sample = steps.step(clean, t, sample, return_dict=False)[0]
    return sample


def timesteps(
    t_start: int, num_inference_steps: int, num_train_timesteps: int, *, solver: Solver = "dpm++"
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Times of the network calls, from t_start − 1 down; the last step ends in x_0.

    Evenly for "ancestral"; else by their square roots (Song et al., ICLR 2021): the camera's noise is made at the end,
    and few even steps would leave it out.

    >>> timesteps(400, 4, 1000).tolist(), timesteps(400, 4, 1000, solver="ancestral").tolist()
    ([399, 224, 99, 24], [399, 299, 199, 99])
    >>> timesteps(3, 3, 1000).tolist()
    [2, 1, 0]
    """
    if not 0 < t_start <= num_train_timesteps:
        raise ValueError(f"t_start must be from 1 to {num_train_timesteps}, got {t_start}")
    if not 0 < num_inference_steps <= t_start:
        raise ValueError(f"num_inference_steps must be from 1 to t_start, {t_start}, got {num_inference_steps}")
    left = np.linspace(1, 0, num_inference_steps, endpoint=False)
    times = np.rint(t_start * (left if solver == "ancestral" else left**2)).astype(np.int64) - 1
    return np.maximum(times, np.arange(num_inference_steps)[::-1])  # each at least one after the next


def towards(sketch: torch.Tensor, sigma_px: float, strength: float = 1.0) -> Adjust:
    """Pull what is coarser than `sigma_px` in a predicted x_0 to what it is in the sketch: dim cells do not drown, and
    none grow where none were drawn (ILVR, Choi et al., ICCV 2021, with a Gaussian).
    """
    wanted = blurred(sketch, sigma_px)

    def adjust(clean: torch.Tensor) -> torch.Tensor:
        return clean + strength * (wanted - blurred(clean, sigma_px))

    return adjust


def blurred(image: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """A Gaussian along each axis of (B, C, *size), edges repeated; at 0 the image itself."""
    if sigma_px <= 0:
        return image
    radius = int(np.ceil(3 * sigma_px))
    at = torch.arange(-radius, radius + 1, device=image.device)
    weights = torch.exp(-0.5 * (at / sigma_px).square())
    weights = (weights / weights.sum()).to(image.dtype)
    for axis in range(2, image.ndim):
        lines = image.movedim(axis, -1)
        flat = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (radius, radius), mode="replicate")
        image = F.conv1d(flat, weights[None, None]).reshape(lines.shape).movedim(-1, axis)
    return image


def _clean(
    prediction: torch.Tensor,
    sample: torch.Tensor,
    t: torch.Tensor | int,
    scheduler: DDPMScheduler,
    adjust: Adjust | None,
) -> torch.Tensor:
    """The predicted x_0, adjusted, and within [−1, 1] where the scheduler clips."""
    kept = scheduler.alphas_cumprod.to(sample.device)[int(t)].to(sample.dtype)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        clean = (sample - (1 - kept).sqrt() * prediction) / kept.sqrt()
    else:
        clean = kept.sqrt() * sample - (1 - kept).sqrt() * prediction if kind == "v_prediction" else prediction
    if adjust is not None:
        clean = adjust(clean)
    return clean.clamp(-1, 1) if scheduler.config.clip_sample else clean


def _ancestral(
    predict: Predict,
    scheduler: DDPMScheduler,
    sample: torch.Tensor,
    times: np.ndarray[tuple[int], np.dtype[np.int64]],
    adjust: Adjust | None,
    generator: Callable[[], torch.Tensor] | None,
) -> torch.Tensor:
    """Through the posterior q(x_s | x_t, x_0) of each step from t to s (DDPM, Eq. 7, for steps of any length)."""
    alphas = scheduler.alphas_cumprod.to(sample.device, torch.float64)
    for t, s in zip(times, [*times[1:], -1], strict=True):
        predicted = predict(sample, torch.as_tensor(int(t), device=sample.device))
        clean = _clean(predicted, sample, int(t), scheduler, adjust)
        if s < 0:
            return clean
        here, there = alphas[int(t)], alphas[int(s)]
        step = here / there
        variance = (1 - there) / (1 - here) * (1 - step)
        of_clean, of_sample = there.sqrt() * (1 - step) / (1 - here), step.sqrt() * (1 - there) / (1 - here)
        drawn = torch.randn_like(sample) if generator is None else generator()
        sample = of_clean.float() * clean + of_sample.float() * sample + variance.sqrt().float() * drawn
    return sample
