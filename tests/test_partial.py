"""From a noised sketch back: against the closed form of Gaussian data, and against diffusers' own steps."""

import itertools

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from scipy import ndimage

from cascade.diffusion.partial import blurred, denoise_from, timesteps, towards

SPREAD = 0.6  # standard deviation of the Gaussian data
SCHEDULER = DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)


def kept_at(t: int, scheduler: DDPMScheduler = SCHEDULER) -> float:
    """ᾱ of time t."""
    return float(scheduler.alphas_cumprod[t])


def perfect(scheduler: DDPMScheduler = SCHEDULER, spread: float = SPREAD):
    """The best prediction for data N(0, spread²), which is linear in x_t: E[x_0 | x_t] = √ᾱ s² x_t / (ᾱ s² + 1 − ᾱ)."""

    def predict(sample: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        kept = scheduler.alphas_cumprod[int(t)].to(sample)
        clean = kept.sqrt() * spread**2 * sample / (kept * spread**2 + 1 - kept)
        kind = scheduler.config.prediction_type
        if kind == "sample":
            return clean
        noise = (sample - kept.sqrt() * clean) / (1 - kept).sqrt()
        return noise if kind == "epsilon" else kept.sqrt() * noise - (1 - kept).sqrt() * clean

    return predict


def doubles(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 1, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def factor(steps: int, solver, t_start: int = 600) -> float:
    """By what x at t_start is multiplied on its way to x_0: all steps are linear."""
    kept = kept_at(t_start - 1)
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    made = denoise_from(perfect(), SCHEDULER, one, 0 * one, t_start, steps, solver=solver)
    return float(made / np.sqrt(kept))


def exact(t_start: int = 600) -> float:
    """Of the probability flow, which keeps ranks: √(variance of data / variance of x_t)."""
    kept = kept_at(t_start - 1)
    return SPREAD / np.sqrt(kept * SPREAD**2 + 1 - kept)


@pytest.mark.parametrize(("solver", "faster", "left"), [("ddim", 0.55, 0.005), ("dpm++", 0.45, 1e-4)])
def test_the_flow_of_gaussian_data_is_followed_to_its_closed_form(solver, faster, left):
    errors = [abs(factor(steps, solver) / exact() - 1) for steps in (20, 40, 80, 160)]
    assert all(after < faster * before for before, after in itertools.pairwise(errors)), errors
    assert errors[-1] < left


def test_the_second_order_needs_fewer_steps():
    for steps in (5, 10, 20, 40):
        first, second = (abs(factor(steps, solver) / exact() - 1) for solver in ("ddim", "dpm++"))
        assert second < 0.4 * first


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_every_noise_schedule_is_followed(schedule, solver):
    scheduler = DDPMScheduler(beta_schedule=schedule)
    kept = kept_at(399, scheduler)
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    made = float(denoise_from(perfect(scheduler), scheduler, one, 0 * one, 400, 200, solver=solver))
    assert made == pytest.approx(np.sqrt(kept) * SPREAD / np.sqrt(kept * SPREAD**2 + 1 - kept), rel=0.01)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_sketches_become_data_of_their_mean_and_spread(solver, kind):
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type=kind, clip_sample=False)
    sketch = SPREAD * doubles(20000)
    made = denoise_from(perfect(scheduler), scheduler, sketch, doubles(20000, 1), 400, 40, solver=solver)
    assert float(made.mean()) == pytest.approx(0, abs=0.02)
    assert float(made.std()) == pytest.approx(SPREAD, rel=0.02)
    kept = kept_at(399)  # noise takes a part of what the sketch says, and no more
    correlation = float(torch.corrcoef(torch.stack([made.ravel(), sketch.ravel()]))[0, 1])
    assert correlation == pytest.approx(np.sqrt(kept) * SPREAD / np.sqrt(kept * SPREAD**2 + 1 - kept), abs=0.02)


def test_all_ancestral_steps_draw_from_the_posterior():
    """Of data narrow enough not to be clipped: x_0 given x_t has mean c·x_t and variance s²(1 − ᾱ) / (ᾱ s² + 1 − ᾱ)."""
    spread, t_start, count = 0.2, 100, 20000
    kept = kept_at(t_start - 1)
    sketch, noise = torch.full((count, 1, 1, 1), 0.3), torch.full((count, 1, 1, 1), 0.5)
    noised = np.sqrt(kept) * 0.3 + np.sqrt(1 - kept) * 0.5
    drawn = torch.Generator().manual_seed(0)
    made = denoise_from(
        perfect(spread=spread), SCHEDULER, sketch, noise, t_start, t_start, solver="ancestral",
        generator=lambda: torch.randn(count, 1, 1, 1, generator=drawn),
    )  # fmt: skip
    total = kept * spread**2 + 1 - kept
    assert float(made.mean()) == pytest.approx(np.sqrt(kept) * spread**2 * noised / total, abs=0.005)
    assert float(made.var()) == pytest.approx(spread**2 * (1 - kept) / total, rel=0.06)


def test_ddim_takes_the_steps_of_diffusers():
    """Every step: diffusers' DDIM knows even ones only."""
    theirs = DDIMScheduler.from_config(
        SCHEDULER.config, clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    theirs.set_timesteps(1000)
    times = [int(t) for t in theirs.timesteps if t < 60]
    assert times == timesteps(60, 60, 1000).tolist()
    sketch, noise = torch.rand(2, 1, 8, 8) - 0.5, torch.randn(2, 1, 8, 8)
    kept = SCHEDULER.alphas_cumprod[59]
    sample = kept.sqrt() * sketch + (1 - kept).sqrt() * noise
    for t in times:
        sample = theirs.step(perfect()(sample, torch.tensor(t)), t, sample).prev_sample
    made = denoise_from(perfect(), SCHEDULER, sketch, noise, 60, 60, solver="ddim")
    torch.testing.assert_close(made, sample, atol=1e-4, rtol=1e-4)


def test_every_ancestral_step_is_that_of_diffusers():
    theirs = DDPMScheduler.from_config(SCHEDULER.config, variance_type="fixed_small", clip_sample=True)
    mine = DDPMScheduler.from_config(SCHEDULER.config, clip_sample=True)
    sketch, noise = torch.rand(2, 1, 8, 8) - 0.5, torch.randn(2, 1, 8, 8)
    kept, t_start = SCHEDULER.alphas_cumprod[59], 60
    sample, drawn = kept.sqrt() * sketch + (1 - kept).sqrt() * noise, torch.Generator().manual_seed(7)
    for t in reversed(range(t_start)):
        sample = theirs.step(perfect()(sample, torch.tensor(t)), t, sample, generator=drawn).prev_sample
    again = torch.Generator().manual_seed(7)
    made = denoise_from(
        perfect(), mine, sketch, noise, t_start, t_start, solver="ancestral",
        generator=lambda: torch.randn(2, 1, 8, 8, generator=again),
    )  # fmt: skip
    torch.testing.assert_close(made, sample, atol=2e-4, rtol=1e-3)


def test_few_ancestral_steps_keep_the_spread():
    """Posteriors of steps of any length, not those of one step that are taken far apart."""
    spread, count = 0.2, 20000
    drawn = torch.Generator().manual_seed(0)
    made = denoise_from(
        perfect(spread=spread), SCHEDULER, spread * doubles(count).float(), doubles(count, 1).float(), 400, 40,
        solver="ancestral", generator=lambda: torch.randn(count, 1, 1, 1, generator=drawn),
    )  # fmt: skip
    assert float(made.std()) == pytest.approx(spread, rel=0.1)


def test_times_end_before_the_clean_image_evenly_or_finer_at_the_end():
    for t_start in (1, 7, 250, 400, 1000):
        for steps in {1, 2, 3, 10, t_start}:
            if steps > t_start:
                continue
            even, finer = (timesteps(t_start, steps, 1000, solver=solver) for solver in ("ancestral", "ddim"))
            for times in (even, finer):
                assert (len(times), times[0]) == (steps, t_start - 1)
            gaps, finer_gaps = (-np.diff([*times, -1]) for times in (even, finer))
            assert gaps.min() >= 1
            assert np.ptp(gaps) <= 1
            assert finer_gaps.min() >= 1
            assert np.diff(finer_gaps).max(initial=0) <= 1  # but for rounding, shorter and shorter


@pytest.mark.parametrize(
    ("t_start", "steps", "message"),
    [
        (0, 1, "t_start must be from 1 to 1000, got 0"),
        (1001, 10, "t_start must be from 1 to 1000, got 1001"),
        (10, 11, "num_inference_steps must be from 1 to t_start, 10, got 11"),
        (10, 0, "num_inference_steps must be from 1 to t_start, 10, got 0"),
    ],
)
def test_times_that_cannot_be_are_refused(t_start, steps, message):
    image = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=message):
        denoise_from(perfect(), SCHEDULER, image, image, t_start, steps)


@pytest.mark.parametrize("size", [(40, 55), (12, 20, 17)])
@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5])
def test_the_blur_is_a_gaussian_with_repeated_edges(size, sigma):
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    wanted = np.stack([
        [ndimage.gaussian_filter(one, sigma, mode="nearest", radius=int(np.ceil(3 * sigma))) for one in channels]
        for channels in image.numpy()
    ])  # fmt: skip
    np.testing.assert_allclose(blurred(image, sigma), wanted, atol=1e-6)  # weights are single


