"""Denoising loops, and schedulers as this project trains and samples with them."""

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, SchedulerMixin

Batch = dict[str, torch.Tensor]
Network = Callable[[torch.Tensor, torch.Tensor, Batch], torch.Tensor]
"""What is denoised with: from x_t, t and what the network is told, to what the scheduler's prediction_type asks for."""


def make_scheduler(prediction_type: str = "v_prediction") -> DDIMScheduler:
    """Stable Diffusion's noise schedule; with v-prediction it ends in pure noise (Lin et al., 2023), which is what
    lets few steps start from N(0, I) without a shift in brightness."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        rescale_betas_zero_snr=prediction_type == "v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,  # the last step ends in x_0 itself
    )


def second_order(scheduler: SchedulerMixin) -> DPMSolverMultistepScheduler:
    """DPM-Solver++ (Lu et al., 2022) of the same noise schedule: fewer steps than DDIM for outlines and views as good.
    Its first and last step are DDIM's, so that of two steps both are."""
    return DPMSolverMultistepScheduler.from_config(scheduler.config)


def guided(network: Network, guidance_scale: float, nothing: float) -> Network:
    """Classifier-free guidance (Ho & Salimans, 2022): ε_free + scale · (ε − ε_free); at scale 1 the network itself.

    ε_free is what the network predicts for a condition that is `nothing` everywhere.
    """
    if guidance_scale == 1.0:
        return network

    def predict(noisy: torch.Tensor, t: torch.Tensor, batch: Batch) -> torch.Tensor:
        free = network(noisy, t, {**batch, "condition": torch.full_like(batch["condition"], nothing)})
        return free + guidance_scale * (network(noisy, t, batch) - free)

    return predict


def ideal_prediction(
    scheduler: SchedulerMixin, sample: torch.Tensor, t: torch.Tensor, clean: torch.Tensor
) -> torch.Tensor:
    """What a perfect network would predict for `sample` at time t, if x_0 is known to be `clean`."""
    kept = scheduler.alphas_cumprod.to(sample.device)[t].float()  # near t = 0, 1 − kept is lost in half precision
    noise = (sample - kept.sqrt() * clean) / (1 - kept).sqrt()
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise.to(sample.dtype)
    return (kept.sqrt() * noise - (1 - kept).sqrt() * clean if kind == "v_prediction" else clean).to(sample.dtype)


@torch.inference_mode()
def denoise(
    network: Network, scheduler: SchedulerMixin, noise: torch.Tensor, batch: Batch, num_inference_steps: int
) -> torch.Tensor:
    """From `noise` to x_0 with `network(x_t, t, batch)`; DDIM at η = 0 for a DDIM scheduler, so deterministic.

    Any diffusers scheduler works whose `step` needs no further randomness.
    """
    scheduler.set_timesteps(num_inference_steps, device=noise.device)
    sample = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        prediction = network(scheduler.scale_model_input(sample, t), t, batch)
        sample = scheduler.step(prediction, t, sample, return_dict=False)[0]
    return sample
