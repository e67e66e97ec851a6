"""Noise latents that are correlated between the slices of a cell."""

import torch

from cascade.rng import torch_stream


def correlated_noise(count: int, shape: tuple[int, ...], rho: float, generator: torch.Generator) -> torch.Tensor:
    """Latents of one cell's slices, (count, *shape), unit variance, corr(i, j) = ρ² / (1 + ρ²) for every pair.

    c_T^s = ρ/√(1+ρ²) · c_cmn + 1/√(1+ρ²) · c_unq^s   (cascaded diffusion paper, Eq. 2)

    rho: strength of the common part, ≥ 0; 0 gives independent slices, inf identical ones.
    """
    if not rho >= 0:
        raise ValueError(f"rho must be ≥ 0 (inf for identical slices), got {rho}")
    device = generator.device
    common = torch.randn((1, *shape), generator=generator, device=device)
    unique = torch.randn((count, *shape), generator=generator, device=device)
    share = 1.0 if rho == float("inf") else rho / (1 + rho**2) ** 0.5
    return share * common + (1 - share**2) ** 0.5 * unique


def slice_latents(
    cells: torch.Tensor, shape: tuple[int, ...], rho: float, seed: int, attempt: int = 0, name: str = "latents"
) -> torch.Tensor:
    """Latents (S, *shape) for slices that belong to `cells` (S,) int64: correlated within a cell, not between cells.

    Every cell has its own stream, so its latents do not depend on what else is in the batch. `attempt` names further
    draws for the same cells, `name` what the noise is for.
    """
    latents = torch.empty((len(cells), *shape))
    for cell in cells.unique().tolist():
        chosen = cells == cell
        generator = torch_stream(seed, name, cell, attempt)
        latents[chosen] = correlated_noise(int(chosen.sum()), shape, rho, generator)
    return latents
