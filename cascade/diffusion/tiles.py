"""A network's answer for a whole image, put together from overlapping tiles."""

import itertools
from collections.abc import Callable, Sequence
from types import EllipsisType

import torch

Predict = Callable[[torch.Tensor], torch.Tensor]
"""(B, C, *size) -> (B, C', *size), whatever the size."""

PAINTING = {"desc": "painting", "unit": "tile", "leave": False, "delay": 5.0}
"""Of the bar that counts tiles: what takes a few seconds shows none."""

_SHARP = 8  # standard deviations of the weights that a tile is wide
_CROPPED = 1e-6  # of the weight that a voxel in a cropped margin would have


def in_tiles(
    predict: Predict,
    sample: torch.Tensor,
    tile_size: Sequence[int],
    overlap: int | Sequence[int],
    *,
    align: int = 1,
    at_once: int = 1,
    crop: int = 0,
    each: Callable[[], object] = lambda: None,
) -> torch.Tensor:
    """What `predict` makes of (B, C, *size) images, from tiles averaged with Gaussian weights, highest in the middle.

    Tiles begin at multiples of `align`, the pixels that a network's coarsest level has, so that what lies farther from
    a tile's border than the network reaches is what it makes of the whole image. They share at least `overlap` pixels
    (one for all axes, or one for each) with the next one, and `at_once` of them are given to the network together. Of
    the `crop` pixels along a tile's border, at most a quarter of its side, nothing is taken that another tile has
    farther inside. An image as small as a tile is given as it is. `each` is called after each call of `predict`.

    Raises ValueError for tiles that are no larger than the overlap, or no multiple of `align`.

    >>> image = torch.arange(40.0).reshape(1, 1, 5, 8)
    >>> bool(torch.allclose(in_tiles(lambda x: 2 * x, image, (4, 4), 2), 2 * image))
    True
    """
    size = sample.shape[2:]
    check_tiles(len(size), tile_size, overlap, align)
    if all(n <= t for n, t in zip(size, tile_size, strict=True)):
        whole = predict(sample)
        each()
        return whole
    sample = reflected(sample, align)
    shape = [min(t, n) for t, n in zip(tile_size, sample.shape[2:], strict=True)]
    shared = _of_axes(overlap, len(size))
    corners = _corners(sample.shape[2:], shape, shared, align)
    total = torch.zeros_like(sample[:1, :1])
    count, made = len(sample), None
    for start in range(0, len(corners), at_once):
        part = corners[start : start + at_once]
        found = predict(torch.cat([sample[part_of(corner, shape)] for corner in part]))
        each()
        if made is None:
            made = torch.zeros(count, found.shape[1], *sample.shape[2:], dtype=found.dtype, device=found.device)
        for corner, one in zip(part, found.split(count), strict=True):
            window, weights = part_of(corner, shape), _weights(corner, shape, sample, crop)
            total[window] += weights
            made[window] += weights * one
    assert made is not None
    return (made / total)[part_of([0] * len(size), size)]


def count_tiles(size: Sequence[int], tile_size: Sequence[int], overlap: int | Sequence[int], align: int = 1) -> int:
    """How many tiles an image is put together from.

    >>> count_tiles((5, 8), (4, 4), 2), count_tiles((4, 4), (8, 8), 2)
    (6, 1)
    """
    size = [n + -n % align for n in size]
    tile = [min(t, n) for t, n in zip(tile_size, size, strict=True)]
    return len(_corners(size, tile, _of_axes(overlap, len(size)), align))


def _corners(size: Sequence[int], tile: Sequence[int], overlap: Sequence[int], align: int) -> list[tuple[int, ...]]:
    return list(itertools.product(*(tile_origins(*one, align) for one in zip(size, tile, overlap, strict=True))))


def part_of(corner: Sequence[int], size: Sequence[int]) -> tuple[EllipsisType | slice, ...]:
    """Index of a part of (B, C, *whole)."""
    return (..., *(slice(a, a + n) for a, n in zip(corner, size, strict=True)))


def reflected(sample: torch.Tensor, factor: int) -> torch.Tensor:
    """Sizes of (B, C, *size) up to a multiple of `factor`: pixels are mirrored beyond the far ends, as often as needed.

    >>> reflected(torch.arange(3.0).reshape(1, 1, 3), 8).tolist()
    [[[0.0, 1.0, 2.0, 1.0, 0.0, 1.0, 2.0, 1.0]]]
    """
    for axis in range(2, sample.ndim):
        size = sample.shape[axis]
        if size % factor:
            period = max(2 * size - 2, 1)
            at = torch.arange(size + -size % factor, device=sample.device) % period
            sample = sample.index_select(axis, torch.where(at < size, at, period - at))
    return sample


def check_tiles(axes: int, tile_size: Sequence[int], overlap: int | Sequence[int], align: int) -> None:
    """Raises ValueError for tiles of images of so many axes that cannot be, see `in_tiles`."""
    if len(tile_size) != axes:
        raise ValueError(f"tile_size has {len(tile_size)} sides, the images have {axes}")
    if any(not 0 <= one < tile for tile, one in zip(tile_size, _of_axes(overlap, axes), strict=True)):
        raise ValueError(f"tiles of {tuple(tile_size)} pixels must be larger than their overlap, which is {overlap}")
    if any(tile % align for tile in tile_size):
        raise ValueError(f"tile_size must be multiples of {align} for this network, got {tuple(tile_size)}")


def _of_axes(value: int | Sequence[int], axes: int) -> Sequence[int]:
    return [value] * axes if isinstance(value, int) else value


def tile_origins(size: int, tile: int, overlap: int, align: int) -> list[int]:
    """Where tiles begin along an axis: at multiples of `align`, as evenly as these allow.

    >>> tile_origins(40, 16, 4, 4)
    [0, 12, 24]
    """
    if size <= tile:
        return [0]
    step = max((tile - overlap) // align * align, align)
    last = size - tile
    count = -(-last // step) + 1
    return [last * n // (count - 1) // align * align for n in range(count - 1)] + [last]


def _weights(corner: Sequence[int], shape: Sequence[int], whole: torch.Tensor, crop: int) -> torch.Tensor:
    """A Gaussian around the middle of a tile, an eighth of it wide, next to nothing in the margin that is cropped, and
    nowhere nought. Towards an end of the whole (B, C, *size) image it does not fall: nothing is cut off there."""
    weights = torch.ones((), dtype=whole.dtype, device=whole.device)
    inside = torch.ones((), dtype=torch.bool, device=whole.device)
    for axis, (begin, n, size) in enumerate(zip(corner, shape, whole.shape[2:], strict=True)):
        along = [-1 if a == axis else 1 for a in range(len(shape))]
        place = torch.arange(n, device=whole.device)
        first, last = begin == 0, begin + n == size
        at = (place - 0.5 * (n - 1)) / n * _SHARP
        at = at.clamp(min=0.0 if first else None, max=0.0 if last else None) if first or last else at
        weights = weights * torch.exp(-0.5 * at.square()).clamp(min=1e-4).to(whole.dtype).reshape(along)
        margin = min(crop, n // 4)
        kept = ((place >= margin) | first) & ((place < n - margin) | last)
        inside = inside & kept.reshape(along)
    return torch.where(inside, weights, weights * _CROPPED) if crop else weights
