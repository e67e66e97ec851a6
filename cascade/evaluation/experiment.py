"""Does synthetic data improve segmentation? Train on nothing, real, synthetic and both; test on real images."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from cascade.data.frames import DataError, check_pair, find_frames, spacing_of
from cascade.data.statistics import FILE_NAME
from cascade.evaluation.distribution import (
    all_orientations,
    encoder_features,
    frechet_distance,
    kernel_distance,
    patches,
)
from cascade.evaluation.population import FieldStatistics, field_statistics
from cascade.evaluation.segmentation import score
from cascade.evaluation.segmenters import (
    NARROW,
    NARROW_3D,
    Cellpose4Settings,
    CellposeSettings,
    LabelledImage,
    Segment,
    cellpose3,
    cellpose4,
    plane_count,
    published,
    typical_diameter,
)
from cascade.intensity import Window

log = logging.getLogger(__name__)

Train = Callable[[list[LabelledImage], int], Segment]


@dataclass(frozen=True)
class Source:
    """A data set on disk: folder, which truth, which of its sequences, and at most how many frames, evenly drawn.

    A folder of `cascade prepare` gives its crops: images of one annotated cell each, the others removed.
    """

    folder: Path
    truth: str = "gt"
    sequences: tuple[str, ...] = ()
    frames: int | None = None

    def load(self) -> list[LabelledImage]:
        """Its annotated images; a stack of which one slice is annotated gives that plane.

        Raises DataError for what cannot be used, naming the file.
        """
        if (self.folder / FILE_NAME).is_file():
            return _crops(self.folder)
        frames, _ = find_frames(self.folder, self.truth, list(self.sequences) or None)
        if self.frames is not None:
            if self.frames < 1:
                raise ValueError(f"at least one frame of each set is needed, got {self.frames}")
            frames = [frames[n] for n in np.linspace(0, len(frames) - 1, min(self.frames, len(frames))).astype(int)]
        images, spacing = [], ()
        for frame in tqdm(frames, desc=f"reading {self.folder.name}", unit="image"):
            image, labels = frame.image(), frame.labels()
            check_pair(frame, image, labels)
            if not spacing:
                spacing, origin = spacing_of(self.folder, frames, image.ndim)
                if origin == "assumed" and image.ndim == 3:
                    raise DataError(f"{self.folder}: no voxel size; write {{'spacing_um': [z, y, x]}} to dataset.json")
            if frame.z is not None:
                images.append(LabelledImage(image[frame.z], labels, spacing[1:]))
            else:
                images.append(LabelledImage(image, labels, spacing))
        return images


def _crops(folder: Path) -> list[LabelledImage]:
    from cascade.data.dataset import CropDataset

    crops = CropDataset(folder)
    window, spacing = crops.statistics[0].window, (crops.pixel_size_um,) * 2
    images, masks = (crops.columns[key][:, 0].float().numpy() for key in ("image", "mask"))
    return [
        LabelledImage(window.restore(image / 2 + 0.5).astype(np.float32), (mask > 0.5).astype(np.int32), spacing)
        for image, mask in zip(images, masks, strict=True)
    ]


def evaluate(
    real_train: Source,
    real_test: Source,
    synthetic: dict[str, Source],
    output_dir: str | Path,
    generalist: Source | None = None,
    pretrained: str | None = None,
    settings: CellposeSettings | Cellpose4Settings | None = None,
    steps: int | None = None,
    seeds: int = 3,
    title: str = "Does synthetic data improve segmentation?",
    ratios: tuple[int, ...] = (),
    sparse: dict[str, Source] | None = None,
) -> Path:
    """Train Cellpose on real, synthetic and both, test all on `real_test`, and write a report.

    Args:
        real_train, real_test: must share no image.
        synthetic: data sets by name; "synthetic" is the one that is also joined with the real one, others are
            ablations.
        output_dir: gets `report.html`, `report.json`, `table.md`; finished trainings are kept in `runs`, and the same
            call goes on where it was.
        generalist: what "none" was trained on, where `pretrained`, the name of a Cellpose model, is not given;
            without either there is no "none". It is told how large the cells of `real_train` are.
        settings, seeds: of every training; default `NARROW`, for stacks `NARROW_3D`. steps: others than theirs.
        ratios: also train on a fixed number of images of which so many percent are synthetic (0 to 100).
        sparse: data sets of a second setting, in which few cells are annotated; its "real" and "synthetic" are also
            joined.

    Returns the path of the page. Raises ValueError for sets that share images or mix 2D and 3D, DataError for files
    that cannot be used.
    """
    from diffusers import AutoencoderKL

    from cascade.assets import embedded
    from cascade.evaluation.report import write_report

    output = Path(output_dir)
    sets = {"train": real_train.load(), "test": real_test.load()}
    made = {name: source.load() for name, source in synthetic.items()}
    few = {f"sparse {name}": source.load() for name, source in (sparse or {}).items()}
    ndim = sets["test"][0].image.ndim
    for name, images in made.items():
        if images[0].image.ndim < ndim:
            raise ValueError(f"{name} holds planes, the test set stacks: give a 3D synthetic set")
    for images in (sets["train"], *made.values(), *few.values()):
        check_apart(images, sets["test"])
    conditions = {"real": sets["train"], **made, **few}
    for prefix in ("", "sparse "):
        real, synthetic_too = conditions.get(prefix + "real"), conditions.get(prefix + "synthetic")
        if real and synthetic_too:
            conditions[prefix + "both"] = joined(real, synthetic_too)
    for ratio in ratios:
        conditions[f"{ratio} % synthetic"] = mixture(sets["train"], made["synthetic"], ratio / 100)
    output.mkdir(parents=True, exist_ok=True)
    settings = settings or (NARROW if ndim == 2 else NARROW_3D)
    settings = settings if steps is None else replace(settings, steps=steps)
    network = cellpose4 if isinstance(settings, Cellpose4Settings) else cellpose3

    def train(data: list[LabelledImage], seed: int) -> Segment:
        return network(data, settings, seed)[0]

    seg = run_trainings(conditions, sets["test"], train, seeds, output, what=repr(settings))
    if pretrained is not None:
        ready = run_trainings(
            {"none": []}, sets["test"], lambda data, seed: published(pretrained), 1, output, pretrained
        )
        seg = ready | seg
    elif generalist is not None:
        other, size = generalist.load(), typical_diameter(sets["train"])  # a user would say how large his cells are
        check_apart(other, sets["test"])

        def train_other(data: list[LabelledImage], seed: int) -> Segment:
            return network(data, settings, seed, diameter_px=size)[0]

        what = f"{settings!r}, {size:.2f}"
        seg = run_trainings({"none": other}, sets["test"], train_other, seeds, output, what) | seg
    vae = AutoencoderKL.from_pretrained(embedded("nuclei2d") / "texture" / "vae", use_safetensors=True)
    facts = {"segmenter": f"Cellpose {metadata.version('cellpose')}, {settings!r}", "seeds": seeds}
    facts |= {f"images_{name}": len(images) for name, images in (sets | made | few).items()}
    shown = next(iter(made.values()))
    facts |= distribution(sets["train"], sets["test"], made | few, vae)
    fields = populations({"real test": sets["test"], "real train": sets["train"], "synthetic": shown})
    return write_report(output, title, seg, facts, sets["train"], shown, sets["test"], fields)


def populations(sets: dict[str, list[LabelledImage]], limit: int = 24) -> dict[str, FieldStatistics]:
    """Statistics of whole fields of view, at most `limit` images of each set; sets of planes beside stacks are left
    out, single slices tell nothing of a population in space."""
    first = next(iter(sets.values()))
    sizes = np.concatenate([np.bincount(one.labels.ravel())[1:] for one in first[:limit]])
    ndim, spacing = first[0].image.ndim, first[0].spacing_um
    reach = 6 * float(np.median(sizes[sizes > 0]) * np.prod(spacing)) ** (1 / ndim)
    found = {}
    for name, images in sets.items():
        if images[0].image.ndim == ndim:
            some = [images[n] for n in np.linspace(0, len(images) - 1, min(limit, len(images))).astype(int)]
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
    return [images[n] for images, k in parts for n in np.linspace(0, len(images) - 1, k).astype(int)]


def _key(what: str, data: list[LabelledImage], test: list[LabelledImage]) -> str:
    """One hash of all that a training's scores depend on: images, labels, voxel sizes, and `what` was trained."""
    digest = hashlib.sha256(what.encode())
    for part in (data, test):
        digest.update(str(len(part)).encode())
        for one in part:
            for array in (one.image, one.labels):
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
            digest.update(str(one.spacing_um).encode())
    return digest.hexdigest()


