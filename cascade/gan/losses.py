"""Objectives of the conditional GAN, as modules whose forward(batch, generator) gives the scalar loss."""

from collections.abc import Callable
from typing import Literal

import torch
from torch.nn import functional as F

from cascade.gan.augmentation import AdaptiveAugmentation
from cascade.gan.collapse import Watch
from cascade.gan.networks import painted

Batch = dict[str, torch.Tensor]
Encode = Callable[[Batch, torch.Generator], Batch]
Objective = Literal["paper", "modern"]


class GeneratorLoss(torch.nn.Module):
    """What the generator G is trained with: to be taken for real, to give real images back (identity), and, where a
    batch holds pairs, to be near to the real image.

    ‖i − G(i)‖₁ is the paper's identity loss; ‖i − G(m)‖₁ that of pix2pix (Isola et al., CVPR 2017, Eq. 3), which needs
    the image i of annotation m. pair_box_px: both are averaged over boxes of so many pixels before, since a difference
    of single pixels is least where G makes no noise at all. encode(batch, generator) gives `annotation`, `image` and,
    unless G is told none, `annotation_position` and `image_position`, each (B, 1, *size); D sees the last. noise:
    whether G is given a channel of white noise, without which it makes of an annotation one image only; of an image
    that it is to give back it is given none, or it would learn to leave it out.
    """

    def __init__(
        self,
        generator: torch.nn.Module,
        discriminator: torch.nn.Module,
        encode: Encode,
        augmentation: AdaptiveAugmentation | None,
        *,
        objective: Objective,
        identity_weight: float,
        pair_weight: float,
        noise: bool,
        pair_box_px: int = 1,
    ):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.pair_box_px = pair_box_px
        self.encode, self.augmentation, self.objective, self.noise = encode, augmentation, objective, noise
        self.identity_weight, self.pair_weight = identity_weight, pair_weight

    def forward(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        batch = self.encode(batch, generator)
        image, position = batch["image"], batch.get("image_position")
        made = generated(self.generator, batch["annotation"], batch.get("annotation_position"), generator, self.noise)
        fake = judged(self.discriminator, made, batch.get("annotation_position"), self.augmentation, generator)
        if self.objective == "paper":
            loss = F.softplus(-fake).mean()
        else:
            with torch.no_grad():
                real = judged(self.discriminator, image, position, self.augmentation, generator)
            loss = relativistic(fake, real)
        if self.pair_weight:
            near, real_near = (averaged(one.float(), self.pair_box_px) for one in (made, image))
            loss = loss + self.pair_weight * F.l1_loss(near, real_near)
        if self.identity_weight:
            back = generated(self.generator, image, position, generator, self.noise, strength=0)
            loss = loss + self.identity_weight * F.l1_loss(back.float(), image.float())
        return loss


class DiscriminatorLoss(torch.nn.Module):
    """What the discriminator D is trained with.

    "paper": −½ [log D(i) + log(1 − D(G(m)))] (Isola et al., CVPR 2017, halved as there); "modern": relativistic pairing
    with penalties γ/2 on the gradients at real (R1) and made (R2) images (R3GAN, Huang et al., NeurIPS 2024, Eq. 2, 4).
    watch: is told how D does. The augmentation is told D(i), in pairs D(i) − D(G(m)), of which only the sign says
    anything.
    """

    def __init__(
        self,
        generator: torch.nn.Module,
        discriminator: torch.nn.Module,
        encode: Encode,
        augmentation: AdaptiveAugmentation | None,
        watch: Watch,
        *,
        objective: Objective,
        gradient_penalty: float,
        noise: bool,
    ):
        super().__init__()
        self.generator, self.discriminator, self.watch = generator, discriminator, watch
        self.encode, self.augmentation, self.objective, self.noise = encode, augmentation, objective, noise
        self.gradient_penalty = gradient_penalty

    def forward(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        batch = self.encode(batch, generator)
        image, position = batch["image"], batch.get("annotation_position")
        with torch.no_grad():
            made = generated(self.generator, batch["annotation"], position, generator, self.noise)
        if self.augmentation is not None:
            shown, faked = (self.augmentation(one, generator) for one in (image, made))
        else:
            shown, faked = image, made
        penalised = self.objective == "modern" and self.gradient_penalty > 0
        if penalised:
            shown, faked = (one.detach().requires_grad_(True) for one in (shown, faked))
        real = judged(self.discriminator, shown, batch.get("image_position"), None, generator)
        fake = judged(self.discriminator, faked, position, None, generator)
        pairs = self.objective == "modern"
        self.watch.see(real, fake, image, made, pairs=pairs)
        if self.augmentation is not None:
            self.augmentation.observe(real - fake if pairs else real)
        if not pairs:
            return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
        loss = relativistic(real, fake)
        if penalised:
            both = gradient_penalty(shown, real) + gradient_penalty(faked, fake)
            loss = loss + 0.5 * self.gradient_penalty * both
        return loss


def generated(
    network: torch.nn.Module,
    condition: torch.Tensor,
    position: torch.Tensor | None,
    generator: torch.Generator,
    noise: bool,
    *,
    strength: float = 1.0,
) -> torch.Tensor:
    """G of (B, 1, *size) conditions. strength: the noise's standard deviation, where it is given any."""
    inputs = [condition] if position is None else [condition, position]
    if noise:
        drawn = torch.randn(condition.shape, generator=generator, device=condition.device, dtype=condition.dtype)
        inputs.append(strength * drawn)
    return painted(network, torch.cat(inputs, 1))


def judged(
    network: torch.nn.Module,
    image: torch.Tensor,
    position: torch.Tensor | None,
    augmentation: AdaptiveAugmentation | None,
    generator: torch.Generator,
) -> torch.Tensor:
    """D of images that are altered before, float32 logits of each patch."""
    shown = image if augmentation is None else augmentation(image, generator)
    logits: torch.Tensor = network(shown, position).logits
    return logits.float()


def averaged(images: torch.Tensor, box_px: int) -> torch.Tensor:
    """Means of (B, C, *size) images over boxes of so many pixels at every place; of a smaller image over its edge.

    >>> averaged(torch.arange(5.0).view(1, 1, 1, 5), 3).flatten().tolist()
    [1.0, 2.0, 3.0]
    """
    size = [min(box_px, n) for n in images.shape[2:]]
    pool = F.avg_pool2d if len(size) == 2 else F.avg_pool3d
    return pool(images, size, stride=1)


def relativistic(better: torch.Tensor, worse: torch.Tensor) -> torch.Tensor:
    """−log σ(better − worse), the mean over patches (Jolicoeur-Martineau, ICLR 2019).

    >>> round(relativistic(torch.zeros(3), torch.zeros(3)).item(), 4)  # log 2: it cannot tell them apart
    0.6931
    """
    return F.softplus(worse - better).mean()


def gradient_penalty(image: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """‖∇ D‖² at images that logits were made of, per patch that is judged, the mean over the batch (R1, Mescheder et
    al., ICML 2018)."""
    (slope,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
    patches = logits[0].numel()
    return slope.float().square().flatten(1).sum(1).mean() / patches
