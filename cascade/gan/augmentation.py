"""Adaptive discriminator augmentation (ADA): images are altered before they are judged, as overfitting asks for it."""

from typing import Any

import torch

_SCALE = (0.6, 1.2)  # the paper's ranges, of intensities in [0, 1]
_NOISE = 0.1
_SHUFFLED, _PAINTED = 25, 15  # pixels of an edge


class AdaptiveAugmentation:
    """Five alterations, one after the other, each with probability `p` for every sample (3D microscopy synthesis by
    conditional GAN, section 2, 4; Karras et al., NeurIPS 2020).

    Intensities times [0.6, 1.2], Gaussian noise of 0.1, the voxels of a region of 25³ shuffled, one of 15³ filled with
    one intensity, a linear fall of the light along an axis. `observe` gathers r = E[sign D(real)] (Eq. 2); after
    every `interval` of them, p goes up by `step` where r is above `target`, else down, within [0, 1].

    Its state is a part of a training's checkpoint. Where several processes train, they agree on r.

    >>> ada = AdaptiveAugmentation(interval=2)
    >>> for logits in ([1.0, 2.0, 0.1, -1.0], [1.0, 1.0, 1.0, 1.0]):
    ...     ada.observe(torch.tensor(logits))
    >>> ada.r, ada.p
    (0.75, 0.05)
    """

    def __init__(self, *, p: float = 0.0, target: float = 0.6, step: float = 0.05, interval: int = 1):
        if not 0 <= p <= 1 or not -1 < target < 1 or not 0 <= step <= 1 or interval < 1:
            raise ValueError(
                f"augmentation needs p in [0, 1], target in (−1, 1), step in [0, 1] and interval from 1, got {p}, "
                f"{target}, {step} and {interval}"
            )
        self.p, self.target, self.step_size, self.interval = float(p), target, step, interval
        self.r = 0.0
        self._signs: torch.Tensor | float = 0.0
        self._count = self._seen = 0

    def observe(self, logits: torch.Tensor) -> None:
        """Take in what the discriminator thinks of real images, any shape; above 0 is real."""
        self._signs = self._signs + logits.detach().sign().sum()
        self._count += logits.numel()
        self._seen += 1
        if self._seen % self.interval:
            return
        signs, count = _over_processes(float(self._signs), self._count)
        self.r = signs / count
        change = self.step_size if self.r > self.target else -self.step_size if self.r < self.target else 0.0
        self.p = round(min(max(self.p + change, 0.0), 1.0), 12)
        self._signs, self._count = 0.0, 0

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Alter (B, C, *size) images in [−1, 1]; gradients go through."""
        if not self.p:
            return images
        unit = 0.5 * (images + 1)
        for alter in (scaled, noisy, shuffled, inpainted, falling):
            chosen = torch.rand(len(unit), generator=generator, device=unit.device) < self.p
            altered = alter(unit, generator)
            unit = torch.where(chosen.view(-1, *(1,) * (unit.ndim - 1)), altered, unit)
        return 2 * unit - 1

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"p": self.p, "r": self.r, "signs": float(self._signs), "count": self._count, "seen": self._seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was put away."""
        self.p, self.r = float(state_dict["p"]), float(state_dict["r"])
        self._signs, self._count = float(state_dict["signs"]), int(state_dict["count"])
        self._seen = int(state_dict["seen"])


def scaled(unit: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Intensities in [0, 1] times a number of each sample's own."""
    low, high = _SCALE
    return unit * (low + (high - low) * _rand((len(unit), *(1,) * (unit.ndim - 1)), generator))


def noisy(unit: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """With Gaussian noise."""
    return unit + _NOISE * torch.randn(unit.shape, generator=generator, device=unit.device, dtype=unit.dtype)


def shuffled(unit: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The voxels of a region, somewhere in each sample, in any order; all channels alike."""
    at = _region(unit, _SHUFFLED, generator)
    order = torch.rand(at.shape, generator=generator, device=unit.device).argsort(1)
    flat = unit.flatten(2)
    at, from_ = (places[:, None].expand(-1, flat.shape[1], -1) for places in (at, at.gather(1, order)))
    return flat.scatter(2, at, flat.gather(2, from_)).view_as(unit)


def inpainted(unit: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A region, somewhere in each sample, of one intensity."""
    at = _region(unit, _PAINTED, generator)
    flat = unit.flatten(2)
    light = _rand((len(unit), 1, 1), generator).to(flat.dtype)
    at = at[:, None].expand(-1, flat.shape[1], -1)
    return flat.scatter(2, at, light.expand(at.shape)).view_as(unit)


def falling(unit: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Light that falls linearly along one axis, from either end, to a share in [0, 1] at the other."""
    axes = unit.ndim - 2
    axis = torch.randint(0, axes, (len(unit),), generator=generator, device=unit.device)
    left = _rand((len(unit),), generator)
    turned = torch.rand(len(unit), generator=generator, device=unit.device) < 0.5
    factor = torch.ones((), device=unit.device, dtype=unit.dtype)
    for number in range(axes):
        size = unit.shape[2 + number]
        along = torch.linspace(0, 1, size, device=unit.device, dtype=unit.dtype)
        ramp = torch.where(turned[:, None], along.flip(0), along)
        fall = 1 - (1 - left.to(unit.dtype))[:, None] * ramp
        fall = torch.where((axis == number)[:, None], fall, torch.ones_like(fall))
        factor = factor * fall.view(-1, 1, *(size if a == number else 1 for a in range(axes)))
    return unit * factor


def _region(unit: torch.Tensor, side: int, generator: torch.Generator) -> torch.Tensor:
    """Flat indices (B, N) of a cube somewhere in each sample, cut to the image where that is smaller."""
    size = unit.shape[2:]
    flat = torch.zeros((len(unit), 1), dtype=torch.long, device=unit.device)
    for n in size:
        own = min(side, n)
        corner = (_rand((len(unit), 1), generator) * (n - own + 1)).long().clamp(max=n - own)
        along = corner + torch.arange(own, device=unit.device)
        flat = (flat[:, :, None] * n + along[:, None, :]).flatten(1)
    return flat


def _rand(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _over_processes(signs: float, count: int) -> tuple[float, int]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return signs, count
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    both = torch.tensor([signs, float(count)], dtype=torch.float64, device=device)
    torch.distributed.all_reduce(both)
    return float(both[0]), int(both[1])
