"""What a sweep leaves: tune.json, table.md, and figures like those of the papers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from skimage import segmentation

from cascade.evaluation.feature_map import draw_feature_map
from cascade.evaluation.pictures import window_of
from cascade.evaluation.sweeps import ALIKE, DETAILED, KEPT, SketchedImage, Sweep, Tried, forward, noised
from cascade.export.preview import write_png
from cascade.files import replacing
from cascade.optics.window import Window
from cascade.rng import stream

Array = npt.NDArray[Any]

_FORWARD = {"bd": "Bhattacharyya distance", "kld": "Kullback-Leibler divergence"}
_BACKWARD = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "mae": "MAE",
    "zncc": "ZNCC",
    "structure": "structure kept (IoU)",
    "detail": "fine detail",
}
_DIGITS = {"psnr": 2, "bd": 4, "kld": 4}
_COLUMNS = ("sketch", "noised", "painted", "real", "painted, drawn")
_COLOURS = ["#3b76af", "#d1605e", "#5aa05a", "#8764a8", "#b07a3a", "#2f9e9e"]
_SIDE, _GAP = 256, 4  # pixels of a picture in the grid at most, and between two


def write_report(
    folder: Path,
    found: Sweep,
    best: Tried,
    scenes: Sequence[SketchedImage],
    *,
    window: Window,
    kept: Sequence[float],
    about: Mapping[str, Any],
    seed: int = 0,
) -> None:
    """tune.json, table.md, forward.png (histograms; workshop, Fig. 2 top), curves.png (journal, Fig. 2a), grid.png: a
    row for every t_start at the recommended σ, and features.png: real images, sketches and painted ones beside each
    other (journal, S1 Fig.).

    about: of model and images, for the record. window, kept, seed: as of `sweep`.
    """
    rule = (
        f"of the pairs that keep {KEPT:.0%} of the best structure, whose noised sketches are within a Bhattacharyya "
        f"distance of {ALIKE:g} of noised real images, and whose painted images have {DETAILED:.0%} of the real ones' "
        "fine detail, the earliest t_start; where none is, those that are nearest"
    )
    record = {
        **about,
        "recommended": {"t_start": best.t_start, "sigma": best.sigma},
        "rule": rule,
        "structure_of_real_images": found.real_structure,
        "tried": [asdict(one) for one in found.tried],
    }
    with replacing(folder / "tune.json") as path:
        path.write_text(json.dumps(record, indent=1))
    with replacing(folder / "table.md") as path:
        path.write_text(tables(found, best))
    _histograms(found, best, scenes, window, kept, seed).savefig(folder / "forward.png", dpi=110)
    _curves(found, best).savefig(folder / "curves.png", dpi=110)
    write_png(folder / "grid.png", _grid(found, best, scenes[0], window, kept, seed))
    painted = found.painted[best.t_start, best.sigma]
    sets = {
        "real": [_plane(one.image, one) for one in scenes],
        "sketches": [_plane(one.sketch, one) for one in scenes],
        "painted": [_plane(image, one) for image, one in zip(painted, scenes, strict=True)],
    }
    draw_feature_map({name: [window.stretch(plane) for plane in planes] for name, planes in sets.items()}).savefig(
        folder / "features.png", dpi=110
    )


def tables(found: Sweep, best: Tried) -> str:
    """Markdown: forward as in the journal's Table 1, backward as in the workshop's Fig. 2; the pair to take in bold."""
    times = found.t_starts
    blocks = []
    for title, names in (("Forward", _FORWARD), ("Backward", _BACKWARD)):
        rows = [f"| {title} | σ | " + " | ".join(f"t = {t}" for t in times) + " |", "|---|---|" + "---|" * len(times)]
        for name, label in names.items():
            for sigma in found.sigmas:
                cells = []
                for t in times:
                    text = f"{getattr(found.at(t, sigma), name):.{_DIGITS.get(name, 3)}f}"
                    cells.append(f"**{text}**" if (t, sigma) == (best.t_start, best.sigma) else text)
                rows.append(f"| {label} | {sigma:g} | " + " | ".join(cells) + " |")
        blocks.append("\n".join(rows))
    kept = f"Structure of the real images themselves: {found.real_structure:.3f}."
    return "\n\n".join([*blocks, kept]) + "\n"


def _histograms(
    found: Sweep, best: Tried, scenes: Sequence[SketchedImage], window: Window, kept: Sequence[float], seed: int
) -> Figure:
    """Of noised real images and sketches, one panel for each t_start."""
    times = found.t_starts
    figure = Figure(figsize=(2.4 * len(times), 2.4))
    for axes, t in zip(np.atleast_1d(figure.subplots(1, len(times))), times, strict=True):
        p, q, edges = forward(scenes, window, kept[t - 1], best.sigma, seed)
        for heights, colour, name in ((p, _COLOURS[0], "real"), (q, _COLOURS[1], "sketch")):
            axes.stairs(heights, edges, fill=True, alpha=0.5, color=colour, label=name)
        axes.set_title(f"t = {t}, D_B {found.at(t, best.sigma).bd:.3f}", fontsize=9)
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
    axes.legend(fontsize=7)
    figure.subplots_adjust(0.02, 0.12, 0.98, 0.88, 0.08)
    return figure


def _curves(found: Sweep, best: Tried) -> Figure:
    """Every measure over t_start, a line for each σ; the recommended pair as a dot; of PSNR at its σ also boxes of the
    images' own, whiskers at the 5th and 95th percentile (journal, S2 Fig.)."""
    names = _FORWARD | _BACKWARD
    figure = Figure(figsize=(13, 6))
    panels = figure.subplots(2, 4).ravel()
    for axes, (name, label) in zip(panels, names.items(), strict=True):
        for sigma, colour in zip(found.sigmas, _COLOURS * len(found.sigmas), strict=False):
            values = [getattr(found.at(t, sigma), name) for t in found.t_starts]
            axes.plot(found.t_starts, values, "-o", ms=3, color=colour, label=f"σ = {sigma:g}")
        axes.plot(best.t_start, getattr(best, name), "o", ms=10, mfc="none", color="black")
        axes.set_title(label + " over t_start", fontsize=9)
        axes.tick_params(labelsize=7)
    spread = [found.at(t, best.sigma).psnr_of_images for t in found.t_starts]
    if len(spread[0]) > 1:
        wide = 0.04 * (max(found.t_starts) - min(found.t_starts)) or 1.0
        panels[list(names).index("psnr")].boxplot(spread, positions=found.t_starts, widths=wide, whis=(5, 95),
                                                    showmeans=True, showfliers=False, manage_ticks=False)  # fmt: skip
    panels[0].axhline(ALIKE, color="grey", lw=0.8, ls=":")
    panels[-2].axhline(found.real_structure, color="grey", lw=0.8, ls=":")
    panels[-1].set_ylim(0, 2)
    panels[-1].axhspan(DETAILED, 1 / DETAILED, color="grey", alpha=0.15)
    panels[0].legend(fontsize=8)
    figure.subplots_adjust(0.04, 0.06, 0.99, 0.94, 0.2, 0.25)
    return figure


