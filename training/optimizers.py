"""Optimisers, with schedules that are functions of the step alone."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from diffusers.optimization import get_scheduler

from cascade.extras import needed
from cascade.training.settings import OptimizerSettings


def make_optimizer(settings: OptimizerSettings, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that the settings name; raises ValueError or ImportError where its package is not
    installed."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adafactor":
        needed("transformers", "optimizer adafactor")
        from transformers.optimization import Adafactor

        return Adafactor(parameters, lr=rate, weight_decay=decay, scale_parameter=False, relative_step=False)
    if settings.optimizer == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError as error:
            raise ValueError("optimizer adamw8bit needs bitsandbytes and a GPU: pip install bitsandbytes") from error
        return AdamW8bit(parameters, lr=rate, weight_decay=decay)
    if settings.optimizer == "radam":
        return torch.optim.RAdam(parameters, lr=rate, weight_decay=decay, decoupled_weight_decay=True)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)


def learning_rate_schedule(settings: OptimizerSettings, max_train_steps: int) -> Callable[[int], float]:
    """The learning rate after so many finished steps, as diffusers' schedule of that name has it.

    >>> rate = learning_rate_schedule(OptimizerSettings(learning_rate=0.1, lr_warmup_steps=10), 100)
    >>> rate(0), rate(5), rate(10)
    (0.0, 0.05, 0.1)
    """
    unused = torch.optim.SGD([torch.zeros(1)], lr=settings.learning_rate)  # whose rates nobody looks at
    factor = get_scheduler(
        settings.lr_scheduler,
        unused,
        num_warmup_steps=settings.lr_warmup_steps,
        num_training_steps=max_train_steps,
    ).lr_lambdas[0]
    return lambda step: settings.learning_rate * float(factor(step))


class Moments:
    """What an optimiser has gathered, as a checkpoint keeps it; rates and other settings stay those of the day."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """The moments of each parameter, by its number."""
        return {str(number): dict(moments) for number, moments in self.optimizer.state_dict()["state"].items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the moments of an optimiser of the same kind over the same parameters."""
        state = {int(number): moments for number, moments in state_dict.items()}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
