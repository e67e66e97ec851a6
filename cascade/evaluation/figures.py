"""Figures of an evaluation: what was found after each training, and how real and synthetic images are distributed."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from cascade.evaluation.distribution import patches, radial_spectrum
from cascade.evaluation.images import bhattacharyya, histograms, kullback_leibler, rim_profiles
from cascade.evaluation.labelled import LabelledImage
from cascade.evaluation.pictures import window_of
from cascade.evaluation.population import FieldStatistics
from cascade.evaluation.profiles import intensity_profile, intensity_spectrum
from cascade.evaluation.segmentation import THRESHOLDS
from cascade.evaluation.shape import cell_shapes
from cascade.evaluation.tables import SPARSE, Scores, row_name
from cascade.evenly import evenly
from cascade.optics.window import Window

_COLOURS = {"none": "#8a8a8a", "real": "#3b76af", "synthetic": "#d1605e", "both": "#5aa05a"}
_OTHER_COLOURS = ["#8764a8", "#b07a3a", "#2f9e9e", "#c46aa5", "#83832f"]


def curves(seg: dict[str, Scores]) -> Figure:
    """Average precision and share of annotated cells found by IoU threshold, bands of a standard deviation over
    trainings."""
    figure = Figure(figsize=(11, 3.6), layout="tight")
    both = figure.subplots(1, 2)
    for axes, score, label in zip(both, ("ap", "found"), ("average precision", "annotated cells found"), strict=True):
        axes.set_prop_cycle(color=_OTHER_COLOURS)
        for name, values in seg.items():
            of = [values.get(f"{score}_{t:g}", {"mean": np.nan, "std": np.nan}) for t in THRESHOLDS]
            means, spread = (np.array([one[key] for one in of]) for key in ("mean", "std"))
            colour = _COLOURS.get(name.removeprefix(SPARSE))
            look: dict[str, Any] = {"color": colour, "ls": "--" if name.startswith(SPARSE) else "-" if colour else ":"}
            line = axes.plot(THRESHOLDS, means, marker="o", label=row_name(name), **look)[0]
            axes.fill_between(THRESHOLDS, means - spread, means + spread, alpha=0.15, color=line.get_color())
        axes.set(xlabel="IoU threshold", ylabel=label, ylim=(0, 1))
    both[-1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def ratios(seg: dict[int, Scores]) -> Figure:
    """SEG by the percentage of synthetic images."""
    figure = Figure(figsize=(6, 3.2), layout="tight")
    axes = figure.subplots()
    shares = sorted(seg)
    means, spread = ([seg[n][key] for n in shares] for key in ("mean", "std"))
    axes.errorbar(shares, means, spread, marker="o", capsize=3, color=_COLOURS["synthetic"])
    axes.set(xlabel="synthetic images, %", ylabel="SEG")
    return figure


def populations(fields: dict[str, FieldStatistics]) -> Figure:
    """Statistics of whole fields of view by data set."""
    figure = Figure(figsize=(12, 3), layout="tight")
    axes = figure.subplots(1, 4)
    for ax, name, label in zip(axes, ("nearest_neighbour", "brightness"), ("µm", "camera units"), strict=False):
        values = {who: found.scalars()[name] for who, found in fields.items() if len(found.scalars()[name])}
        low, high = np.percentile(next(iter(values.values()), [0.0]), [1, 99])
        edges = np.histogram_bin_edges([], 30, (min(low, 0), max(high, 0)))
        for who, found in values.items():
            ax.stairs(_density(found, edges), edges, label=who, color=_field_colour(who))
        ax.set(title=name.replace("_", " "), xlabel=label, yticks=[])
    for who, field in fields.items():
        distance = (np.arange(len(field.pair_correlation)) + 0.5) * field.pair_range_um / len(field.pair_correlation)
        if len(field.nearest_neighbour):
            axes[2].plot(distance, field.pair_correlation, label=who, color=_field_colour(who))
        frequency = (np.arange(len(field.background_spectrum)) + 0.5) / (2 * len(field.background_spectrum))
        axes[3].semilogy(frequency, field.background_spectrum, label=who, color=_field_colour(who))
    axes[2].set(title="pair correlation", xlabel="µm")
    axes[3].set(title="background spectrum", xlabel="1 / pixel")
    axes[3].legend(frameon=False, fontsize=8)
    return figure


def _density(values: npt.NDArray[Any], edges: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A histogram that integrates to the share of values between its edges."""
    return np.histogram(values, edges)[0] / np.diff(edges) / max(len(values), 1)


def _field_colour(name: str) -> str:
    return {"real test": "#222222", "real train": _COLOURS["real"]}.get(name, _COLOURS["synthetic"])


