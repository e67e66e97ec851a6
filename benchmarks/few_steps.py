"""Sketches painted in a few steps: by a distilled model, and by its teacher in as few.

    python benchmarks/few_steps.py --model BBBC039=FOLDER [--images N]

FOLDER is what `cascade train distilled-sketch` wrote. Sketches of real labels, each cell at its mean, painted by
the `teacher` at its default, by the same in `half` as many steps and in as few as the `student`, and by the student
(`few_steps=True`): against the real images PSNR and ZNCC, `noise`, the rms step between neighbours in the background
over that of the real images, and `fid_scattering` of tiles, whose `floor` is that of two halves of the real ones; and
seconds for an image, in this run. Prints one JSON object on its last line.

Needs CASCADE_DATA.
"""

import argparse
import json
import time

import numpy as np
import torch
from common import data_folder, machine
from plain import _PART, _distance, _tiles
from sketch import _metrics, _sketched, data_sets

from cascade.evaluation.scattering import scattering, scattering_features
from cascade.evenly import evenly
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.rng import stream

Array = np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="DATA_SET=FOLDER of a distilled model")
    parser.add_argument("--images", type=int, default=6)
    options = parser.parse_args()
    name, folder = options.model.split("=", 1)
    of = data_sets(data_folder())[name]
    teacher, student = (SketchPipeline.from_pretrained(folder, few_steps=few) for few in (False, True))
    fewest, usual = (one.painting().num_inference_steps for one in (student, teacher))
    ways = {
        "teacher": (teacher, {}),
        "half": (teacher, {"num_inference_steps": usual // 2}),
        "teacher_as_few": (teacher, {"num_inference_steps": fewest}),
        "student": (student, {}),
    }
    sets: dict[str, list[Array]] = {"real": [], **{way: [] for way in ways}}
    empty, seconds = [], dict.fromkeys(ways, 0.0)
    for n in evenly(len(of.pairs), options.images):
        image, sketch = _sketched(teacher, of, n, _PART[len(of.spacing_um)])
        sets["real"].append(image.astype(np.float32))
        empty.append(sketch <= np.quantile(sketch, 0.1))
        for way, (pipeline, how) in ways.items():
            start = time.perf_counter()
            made = pipeline(sketches=sketch, generator=torch.Generator().manual_seed(n), **how).images[0]
            seconds[way] += time.perf_counter() - start
            sets[way].append(made.astype(np.float32))
    coefficients = {way: scattering(_tiles(several)) for way, several in sets.items()}
    real = scattering_features(coefficients["real"], coefficients["real"])
    halves = np.array_split(real[stream(0, "halves").permutation(len(real))], 2)
    report: dict = {"images": len(empty), "tiles": len(real), "steps": [usual, fewest], "floor": _distance(*halves)}
    for way in ways:
        rows = [_metrics(teacher, a, b) for a, b in zip(sets["real"], sets[way], strict=True)]
        report[way] = {key: round(float(np.mean([row[key] for row in rows])), 3) for key in ("psnr", "zncc")} | {
            "noise": round(_noise(sets[way], empty) / _noise(sets["real"], empty), 3),
            "fid_scattering": _distance(scattering_features(coefficients[way], coefficients["real"]), real),
            "seconds_per_image": round(seconds[way] / len(empty), 2),
        }
    print(json.dumps({name: report, "machine": machine()}))


def _noise(images: list[Array], empty: list[Array]) -> float:
    """Root mean square of steps between neighbours where the sketch is darkest."""
    steps = [np.diff(image)[dark[..., 1:]] for image, dark in zip(images, empty, strict=True)]
    return float(np.sqrt(np.mean(np.concatenate(steps) ** 2)))


if __name__ == "__main__":
    main()
