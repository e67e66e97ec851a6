"""The difference between two states of a network as matrices of low rank, which are small (LoRA, Hu et al. 2021)."""

from collections.abc import Mapping

import torch

_UP, _DOWN = ".up", ".down"


def low_rank_difference(
    before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor], rank: int
) -> dict[str, torch.Tensor]:
    """after − before, each weight's (out, in, …) as `name.up` (out, rank) and `name.down` (rank, in · …): the best
    approximation of that rank (Eckart and Young). What is no larger so, such as a bias, is kept as it is by its name.

    Half precision. Raises ValueError where the two are of different networks, or rank is below 1.

    >>> found = low_rank_difference({"w": torch.zeros(8, 8)}, {"w": torch.ones(8, 8)}, rank=1)
    >>> {name: tuple(value.shape) for name, value in found.items()}
    {'w.up': (8, 1), 'w.down': (1, 8)}
    """
    shapes = [{name: value.shape for name, value in state.items()} for state in (before, after)]
    if shapes[0] != shapes[1]:
        raise ValueError("before and after are of networks that differ")
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    found: dict[str, torch.Tensor] = {}
    for name, value in after.items():
        difference = (value - before[name]).float()
        matrix = difference.flatten(1) if difference.ndim > 1 else difference[None]
        if rank * sum(matrix.shape) >= matrix.numel():
            found[name] = difference.half()
            continue
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        scale = s[:rank].sqrt()
        found[name + _UP] = (u[:, :rank] * scale).half().contiguous()
        found[name + _DOWN] = (scale[:, None] * v[:rank]).half().contiguous()
    return found


@torch.no_grad()
def add_difference(network: torch.nn.Module, difference: Mapping[str, torch.Tensor]) -> None:
    """Add what `low_rank_difference` found; raises ValueError for a name or shape that the network does not have."""
    state = network.state_dict()
    for name in {key.removesuffix(_UP).removesuffix(_DOWN) for key in difference}:
        if name not in state:
            raise ValueError(f"the network has no {name}: the difference is of another one")
        value = difference.get(name)
        if value is None:
            value = difference[name + _UP].float() @ difference[name + _DOWN].float()
        if value.numel() != state[name].numel():
            raise ValueError(f"{name} has another shape: the difference is of another network")
        state[name] += value.view(state[name].shape).to(state[name])
