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

from cascade.evaluation.checks import check_apart, check_names, check_sets, check_tissue
from cascade.evaluation.distribution import distribution
from cascade.evaluation.labelled import LabelledImage, is_shallow, typical_diameter
from cascade.evaluation.mixtures import joined, mixture
from cascade.evaluation.multiclass import MultiClassSettings
from cascade.evaluation.population import FieldStatistics, field_statistics
from cascade.evaluation.predictions import read_predictions
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
from cascade.evaluation.sources import Source, generated_source, real_sources, sparse_sources, synthetic_sources
from cascade.evaluation.thresholds import best_threshold
from cascade.evaluation.tissue import tissue_diameter
from cascade.evaluation.tissue_scores import tissue_scores
from cascade.evenly import evenly
from cascade.files import replacing
from cascade.ownership import check_not_input

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
    images, mix 2D and 3D, hold the output or have a name that is taken, DataError for files that cannot be used,
    ImportError without the Cellpose of the protocol, all before anything is trained.
    """
    from diffusers import AutoencoderKL

    from cascade.evaluation.report import write_report
    from cascade.hub.embedded import embedded

    output, kinds, seeds = settings.output_dir, PROTOCOLS[settings.protocol], settings.seeds
    if not isinstance(kinds[0], MultiClassSettings):
        need_cellpose(4 if isinstance(kinds[0], Cellpose4Settings) else 3)
    synthetic, sparse = synthetic_sources(settings), sparse_sources(settings)
    for folder in (settings.real_train, settings.real_test, *(one.folder for one in (synthetic | sparse).values())):
        if folder is not None:
            check_not_input(output, folder)
    check_names({**synthetic, **settings.prediction_folders()}, sparse)
    generalist = (
        None if settings.generalist is None else Source(settings.generalist, frames=settings.frames, channel_setting="")
    )
    train_source, test_source = real_sources(settings)
    train_set, test = train_source.load() if train_source else [], test_source.load()
    frames = test_source.found() if settings.predictions else []
    given = {name: read_predictions(folder, test, frames) for name, folder in settings.prediction_folders().items()}
    made = {name: source.load() for name, source in synthetic.items()}
    few = {f"sparse {name}": source.load() for name, source in sparse.items()}
    other = generalist.load() if generalist else []
    beside, held_out = (
        [] if folder is None else generated_source(settings, folder).load()
        for folder in (settings.synthetic_test, settings.held_out)
    )
    sets = {"real_train": train_set, "real_test": test, **made, "synthetic_test": beside, **few, "generalist": other}
    sets = {name: images for name, images in (sets | {"held_out": held_out}).items() if images}
    check_sets(sets, generated={*made, "synthetic_test", "sparse synthetic", "held_out"})
    for images in [*made.values(), *few.values()]:
        check_apart(images, held_out, "held-out")
    conditions = ({"real": train_set} if train_set else {}) | made | few
    for prefix in ("", "sparse "):
        real, synthetic_too = conditions.get(prefix + "real"), conditions.get(prefix + "synthetic")
        if real and synthetic_too:
            conditions[prefix + "both"] = joined(real, synthetic_too)
    for ratio in settings.ratios:
        conditions[f"{ratio} % synthetic"] = mixture(train_set, made["synthetic"], ratio / 100)
    by_planes = not isinstance(kinds[0], MultiClassSettings) and is_shallow(test[0])
    own = kinds[0 if by_planes else test[0].image.ndim - 2]
    own = replace(own, steps=settings.steps or own.steps)
    measure: Measure | None = None
    known = train_set or made["synthetic"]  # a user would tell "none" how large his cells are
    if isinstance(own, MultiClassSettings):
        check_tissue(sets)
        if held_out:
            raise ValueError("held_out chooses Cellpose's threshold: leave it out, or take another protocol")
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
        what = f"{segmenter.replace(repr(own), repr(passing_over))}, around annotated cells"
        parts.append((some, test, lambda data, seed: trained(data, passing_over, seed), seeds, output, what))
    pretrained = settings.pretrained
    if pretrained is not None:
        ready = published(pretrained, size, settings.cellprob_threshold)
        file = Path(pretrained)
        what = f"{segmenter}, {pretrained}, {size:.2f}"
        what += hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
        parts.insert(0, ({"none": []}, test, lambda data, seed: ready, 1, output, what))
        facts["none"] = pretrained
    elif other and generalist:
        parts.insert(0, ({"none": other}, test, train_other, seeds, output, f"{segmenter}, {size:.2f}"))
        facts["none"] = f"a generalist trained on {generalist.folder.name}"
    others = {"synthetic": beside} if beside else {}
    for _ in range(2):  # again, to see what other processes have finished meanwhile
        seg: dict[str, dict[str, Any]] = {}
        for part in parts:
            seg |= run_trainings(*part, rank=rank, world=world, others=others, measure=measure, held_out=held_out)
    if any(name not in seg for part in parts for name in part[0]):
        return None
    seg |= {name: _ready(name, labels, test, output) for name, labels in given.items()}
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
    sizes = [np.bincount(one.labels.ravel())[1:] * np.prod(one.spacing_um) for one in first[:limit]]
    ndim, volumes = first[0].image.ndim, np.concatenate(sizes)
    reach = 6 * float(np.median(volumes[volumes > 0])) ** (1 / ndim)
    found = {}
    for name, images in sets.items():
        if images[0].image.ndim == ndim:
            some = [images[n] for n in evenly(len(images), limit)]
            spacings = [o.spacing_um for o in some]
            found[name] = field_statistics([o.image for o in some], [o.labels for o in some], spacings, reach)
    return found


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
    held_out: list[LabelledImage] | None = None,
) -> dict[str, dict[str, Any]]:
    """Train a network on every condition with every seed, and score it on the test images.

    Each training's scores are kept in `output_dir/runs`, and of the first seed `keep` predictions, evenly drawn and
    named by the test image's number: started again, only what is missing, or was made of other images, labels or
    settings (`what` names them), is trained; conditions of the same images share their trainings. Of `world` processes
    each does its share. measure: gives scores beside those of `score`. Returns, by condition of which all trainings are
    done, mean, std (over seeds) and n of each score; and under "seg_of_images" the SEG of each test image, the mean
    over seeds. The same of `others`, further test images by name, as "CONDITION on NAME".

    held_out: images that choose the threshold at which each network is scored once more, under "tuned": the thresholds,
    one a seed, and the scores.
    """
    folder = Path(output_dir) / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    others, held_out = others or {}, held_out or []
    chosen_on = _key("threshold", held_out, test)
    keys = {name: _key(what, data, test, *others.values()) for name, data in conditions.items()}
    first = {name: next(other for other in conditions if keys[other] == keys[name]) for name in conditions}
    jobs = [(name, seed) for seed in range(seeds) for name in conditions if first[name] == name]

    def done(name: str, seed: int) -> bool:
        path = folder / f"{name}_{seed}.json"
        if not path.is_file():
            return False
        run = json.loads(path.read_text())
        return bool(run["key"] == keys[name] and (not held_out or run.get("tuned", {}).get("on") == chosen_on))

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
        run = {"key": keys[name], **found, "others": beside}
        if held_out:
            threshold = best_threshold(segment, held_out)
            at_best = [segment(one, cellprob_threshold=threshold) for one in test]
            best = score([one.labels for one in test], at_best).to_dict()
            run["tuned"] = {"on": chosen_on, "threshold": threshold, "scores": best}
        with replacing(folder / f"{name}_{seed}.json") as partial:
            partial.write_text(json.dumps(run))
        log.info("%s, seed %d: SEG %.3f", name, seed, found["scores"]["seg"])
    for name, seed in [(name, seed) for name in conditions for seed in range(seeds) if first[name] != name]:
        for ending in (f"_{seed}.json", ".npz") if done(first[name], seed) else ():
            with replacing(folder / f"{name}{ending}") as copy:
                shutil.copyfile(folder / f"{first[name]}{ending}", copy)
    whole = [name for name in conditions if all(done(name, seed) for seed in range(seeds))]
    runs = {name: [json.loads((folder / f"{name}_{seed}.json").read_text()) for seed in range(seeds)] for name in whole}
    summaries = {name: _summary(some, bool(held_out)) for name, some in runs.items()}
    for other in others:
        summaries |= {f"{name} on {other}": _summary([run["others"][other] for run in runs[name]]) for name in whole}
    return summaries


def _judged(
    segment: Segment, test: list[LabelledImage], measure: Measure | None
) -> tuple[dict[str, Any], list[npt.NDArray[Any]]]:
    """Scores of a trained segmenter, those of each image, and what it made of them."""
    predictions = [segment(one) for one in test]
    found = _scored(test, predictions)
    found["scores"] |= measure(segment, test, predictions) if measure else {}
    return found, predictions


def _scored(test: list[LabelledImage], predictions: list[npt.NDArray[Any]]) -> dict[str, Any]:
    """Scores of all, and the SEG of each image that shows a cell."""
    each = [score([one.labels], [p]).seg for one, p in zip(test, predictions, strict=True) if one.labels.any()]
    return {"scores": score([one.labels for one in test], predictions).to_dict(), "seg_of_images": each}


def _ready(name: str, found: list[npt.NDArray[Any]], test: list[LabelledImage], output: Path) -> dict[str, Any]:
    """The scores of labels that others found, of which some are kept for the report like those of a training."""
    with replacing(output / "runs" / f"{name}.npz") as partial, partial.open("wb") as file:
        np.savez_compressed(file, **{str(n): found[n] for n in evenly(len(test), 3)})
    return _summary([_scored(test, found)])


def _summary(runs: list[dict[str, Any]], tuned: bool = False) -> dict[str, Any]:
    found = _over_seeds([run["scores"] for run in runs])
    if tuned:
        at_best = [run["tuned"] for run in runs]
        scores = _over_seeds([one["scores"] for one in at_best])
        found["tuned"] = {"thresholds": [one["threshold"] for one in at_best], "scores": scores}
    return found | {"seg_of_images": np.mean([run["seg_of_images"] for run in runs], 0).tolist()}


def _over_seeds(scores: list[dict[str, float]]) -> dict[str, Any]:
    """Of each score that all have; those of older runs have fewer."""
    return {
        key: {
            "mean": float(np.mean([one[key] for one in scores])),
            "std": float(np.std([one[key] for one in scores], ddof=min(1, len(scores) - 1))),
            "n": len(scores),
        }
        for key in scores[0]
        if all(key in one for one in scores)
    }
