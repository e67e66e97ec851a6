"""Random patches of whole images, for training without annotation."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cascade.data.frames import DataError, read_image
from cascade.optics.window import Window
from cascade.rng import stream

_SUFFIXES = (".tif", ".tiff", ".png")
_MANY = 1 << 20  # patches of an epoch
_LOOKED_AT = 200_000  # voxels of an image that its window is fitted to

Array = np.ndarray[Any, Any]


class PatchDataset(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Patches of one or more images in memory; indexed by a list, it gives a batch.

    Batches hold image (B, 1, *patch_size) float32 in [−1, 1] after `window`. Patch n is the same whenever it is asked
    for: it depends on `seed` and n alone, and every place in every image is as likely as any other. `fingerprint` is a
    hash of all that batches are made of.

    >>> import tempfile, tifffile
    >>> folder = tempfile.TemporaryDirectory()
    >>> tifffile.imwrite(folder.name + "/a.tif", np.arange(6400, dtype=np.uint16).reshape(80, 80))
    >>> patches = PatchDataset(folder.name, (32, 48))
    >>> patches[[0, 7]]["image"].shape
    torch.Size([2, 1, 32, 48])
    >>> folder.cleanup()

    Args:
        source: a folder of images, TIFF or PNG, or their files; planes, or stacks.
        patch_size: (Y, X) or (Z, Y, X) in pixels; of stacks, as many axes as they have.
        seed: of the places.
        window: of intensities, in the images' units; by default from the dark end to the bright one of all images.
        length: how many patches are an epoch.

    Raises DataError where there is no image, one cannot be read, has other axes than the patch or is smaller.
    """

    def __init__(
        self,
        source: str | Path | Sequence[str | Path],
        patch_size: Sequence[int],
        *,
        seed: int = 0,
        window: Window | None = None,
        length: int = _MANY,
    ):
        self.patch_size = tuple(int(n) for n in patch_size)
        if len(self.patch_size) not in (2, 3) or min(self.patch_size) < 1:
            raise ValueError(f"patch_size must be (Y, X) or (Z, Y, X) of at least 1 pixel each, got {patch_size}")
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        self.paths = _paths(source)
        self.images = [read_image(path) for path in self.paths]
        for path, image in zip(self.paths, self.images, strict=True):
            _check(path, image, self.patch_size)
        self.seed, self.length = seed, length
        self.window = window or fit_window(self.images)
        self._corners = [_corners(image, self.patch_size) for image in self.images]
        self._ends = np.cumsum([np.prod(corners, dtype=np.int64) for corners in self._corners])
        digest = hashlib.sha256(repr((self.patch_size, seed, self.window, length)).encode())
        for image in self.images:
            digest.update(repr((image.shape, image.dtype)).encode())
            digest.update(np.ascontiguousarray(image).data)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        patches = [2 * self.window.stretch(self._patch(int(index))) - 1 for index in indices]
        return {"image": torch.from_numpy(np.stack(patches))[:, None]}

    def place(self, index: int) -> tuple[int, tuple[slice, ...]]:
        """Where patch `index` lies: the number of its image in `paths`, and its region there."""
        at = int(stream(self.seed, "patch", index).integers(self._ends[-1]))
        number = int(np.searchsorted(self._ends, at, side="right"))
        first = int(self._ends[number - 1]) if number else 0
        corner = np.unravel_index(at - first, self._corners[number])
        return number, tuple(slice(int(c), int(c) + n) for c, n in zip(corner, self.patch_size, strict=True))

    def _patch(self, index: int) -> Array:
        number, region = self.place(index)
        return self.images[number][region]


def fit_window(images: Sequence[Array]) -> Window:
    """The window from the dark end to the bright one of images, all but a thousandth of their voxels at each.

    Every image counts alike. Raises DataError for images without contrast.
    """
    some = [image.ravel()[:: max(image.size // _LOOKED_AT, 1)] for image in images]
    low, high = np.mean([np.quantile(values, [0.001, 0.999]) for values in some], 0)
    if not high > low:
        raise DataError(f"the images have no contrast: all their voxels are {low:g}; or give a window")
    return Window(low=float(low), high=float(high))


def _paths(source: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(source, str | Path):
        paths = [Path(path) for path in source]
    elif Path(source).is_dir():
        paths = sorted(Path(source).iterdir())
        paths = [p for p in paths if p.suffix.lower() in _SUFFIXES and not p.name.startswith(".")]
    else:
        paths = [Path(source)]
    if not paths:
        raise DataError(f"{source}: holds no images (TIFF or PNG); name the folder that they lie in, or the files")
    return paths


def _check(path: Path, image: Array, patch_size: tuple[int, ...]) -> None:
    if image.ndim != len(patch_size):
        raise DataError(f"{path}: of shape {image.shape}, for patches of {patch_size}: give as many axes as it has")
    if any(have < want for have, want in zip(image.shape, patch_size, strict=True)):
        raise DataError(
            f"{path}: of shape {image.shape}, smaller than a patch of {patch_size}: make patch_size smaller"
        )


def _corners(image: Array, patch_size: tuple[int, ...]) -> tuple[int, ...]:
    """How many places along each axis a patch can begin at."""
    return tuple(have - want + 1 for have, want in zip(image.shape, patch_size, strict=True))