def check_apart(train: list[LabelledImage], test: list[LabelledImage]) -> None:
    """Raise ValueError if an image is in both sets, in whole or as one slice: the test would be worthless."""
    seen = {digest for one in train for digest in _digests(one.image)}
    shared = sum(bool(seen & _digests(one.image)) for one in test)
    if shared:
        raise ValueError(f"{shared} of {len(test)} test images are also training images: give sets that are apart")


def _digests(image: np.ndarray) -> set[str]:
    planes = [image] if image.ndim == 2 else list(image)
    return {hashlib.sha256(np.ascontiguousarray(plane).tobytes()).hexdigest() for plane in planes if plane.any()}


def run_trainings(
    conditions: dict[str, list[LabelledImage]],
    test: list[LabelledImage],
    train: Train,
    seeds: int,
    output_dir: Path,
    what: str = "",
    keep: int = 3,
) -> dict[str, dict]:
    """Train a network on every condition with every seed, and score it on the test images.

    Each training's scores are kept in `output_dir/runs`, and of the first seed `keep` predictions, evenly drawn and
    named by the test image's number: started again, only what is missing, or was made of other images, labels or
    settings (`what` names them), is trained. Returns, by condition, mean, std (over seeds) and n of each score; and
    under "seg_of_images" the SEG of each test image, the mean over seeds.
    """
    folder = Path(output_dir) / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    keys = {name: _key(what, data, test) for name, data in conditions.items()}
    jobs = [(name, seed) for seed in range(seeds) for name in conditions]
    for name, seed in tqdm(jobs, desc="trainings", unit="training"):
        path = folder / f"{name}_{seed}.json"
        if path.is_file() and json.loads(path.read_text())["key"] == keys[name]:
            continue
        segment = train(conditions[name], seed)
        predictions = [segment(one) for one in test]
        scores = score([one.labels for one in test], predictions).to_dict()
        each = [score([one.labels], [p]).seg for one, p in zip(test, predictions, strict=True) if one.labels.any()]
        if seed == 0:
            some = {str(n): predictions[n] for n in np.linspace(0, len(test) - 1, min(keep, len(test))).astype(int)}
            np.savez_compressed(folder / f"{name}.npz", **some)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({"key": keys[name], "scores": scores, "seg_of_images": each}))
        os.replace(partial, path)
        log.info("%s, seed %d: SEG %.3f", name, seed, scores["seg"])
    return {name: _summary(folder, name, seeds) for name in conditions}


