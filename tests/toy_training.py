"""Trainings that take no time: a line fitted to points, for the tests of the loop."""

import torch

from cascade.training.loop import training_loop
from cascade.training.settings import TrainingSettings
from cascade.training.start import make_accelerator
from cascade.training.update import Update


class Line:
    """y = 3x − 1; sample 13 can be spoilt."""

    def __init__(self, spoilt=False, fingerprint="a line"):
        self.fingerprint = fingerprint
        self.x = torch.linspace(-1, 1, 40)[:, None]
        self.y = 3 * self.x - 1
        if spoilt:
            self.y[13] = float("nan")

    def __len__(self):
        return 40

    def __getitem__(self, indices):
        return {"x": self.x[indices], "y": self.y[indices], "i": torch.as_tensor(indices)}


class Regression(torch.nn.Module):
    def __init__(self, width=1):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(1, width)
        self.seen, self.noise = [], []

    def forward(self, batch, generator):
        self.seen.append(batch["i"].tolist())
        self.noise.append(torch.randn(1, generator=generator).item())
        return (self.layer(batch["x"]) - batch["y"]).square().mean() + 0.01 * self.noise[-1] * self.layer.bias.sum()


def settings(folder, **changes):
    options = dict(
        output_dir=str(folder), max_train_steps=24, train_batch_size=4, learning_rate=0.05, lr_warmup_steps=4,
        checkpointing_steps=8, preview_steps=12, ema_decay=0.9, report_to="none", logging_steps=4,
    )  # fmt: skip
    return TrainingSettings(**(options | changes))


def train(folder, stop_after=None, dataset=None, module=None, identity=None, **changes):
    """Fit the line; returns the module and the steps that the loop told of."""
    module = module or Regression()
    options = settings(folder, **changes)
    update = Update(loss=module, identity=identity or {})
    steps = []
    for step in training_loop([update], dataset or Line(), options, make_accelerator(options)):
        steps.append(step)
        if step.number == stop_after:
            break
    return module, steps


def run_script(script, config, *arguments):
    """A training script with one of the tiny configs."""
    script.main(["--config", f"configs/{config}.yaml", "--report_to", "none", *map(str, arguments)])
