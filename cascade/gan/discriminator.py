"""The discriminator of patches that judges whole images, in 2D and 3D."""

import itertools
from typing import Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch.nn import functional as F

Norm = Literal["none", "instance"]
_SLOPE = 0.2


class PatchDiscriminatorOutput(BaseOutput):
    """logits: (B, 1, *patches), above 0 where a patch is taken for real."""

    logits: torch.Tensor


class PatchDiscriminator(ModelMixin, ConfigMixin):
    """Strided convolutions that judge each patch of an image by itself (PatchGAN, Isola et al., CVPR 2017), told where
    in the specimen it lies.

    Args:
        dimensions: 2 or 3, axes of the images.
        in_channels: of an image and what it is judged with: 2 with f_pos, 1 without.
        block_out_channels: features of each level, each half as fine as the one before; the paper's by default.
        norm: "instance" between the levels, or "none", which penalties on gradients go with.
        detail_gain: how many times stronger the image's detail, what differs from the mean of the pixels around, is
            shown beside the image; 0 for not at all, as in the paper. Camera noise is a few hundredths of the window,
            and for long goes unnoticed beside what is bright and dark.

    >>> judge = PatchDiscriminator(dimensions=2, block_out_channels=(8, 16, 16))
    >>> judge(torch.zeros(3, 1, 32, 48), torch.zeros(3, 1, 32, 48)).logits.shape
    torch.Size([3, 1, 4, 6])
    """

    @register_to_config
    def __init__(
        self,
        dimensions: int = 2,
        in_channels: int = 2,
        block_out_channels: tuple[int, ...] = (64, 128, 256, 512, 512),
        norm: Norm = "none",
        detail_gain: float = 0.0,
    ):
        super().__init__()
        if dimensions not in (2, 3):
            raise ValueError(f"dimensions must be 2 or 3, got {dimensions}")
        if norm not in ("none", "instance"):
            raise ValueError(f'norm must be "none" or "instance", got {norm!r}')
        if detail_gain < 0:
            raise ValueError(f"detail_gain must be 0 or more, got {detail_gain}")
        conv = torch.nn.Conv2d if dimensions == 2 else torch.nn.Conv3d
        normal = torch.nn.InstanceNorm2d if dimensions == 2 else torch.nn.InstanceNorm3d
        widths = [int(width) for width in block_out_channels]
        layers: list[torch.nn.Module] = []
        for number, (given, made) in enumerate(itertools.pairwise([in_channels + (detail_gain > 0), *widths])):
            layers.append(conv(given, made, 4, stride=2, padding=1))
            if norm == "instance" and number:
                layers.append(normal(made, affine=True))
            layers.append(torch.nn.LeakyReLU(_SLOPE))
        self.layers = torch.nn.Sequential(*layers, conv(widths[-1], 1, 3, padding=1))

    @property
    def factor(self) -> int:
        """Pixels of an edge that become one patch: what is judged is at least as large."""
        return int(2 ** len(self.config.block_out_channels))

    def forward(
        self, image: torch.Tensor, position: torch.Tensor | None = None, return_dict: bool = True
    ) -> PatchDiscriminatorOutput | tuple[torch.Tensor]:
        """Judge (B, C, *size) images in [−1, 1] at (B, 1, *size) positions.

        Raises ValueError for images smaller than `factor`.
        """
        if min(image.shape[2:]) < self.factor:
            raise ValueError(f"images of {tuple(image.shape[2:])} are too small to be judged: at least {self.factor}")
        shown = [image] if position is None else [image, position]
        if self.config.detail_gain:
            shown.append(self.config.detail_gain * detail(image))
        logits = self.layers(torch.cat(shown, 1))
        return PatchDiscriminatorOutput(logits=logits) if return_dict else (logits,)


def detail(images: torch.Tensor) -> torch.Tensor:
    """What of (B, C, *size) images differs from the mean of the pixels around, three along each axis.

    >>> detail(torch.tensor([[[[0.0, 0, 9, 0]] * 3]]))[0, 0, 1].tolist()
    [0.0, -3.0, 6.0, -3.0]
    """
    axes = images.ndim - 2
    pool = F.avg_pool2d if axes == 2 else F.avg_pool3d
    return images - pool(F.pad(images, (1, 1) * axes, mode="replicate"), 3, 1)
