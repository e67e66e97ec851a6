"""Tables of an evaluation, by part of its report."""

import html
from typing import Any

from scipy import stats

NAMES = {"none": "None", "real": "Real", "synthetic": "Synthetic", "both": "Both"}
SPARSE, MIXED = "sparse ", " % synthetic"  # how names begin in the sparse setting, and end in the ratio sweep
CROSSED = " on synthetic"  # how names end of what was tested on synthetic images
EACH = "seg_of_images"  # of a condition, a list
FOUND = "found_"  # how scores begin that are drawn as a curve, and would make tables too wide
BESIDE = (EACH, "tuned")  # what is not one of its scores
_HEADS = {
    "seg": "trained on",
    "matrix": "trained on, tested on",
    "seg_sparse": "trained on, few annotations",
    "ablations": "further: trained on, or labels given",
    "ratios": "% synthetic",
}
_MATRIX = {"real": "Real", "synthetic": "Syn", "both": "Mix"}
_JUDGES = {"fid": "FID", "kid": "KID", "fid_scattering": "FID, scattering", "kid_scattering": "KID, scattering"}
Scores = dict[str, Any]
"""Of a condition: mean, std and n by score, and the SEG of each test image."""


def row_name(name: str) -> str:
    """A row's name in a picture."""
    return f"few: {name.removeprefix(SPARSE)}" if name.startswith(SPARSE) else NAMES.get(name, name)


def grouped(seg: dict[str, Scores]) -> dict[str, dict[str, str]]:
    """Conditions by part of the report, each with a short name."""
    groups: dict[str, dict[str, str]] = {"seg": {}, "matrix": {}, "seg_sparse": {}, "ablations": {}, "ratios": {}}
    for name, short in _MATRIX.items():
        if name + CROSSED in seg:
            groups["matrix"] |= {f"{short}2Real": name, f"{short}2Syn": name + CROSSED}
    for name in seg:
        if name in NAMES:
            groups["seg"][name] = name
        elif name.startswith(SPARSE):
            groups["seg_sparse"][name.removeprefix(SPARSE)] = name
        elif name.endswith(MIXED):
            groups["ratios"][name.removesuffix(MIXED)] = name
        elif name not in groups["matrix"].values():
            groups["ablations"][name] = name
    return groups


def rank_sum(seg: dict[str, Scores], name: str) -> float | None:
    """Of a row against the real images of its setting, of an ablation against the synthetic ones; None for those
    themselves, and on other test images."""
    if name.endswith(CROSSED):
        return None
    ablation = name not in NAMES and not name.startswith(SPARSE) and not name.endswith(MIXED)
    against = SPARSE + "real" if name.startswith(SPARSE) else "synthetic" if ablation else "real"
    if name == against or against not in seg:
        return None
    return float(stats.ranksums(seg[name][EACH], seg[against][EACH]).pvalue)


def score_table(seg: dict[str, Scores], names: dict[str, str], group: str) -> list[list[str]]:
    """Every score of the rows of a group, mean ± standard deviation, and their p-value."""
    scores = [key for key in next(iter(seg.values())) if key not in BESIDE and not key.startswith(FOUND)]
    rows = [[_HEADS[group], *(key.upper().replace("_", " ") for key in scores), "p"]]
    for short, name in names.items():
        cells = [mean_shown(seg[name].get(key)) for key in scores]
        p = rank_sum(seg, name)
        rows.append([NAMES.get(short, short), *cells, "" if p is None else f"{p:.2g}"])
    return rows


def mean_shown(found: dict[str, float] | None) -> str:
    """With its spread over several trainings, a dash for what was not measured."""
    if found is None:
        return "–"
    return f"{found['mean']:.3f} ± {found['std']:.3f}" if found["n"] > 1 else f"{found['mean']:.3f}"


def distance_table(facts: dict[str, Any]) -> list[list[str]]:
    """Distances of every set to the test images, by either judge; nothing where they were not measured."""
    ends = {n: end for n, end in (("test images", "floor"), ("real (training)", "r2r")) if f"fid_{end}" in facts}
    sets = {name: {key: facts[f"{key}_{end}"] for key in _JUDGES} for name, end in ends.items()}
    rows = [[row_name(n), *(shown(d[key]) for key in _JUDGES)] for n, d in (sets | facts.get("distances", {})).items()]
    return [["distance to test images", *_JUDGES.values()], *rows] if rows else []


def markdown_table(rows: list[list[str]]) -> str:
    """Of rows, the first of which is the head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def html_table(rows: list[list[str]]) -> str:
    """The same for a page."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<table><tr>{head}</tr>{body}</table>"


def shown(value: object) -> str:
    """A number to read, a dash for what was not measured."""
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
