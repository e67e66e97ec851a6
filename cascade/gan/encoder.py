"""What the conditional GAN is trained on: patches of images and annotations, turned and flipped at random."""

import torch

from cascade.diffusion.encoders import random_symmetry


class ConditionedEncoder:
    """All of a sample's patches, (B, 1, *size) each, turned alike, so that an image stays that of its annotation.

    turns: by quarters as well, where patches are square. Never along z.
    """

    def __init__(self, *, turns: bool = True):
        self.turns = turns

    def __call__(self, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        turned = random_symmetry(torch.cat(list(batch.values()), 1), generator, turns=self.turns)
        return dict(zip(batch, turned.split(1, 1), strict=True))
