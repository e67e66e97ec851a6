"""Random patches of whole images, for training without annotation."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cascade.data.images import read_scenes
from cascade.optics.window import Window
from cascade.reading import DataError
from cascade.rng import stream

_MANY = 1 << 20  # patches of an epoch
_LOOKED_AT = 200_000  # voxels of an image that its window is fitted to

Array = np.ndarray[Any, Any]


class PatchDataset(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Patches of one or more images in memory; indexed by a list, it gives a batch.

    Batches hold image (B, C, *patch_size) float32 in [−1, 1] after each channel's window. Patch n is the same whenever
    it is asked for: it depends on `seed` and n alone, and every place in every image is as likely as any other.
    `fingerprint` is a hash of all that batches are made of.

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
        sequences, channels, channel, time_as_depth: what is read, see `read_scenes`.
        seed: of the places.
        windows: of intensities, in the images' units, one of each channel; by default from the dark end to the bright
            one of all images.
        gamma: of those that are fitted.
        length: how many patches are an epoch.

    Raises DataError where there is no image, one cannot be read, has other axes than the patch or is smaller.
    """

    def __init__(
        self,
        source: str | Path | Sequence[str | Path],
        patch_size: Sequence[int],
        *,
        sequences: Sequence[str] = (),
        channels: int = 1,
        channel: str | None = None,
        time_as_depth: bool = False,
        seed: int = 0,
        windows: Sequence[Window] = (),
        gamma: float = 0.5,
        length: int = _MANY,
    ):
        self.patch_size = tuple(int(n) for n in patch_size)
        if len(self.patch_size) not in (2, 3) or min(self.patch_size) < 1:
            raise ValueError(f"patch_size must be (Y, X) or (Z, Y, X) of at least 1 pixel each, got {patch_size}")
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        self.paths, self.images = read_scenes(
            source, sequences=sequences, channels=channels, channel=channel, time_as_depth=time_as_depth
        )
        for path, image in zip(self.paths, self.images, strict=True):
            _check(path, image, self.patch_size)
        self.seed, self.length = seed, length
        fitted = windows or [fit_window([image[c] for image in self.images], gamma) for c in range(channels)]
        self.windows = list(fitted)
        self._corners = [_corners(image[0], self.patch_size) for image in self.images]
        self._ends = np.cumsum([np.prod(corners, dtype=np.int64) for corners in self._corners])
        digest = hashlib.sha256(repr((self.patch_size, seed, self.windows, length)).encode())
        for image in self.images:
            digest.update(repr((image.shape, image.dtype)).encode())
            digest.update(np.ascontiguousarray(image).data)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        return {"image": torch.from_numpy(np.stack([self._patch(int(index)) for index in indices]))}

    def place(self, index: int) -> tuple[int, tuple[slice, ...]]:
        """Where patch `index` lies: the number of its image in `paths`, and its region there."""
        at = int(stream(self.seed, "patch", index).integers(self._ends[-1]))
        number = int(np.searchsorted(self._ends, at, side="right"))
        first = int(self._ends[number - 1]) if number else 0
        corner = np.unravel_index(at - first, self._corners[number])
        return number, tuple(slice(int(c), int(c) + n) for c, n in zip(corner, self.patch_size, strict=True))

    def _patch(self, index: int) -> Array:
        number, region = self.place(index)
        image = self.images[number]
        return np.stack([2 * w.stretch(one[region]) - 1 for w, one in zip(self.windows, image, strict=True)])


def fit_window(images: Sequence[Array], gamma: float = 0.5) -> Window:
    """The window from the dark end of images, all but a thousandth of their voxels, to the bright one of all but the
    brightest twentieth of them.

    Raises DataError for images without contrast.
    """
    some = [image.ravel()[:: max(image.size // _LOOKED_AT, 1)] for image in images]
    low = float(np.mean([np.quantile(values, 0.001) for values in some]))
    high = float(np.quantile([np.quantile(values, 0.9995) for values in some], 0.95))
    if not high > low:
        raise DataError(f"the images have no contrast: all their voxels are {low:g}; or give a window")
    return Window(low=low, high=high, gamma=gamma)


def _check(path: Path, image: Array, patch_size: tuple[int, ...]) -> None:
    shape = image.shape[1:]
    if len(shape) != len(patch_size):
        raise DataError(f"{path}: of shape {shape}, for patches of {patch_size}: give as many axes as it has")
    if any(have < want for have, want in zip(shape, patch_size, strict=True)):
        raise DataError(f"{path}: of shape {shape}, smaller than a patch of {patch_size}: make patch_size smaller")


def _corners(image: Array, patch_size: tuple[int, ...]) -> tuple[int, ...]:
    """How many places along each axis a patch can begin at."""
    return tuple(have - want + 1 for have, want in zip(image.shape, patch_size, strict=True))
