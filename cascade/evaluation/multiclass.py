"""A segmenter of tissue: a small U-Net that tells background, membranes and centroids, and cells between membranes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn import functional as F

from cascade.evaluation.labelled import LabelledImage
from cascade.evaluation.tissue import CELL_VOXELS, CLASSES, classes_of, instances, typical_voxel
from cascade.geometry.resample import resample
from cascade.processor import best_device, fast_bfloat16
from cascade.rng import stream

if TYPE_CHECKING:
    from cascade.diffusion.pixel_shuffle_unet import PixelShuffleUNet


@dataclass(frozen=True)
class MultiClassSettings:
    """How the network is trained. width: channels by level, the first half as fine as the grid. steps of batch_size
    patches, `patch` voxels long, of a grid of equal spacing in which a typical cell is `CELL_VOXELS` across; smaller
    images are mirrored at their far ends. Segmented are tiles that are `tile` long, and share `overlap` with the
    next."""

    width: tuple[int, ...] = (12, 24, 48)
    steps: int = 600
    batch_size: int = 1
    patch: int = 40
    learning_rate: float = 0.01
    tile: int = 96
    overlap: int = 32


AROUND = CELL_VOXELS / 4
"""How far, as a Gaussian's standard deviation in voxels, the surroundings reach to which light is relative."""

PLANES = MultiClassSettings(batch_size=8, patch=128, tile=512, overlap=64)
STACKS = MultiClassSettings()


@dataclass(frozen=True)
class MultiClassSegmenter:
    """A trained network, and the side in µm of the voxels that it was trained on; called, it gives an image's cells.
    diameter_px: across in x of the cells to be found, None where they are as large as those trained on."""

    net: "PixelShuffleUNet"
    settings: MultiClassSettings
    trained_voxel_um: float
    diameter_px: float | None = None

    def __call__(self, one: LabelledImage, /, *, cellprob_threshold: float | None = None) -> npt.NDArray[Any]:
        if cellprob_threshold is not None:
            raise ValueError("cellprob_threshold is Cellpose's: this segmenter has none")
        return instances(self.probabilities(one), one.spacing_um, self.voxel_um(one))

    def voxel_um(self, one: LabelledImage) -> float:
        """Of which a cell to be found is `CELL_VOXELS` across."""
        if self.diameter_px is None:
            return self.trained_voxel_um
        return self.diameter_px * one.spacing_um[-1] / CELL_VOXELS

    @torch.inference_mode()
    def probabilities(self, one: LabelledImage) -> npt.NDArray[Any]:
        """Of each class in each voxel of the image, (3, *shape) in [0, 1]; they need not add up to one, the inside of
        cells is of no class."""
        from cascade.diffusion.tiles import in_tiles

        if one.image.ndim != self.net.config.dimensions:
            raise ValueError(
                f"a {one.image.ndim}D image for a segmenter that was trained on {self.net.config.dimensions}D ones"
            )
        settings, axes = self.settings, one.image.ndim
        device = next(self.net.parameters()).device
        image = torch.from_numpy(relative_light(one.image, one.spacing_um, self.voxel_um(one))).to(device)
        tile = max(settings.tile // self.net.factor, 1) * self.net.factor
        made = in_tiles(self._predict, image[None, None], (tile,) * axes, settings.overlap, align=self.net.factor)
        extent = np.array(one.image.shape) * one.spacing_um
        grid, own = extent / np.array(image.shape), extent / np.array(one.image.shape)
        return np.stack([resample(part, grid, own) for part in made[0].cpu().numpy()])

    def _predict(self, sample: torch.Tensor) -> torch.Tensor:
        with torch.autocast(sample.device.type, torch.bfloat16, enabled=fast_bfloat16(sample.device)):
            return self.net(sample).sample.float().sigmoid()


def multiclass(
    data: list[LabelledImage], settings: MultiClassSettings, seed: int, *, diameter_px: float | None = None
) -> tuple[MultiClassSegmenter, "PixelShuffleUNet"]:
    """Train on annotated images, as `cellpose3` does; planes or stacks, whichever their voxel sizes.

    Brightness is relative to that of the surroundings. diameter_px: across in x of the cells to be found, where they
    are not as large as those trained on. Raises ValueError for planes among stacks, labels of fewer than two cells, and
    labels without a border, which have no membrane.
    """
    from cascade.diffusion.pixel_shuffle_unet import PixelShuffleUNet

    axes = {one.image.ndim for one in data}
    if len(axes) != 1:
        raise ValueError("a segmenter of tissue learns from planes alone, or from stacks alone: give sets of one kind")
    dimensions = axes.pop()
    voxel = typical_voxel(data)
    grid = [(relative_light(one.image, one.spacing_um, voxel), _classes_on_grid(one, voxel)) for one in data]
    if not any(classes[1].any() for _, classes in grid):
        raise ValueError("the labels have no membrane: give images in which cells touch others, or background")
    device = torch.device(best_device())
    with torch.random.fork_rng(devices=[]):  # layers are initialised from this stream, which is left as it was
        torch.default_generator.manual_seed(seed)
        net = PixelShuffleUNet(
            dimensions=dimensions, out_channels=len(CLASSES), block_out_channels=settings.width, stem=2, timed=False
        ).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, settings.steps + 1, pct_start=0.2)
    rng = stream(seed, "patches")
    for _ in range(settings.steps):
        patches = [_patch(grid, settings.patch, rng) for _ in range(settings.batch_size)]
        images, classes = (torch.from_numpy(np.stack(part)).to(device) for part in zip(*patches, strict=True))
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device)):
            logits = net(images[:, None]).sample
        loss = class_loss(logits.float(), classes.float())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return MultiClassSegmenter(net.eval(), settings, voxel, diameter_px), net


