"""Noise latents that are correlated between the slices of a cell."""

import torch

from cascade.rng import torch_stream


def correlated_noise(count: int, shape: tuple[int, ...], rho: float, generator: torch.Generator) -> torch.Tensor:
    """Latents of one cell's slices, (count, *shape), unit variance, corr(i, j) = ρ² / (1 + ρ²) for every pair.

    c_T^s = ρ/√(1+ρ²) · c_cmn + 1/√(1+ρ²) · c_unq^s   (cascaded diffusion paper, Eq. 2)

    rho: strength of the common part, ≥ 0; 0 gives independent slices, inf identical ones.

    >>> slices = correlated_noise(2, (100_000,), 1.0, torch.Generator().manual_seed(0))
    >>> round(float(torch.corrcoef(slices)[0, 1]), 1)
    0.5
    """
    if not rho >= 0:
        raise ValueError(f"rho must be ≥ 0 (inf for identical slices), got {rho}")
    device = generator.device
    common = torch.randn((1, *shape), generator=generator, device=device)
    unique = torch.randn((count, *shape), generator=generator, device=device)
    share = 1.0 if rho == float("inf") else rho / (1 + rho**2) ** 0.5
    return share * common + (1 - share**2) ** 0.5 * unique


def depth_correlated_noise(
    heights_um: torch.Tensor, shape: tuple[int, ...], length_um: float, generator: torch.Generator
) -> torch.Tensor:
    """Latents of one cell's slices at `heights_um` (S,), unit variance, corr(i, j) = exp(−|z_i − z_j| / length_um).

    An alternative to Eq. 2, where all pairs of slices share alike: neighbours share much, top and bottom little.
    """
    if not length_um > 0:
        raise ValueError(f"correlation_length_um must be > 0, got {length_um}")
    heights = heights_um.double().to(generator.device)
    order = torch.argsort(heights, stable=True)
    kept = torch.exp(-heights[order].diff() / length_um).float()
    fresh = torch.randn((len(heights), *shape), generator=generator, device=generator.device)
    latents, before = torch.empty_like(fresh), fresh[order[0]]
    latents[order[0]] = before
    for n, share in zip(order[1:], kept, strict=True):  # a stationary Markov chain along z
        before = share * before + (1 - share**2).clamp(min=0).sqrt() * fresh[n]
        latents[n] = before
    return latents


def slice_latents(
    cell_index: torch.Tensor,
    shape: tuple[int, ...],
    rho: float,
    seed: int,
    *,
    attempt: int = 0,
    name: str = "latents",
    heights_um: torch.Tensor | None = None,
    length_um: float | None = None,
) -> torch.Tensor:
    """Latents (S, *shape) for slices of the cells `cell_index` (S,) int64: correlated within a cell, not between cells.

    Within a cell they follow Eq. 2 with `rho`, or, where `length_um` is given, fall off with the distance of
    `heights_um` (S,).

    Every cell has its own stream, so its latents do not depend on what else is in the batch. `attempt` names further
    draws for the same cells, `name` what the noise is for. Raises ValueError for a length without heights.
    """
    latents = torch.empty((len(cell_index), *shape))
    for cell in cell_index.unique().tolist():
        chosen = cell_index == cell
        generator = torch_stream(seed, name, cell, attempt)
        if length_um is None:
            latents[chosen] = correlated_noise(int(chosen.sum()), shape, rho, generator)
        elif heights_um is None:
            raise ValueError("length_um needs heights_um, one per slice")
        else:
            latents[chosen] = depth_correlated_noise(heights_um[chosen], shape, length_um, generator)
    return latents
