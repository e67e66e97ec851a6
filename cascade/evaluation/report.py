"""The evaluation as one page: `report.html` with everything inside it, `report.json`, and a table for a README."""

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from cascade.evaluation.distribution import patches, radial_spectrum
from cascade.evaluation.images import bhattacharyya, histograms, kullback_leibler, rim_profiles
from cascade.evaluation.labelled import LabelledImage
from cascade.evaluation.pictures import errors, predictions_of, side_by_side, window_of
from cascade.evaluation.population import FieldStatistics, field_distances
from cascade.evaluation.segmentation import THRESHOLDS
from cascade.evaluation.shape import cell_shapes
from cascade.evaluation.tables import (
    BESIDE,
    CROSSED,
    SPARSE,
    Scores,
    distance_table,
    grouped,
    html_table,
    markdown_table,
    rank_sum,
    row_name,
    score_table,
    shown,
)
from cascade.evaluation.thresholds import tuned_table
from cascade.evenly import evenly
from cascade.optics.window import Window

_COLOURS = {"none": "#8a8a8a", "real": "#3b76af", "synthetic": "#d1605e", "both": "#5aa05a"}
_OTHER_COLOURS = ["#8764a8", "#b07a3a", "#2f9e9e", "#c46aa5", "#83832f"]
_BELOW_TABLES = (
    "<p>Mean ± standard deviation over trainings with different seeds, on the same test images. p: Wilcoxon rank-sum "
    "test of the SEG of single test images (mean over seeds) against training on Real, of ablations against "
    "Synthetic.</p>"
)
_BELOW_DISTANCES = (
    "<p>Features: the encoder's, which has part in making the images, and wavelet scattering, which nobody trained: "
    "believe it where they disagree. Test images: two random halves of them.</p>"
)
_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0;font-size:.8rem;display:block;overflow-x:auto}
td,th{padding:.3rem .4rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}
td:first-child,th:first-child{text-align:left;white-space:normal}
figure{margin:1.5rem 0}figcaption{color:#555}img{max-width:100%}h2{margin-top:2.5rem}
.row{display:flex;flex-wrap:wrap;gap:.6rem}.row figure{margin:0}.row img{max-width:none;image-rendering:pixelated}"""


def write_report(
    output_dir: str | Path,
    title: str,
    seg: dict[str, Scores],
    facts: dict[str, Any],
    real: list[LabelledImage],
    synthetic: list[LabelledImage],
    test: list[LabelledImage],
    fields: dict[str, FieldStatistics] | None = None,
) -> Path:
    """Write the three files; returns the path of the page.

    seg: by condition, mean, std and n of each score (`run_trainings`). facts: further figures, written to
    `report.json` as they are. fields: statistics of whole fields of view by data set, the first of which is what the
    others are compared with. The predictions drawn are those that `run_trainings` kept.

    `report.json` has the SEG of None, Real, Synthetic and Both as `seg`, where there are synthetic test images that of
    Real2Real, Real2Syn, … as `matrix`, that of the sparse setting as `seg_sparse`, of other rows as `ablations`, of
    mixtures as `ratios`, every score of every row as `scores`, `rank_sum_p`, and, with images held out, scores at the
    thresholds chosen on them as `tuned`; what cannot be measured is null there, and a dash on the page.
    """
    output = Path(output_dir)
    fields, groups = fields or {}, grouped(seg)
    alike = real if real[0].image.ndim == synthetic[0].image.ndim else test  # single slices have no sections
    intensities, distances = _intensities(alike, synthetic)
    facts = facts | {"intensities_kld": distances[0], "intensities_bhattacharyya": distances[1]}
    nearness = {name: field_distances(found, next(iter(fields.values()))) for name, found in list(fields.items())[1:]}
    facts = facts | ({"population": nearness} if nearness else {})
    apart, tuned = distance_table(facts), tuned_table(seg)
    p_values = {name: rank_sum(seg, name) for name in seg if rank_sum(seg, name) is not None}
    record: dict[str, Any] = {"title": title}
    record |= {group: {short: seg[name]["seg"] for short, name in names.items()} for group, names in groups.items()}
    record |= {**facts, "rank_sum_p": p_values, "scores": {n: {k: v for k, v in s.items() if k not in BESIDE}
                                                           for n, s in seg.items()}}  # fmt: skip
    record |= {"tuned": {n: s["tuned"] for n, s in seg.items() if "tuned" in s}} if tuned else {}
    finite = json.loads(json.dumps(record), parse_constant=lambda name: None)  # JSON knows no NaN, no Infinity
    (output / "report.json").write_text(json.dumps(finite, indent=1, allow_nan=False))
    tables = [score_table(seg, names, group) for group, names in groups.items() if names]
    (output / "table.md").write_text("\n".join(map(markdown_table, filter(None, [*tables, tuned, apart]))))
    parts = [f"<h1>{html.escape(title)}</h1>"]
    parts += [*map(html_table, [*tables, *([tuned] if tuned else [])]), _BELOW_TABLES]
    drawn = {
        name: values
        for name, values in seg.items()
        if name not in groups["ratios"].values() and not name.endswith(CROSSED)
    }
    parts.append(_picture(_curves(drawn), "Average precision by IoU threshold, and the share of annotated cells that "
                          "are found, which also tells something where not all are annotated."))  # fmt: skip
    kept = {name: output / "runs" / f"{name}.npz" for name in drawn}
    if len(groups["ratios"]) > 1:
        mixed = {int(short): seg[name]["seg"] for short, name in groups["ratios"].items()}
        parts.append(_picture(_ratios(mixed), "SEG after training on a fixed number of images."))
    parts.append("<h2>After each training</h2><p>Outlines of the truth in white, of the segmentation in red.</p>")
    parts.append(errors(test, predictions_of(kept), {name: row_name(name) for name in drawn}))
    parts.append("<h2>Real and synthetic images</h2><p>Same scale, same grey values.</p>")
    parts.append(side_by_side(alike, synthetic))
    parts.append("<h2>Distributions</h2>")
    parts += [html_table(apart), _BELOW_DISTANCES] if apart else []
    parts.append(_picture(_cells(test, synthetic), "Single cells, real (test) and synthetic: shape, light across the "
                          "rim (bands: quartiles of cells), power spectrum around them."))  # fmt: skip
    caption = f"KLD {distances[0]:.3f}, Bhattacharyya distance {distances[1]:.4f}"
    parts.append(_picture(intensities, f"Intensities of real and synthetic images: {caption}."))
    if nearness:
        first = next(iter(fields))
        rows = [["distance to " + first, *next(iter(nearness.values()))]]
        rows += [[name, *(shown(value) for value in found.values())] for name, found in nearness.items()]
        parts.append(_picture(_populations(fields), "How cells lie, how bright they are, and what lies between them."))
        parts.append(html_table([list(row) for row in zip(*rows, strict=True)]))
        parts.append("<p>Wasserstein distances in units of the real spread; of the pair correlation the mean absolute "
                     "difference, of the background's spectrum in decades.</p>")  # fmt: skip
    numbers = [[key, shown(value)] for key, value in facts.items() if isinstance(value, int | float | str | None)]
    parts.append(html_table([["", "value"], *numbers]))
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
    path = output / "report.html"
    path.write_text(f"{page}<style>{_STYLE}</style>{''.join(parts)}</html>")
    return path


def _picture(figure: Figure, caption: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<figure><img alt="" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'


def _curves(seg: dict[str, Scores]) -> Figure:
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


def _ratios(seg: dict[int, Scores]) -> Figure:
    figure = Figure(figsize=(6, 3.2), layout="tight")
    axes = figure.subplots()
    shares = sorted(seg)
    means, spread = ([seg[n][key] for n in shares] for key in ("mean", "std"))
    axes.errorbar(shares, means, spread, marker="o", capsize=3, color=_COLOURS["synthetic"])
    axes.set(xlabel="synthetic images, %", ylabel="SEG")
    return figure


def _populations(fields: dict[str, FieldStatistics]) -> Figure:
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


def _cells(test: list[LabelledImage], synthetic: list[LabelledImage], limit: int = 12) -> Figure:
    shown = {
        name: [one for one in images if one.labels.any()] for name, images in (("real", test), ("synthetic", synthetic))
    }
    some = {name: [images[n] for n in evenly(len(images), limit)] for name, images in shown.items()}
    shapes = {name: cell_shapes([o.labels for o in images], images[0].spacing_um) for name, images in some.items()}
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


def _intensities(
    real: list[LabelledImage], synthetic: list[LabelledImage], limit: int = 20
) -> tuple[Figure, tuple[float, float]]:
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
