"""The cellprob threshold of a trained segmenter, chosen on generated images that it was not trained on."""

from typing import Any

from cascade.evaluation.labelled import LabelledImage
from cascade.evaluation.segmentation import score
from cascade.evaluation.segmenters import Segment
from cascade.evaluation.tables import mean_shown
from cascade.evenly import evenly

COARSE = (0.0, -2.0, -4.0, -6.0, -8.0, 2.0)
"""Thresholds that are tried first; then those one above and below the best of them. Of equal ones the first is taken,
which is Cellpose's own."""

_AT_MOST = {2: 12, 3: 3}  # planes, stacks: enough to tell thresholds apart that are one apart


def best_threshold(segment: Segment, held_out: list[LabelledImage]) -> float:
    """The threshold with which a segmenter's SEG on the held-out images is highest; of many images some are taken,
    evenly drawn."""
    shown = [one for one in held_out if one.labels.any()]
    some = [shown[n] for n in evenly(len(shown), _AT_MOST[shown[0].image.ndim])]
    truth = [one.labels for one in some]

    def seg(threshold: float) -> float:
        return score(truth, [segment(one, cellprob_threshold=threshold) for one in some]).seg

    tried = {threshold: seg(threshold) for threshold in COARSE}
    coarse = max(tried, key=tried.__getitem__)
    tried |= {threshold: seg(threshold) for threshold in (coarse - 1, coarse + 1)}
    return max(tried, key=tried.__getitem__)


def tuned_table(seg: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Rows of all conditions that were scored at a threshold of their own, see `run_trainings`; nothing for none."""
    tuned = {name: found["tuned"] for name, found in seg.items() if "tuned" in found}
    if not tuned:
        return []
    scores = [key for key in next(iter(tuned.values()))["scores"] if not key.startswith("found_")]
    rows = [["at the threshold best on held-out synthetic images", *(k.upper().replace("_", " ") for k in scores), "t"]]
    for name, found in tuned.items():
        cells = [mean_shown(found["scores"][key]) for key in scores]
        rows.append([name, *cells, " ".join(f"{one:g}" for one in found["thresholds"])])
    return rows
