"""Does synthetic data improve segmentation? Train on nothing, real, synthetic and both; test on real images."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from cascade.evaluation.checks import check_names, check_sets, check_tissue
from cascade.evaluation.distribution import distribution
from cascade.evaluation.labelled import LabelledImage, plane_count, typical_diameter
from cascade.evaluation.multiclass import MultiClassSettings
from cascade.evaluation.population import FieldStatistics, field_statistics
from cascade.evaluation.segmentation import score
from cascade.evaluation.segmenters import (
    PROTOCOLS,
    Cellpose4Settings,
    CellposeSettings,
    Segment,
    need_cellpose,
    published,
    trained,
)
from cascade.evaluation.settings import EvaluateSettings
from cascade.evaluation.sources import Source, real_sources, sparse_sources, synthetic_sources
from cascade.evaluation.tissue import tissue_diameter
from cascade.evaluation.tissue_scores import tissue_scores
from cascade.evenly import evenly
from cascade.files import replacing

log = logging.getLogger(__name__)

Train = Callable[[list[LabelledImage], int], Segment]
"""A way to train a segmenter on annotated images, with a seed."""
Measure = Callable[[Any, list[LabelledImage], list[npt.NDArray[Any]]], dict[str, float]]
"""Further scores of a segmenter, of test images and what it made of them."""


def evaluate(settings: EvaluateSettings, *, rank: int = 0, world: int = 1) -> Path | None:
    """Train a segmenter on real, synthetic and both, test all on `real_test` and, if there is one, `synthetic_test`,
    and write a report; without real images to train on, on what was generated alone.

    rank, world: this is one of so many processes that share the trainings; the last to finish writes the report.

    Returns the path of the page, or None if other processes are not done. Raises ValueError for sets that share
    images, mix 2D and 3D or have a name that is taken, DataError for files that cannot be used, ImportError without the
    Cellpose of the protocol, all before anything is trained.
    """
    from diffusers import AutoencoderKL

    from cascade.evaluation.report import write_report
    from cascade.hub.embedded import embedded

    output, kinds, seeds = settings.output_dir, PROTOCOLS[settings.protocol], settings.seeds
    if not isinstance(kinds[0], MultiClassSettings):
        need_cellpose(4 if isinstance(kinds[0], Cellpose4Settings) else 3)
    synthetic, sparse = synthetic_sources(settings), sparse_sources(settings)
    check_names(synthetic, sparse)
    generalist = None if settings.generalist is None else Source(settings.generalist, frames=settings.frames)
    train_set, test = (source.load() if source else [] for source in real_sources(settings))
    made = {name: source.load() for name, source in synthetic.items()}
    few = {f"sparse {name}": source.load() for name, source in sparse.items()}
    other = generalist.load() if generalist else []
    beside = [] if settings.synthetic_test is None else Source(settings.synthetic_test, frames=settings.frames).load()
    sets = {"real_train": train_set, "real_test": test, **made, "synthetic_test": beside, **few, "generalist": other}
    sets = {name: images for name, images in sets.items() if images}
    check_sets(sets, generated={*made, "synthetic_test", "sparse synthetic"})
    conditions = ({"real": train_set} if train_set else {}) | made | few
    for prefix in ("", "sparse "):
        real, synthetic_too = conditions.get(prefix + "real"), conditions.get(prefix + "synthetic")
        if real and synthetic_too:
            conditions[prefix + "both"] = joined(real, synthetic_too)
    for ratio in settings.ratios:
        conditions[f"{ratio} % synthetic"] = mixture(train_set, made["synthetic"], ratio / 100)
    own = kinds[test[0].image.ndim - 2]
    own = replace(own, steps=settings.steps or own.steps)
    measure: Measure | None = None
    known = train_set or made["synthetic"]  # a user would tell "none" how large his cells are
    if isinstance(own, MultiClassSettings):
        check_tissue(sets)
        segmenter, size, measure = repr(own), tissue_diameter(known), tissue_scores
    else:
        own = replace(own, cellprob_threshold=settings.cellprob_threshold)
        segmenter, size = f"Cellpose {metadata.version('cellpose')}, {own!r}", typical_diameter(known)
    facts = {"segmenter": segmenter, "seeds": seeds}

    def train(data: list[LabelledImage], seed: int) -> Segment:
        return trained(data, own, seed)

    def train_other(data: list[LabelledImage], seed: int) -> Segment:
        return trained(data, own, seed, diameter_px=size)

    parts = [(conditions, test, train, seeds, output, segmenter)]
    if settings.masked and isinstance(own, CellposeSettings):
        passing_over = replace(own, masked=True)
        some = {"sparse masked": few["sparse real"]}
        what = segmenter.replace(repr(own), repr(passing_over))
        parts.append((some, test, lambda data, seed: trained(data, passing_over, seed), seeds, output, what))
    pretrained = settings.pretrained
    if pretrained is not None:
        ready = published(pretrained, size, settings.cellprob_threshold)
        what = f"{segmenter}, {pretrained}, {size:.2f}"
        parts.insert(0, ({"none": []}, test, lambda data, seed: ready, 1, output, what))
        facts["none"] = pretrained
    elif other and generalist:
        parts.insert(0, ({"none": other}, test, train_other, seeds, output, f"{segmenter}, {size:.2f}"))
        facts["none"] = f"a generalist trained on {generalist.folder.name}"
    others = {"synthetic": beside} if beside else {}
    for _ in range(2):  # again, to see what other processes have finished meanwhile
        seg: dict[str, dict[str, Any]] = {}
        for part in parts:
            seg |= run_trainings(*part, rank=rank, world=world, others=others, measure=measure)
    if any(name not in seg for part in parts for name in part[0]):
        return None
    vae = AutoencoderKL.from_pretrained(embedded("nuclei2d") / "texture" / "vae", use_safetensors=True)
    facts |= {f"images_{name}": len(images) for name, images in sets.items()}
    facts |= distribution(train_set, test, made | few, vae)
    shown = next(iter(made.values()))
    fields = populations({"real test": test} | ({"real train": train_set} if train_set else {}) | {"synthetic": shown})
    return write_report(output, settings.title, seg, facts, train_set or test, shown, test, fields)


def populations(sets: dict[str, list[LabelledImage]], limit: int = 24) -> dict[str, FieldStatistics]:
    """Statistics of whole fields of view, at most `limit` images of each set; sets of planes beside stacks are left
    out, single slices tell nothing of a population in space."""
    first = [one for one in next(iter(sets.values())) if one.labels.any()]
    sizes = np.concatenate([np.bincount(one.labels.ravel())[1:] for one in first[:limit]])
    ndim = first[0].image.ndim
    reach = 6 * float(np.median(sizes[sizes > 0]) * np.prod(first[0].spacing_um)) ** (1 / ndim)
    found = {}
    for name, images in sets.items():
        if images[0].image.ndim == ndim:
            some, spacing = [images[n] for n in evenly(len(images), limit)], images[0].spacing_um
            found[name] = field_statistics([o.image for o in some], [o.labels for o in some], spacing, reach)
    return found


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


def _key(what: str, *sets: list[LabelledImage]) -> str:
    """One hash of all that a training's scores depend on: images, labels, voxel sizes, and `what` was trained."""
    digest = hashlib.sha256(what.encode())
    for part in sets:
        digest.update(str(len(part)).encode())
        for one in part:
            for array in (one.image, one.labels):
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
            digest.update(str(one.spacing_um).encode())
    return digest.hexdigest()


