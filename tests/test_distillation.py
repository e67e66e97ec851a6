"""Distillation, against what is known in closed form."""

import pytest
import torch

from cascade.diffusion.distillation import ConsistencyLoss, trailing_times
from cascade.diffusion.sampling import denoise, make_scheduler


class OfGaussian(torch.nn.Module):
    """What a perfect network predicts where data are N(mean, spread²): its DDIM paths end where the noise says."""

    def __init__(self, scheduler, mean=0.3, spread=0.2):
        super().__init__()
        self.scheduler, self.mean, self.spread = scheduler, mean, spread
        self.shift = torch.nn.Parameter(torch.zeros(()))

    def forward(self, noisy, timesteps, batch):
        kept = self.scheduler.alphas_cumprod[timesteps].reshape(-1, 1, 1, 1)
        alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
        gain = alpha * self.spread**2 / (kept * self.spread**2 + sigma**2)
        clean = self.mean + gain * (noisy - alpha * self.mean)
        if self.scheduler.config.prediction_type == "sample":
            return clean + self.shift
        return alpha * (noisy - alpha * clean) / sigma - sigma * clean + self.shift


class Table(torch.nn.Module):
    """A student that knows a prediction for each of the steps it draws with, linear in the sample."""

    def __init__(self, times):
        super().__init__()
        self.times = torch.as_tensor(times)
        self.gain, self.shift = torch.nn.Parameter(torch.zeros(1000)), torch.nn.Parameter(torch.zeros(1000))

    def forward(self, noisy, timesteps, batch):
        t = timesteps.reshape(-1).expand(len(noisy))
        return noisy * self.gain[t].view(-1, 1, 1, 1) + self.shift[t].view(-1, 1, 1, 1)


def encode(batch, generator):
    return 0.3 + 0.2 * torch.randn((32, 1, 4, 4), generator=generator), batch


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_a_student_learns_where_its_teachers_paths_end(kind):
    scheduler = make_scheduler(kind)
    teacher, student = OfGaussian(scheduler), Table(range(1000))
    loss = ConsistencyLoss(student, teacher, encode, scheduler, times=trailing_times(scheduler, 2, 5), substeps=5)
    optimizer = torch.optim.Adam(student.parameters(), 0.05)
    generator = torch.Generator().manual_seed(0)
    for step in range(300):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 300)
        optimizer.zero_grad()
        loss({}, generator).backward()
        optimizer.step()
    noise = torch.randn((256, 1, 4, 4), generator=generator)
    few, many = denoise(student, scheduler, noise, {}, 2), denoise(teacher, scheduler, noise, {}, 10)
    untaught = denoise(teacher, scheduler, noise, {}, 2)
    assert (few - many).abs().max() < 0.25 * (untaught - many).abs().max()
    assert few.std().item() == pytest.approx(many.std().item(), rel=0.05)


def test_one_fine_step_a_segment_teaches_what_the_teacher_says():
    """With one substep there is nothing to be carried on: the loss is the squared difference of two predictions."""
    scheduler = make_scheduler()
    teacher, student = OfGaussian(scheduler), OfGaussian(scheduler)
    loss = ConsistencyLoss(student, teacher, encode, scheduler, times=trailing_times(scheduler, 10, 1), substeps=1)
    generator = torch.Generator().manual_seed(0)
    assert loss({}, generator).item() == pytest.approx(0, abs=1e-8)
    student.shift.data += 0.1
    assert loss({}, generator).item() == pytest.approx(0.01, rel=1e-3)


def test_steps_that_do_not_divide_the_schedule_are_refused():
    with pytest.raises(ValueError, match="3 steps of 10 substeps must divide the schedule's 1000"):
        trailing_times(make_scheduler(), 3, 10)


@pytest.mark.parametrize("times", [(), (1000, 10), (5, 5), (3, 4), (9, 6, 3)])
def test_times_that_do_not_fall_are_refused(times):
    with pytest.raises(ValueError, match="times must fall from below 1000"):
        ConsistencyLoss(torch.nn.Identity(), torch.nn.Identity(), encode, make_scheduler(), times=times, substeps=2)
