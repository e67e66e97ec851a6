"""The two networks of the conditional GAN, with as many channels as they are told things."""

from collections.abc import Mapping
from typing import Any

from cascade.diffusion.pixel_shuffle_unet import PixelShuffleUNet
from cascade.gan.discriminator import PatchDiscriminator


def new_generator(dimensions: int, position: bool, noise: bool, arguments: Mapping[str, Any]) -> PixelShuffleUNet:
    """A generator: a pixel-shuffle U-Net that is told an annotation, and its position and noise where it should be.

    >>> new_generator(2, True, False, {"block_out_channels": (4, 8)}).config.in_channels
    2
    """
    own: dict[str, Any] = {"dimensions": dimensions, "in_channels": 1 + position + noise, "timed": False}
    return PixelShuffleUNet(**own, **arguments)


def new_discriminator(dimensions: int, position: bool, arguments: Mapping[str, Any]) -> PatchDiscriminator:
    """A discriminator, of images and their positions where it should be told them."""
    return PatchDiscriminator(dimensions=dimensions, in_channels=1 + position, **arguments)