def _summary(folder: Path, name: str, seeds: int) -> dict:
    runs = [json.loads((folder / f"{name}_{seed}.json").read_text()) for seed in range(seeds)]
    columns = {key: [run["scores"][key] for run in runs] for key in runs[0]["scores"]}
    found = {
        key: {"mean": float(np.mean(values)), "std": float(np.std(values)), "n": seeds}
        for key, values in columns.items()
    }
    return found | {"seg_of_images": np.mean([run["seg_of_images"] for run in runs], 0).tolist()}


def distribution(
    real_train: list[LabelledImage],
    real_test: list[LabelledImage],
    others: dict[str, list[LabelledImage]],
    vae,
    size: int = 64,
) -> dict:
    """FID and KID between patches of `size` pixels around cells, real to real and real to synthetic.

    Features are those of an autoencoder's encoder (`vae`), see `encoder_features`; all orientations count. Of `others`,
    "synthetic" gives `fid_r2s` and `kid_r2s`; whatever has images large enough is in `distances`, by name.
    """
    window = _window(real_train)

    def features(images: list[LabelledImage]) -> np.ndarray:
        return encoder_features(vae, all_orientations(patches(images, window, size)))

    train, test = features(real_train), features(real_test)
    found = {
        name: dict(zip(("fid", "kid"), (frechet_distance(seen, test), kernel_distance(seen, test)), strict=True))
        for name, images in others.items()
        if min(images[0].image.shape[-2:]) > size
        for seen in [features(images)]
    }
    return {
        "fid_r2r": frechet_distance(train, test),
        "kid_r2r": kernel_distance(train, test),
        **({f"{key}_r2s": value for key, value in found["synthetic"].items()} if "synthetic" in found else {}),
        "distances": found,
        "features": "encoder of the embedded autoencoder",
    }


def _window(images: list[LabelledImage]) -> Window:
    values = np.concatenate([one.image.ravel()[:: max(one.image.size // 20_000, 1)] for one in images])
    low, high = np.percentile(values, [0.5, 99.9])
    return Window(float(low), float(max(high, low + 1)))
