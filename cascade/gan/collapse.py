"""Notices a GAN that learns no more: a discriminator that always wins, samples that are all alike."""

import torch

_KEPT = 0.98  # of a running mean, with each batch
_FIRST = 100  # batches that are needed to say anything
_WON = 0.995  # share of patches that are told apart
_FLAT = 0.05  # of the variance of real images


class Watch:
    """Running means of the discriminator's accuracy and of the variance of samples over that of real images.

    >>> watch = Watch()
    >>> real, made = torch.rand(4, 1, 8, 8), torch.full((4, 1, 8, 8), 0.5)
    >>> for _ in range(100):
    ...     watch.see(torch.ones(4), -torch.ones(4), real, made)
    >>> watch.accuracy, watch.variance
    (1.0, 0.0)
    >>> len(watch.verdicts())
    2
    """

    def __init__(self) -> None:
        self._seen = 0
        self._accuracy: torch.Tensor | float = 0.0
        self._variance: torch.Tensor | float = 0.0

    @property
    def count(self) -> int:
        """Batches that it has seen."""
        return self._seen

    @property
    def accuracy(self) -> float:
        """Share of patches that the discriminator knows to be real or made; 0.5 where it guesses."""
        return float(self._accuracy)

    @property
    def variance(self) -> float:
        """Variance of samples over that of real images, each over all voxels of a batch."""
        return float(self._variance)

    def see(
        self, real: torch.Tensor, fake: torch.Tensor, image: torch.Tensor, made: torch.Tensor, *, pairs: bool = False
    ) -> None:
        """A batch: logits of real and of made images, and the images. pairs: only differences of logits count."""
        with torch.no_grad():
            right = (real > fake).float().mean() if pairs else 0.5 * ((real > 0).float() + (fake < 0).float()).mean()
            spread = made.float().var() / image.float().var().clamp(min=1e-8)
        kept = min(_KEPT, self._seen / (self._seen + 1))
        self._accuracy = kept * self._accuracy + (1 - kept) * right
        self._variance = kept * self._variance + (1 - kept) * spread
        self._seen += 1

    def verdicts(self) -> list[str]:
        """What is wrong, one line each; nothing as long as all is well, or too little was seen."""
        if self._seen < _FIRST:
            return []
        found = []
        if self.accuracy > _WON:
            found.append(
                f"the discriminator tells {self.accuracy:.1%} of patches apart, and the generator learns little from "
                "it any more: augment more, or lower discriminator_learning_rate"
            )
        if self.variance < _FLAT:
            found.append(
                f"collapse: samples vary {self.variance:.1%} as much as real images: go on from an older checkpoint "
                "with a lower learning_rate, or choose the modern objective"
            )
        return found