def class_loss(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy, and one minus the soft Dice of each class that the batch shows, which counts a rare class
    as much as a frequent one; both (B, C, *size)."""
    probabilities = logits.sigmoid()
    over = [0, *range(2, logits.ndim)]
    shown = classes.sum(over)
    dice = 2 * (probabilities * classes).sum(over) / (probabilities.sum(over) + shown).clamp(min=1e-6)
    there = shown > 0
    return F.binary_cross_entropy_with_logits(logits, classes) + (1 - dice)[there].sum() / max(int(there.sum()), 1)


def relative_light(image: npt.NDArray[Any], spacing_um: tuple[float, ...], voxel_um: float) -> npt.NDArray[np.float32]:
    """An image with equal spacing, its light above the first percentile over that of its surroundings, so that dim
    membranes look like bright ones; 0.5 where they are the same."""
    light = resample(image.astype(np.float32), spacing_um, (voxel_um,) * image.ndim)
    light = np.maximum(light - np.percentile(light, 1), 0)
    around = ndimage.gaussian_filter(light, AROUND) + 0.05 * max(float(light.mean()), 1e-6)
    return (0.5 * light / around).clip(0, 3).astype(np.float32)


def _classes_on_grid(one: LabelledImage, voxel_um: float) -> npt.NDArray[Any]:
    labels = resample(one.labels, one.spacing_um, (voxel_um,) * one.labels.ndim, order=0)
    return classes_of(labels, (voxel_um,) * labels.ndim, voxel_um)


def _patch(
    grid: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]], side: int, rng: np.random.Generator
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """A random part of a random image and its classes, turned about the optical axis, brighter or darker, noisier."""
    sizes = np.array([image.size for image, _ in grid], float)
    image, classes = grid[rng.choice(len(grid), p=sizes / sizes.sum())]
    corner = [int(rng.integers(max(n - side, 0) + 1)) for n in image.shape]
    part = tuple(slice(a, a + side) for a in corner)
    image, classes = image[part], classes[(slice(None), *part)]
    beyond = [(0, side - n) for n in image.shape]
    image, classes = np.pad(image, beyond, "symmetric"), np.pad(classes, [(0, 0), *beyond], "symmetric")
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    image, classes = (np.rot90(array, turns, (-2, -1)) for array in (image, classes))
    if flip:
        image, classes = image[..., ::-1], classes[..., ::-1]
    image = image * np.exp(rng.normal(0, 0.2)) + rng.normal(0, 0.1)
    image = image + rng.uniform(0, 0.1) * rng.standard_normal(image.shape)
    return image.astype(np.float32), classes.copy()
