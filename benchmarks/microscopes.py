"""Where the microscope changes: segmenters trained on generated sets, tested on real images changed by known optics.

    cascade generate … --vary 0 --output_dir same        cascade generate … --vary 1 --output_dir varied
    python benchmarks/microscopes.py --output_dir DIR --synthetic same varied [--real] [--data_set BBBC039] [--kinds]

Each of the test images is segmented as it is, and as other microscopes would have taken it: a quarter of the light, a
brighter background, another gain and offset, more blur, and, of stacks, light that is lost in the depth and slices
2 and 3 µm apart. Noise that a change takes away, or that it would have brought with it, is given back, by the camera
that was fitted to the training images (that of the embedded model). --kinds: segmenters of planes are also tested on
other nuclei by other microscopes, the kinds of images of DSB2018 (on crops of which the base of nuclei2d's textures was
trained): by their size, and those of 256² by that of their nuclei; twelve of each at most, resampled until their nuclei
are as large as those of BBBC039; with --real another segmenter is trained on all other images of these kinds, which
is what their own annotations give. Needs CASCADE_DATA and the extra cellpose.
Interrupted, the same command goes on. `seg` holds, by set and microscope, the mean SEG of the images, mean and standard
deviation over the trainings, `lost` what is less than on the images as they are. Prints one JSON object on its last
line. To see that it works: --frames 2 --seeds 1 --steps 10.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import data_folder, machine
from scipy import ndimage
from skimage import transform

from cascade import embedded
from cascade.evaluation.experiment import run_trainings
from cascade.evaluation.labelled import LabelledImage, typical_diameter
from cascade.evaluation.segmenters import PROTOCOLS, trained
from cascade.evaluation.settings import Protocol
from cascade.evaluation.sources import Source
from cascade.evenly import evenly
from cascade.geometry.resample import at_slices
from cascade.hub.statistics import saved_statistics
from cascade.optics.statistics import Statistics
from cascade.optics.vary import Microscope
from cascade.rng import stream

SETS: dict[str, dict[str, Any]] = {
    "BBBC039": dict(model="nuclei2d", train=["01"], test=("gt", ("02",)), spacing_um=(0.65, 0.65)),
    "BBBC050": dict(
        model="nuclei3d", train=[f"{n:02d}" for n in range(1, 10)], test=("st", ("10", "11")), spacing_um=()
    ),
}
MICROSCOPES = {
    "as it is": Microscope(),
    "a quarter of the light": Microscope(exposure=0.25),
    "brighter background": Microscope(background=0.3),
    "gain 2, offset +60": Microscope(gain=2.0, offset=60.0),
    "blur of 1 pixel": Microscope(blur_px=1.0),
}
DEEP = {
    "half the light in 70 µm": Microscope(attenuation_per_um=0.01),
    "slices of 2 µm": Microscope(slice_um=2.0),
    "slices of 3 µm": Microscope(slice_um=3.0),
    "all of it": Microscope(0.25, 2.0, 60.0, 0.3, 1.0, 0.01, 3.0),
}


SMALL, LARGE = 12.0, 17.0  # mean diameters of nuclei of an image, in pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--synthetic", type=Path, nargs="+", required=True, help="generated sets: --vary 0, 1")
    parser.add_argument("--data_set", choices=SETS, default="BBBC039")
    parser.add_argument("--kinds", action="store_true", help="also test on DSB2018, by kind")
    parser.add_argument("--real", action="store_true", help="also train on the real training images")
    parser.add_argument("--protocol", choices=[name for name in PROTOCOLS if name != "cellpose4"], default="narrow")
    parser.add_argument("--frames", type=int, help="test on so many images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of each training; default as the protocol says")
    options = parser.parse_args()
    if options.kinds and options.data_set != "BBBC039":
        parser.error("--kinds are planes, and so must be the set that is trained on: --data_set BBBC039")
    known = SETS[options.data_set]
    folder, (truth, sequences) = data_folder() / options.data_set, known["test"]
    test = Source(folder, truth, sequences, options.frames, known["spacing_um"]).load()
    conditions = {path.name: Source(path).load() for path in options.synthetic}
    if options.real:
        conditions["real"] = Source(folder, "gt", tuple(known["train"]), None, known["spacing_um"]).load()
    statistics = Statistics.from_dict(saved_statistics(embedded(known["model"])))
    changed = changed_sets(test, statistics)
    if options.kinds:
        kinds, others = kinds_of_nuclei(data_folder() / "DSB2018", typical_diameter(test), options.frames or 12)
        changed |= kinds
        if options.real:
            conditions["real, of the kinds"] = others
    report: dict[str, Any] = {
        "data_set": options.data_set,
        "machine": machine(),
        "images": {name: len(some) for name, some in changed.items()},
    }
    report |= scores(conditions, changed, options.output_dir, options.protocol, options.steps, options.seeds)
    (options.output_dir / "microscopes.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report))


def changed_sets(test: list[LabelledImage], statistics: Statistics) -> dict[str, list[LabelledImage]]:
    """The test images as each microscope takes them, by its name."""
    microscopes = MICROSCOPES | (DEEP if test[0].image.ndim == 3 else {})
    return {
        name: [changed(one, microscope, statistics, n) for n, one in enumerate(test)]
        for name, microscope in microscopes.items()
    }


def kinds_of_nuclei(
    folder: Path, diameter_px: float, most: int
) -> tuple[dict[str, list[LabelledImage]], list[LabelledImage]]:
    """Images by kind, at most so many evenly drawn, and all others, resampled to nuclei of a diameter by kind."""
    found: dict[str, list[LabelledImage]] = {}
    for one in Source(folder, spacing_um=(1.0, 1.0)).load():
        if one.labels.any():
            kind = "×".join(map(str, one.image.shape))
            if one.image.shape == (256, 256):
                size = typical_diameter([one])
                kind += ", small" if size < SMALL else ", large" if size > LARGE else ", medium"
            found.setdefault(kind, []).append(one)
    kinds: dict[str, list[LabelledImage]] = {}
    others: list[LabelledImage] = []
    for kind, images in sorted(found.items()):
        picked = set(map(int, evenly(len(images), most)))
        drawn, rest = ([one for n, one in enumerate(images) if (n in picked) is so] for so in (True, False))
        factor = diameter_px / typical_diameter(drawn)
        kinds[kind] = [resized(one, factor) for one in drawn]
        others += [resized(one, factor) for one in rest]
    return kinds, others


def resized(one: LabelledImage, factor: float) -> LabelledImage:
    """A plane with more pixels, or fewer, without aliasing."""
    shape = np.maximum(np.rint(np.array(one.image.shape) * factor), 1).astype(int)
    image = transform.resize(one.image.astype(np.float32), shape, anti_aliasing=factor < 1)
    labels = transform.resize(one.labels, shape, order=0, preserve_range=True, anti_aliasing=False)
    return LabelledImage(image, labels.astype(one.labels.dtype), one.spacing_um)


def changed(one: LabelledImage, microscope: Microscope, statistics: Statistics, number: int) -> LabelledImage:
    """A real image as another microscope would have taken it: what is linear is done to the image with its noise, and
    noise is added until there is as much as there would be: gamma variables, which a dark pixel's light stays above."""
    if microscope == Microscope():
        return one
    noise, spacing, rng = statistics.noise, one.spacing_um, stream(0, "microscope", number)
    image = one.image.astype(np.float32) - noise.offset
    typical = float(np.median(statistics.cell_brightness)) - statistics.background.level
    added = microscope.exposure * microscope.gain * microscope.background * typical
    smooth = ndimage.gaussian_filter(image, (0, 1, 1)[-image.ndim :]).clip(0)  # the photons, nearly without noise
    signal = microscope.light(smooth, spacing) + added
    wanted = microscope.noise(noise).variance(signal + noise.offset + microscope.offset)
    there = kept_variance(lambda light: microscope.light(light, spacing), noise.variance(smooth + noise.offset), rng)
    mean, missing = microscope.light(image, spacing) + added, np.maximum(wanted - there, 0)
    noisy = (mean > 0) & (missing > 0)
    taken = mean + noise.offset + microscope.offset
    taken[noisy] += rng.gamma(mean[noisy] ** 2 / missing[noisy], missing[noisy] / mean[noisy]) - mean[noisy]
    labels, slice_um = one.labels, microscope.slice_um
    if slice_um is not None and image.ndim == 3:
        labels, spacing = at_slices(labels, spacing[0], slice_um, order=0), (slice_um, *spacing[1:])
    return LabelledImage(np.clip(np.rint(taken), 0, 65_535).astype(np.uint16), labels, spacing)


