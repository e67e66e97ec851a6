"""Named random streams from one seed.

A stream's numbers depend on the seed and its name alone: not on how many other streams were drawn from, in which
order, or by which process. That is what makes sample 17 of a data set the same whoever generates it.
"""

import zlib

import numpy as np
import torch


def stream(seed: int, *name: str | int) -> np.random.Generator:
    """The numpy generator of the stream `name`.

    >>> draws = [stream(0, "population", image).integers(1000) for image in (0, 1, 0)]
    >>> bool(draws[0] == draws[2] != draws[1])
    True
    """
    return np.random.default_rng(_sequence(seed, name))


def torch_stream(seed: int, *name: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """The torch generator of the stream `name`."""
    word = int(_sequence(seed, name).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator(device).manual_seed(word)


def seed_from(generator: torch.Generator | None) -> int:
    """One fresh 63-bit seed: drawn from `generator`, or from the operating system without one.

    Raises TypeError for anything else, such as a seed itself.
    """
    if generator is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> 1)
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator, such as torch.Generator().manual_seed(7); got {generator!r}"
        )
    return int(torch.randint(0, 2**63 - 1, (), generator=generator, device=generator.device))


def _sequence(seed: int, name: tuple[str | int, ...]) -> np.random.SeedSequence:
    words = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in name]
    return np.random.SeedSequence([seed, len(words), *words])
