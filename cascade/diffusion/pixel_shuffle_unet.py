"""The pixel-shuffle U-Net that paints whole scenes, in 2D and 3D."""

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.utils import BaseOutput
from torch.nn import functional as F

from cascade.diffusion.tiles import part_of, reflected

Norm = Literal["channel", "instance"]


@dataclass
class PixelShuffleUNetOutput(BaseOutput):
    """sample: (B, out_channels, *size), what the scheduler's prediction_type asks for."""

    sample: torch.Tensor


class PixelShuffleUNet(ModelMixin, ConfigMixin):
    """A U-Net with strided convolutions down and pixel shuffles (Shi et al., CVPR 2016) up, told the time in every
    block (DDPM from sketches, journal, "Network architecture").

    It has no attention and takes any size: pixels that do not fill the coarsest level are reflected at the far ends.

    Args:
        dimensions: 2 or 3, axes of the images.
        in_channels: of the images.
        out_channels: of what is predicted.
        block_out_channels: features of each level, each half as fine as the one before.
        stem: pixels of an edge that are put into the channels before the first level, 1 for none (as in the paper); 2
            halves every level and costs a quarter.
        norm: "instance", over all pixels of a channel (as in the paper), so that what a pixel becomes depends on the
            whole tile; or "channel", over the channels of each pixel (Karras et al., CVPR 2024), so that it depends on
            what is within `reach` only, and an image may be put together from tiles.
        timed: whether the blocks are told the time; without, `timestep` is not looked at.

    >>> unet = PixelShuffleUNet(dimensions=2, block_out_channels=(8, 16))
    >>> unet(torch.zeros(1, 1, 21, 30), torch.tensor([5])).sample.shape
    torch.Size([1, 1, 21, 30])
    >>> unet.reach
    12
    """

    @register_to_config
    def __init__(
        self,
        dimensions: int = 2,
        in_channels: int = 1,
        out_channels: int = 1,
        block_out_channels: tuple[int, ...] = (16, 32, 64, 128),
        stem: int = 1,
        norm: Norm = "channel",
        timed: bool = True,
    ):
        super().__init__()
        if dimensions not in (2, 3):
            raise ValueError(f"dimensions must be 2 or 3, got {dimensions}")
        widths = tuple(int(width) for width in block_out_channels)
        time_width = 4 * widths[0] if timed else 0
        self.time: torch.nn.Module | None = None
        if timed:
            self.time = Timesteps(2 * widths[0], flip_sin_to_cos=True, downscale_freq_shift=0)
            self.time_embedding = TimestepEmbedding(2 * widths[0], time_width, out_dim=time_width)
        conv, deep = _convolution(dimensions), stem**dimensions
        self.first = conv(in_channels * deep, widths[0], 3, padding=1)
        pairs = list(itertools.pairwise(widths))
        self.down = torch.nn.ModuleList(_Block(a, a, time_width, dimensions, norm) for a in widths[:-1])
        self.smaller = torch.nn.ModuleList(conv(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.middle = _Block(widths[-1], widths[-1], time_width, dimensions, norm)
        self.larger = torch.nn.ModuleList(conv(b, a * 2**dimensions, 1) for a, b in pairs[::-1])
        self.up = torch.nn.ModuleList(_Block(2 * a, a, time_width, dimensions, norm) for a in widths[-2::-1])
        self.last = conv(widths[0], out_channels * deep, 3, padding=1)
        torch.nn.init.zeros_(self.last.weight)
        torch.nn.init.zeros_(self.last.bias)

    @property
    def factor(self) -> int:
        """Pixels of an edge that one of the coarsest level stands for: sizes and tiles are multiples of it."""
        return int(self.config.stem * 2 ** (len(self.config.block_out_channels) - 1))

    @property
    def reach(self) -> int:
        """Pixels to either side that what a pixel becomes can depend on, with channel norm: so many towards the image's
        beginning, fewer towards its end."""
        coarsest = 2 ** (len(self.config.block_out_channels) - 1)
        below = coarsest - 1  # the sum of the pixels of the levels above the coarsest: 1 + 2 + 4 …
        blocks = 2 * 2 * below + 2 * coarsest  # two convolutions each, down, up and in the middle
        strided, shuffled = below, below  # a shuffle puts a pixel up to one beside where it is computed
        return int(self.config.stem * (blocks + strided + shuffled + 2) + self.config.stem - 1)

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor | float | None = None, return_dict: bool = True
    ) -> PixelShuffleUNetOutput | tuple[torch.Tensor]:
        """Predict for (B, in_channels, *size) images at `timestep`, (B,) or one for all."""
        size = sample.shape[2:]
        hidden = pixel_unshuffle(reflected(sample, self.factor), self.config.stem)
        time = self._time(timestep, sample)
        hidden = self.first(hidden)
        kept = []
        for block, smaller in zip(self.down, self.smaller, strict=True):
            hidden = block(hidden, time)
            kept.append(hidden)
            hidden = smaller(hidden)
        hidden = self.middle(hidden, time)
        for larger, block in zip(self.larger, self.up, strict=True):
            hidden = block(torch.cat([pixel_shuffle(larger(hidden), 2), kept.pop()], 1), time)
        made = pixel_shuffle(self.last(hidden), self.config.stem)[part_of([0] * len(size), size)]
        return PixelShuffleUNetOutput(sample=made) if return_dict else (made,)

    def _time(self, timestep: torch.Tensor | float | None, sample: torch.Tensor) -> torch.Tensor | None:
        if self.time is None:
            return None
        if timestep is None:
            raise ValueError("this network is told the time: give timestep")
        steps = torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(len(sample))
        return self.time_embedding(self.time(steps).to(sample.dtype))


class _Block(torch.nn.Module):
    """Two convolutions, each normalised, with the time between them and a way around both."""

    def __init__(self, given: int, made: int, time_width: int, dimensions: int, norm: Norm):
        super().__init__()
        conv = _convolution(dimensions)
        self.convolutions = torch.nn.ModuleList([conv(given, made, 3, padding=1), conv(made, made, 3, padding=1)])
        self.norms = torch.nn.ModuleList([_norm(norm, made, dimensions) for _ in range(2)])
        self.activations = torch.nn.ModuleList([torch.nn.PReLU(made) for _ in range(2)])
        self.time = torch.nn.Linear(time_width, 2 * made) if time_width else None
        self.around = conv(given, made, 1) if given != made else torch.nn.Identity()

    def forward(self, hidden: torch.Tensor, time: torch.Tensor | None) -> torch.Tensor:
        found = self.norms[0](self.convolutions[0](hidden))
        if self.time is not None and time is not None:
            scale, shift = self.time(time).reshape(len(hidden), -1, *(1,) * (hidden.ndim - 2)).chunk(2, 1)
            found = found * (1 + scale) + shift
        found = self.norms[1](self.convolutions[1](self.activations[0](found)))
        return self.activations[1](found) + self.around(hidden)


class _ChannelNorm(torch.nn.Module):
    """Every pixel's channels to a mean square of one, and to a strength of each channel's own."""

    def __init__(self, channels: int, dimensions: int):
        super().__init__()
        self.strength = torch.nn.Parameter(torch.ones(channels, *(1,) * dimensions))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * (torch.rsqrt(hidden.square().mean(1, keepdim=True) + 1e-5) * self.strength)


def _norm(kind: Norm, channels: int, dimensions: int) -> torch.nn.Module:
    if kind == "channel":
        return _ChannelNorm(channels, dimensions)
    if kind == "instance":
        found = (torch.nn.InstanceNorm2d, torch.nn.InstanceNorm3d)[dimensions - 2](channels, affine=True)
        return found
    raise ValueError(f'norm must be "channel" or "instance", got {kind!r}')


def _convolution(dimensions: int) -> Any:
    return torch.nn.Conv2d if dimensions == 2 else torch.nn.Conv3d


def pixel_shuffle(hidden: torch.Tensor, factor: int) -> torch.Tensor:
    """Channels to pixels: (B, C · factorᴰ, *size) -> (B, C, *(factor · size)), for any number of axes D.

    >>> planes = torch.arange(16.0).reshape(1, 4, 2, 2)
    >>> bool((pixel_shuffle(planes, 2) == torch.nn.functional.pixel_shuffle(planes, 2)).all())
    True
    """
    if factor == 1:
        return hidden
    if hidden.ndim == 4:
        return F.pixel_shuffle(hidden, factor)
    count, channels, *size = hidden.shape
    axes = len(size)
    apart = hidden.reshape(count, channels // factor**axes, *(factor,) * axes, *size)
    order = [0, 1] + [axis for d in range(axes) for axis in (2 + axes + d, 2 + d)]
    return apart.permute(order).reshape(count, -1, *(factor * n for n in size))


def pixel_unshuffle(sample: torch.Tensor, factor: int) -> torch.Tensor:
    """Pixels to channels, the inverse of `pixel_shuffle`."""
    if factor == 1:
        return sample
    if sample.ndim == 4:
        return F.pixel_unshuffle(sample, factor)
    count, channels, *size = sample.shape
    axes = len(size)
    apart = sample.reshape(count, channels, *(side for n in size for side in (n // factor, factor)))
    order = [0, 1, *(3 + 2 * d for d in range(axes)), *(2 + 2 * d for d in range(axes))]
    return apart.permute(order).reshape(count, -1, *(n // factor for n in size))
