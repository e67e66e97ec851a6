"""Sets to train on that are made of real and synthetic images."""

from cascade.evaluation.labelled import LabelledImage, plane_count
from cascade.evenly import evenly


def joined(real: list[LabelledImage], synthetic: list[LabelledImage]) -> list[LabelledImage]:
    """Both, the smaller one repeated so that about as many planes of either are trained on: some annotated slices
    would be lost among the planes of whole stacks."""
    planes = [sum(map(plane_count, images)) for images in (real, synthetic)]
    repeats = [max(round(max(planes) / max(count, 1)), 1) for count in planes]
    return repeats[0] * real + repeats[1] * synthetic


def mixture(real: list[LabelledImage], synthetic: list[LabelledImage], share: float) -> list[LabelledImage]:
    """As many images as the smaller set has, `share` of them synthetic, each part drawn evenly from its set.

    Raises ValueError for a share outside [0, 1], or where one set holds planes and the other stacks: a plane and a
    stack are not as much to learn from.
    """
    if real[0].image.ndim != synthetic[0].image.ndim:
        raise ValueError("mixtures need sets of one kind: the real images are single slices, the synthetic ones stacks")
    if not 0 <= share <= 1:
        raise ValueError(f"the share of synthetic images must be in [0, 1], got {share}")
    count = min(len(real), len(synthetic))
    made = round(share * count)
    parts = ((real, count - made), (synthetic, made))
    return [images[n] for images, k in parts for n in evenly(len(images), k)]