def _grid(
    found: Sweep, best: Tried, scene: SketchedImage, window: Window, kept: Sequence[float], seed: int
) -> npt.NDArray[np.float32]:
    """Rows of t_start; columns: sketch, noised sketch, painted, real, and the structure's outline (green) over what was
    painted (red; journal, Fig. 2b). Of stacks the plane with most structure. (H, W, 3) in [0, 1]."""
    grey = window_of(scene.image)
    noise = stream(seed, "forward", 0).standard_normal(scene.image.shape, np.float32)
    rows = []
    for t in found.t_starts:
        painted = found.painted[t, best.sigma][0]
        seen = noised(scene.sketch, window, kept[t - 1], noise, best.sigma)
        columns = [
            _coloured(grey.stretch(_plane(scene.sketch, scene))),
            _coloured(np.clip(0.5 + 0.25 * _plane(seen, scene), 0, 1)),
            _coloured(grey.stretch(_plane(painted, scene))),
            _coloured(grey.stretch(_plane(scene.image, scene))),
            _overlay(grey.stretch(_plane(painted, scene)), _plane(scene.structure, scene)),
        ]
        titled = [_titled(one, f"t = {t}, {name}") for one, name in zip(columns, _COLUMNS, strict=True)]
        apart = [np.pad(one, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=1) for one in titled]
        rows.append(np.concatenate(apart, 1))
    return np.concatenate(rows)


def _plane(image: Array, scene: SketchedImage) -> Array:
    """The middle of a plane, of a stack of that with most structure."""
    if image.ndim == 3:
        image = image[int(scene.structure.sum((1, 2)).argmax())]
    middle = tuple(slice(max(n - _SIDE, 0) // 2, max(n - _SIDE, 0) // 2 + _SIDE) for n in image.shape)
    return image[middle]


def _coloured(grey: Array) -> Array:
    return np.asarray(grey, np.float32)[..., None].repeat(3, -1)


def _titled(picture: Array, text: str) -> Array:
    """With words in its corner."""
    image = Image.fromarray(np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8))
    ImageDraw.Draw(image).text((4, 2), text, fill=(255, 220, 90))
    return np.asarray(image, np.float32) / 255


def _overlay(grey: Array, structure: Array) -> Array:
    picture = np.zeros((*grey.shape, 3), np.float32)
    picture[..., 0] = grey
    picture[segmentation.find_boundaries(structure, mode="inner")] = (0.2, 1.0, 0.3)
    return picture