def cells(test: list[LabelledImage], synthetic: list[LabelledImage], limit: int = 12) -> Figure:
    """Single cells of at most `limit` images: shape, light across the rim, power spectrum around them."""
    shown = {
        name: [one for one in images if one.labels.any()] for name, images in (("real", test), ("synthetic", synthetic))
    }
    some = {name: [images[n] for n in evenly(len(images), limit)] for name, images in shown.items()}
    shapes = {
        name: cell_shapes([o.labels for o in images], [o.spacing_um for o in images]) for name, images in some.items()
    }
    window = window_of(np.concatenate([one.image.ravel()[::5] for one in some["real"]]))
    figure = Figure(figsize=(14, 2.8), layout="tight")
    axes = figure.subplots(1, len(shapes["real"]) + 2)
    for ax, key in zip(axes, shapes["real"], strict=False):
        edges = np.histogram_bin_edges(shapes["real"][key], 25)
        for name, found in shapes.items():
            ax.stairs(_density(found[key], edges), edges, label=name, color=_COLOURS[name])
        ax.set(title=key.replace("_", " "), yticks=[])
    for name, images in some.items():
        distance, profiles = rim_profiles([o.image for o in images], [o.labels for o in images])
        seen = ~np.isnan(profiles).all(0)  # small cells have no pixel far inside
        if seen.any():
            low, middle, high = np.nanpercentile(profiles[:, seen], [25, 50, 75], 0)
            axes[-2].plot(distance[seen], middle, color=_COLOURS[name], label=name)
            axes[-2].fill_between(distance[seen], low, high, color=_COLOURS[name], alpha=0.15)
        size = min(32, *(n - 1 for n in images[0].image.shape[-2:]))
        around = patches(images, Window(window.low, window.high), size, limit=200)
        if len(around):
            power = radial_spectrum(around)
            axes[-1].semilogy(np.arange(len(power)) / size, power, color=_COLOURS[name])
    axes[-2].set(title="light across the rim", xlabel="pixels, inside < 0")
    axes[-1].set(title="power spectrum", xlabel="1 / pixel")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def intensities(
    real: list[LabelledImage], synthetic: list[LabelledImage], limit: int = 20
) -> tuple[Figure, tuple[float, float]]:
    """Histograms of at most `limit` images, and the Kullback-Leibler and Bhattacharyya distances between them."""
    a, b = (
        np.concatenate([images[n].image.ravel()[::7] for n in evenly(len(images), limit)])
        for images in (real, synthetic)
    )
    p, q, edges = histograms(a, b)
    figure = Figure(figsize=(6, 3.2), layout="tight")
    axes = figure.subplots()
    for name, heights in (("real", p), ("synthetic", q)):
        axes.stairs(heights, edges, label=name, color=_COLOURS[name])
    axes.set(xlabel="intensity", ylabel="share of voxels", yscale="log")
    axes.legend(frameon=False)
    return figure, (kullback_leibler(p, q), bhattacharyya(p, q))


def sections(real: list[LabelledImage], synthetic: list[LabelledImage], limit: int = 12) -> Figure:
    """Intensity profiles and spectra of central xz slices of stacks, medians and quartiles (3D microscopy synthesis by
    conditional GAN, Figs. 7, 9 and 11, there of one stack each); others are stretched to the first's width."""
    figure = Figure(figsize=(11, 3.2), layout="tight")
    left, right = figure.subplots(1, 2)
    width = real[0].image.shape[-1]
    x = np.linspace(0, 1, width)
    for name, images in (("real", real), ("synthetic", synthetic)):
        some = [images[n] for n in evenly(len(images), limit)]
        profiles = [intensity_profile(one.image) / len(one.image) for one in some]
        lines = np.array([np.interp(x, np.linspace(0, 1, len(one)), one) for one in profiles])
        spectra = [intensity_spectrum(one.image, one.spacing_um) for one in some]
        frequency = spectra[0][0]
        amplitudes = np.array([np.interp(frequency, *one) for one in spectra])
        for axes, at, values in ((left, x * width * real[0].spacing_um[-1], lines), (right, frequency, amplitudes)):
            low, middle, high = np.percentile(values, [25, 50, 75], 0)
            axes.plot(at, middle, color=_COLOURS[name], label=name)
            axes.fill_between(at, low, high, color=_COLOURS[name], alpha=0.15)
    left.set(xlabel="x, µm", ylabel="intensity, mean over z")
    right.set(xlabel="1 / µm", ylabel="amplitude", yscale="log")
    right.legend(frameon=False)
    return figure
