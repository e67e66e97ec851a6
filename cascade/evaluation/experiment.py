"""Does synthetic data improve segmentation? Train on nothing, real, synthetic and both; test on real images."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from tqdm.auto import tqdm

from cascade.data.frames import DataError, check_pair, find_frames, spacing_of
from cascade.evaluation.distribution import all_orientations, encoder_features, frechet_distance, kernel_distance
from cascade.evaluation.population import FieldStatistics, field_statistics
from cascade.evaluation.segmentation import score
from cascade.evaluation.segmenters import NARROW, CellposeSettings, LabelledImage, Segment, cellpose3, segment
from cascade.intensity import Window

log = logging.getLogger(__name__)

Train = Callable[[list[LabelledImage], int], Segment]


@dataclass(frozen=True)
class Source:
    """A data set on disk: folder, which truth, which of its sequences, and at most how many frames, evenly drawn."""

    folder: Path
    truth: str = "gt"
    sequences: tuple[str, ...] = ()
    frames: int | None = None

    def load(self) -> list[LabelledImage]:
        """Its annotated images; a stack of which one slice is annotated gives that plane.

        Raises DataError for what cannot be used, naming the file.
        """
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


def evaluate(
    real_train: Source,
    real_test: Source,
    synthetic: dict[str, Source],
    output_dir: str | Path,
    generalist: Source | None = None,
    pretrained: str | None = None,
    settings: CellposeSettings = NARROW,
    seeds: int = 3,
    title: str = "Does synthetic data improve segmentation?",
    ratios: tuple[int, ...] = (),
) -> Path:
    """Train Cellpose on real, synthetic and both, test all on `real_test`, and write a report.

    Args:
        real_train, real_test: must share no image.
        synthetic: data sets by name; "synthetic" is the one that is also joined with the real one, others are
            ablations.
        output_dir: gets `report.html`, `report.json`, `table.md`; finished trainings are kept in `runs`, and the same
            call goes on where it was.
        generalist: what "none" was trained on, where `pretrained`, the name of a Cellpose model, is not given;
            without either there is no "none".
        settings, seeds: of every training.
        ratios: also train on a fixed number of images of which so many percent are synthetic (0 to 100).

    Returns the path of the page. Raises ValueError for sets that share images or mix 2D and 3D, DataError for files
    that cannot be used.
    """
    from diffusers import AutoencoderKL

    from cascade.assets import embedded
    from cascade.evaluation.report import write_report

    output = Path(output_dir)
    sets = {"train": real_train.load(), "test": real_test.load()}
    made = {name: source.load() for name, source in synthetic.items()}
    check_apart(sets["train"], sets["test"])
    for name, images in made.items():
        if images[0].image.ndim < sets["test"][0].image.ndim:
            raise ValueError(f"{name} holds planes, the test set stacks: give a 3D synthetic set")
        check_apart(images, sets["test"])
    conditions = {"real": sets["train"], **made}
    if "synthetic" in made:
        conditions["both"] = sets["train"] + made["synthetic"]
    if generalist is not None and pretrained is None:
        other = generalist.load()
        check_apart(other, sets["test"])
        conditions = {"none": other, **conditions}
    for ratio in ratios:
        conditions[f"{ratio} % synthetic"] = mixture(sets["train"], made["synthetic"], ratio / 100)
    output.mkdir(parents=True, exist_ok=True)

    def train(data: list[LabelledImage], seed: int) -> Segment:
        return cellpose3(data, settings, seed)[0]

    seg = run_trainings(conditions, sets["test"], train, seeds, output, what=repr(settings))
    if pretrained is not None:
        ready = run_trainings({"none": []}, sets["test"], lambda data, seed: _ready(pretrained), 1, output, pretrained)
        seg = ready | seg
    vae = AutoencoderKL.from_pretrained(embedded("nuclei2d") / "texture" / "vae", use_safetensors=True)
    facts = {"segmenter": f"Cellpose 3.1, {asdict(settings)}", "seeds": seeds}
    facts |= {f"images_{name}": len(images) for name, images in (sets | made).items()}
    shown = next(iter(made.values()))
    facts |= distribution(sets["train"], sets["test"], shown, vae)
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


def _ready(name: str) -> Segment:
    """A Cellpose model as it was published."""
    from cellpose import models

    model = models.Cellpose(model_type=name)
    return lambda one: segment(model, one, None)


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
    keep: int = 2,
) -> dict[str, dict]:
    """Train a network on every condition with every seed, and score it on the test images.

    Each training's scores are kept in `output_dir/runs`, and the first `keep` predictions of the first seed beside
    them: started again, only what is missing, or was made of other images, labels or settings (`what` names them), is
    trained. Returns, by condition, mean, std (over seeds) and n of each
    score.
    """
    folder = Path(output_dir) / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    keys = {name: _key(what, data, test) for name, data in conditions.items()}
    jobs = [(name, seed) for name in conditions for seed in range(seeds)]
    for name, seed in tqdm(jobs, desc="trainings", unit="training"):
        path = folder / f"{name}_{seed}.json"
        if path.is_file() and json.loads(path.read_text())["key"] == keys[name]:
            continue
        segment = train(conditions[name], seed)
        predictions = [segment(one) for one in test]
        scores = score([one.labels for one in test], predictions).to_dict()
        if seed == 0:
            np.savez_compressed(folder / f"{name}.npz", *predictions[:keep])
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({"key": keys[name], "scores": scores}))
        os.replace(partial, path)
        log.info("%s, seed %d: SEG %.3f", name, seed, scores["seg"])
    return {name: _summary(folder, name, seeds) for name in conditions}


def _summary(folder: Path, name: str, seeds: int) -> dict:
    runs = [json.loads((folder / f"{name}_{seed}.json").read_text())["scores"] for seed in range(seeds)]
    return {
        key: {"mean": float(np.mean(values)), "std": float(np.std(values)), "n": seeds}
        for key in runs[0]
        for values in [[run[key] for run in runs]]
    }


def distribution(
    real_train: list[LabelledImage], real_test: list[LabelledImage], synthetic: list[LabelledImage], vae, size: int = 64
) -> dict[str, float]:
    """FID and KID between patches of `size` pixels around cells, real to real and real to synthetic.

    Features are those of an autoencoder's encoder (`vae`), see `encoder_features`; all orientations count.
    """
    window = _window(real_train)
    seen = {
        name: encoder_features(vae, _patches(images, window, size))
        for name, images in (("train", real_train), ("test", real_test), ("synthetic", synthetic))
    }
    return {
        "fid_r2r": frechet_distance(seen["train"], seen["test"]),
        "fid_r2s": frechet_distance(seen["synthetic"], seen["test"]),
        "kid_r2r": kernel_distance(seen["train"], seen["test"]),
        "kid_r2s": kernel_distance(seen["synthetic"], seen["test"]),
        "features": "encoder of the embedded autoencoder",
    }


def _window(images: list[LabelledImage]) -> Window:
    values = np.concatenate([one.image.ravel()[:: max(one.image.size // 20_000, 1)] for one in images])
    low, high = np.percentile(values, [0.5, 99.9])
    return Window(float(low), float(max(high, low + 1)))


def _patches(images: list[LabelledImage], window: Window, size: int, limit: int = 600) -> np.ndarray:
    """Patches (N, size, size) in [0, 1] centred on cells, of planes with cells, in all eight orientations."""
    places = []  # (image, plane, centre), of every cell in every plane
    for number, one in enumerate(images):
        stack, masks = (array[None] if array.ndim == 2 else array for array in (one.image, one.labels))
        if min(stack.shape[1:]) <= size:
            continue
        for z, labels in enumerate(masks):
            for label, box in enumerate(ndimage.find_objects(labels), 1):
                if box is not None:
                    inside = np.argwhere(labels[box] == label).mean(0)
                    places.append((number, z, *(int(c + b.start) for c, b in zip(inside, box, strict=True))))
    if not places:
        raise ValueError(f"no cell in images larger than {size} pixels: nothing to compare")
    chosen = np.empty((min(limit, len(places)), size, size), np.float32)
    for patch, n in zip(chosen, np.linspace(0, len(places) - 1, len(chosen)).astype(int), strict=True):
        number, z, y, x = places[n]
        image = images[number].image
        padded = np.pad(image if image.ndim == 2 else image[z], size // 2, mode="reflect")
        patch[:] = window.stretch(padded[y : y + size, x : x + size])
    return all_orientations(chosen)
