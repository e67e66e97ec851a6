"""The two networks of the conditional GAN, with as many channels as they are told things."""

from collections.abc import Mapping
from typing import Any

import torch

from cascade.diffusion.pixel_shuffle_unet import PixelShuffleUNet
from cascade.gan.discriminator import PatchDiscriminator

_STRENGTH = 0.1  # of the noise at first, of the window's half
_LEAK = 0.1  # of the gradient beyond the window


def new_generator(dimensions: int, position: bool, noise: bool, arguments: Mapping[str, Any]) -> PixelShuffleUNet:
    """A generator: a pixel-shuffle U-Net that is told an annotation, and its position and noise where it should be;
    then it says how strong noise is, too.

    >>> new_generator(2, True, False, {"block_out_channels": (4, 8)}).config.in_channels
    2
    """
    own: dict[str, Any] = {"dimensions": dimensions, "in_channels": 1 + position + noise, "timed": False}
    own["out_channels"] = 1 + noise
    return PixelShuffleUNet(**own, **arguments)


def painted(network: torch.nn.Module, told: torch.Tensor) -> torch.Tensor:
    """What a generator makes of (B, C, *size) of what it is told: (B, 1, *size).

    Of a network of two channels the first is light and the second the logarithm of how strong the noise, the last that
    it is told, comes upon it. Where it had to let the noise through its layers by itself, it did not in 2,400 steps: a
    discriminator asks for the noise's energy, which to begin with changes with the square of the little that comes
    through. Both are blurred by [1, 2, 1] / 4 along each axis, as by a lens: that leaves nothing of the pattern of
    every other pixel that pixel shuffles make, which else stands in for noise. All is cut to [−1, 1], as real images
    are by their window: a dark background's noise has one side only.
    """
    made: torch.Tensor = network(told).sample
    if made.shape[1] == 1:
        return made
    light, strength = blurred(made).split(1, 1)
    return cut(light + _STRENGTH * strength.clamp(-6, 3).exp() * told[:, -1:])


def cut(images: torch.Tensor) -> torch.Tensor:
    """Images to [−1, 1]; a tenth of the gradient still comes through what was beyond, so that it can come back.

    >>> beyond = torch.tensor([-3.0, 0.5], requires_grad=True)
    >>> cut(beyond).sum().backward()
    >>> cut(beyond).tolist(), beyond.grad.tolist()
    ([-1.0, 0.5], [0.10000000149011612, 1.0])
    """
    inside = images.clamp(-1, 1)
    beyond = _LEAK * (images - inside)
    return inside + beyond - beyond.detach()


def blurred(images: torch.Tensor) -> torch.Tensor:
    """(B, C, *size) images by [1, 2, 1] / 4 along each axis, their edges repeated.

    >>> blurred(torch.tensor([[[0.0, 4.0, 0.0, 4.0]]])).tolist()
    [[[1.0, 2.0, 2.0, 3.0]]]
    """
    for axis in range(2, images.ndim):
        size = images.shape[axis]
        ends = images.narrow(axis, 0, 1), images.narrow(axis, size - 1, 1)
        longer = torch.cat([ends[0], images, ends[1]], axis)
        images = 0.25 * longer.narrow(axis, 0, size) + 0.5 * images + 0.25 * longer.narrow(axis, 2, size)
    return images


def new_discriminator(dimensions: int, position: bool, arguments: Mapping[str, Any]) -> PatchDiscriminator:
    """A discriminator, of images and their positions where it should be told them."""
    return PatchDiscriminator(dimensions=dimensions, in_channels=1 + position, **arguments)
