"""The evaluation as one page: `report.html` with everything inside it, `report.json`, and a table for a README."""

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cascade.evaluation.figures import cells, curves, intensities, populations, ratios, sections
from cascade.evaluation.labelled import LabelledImage
from cascade.evaluation.pictures import errors, predictions_of, side_by_side
from cascade.evaluation.population import FieldStatistics, field_distances
from cascade.evaluation.tables import (
    BESIDE,
    CROSSED,
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
    histogram, distances = intensities(alike, synthetic)
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
    parts.append(_picture(curves(drawn), "Average precision by IoU threshold, and the share of annotated cells that "
                          "are found, which also tells something where not all are annotated."))  # fmt: skip
    kept = {name: output / "runs" / f"{name}.npz" for name in drawn}
    if len(groups["ratios"]) > 1:
        mixed = {int(short): seg[name]["seg"] for short, name in groups["ratios"].items()}
        parts.append(_picture(ratios(mixed), "SEG after training on a fixed number of images."))
    parts.append("<h2>After each training</h2><p>Outlines of the truth in white, of the segmentation in red.</p>")
    parts.append(errors(test, predictions_of(kept), {name: row_name(name) for name in drawn}))
    parts.append("<h2>Real and synthetic images</h2><p>Same scale, same grey values.</p>")
    parts.append(side_by_side(alike, synthetic))
    parts.append("<h2>Distributions</h2>")
    parts += [html_table(apart), _BELOW_DISTANCES] if apart else []
    parts.append(_picture(cells(test, synthetic), "Single cells, real (test) and synthetic: shape, light across the "
                          "rim (bands: quartiles of cells), power spectrum around them."))  # fmt: skip
    if alike[0].image.ndim == 3:
        parts.append(_picture(sections(alike, synthetic), "Central xz slices, real and synthetic: intensity along "
                              "x, and spectrum (bands: quartiles of stacks)."))  # fmt: skip
    caption = f"KLD {distances[0]:.3f}, Bhattacharyya distance {distances[1]:.4f}"
    parts.append(_picture(histogram, f"Intensities of real and synthetic images: {caption}."))
    if nearness:
        first = next(iter(fields))
        rows = [["distance to " + first, *next(iter(nearness.values()))]]
        rows += [[name, *(shown(value) for value in found.values())] for name, found in nearness.items()]
        parts.append(_picture(populations(fields), "How cells lie, how bright they are, and what lies between them."))
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
