import json

import pytest
import torch
from safetensors.torch import load_file
from toy_training import Line, Regression, settings

from cascade.training.loop import training_loop
from cascade.training.settings import OptimizerSettings
from cascade.training.start import make_accelerator
from cascade.training.update import Update


class Strength:
    """Of an augmentation, moved by the signs that the discriminator gives to real samples."""

    def __init__(self):
        self.value, self.signs = 0.0, torch.zeros(2)

    def state_dict(self):
        return {"value": self.value, "signs": self.signs}

    def load_state_dict(self, state):
        self.value, self.signs = state["value"], state["signs"]


class Generator(torch.nn.Module):
    def __init__(self, made, judge):
        super().__init__()
        self.made, self.judge = made, judge
        self.steps = 0

    def forward(self, batch, generator):
        self.steps += 1
        assert not any(p.requires_grad for p in self.judge.parameters())
        noise = torch.randn(batch["x"].shape, generator=generator)
        return torch.nn.functional.softplus(-self.judge(self.made(noise))).mean()


class Discriminator(torch.nn.Module):
    def __init__(self, made, judge, strength):
        super().__init__()
        self.made, self.judge, self.strength = made, judge, strength
        self.steps = 0

    def forward(self, batch, generator):
        self.steps += 1
        assert not any(p.requires_grad for p in self.made.parameters())
        noise = torch.randn(batch["x"].shape, generator=generator)
        real = self.judge(batch["y"] + self.strength.value * noise)
        fake = self.judge(self.made(noise))
        self.strength.signs = self.strength.signs + torch.tensor([1.0, float(real.detach().sign().mean())])
        self.strength.value += 0.01 * float(self.strength.signs[1] / self.strength.signs[0])
        return torch.nn.functional.softplus(-real).mean() + torch.nn.functional.softplus(fake).mean()


def toy_gan(folder, stop_after=None, **changes):
    torch.manual_seed(0)
    made, judge, strength = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), Strength()
    updates = [
        Update(loss=Generator(made, judge), network=made, name="generator"),
        Update(
            loss=Discriminator(made, judge, strength),
            network=judge,
            name="discriminator",
            every=3,
            optimizer=OptimizerSettings(learning_rate=0.01, lr_warmup_steps=0, use_ema=False),
        ),
    ]
    options = settings(folder, **changes)
    loop = training_loop(updates, Line(), options, make_accelerator(options), state={"strength": strength})
    for step in loop:
        if step.number == stop_after:
            break
    return updates, strength


@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_networks_and_a_state_resume_exactly(tmp_path, accumulation):
    options = {"gradient_accumulation_steps": accumulation}
    (generator, discriminator), strength = toy_gan(tmp_path / "whole", **options)
    assert (generator.loss.steps, discriminator.loss.steps) == (24 * accumulation, 8 * accumulation)
    assert strength.value != 0
    toy_gan(tmp_path / "cut", stop_after=19, **options)
    (again, judge), kept = toy_gan(tmp_path / "cut", resume_from_checkpoint="latest", **options)
    assert again.loss.steps == 8 * accumulation
    assert (kept.value, kept.signs.tolist()) == (strength.value, strength.signs.tolist())
    assert torch.equal(again.network.weight, generator.network.weight)
    assert torch.equal(judge.network.weight, discriminator.network.weight)
    for path in sorted((tmp_path / "whole" / "checkpoint-24").glob("*.safetensors")):
        assert path.read_bytes() == (tmp_path / "cut" / "checkpoint-24" / path.name).read_bytes()


def test_each_update_moves_its_own_network_in_its_own_way(tmp_path):
    (generator, discriminator), _ = toy_gan(tmp_path)
    assert sorted(p.stem for p in (tmp_path / "checkpoint-24").glob("*.safetensors")) == [
        "discriminator", "discriminator_moments", "generator", "generator_average", "generator_moments", "strength",
    ]  # fmt: skip
    moments = load_file(tmp_path / "checkpoint-24" / "discriminator_moments.safetensors")
    assert float(moments["0.step"]) == 8
    assert all(p.requires_grad for update in (generator, discriminator) for p in update.network.parameters())
    record = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert {"loss", "learning_rate", "loss_discriminator", "learning_rate_discriminator"} <= record.keys()
    assert record["learning_rate"] == pytest.approx(0.05)  # warmed up over four steps
    assert record["learning_rate_discriminator"] < 0.01


def test_updates_that_cannot_be_are_refused(tmp_path):
    made, judge = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    loss = Generator(made, judge)

    def start(*updates):
        options = settings(tmp_path)
        return next(iter(training_loop(updates, Line(), options, make_accelerator(options))))

    with pytest.raises(ValueError, match="name of its own"):
        start()
    with pytest.raises(ValueError, match="name of its own"):
        start(Update(loss=loss, network=made), Update(loss=loss, network=judge))
    with pytest.raises(ValueError, match="move the same parameters"):
        start(Update(loss=loss, name="a"), Update(loss=loss, network=judge, name="b"))
    with pytest.raises(ValueError, match="nothing to train"):
        start(Update(loss=loss, network=made.requires_grad_(False)))
    with pytest.raises(ValueError, match="every must be at least 1"):
        Update(loss=loss, every=0)
    with pytest.raises(ValueError, match="name is that of a file"):
        Update(loss=loss, name="../a")


def test_the_scale_of_half_precision_is_put_away(tmp_path):
    """fp16 needs a GPU; its gradient scaler works anywhere."""

    def scaled(folder, stop_after=None, **changes):
        module, options = Regression(), settings(folder, max_grad_norm=1e9, **changes)
        accelerator = make_accelerator(options)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=5)
        for step in training_loop([Update(loss=module)], Line(), options, accelerator):
            if step.number == stop_after:
                break
        return module, accelerator.scaler.state_dict()

    whole, state = scaled(tmp_path / "whole")
    assert (state["scale"], state["_growth_tracker"]) == (4.0 * 2**4, 4)
    _, halfway = scaled(tmp_path / "cut", stop_after=19)
    assert halfway["scale"] == 4.0 * 2**3
    rest, again = scaled(tmp_path / "cut", resume_from_checkpoint="latest")
    assert again == state
    assert torch.equal(rest.layer.weight, whole.layer.weight)
