"""Which samples a training step sees: a function of seed and step alone."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

import numpy as np
import torch
from accelerate import Accelerator

from cascade.rng import stream
from cascade.training.settings import TrainingSettings

Batch = dict[str, torch.Tensor]


class TrainingData(Protocol):
    """What can be trained on: indexed by a list, it gives a batch whose tensors have a first axis as long.

    fingerprint: of the content; a checkpoint is gone on with only where it is the same.
    """

    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, indices: list[int], /) -> Batch: ...


class Rows(torch.utils.data.Dataset[Batch]):
    """Numbers of samples, {"row": (B,) int64}, where the loss itself knows or draws what belongs to them.

    >>> Rows(5, "five of something")[[4, 0]]
    {'row': tensor([4, 0])}
    """

    def __init__(self, count: int, fingerprint: str):
        self.count, self.fingerprint = count, fingerprint

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, indices: list[int]) -> Batch:
        return {"row": torch.as_tensor(indices)}


class BatchOrder(torch.utils.data.Sampler[int]):
    """Sample indices: each epoch a permutation of its own stream, each process a part of every global batch."""

    def __init__(self, count: int, settings: TrainingSettings, accelerator: Accelerator, start: int):
        if count == 0:
            raise ValueError("the training set is empty: see what 'cascade prepare' left out and why")
        self.count, self.size, self.seed = count, settings.train_batch_size, settings.seed
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.first = start * settings.gradient_accumulation_steps
        self.stop = settings.max_train_steps * settings.gradient_accumulation_steps
        self.epoch = -1
        self.order: np.ndarray[Any, Any] = np.empty(0, int)

    def of(self, micro_step: int) -> list[int]:
        """Indices of this process's batch at a micro step."""
        begin = (micro_step * self.world + self.rank) * self.size
        return [self._at(position) for position in range(begin, begin + self.size)]

    def __iter__(self) -> Iterator[int]:
        for micro_step in range(self.first, self.stop):
            yield from self.of(micro_step)

    def __len__(self) -> int:
        return (self.stop - self.first) * self.size

    def _at(self, position: int) -> int:
        epoch, offset = divmod(position, self.count)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, stream(self.seed, "epoch", epoch).permutation(self.count)
        return int(self.order[offset])


def batches_of(
    dataset: TrainingData, order: BatchOrder, settings: TrainingSettings, accelerator: Accelerator
) -> Iterator[list[Batch]]:
    """The micro-batches of each step, on the accelerator's device."""
    loader = torch.utils.data.DataLoader(
        cast("torch.utils.data.Dataset[Batch]", dataset),
        sampler=torch.utils.data.BatchSampler(order, order.size, drop_last=True),
        batch_size=None,
        num_workers=settings.dataloader_num_workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    step: list[Batch] = []
    for batch in loader:
        step.append(_moved(batch, accelerator.device))
        if len(step) == settings.gradient_accumulation_steps:
            yield step
            step = []


def _moved(batch: Mapping[str, torch.Tensor], device: torch.device) -> Batch:
    return {key: value.to(device, non_blocking=True) for key, value in batch.items()}
