"""One update of a training step: a loss, the network that it moves, how, how often."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel

from cascade.rng import torch_stream
from cascade.training.batches import Batch
from cascade.training.checkpoints import Stateful
from cascade.training.optimizers import Moments, learning_rate_schedule, make_optimizer
from cascade.training.settings import OptimizerSettings, TrainingSettings


@dataclass(frozen=True, kw_only=True)
class Update:
    """A part of every training step, or of every few.

    loss: a module whose forward(batch, generator) gives a scalar. network: whose trainable parameters it moves, by
    default the loss's own; where there are several updates, the other networks' parameters are held still meanwhile.
    name: of its files in a checkpoint. every: it takes part in each step whose number this divides. optimizer: by
    default the training's own settings. identity: what else must be the same where a checkpoint is gone on with, as
    {"prediction_type": "epsilon"}.
    """

    loss: torch.nn.Module
    network: torch.nn.Module | None = None
    name: str = "network"
    every: int = 1
    optimizer: OptimizerSettings | None = None
    identity: Mapping[str, str | float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")
        if not self.name.isidentifier():
            raise ValueError(f"an update's name is that of a file, letters and underscores, got {self.name!r}")


class Running:
    """An update at work: its optimiser, its schedule, the average of its weights, its last losses."""

    def __init__(self, update: Update, settings: TrainingSettings, accelerator: Accelerator, *, first: bool):
        how = update.optimizer or settings
        self.name, self.every, self.accelerator, self.seed = update.name, update.every, accelerator, settings.seed
        self.noise = "noise" if first else f"noise of {update.name}"
        self.network = update.network or update.loss
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError(f"the update {update.name!r} has nothing to train: all its parameters are frozen")
        self.how, self.max_grad_norm = how, how.max_grad_norm
        self.rate = learning_rate_schedule(how, settings.max_train_steps)
        self.loss, self.optimizer = accelerator.prepare(update.loss, make_optimizer(how, self.parameters))
        self.decay = how.ema_decay
        self.average: EMAModel | None = None
        if how.use_ema:
            self.average = EMAModel(self.parameters, decay=self.decay, use_ema_warmup=True, power=0.75, foreach=True)
        self.losses: list[tuple[int, torch.Tensor]] = []  # since the last log, with their micro steps
        self.mean = float("nan")

    def parts(self) -> dict[str, Stateful]:
        """What a checkpoint keeps of it, by file name."""
        kept: dict[str, Stateful] = {self.name: self.network, f"{self.name}_moments": Moments(self.optimizer)}
        return kept if self.average is None else {**kept, f"{self.name}_average": self.average}

    def step(self, number: int, batches: Sequence[Batch]) -> None:
        """The optimiser step `number`, counted from 0, over its micro-batches."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(number)
        for micro, batch in enumerate(batches, number * len(batches)):
            process, device = self.accelerator.process_index, self.accelerator.device
            generator = torch_stream(self.seed, self.noise, micro, process, device=device)
            with self.accelerator.accumulate(self.loss):
                loss = self.loss(batch, generator)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.parameters, self.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
            self.losses.append((micro, loss.detach()))
        if self.average is not None:
            self.average.step(self.parameters)

    def logged(self, number: int) -> dict[str, float]:
        """The mean loss over all processes since the last log, and the rate of the next step."""
        if self.losses:
            mean = torch.stack([loss for _, loss in self.losses]).mean()
            self.mean = float(self.accelerator.gather(mean).mean().item())
            self.losses.clear()
        return {"loss": self.mean, "learning_rate": self.rate(number)}

    def averaged(self, *, keep: bool) -> None:
        """Put the averaged weights in place; `keep`: the trained ones come back with `trained`."""
        if self.average is not None:
            if keep:
                self.average.store(self.parameters)
            self.average.copy_to(self.parameters)

    def trained(self) -> None:
        """Put back the weights that training goes on with."""
        if self.average is not None:
            self.average.restore(self.parameters)


def start_updates(updates: Sequence[Update], settings: TrainingSettings, accelerator: Accelerator) -> list[Running]:
    """The updates at work; raises ValueError where two have one name or move the same parameters."""
    names = [update.name for update in updates]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"a training needs updates, each with a name of its own, got {names}")
    owned = [[p for p in (update.network or update.loss).parameters() if p.requires_grad] for update in updates]
    everything = [p for parameters in owned for p in parameters]
    if len({id(p) for p in everything}) < len(everything):
        raise ValueError(f"of {names}, two move the same parameters: name the network of each")
    running: list[Running] = []
    for update, parameters in zip(updates, owned, strict=True):
        hold_still(everything, but=parameters)  # while it is wrapped for several processes, too
        running.append(Running(update, settings, accelerator, first=not running))
    hold_still([], but=everything)
    return running


def hold_still(everything: Sequence[torch.nn.Parameter], *, but: Sequence[torch.nn.Parameter]) -> None:
    """Let gradients reach none of the parameters but some."""
    for parameter in everything:
        parameter.requires_grad_(False)
    for parameter in but:
        parameter.requires_grad_(True)