def kept_variance(change: Callable[[Any], Any], variance: Any, rng: np.random.Generator) -> Any:
    """What a linear change leaves of white noise of a slowly varying variance, found by trying."""
    tried = change(rng.standard_normal(variance.shape, dtype=np.float32)) ** 2
    flat = np.broadcast_to(tried.mean((-2, -1), keepdims=True), tried.shape)
    through = change(np.ones_like(variance))  # how it passes what is smooth
    return flat * change(variance) / np.maximum(through, 1e-9)


def scores(
    conditions: dict[str, list[LabelledImage]],
    changed: dict[str, list[LabelledImage]],
    output: Path,
    protocol: Protocol,
    steps: int | None,
    seeds: int,
) -> dict[str, Any]:
    """SEG by training set and microscope. Each network is trained once, and segments all images of all microscopes."""
    test = [one for images in changed.values() for one in images]
    own = PROTOCOLS[protocol][test[0].image.ndim - 2]
    own = replace(own, steps=steps or own.steps)
    run_trainings(conditions, test, lambda data, seed: trained(data, own, seed), seeds, output, repr(own))
    shown = [name for name, images in changed.items() for one in images if one.labels.any()]
    seg: dict[str, Any] = {}
    for condition in conditions:
        runs = [json.loads((output / "runs" / f"{condition}_{n}.json").read_text()) for n in range(seeds)]
        each = np.array([run["seg_of_images"] for run in runs])  # (seeds, images)
        usual = each[:, [name == "as it is" for name in shown]].mean(1)
        seg[condition] = {}
        for microscope in changed:
            found = each[:, [name == microscope for name in shown]].mean(1)
            lost = float((usual - found).mean())
            seg[condition][microscope] = {"mean": float(found.mean()), "std": float(found.std()), "lost": lost}
    return {"segmenter": repr(own), "seeds": seeds, "seg": seg}


if __name__ == "__main__":
    main()
