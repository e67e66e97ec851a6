"""Where sets of images lie beside each other, two dimensions of what wavelet scattering sees of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from cascade.evaluation.scattering import scattering, scattering_features

Array = npt.NDArray[Any]

_SIDE = 64  # pixels of the patches
_COLOURS = ["#3b76af", "#8a8a8a", "#d1605e", "#5aa05a", "#8764a8"]


def feature_map(sets: Mapping[str, Sequence[Array]]) -> dict[str, npt.NDArray[np.float64]]:
    """Points (N, 2), one for each patch of planes (Y, X), by set: the two principal axes of all patches' scattering
    features, in units of their spread among the patches of the first set (DDPM from sketches, journal, S1 Fig., by
    principal axes, which can be read as distances, instead of t-SNE).

    Planes are cut into patches of 64² pixels side by side, smaller ones are one patch of their smaller side. Raises
    ValueError for sets with fewer than two patches in all.

    >>> rng = np.random.default_rng(0)
    >>> found = feature_map({"real": [rng.normal(300, 9, (128, 128))], "flat": [rng.normal(300, 1, (64, 64))]})
    >>> [len(points) for points in found.values()]
    [4, 1]
    """
    side = min(_SIDE, *(min(plane.shape) for planes in sets.values() for plane in planes))
    seen = {name: scattering(np.concatenate([_patches(one, side) for one in planes])) for name, planes in sets.items()}
    if sum(map(len, seen.values())) < 2:
        raise ValueError("the sets have a single patch in all: two are needed to lie beside each other")
    first = next(iter(seen.values()))
    features = {name: scattering_features(one, first) for name, one in seen.items()}
    centre = np.concatenate(list(features.values())).mean(0)
    _, _, axes = np.linalg.svd(np.concatenate(list(features.values())) - centre, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2].sum(1, keepdims=True))  # the same way round whatever the library
    return {name: (one - centre) @ axes.T for name, one in features.items()}


def draw_feature_map(sets: Mapping[str, Sequence[Array]]) -> Figure:
    """The points as a figure, a colour and a name for each set."""
    figure = Figure(figsize=(5, 4))
    axes = figure.subplots()
    for (name, points), colour in zip(feature_map(sets).items(), _COLOURS * len(sets), strict=False):
        axes.plot(points[:, 0], points[:, -1], "o", ms=4, alpha=0.6, color=colour, label=name)
    axes.set_xlabel("first principal axis of the scattering features", fontsize=8)
    axes.set_ylabel("second", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=8)
    figure.tight_layout()
    return figure


def _patches(plane: Array, side: int) -> Array:
    """(N, side, side), side by side."""
    rows, columns = (n // side for n in plane.shape)
    cut = plane[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return cut.swapaxes(1, 2).reshape(-1, side, side)