def run_trainings(
    conditions: dict[str, list[LabelledImage]],
    test: list[LabelledImage],
    train: Train,
    seeds: int,
    output_dir: Path,
    what: str = "",
    keep: int = 3,
    rank: int = 0,
    world: int = 1,
    others: dict[str, list[LabelledImage]] | None = None,
    measure: Measure | None = None,
) -> dict[str, dict[str, Any]]:
    """Train a network on every condition with every seed, and score it on the test images.

    Each training's scores are kept in `output_dir/runs`, and of the first seed `keep` predictions, evenly drawn and
    named by the test image's number: started again, only what is missing, or was made of other images, labels or
    settings (`what` names them), is trained; conditions of the same images share their trainings. Of `world` processes
    each does its share. measure: gives scores beside those of `score`. Returns, by condition of which all trainings are
    done, mean, std (over seeds) and n of each score; and under "seg_of_images" the SEG of each test image, the mean
    over seeds. The same of `others`, further test images by name, as "CONDITION on NAME".
    """
    folder = Path(output_dir) / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    others = others or {}
    keys = {name: _key(what, data, test, *others.values()) for name, data in conditions.items()}
    first = {name: next(other for other in conditions if keys[other] == keys[name]) for name in conditions}
    jobs = [(name, seed) for seed in range(seeds) for name in conditions if first[name] == name]

    def done(name: str, seed: int) -> bool:
        path = folder / f"{name}_{seed}.json"
        return path.is_file() and json.loads(path.read_text())["key"] == keys[name]

    for name, seed in tqdm(jobs[rank::world], desc="trainings", unit="training"):
        if done(name, seed):
            continue
        segment = train(conditions[name], seed)
        found, predictions = _judged(segment, test, measure)
        beside = {other: _judged(segment, images, measure)[0] for other, images in others.items()}
        if seed == 0:
            some = {str(n): predictions[n] for n in evenly(len(test), keep)}
            with replacing(folder / f"{name}.npz") as partial, partial.open("wb") as file:
                np.savez_compressed(file, **some)
        with replacing(folder / f"{name}_{seed}.json") as partial:
            partial.write_text(json.dumps({"key": keys[name], **found, "others": beside}))
        log.info("%s, seed %d: SEG %.3f", name, seed, found["scores"]["seg"])
    for name, seed in [(name, seed) for name in conditions for seed in range(seeds) if first[name] != name]:
        for ending in (f"_{seed}.json", ".npz") if done(first[name], seed) else ():
            with replacing(folder / f"{name}{ending}") as copy:
                shutil.copyfile(folder / f"{first[name]}{ending}", copy)
    whole = [name for name in conditions if all(done(name, seed) for seed in range(seeds))]
    runs = {name: [json.loads((folder / f"{name}_{seed}.json").read_text()) for seed in range(seeds)] for name in whole}
    summaries = {name: _summary(some) for name, some in runs.items()}
    for other in others:
        summaries |= {f"{name} on {other}": _summary([run["others"][other] for run in runs[name]]) for name in whole}
    return summaries


def _judged(
    segment: Segment, test: list[LabelledImage], measure: Measure | None
) -> tuple[dict[str, Any], list[npt.NDArray[Any]]]:
    """Scores of a trained segmenter, those of each image, and what it made of them."""
    predictions = [segment(one) for one in test]
    scores = score([one.labels for one in test], predictions).to_dict()
    scores |= measure(segment, test, predictions) if measure else {}
    each = [score([one.labels], [p]).seg for one, p in zip(test, predictions, strict=True) if one.labels.any()]
    return {"scores": scores, "seg_of_images": each}, predictions


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    seeds = len(runs)
    columns = {key: [run["scores"][key] for run in runs] for key in runs[0]["scores"]}
    found = {
        key: {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=min(1, seeds - 1))), "n": seeds}
        for key, values in columns.items()
    }
    return found | {"seg_of_images": np.mean([run["seg_of_images"] for run in runs], 0).tolist()}