def test_no_blur_is_the_image_itself():
    image = torch.randn(1, 1, 5, 5)
    assert blurred(image, 0) is image
    small = blurred(image, 10.0)  # wider than the image
    assert small.shape == image.shape
    assert float(small.std()) < float(image.std())


def test_what_is_coarse_is_pulled_to_the_sketch():
    """The Gaussian is applied twice: what a wave of frequency f keeps of itself is its filter's gain g: of the sketch
    g, of the prediction 1 − g."""
    size, sigma = 256, 6.0
    x = torch.arange(size, dtype=torch.float64)
    sketch, other = (torch.zeros(1, 1, 4, size, dtype=torch.float64) for _ in range(2))
    slow, fast = torch.cos(2 * np.pi * 2 * x / size), torch.cos(2 * np.pi * 64 * x / size)
    adjust = towards(sketch + 0.8 * slow, sigma)
    made = adjust(other + 0.1 * slow + 0.5 * fast)[0, 0, 1, 32:-32]
    gain = np.exp(-0.5 * (2 * np.pi * 2 / size * sigma) ** 2)
    wanted = ((0.8 * gain + 0.1 * (1 - gain)) * slow + 0.5 * fast)[32:-32]
    np.testing.assert_allclose(made, wanted, atol=0.005)
    half = towards(sketch + 0.8 * slow, sigma, strength=0.5)(other + 0.1 * slow)[0, 0, 1, 32:-32]
    np.testing.assert_allclose(half, (0.1 + 0.5 * gain * 0.7) * slow[32:-32], atol=0.005)


def test_guidance_keeps_dim_light_that_noise_would_drown():
    """A prior that knows flat images only makes nothing of a dim disc; what is coarse is kept by guidance."""
    y, x = np.mgrid[:64, :64]
    disc = torch.from_numpy(0.1 * ((y - 32) ** 2 + (x - 32) ** 2 < 100)).float()[None, None]
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    flat = perfect(spread=0.01)
    inside = disc > 0
    contrasts = []
    for adjust in (None, towards(disc, 2.0)):
        made = denoise_from(flat, SCHEDULER, disc, noise, 600, 10, adjust=adjust)
        contrasts.append(float(made[inside].mean() - made[~inside].mean()))
    assert contrasts[0] < 0.02
    assert contrasts[1] > 0.08
