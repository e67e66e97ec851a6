"""Does pretraining help? The texture stage finetuned from a pretrained model and from random weights, step by step.

    python benchmarks/pretraining.py [--quick] [--steps 100 200 300] [--crops 10 30] [--seeds 3] [--base_model DIR]
                                     [--output_dir DIR]

Both are trained on the crops of BBBC039 `01` with the same data order; at each of --steps the averaged weights are
measured on BBBC039 `02`: the denoising loss, and the Fréchet distance of 128 textured validation masks to the real
crops. The base model defaults to the embedded nuclei3d, whose UNet was pretrained on nuclei of BBBC038, 039 and 050 and
finetuned on BBBC050; the autoencoder is the same for both. With --crops both are trained on so many of the crops,
evenly drawn, instead of all. Prints one JSON object on its last line.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import data_folder, machine
from datasets import Dataset
from stages import SETS, crops_of
from texture import pick

from cascade import embedded
from cascade.data.dataset import CropDataset
from cascade.diffusion.alignment import otsu_alignment
from cascade.diffusion.encoders import LatentEncoder
from cascade.diffusion.losses import DenoisingLoss
from cascade.diffusion.networks import Controlled
from cascade.evaluation.distribution import all_orientations, encoder_features, frechet_distance
from cascade.evaluation.experiment import run_trainings
from cascade.evaluation.segmenters import NARROW, trained
from cascade.evaluation.sources import Source
from cascade.evenly import evenly
from cascade.optics.camera import photograph_crops
from cascade.optics.statistics import Statistics
from cascade.pipelines.cascade import CascadePipeline
from cascade.pipelines.texture import TexturePipeline

_LEAST = 320  # rows of a folder of crops: ten batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ten and twenty steps")
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 200, 300], help="where to measure, ascending")
    parser.add_argument("--crops", type=int, nargs="+", default=[], help="train on so many; default all")
    parser.add_argument("--seeds", type=int, default=0, help="train segmenters so often on what each texture makes")
    parser.add_argument("--base_model", default=str(embedded("nuclei3d") / "texture"))
    parser.add_argument("--output_dir", type=Path, help="keep the trained stages here, and go on from there")
    options = parser.parse_args()
    steps = [10, 20] if options.quick else options.steps
    data = data_folder()
    report: dict = {"steps": steps}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output_dir or Path(temporary)
        crops = {part: folder / f"crops_{part}" for part in ("train", "test")}
        loaded = {part: crops_of(data, SETS["nuclei2d"], part, crops[part]) for part in crops}
        base = folder / "base"  # both ControlNets are new
        shutil.copytree(options.base_model, base, ignore=shutil.ignore_patterns("controlnet"), dirs_exist_ok=True)
        for count in options.crops or [None]:
            own = crops["train"] if count is None else fewer(crops["train"], count, folder / f"crops_{count}")
            place = folder if count is None else folder / f"of_{count}"
            found = {
                name: curve(place / name, own, base, steps, name == "from_scratch", loaded["test"], options.quick)
                for name in ("pretrained", "from_scratch")
            }
            if options.seeds:
                for name, figures in found.items():
                    figures["seg"] = seg(place / name, data, options.seeds, options.quick)
            report |= found if count is None else {f"{count} crops": found}
    report["machine"] = machine()
    print(json.dumps(report))


def fewer(crops: Path, count: int, folder: Path) -> Path:
    """So many crops of a folder, evenly drawn, each as often as it takes to fill some batches."""
    if not folder.exists():
        shutil.copytree(crops, folder)
        (file,) = (folder / "data").glob("*.parquet")
        rows = Dataset.from_parquet(str(crops / "data" / file.name), cache_dir=str(folder / "cache"))
        own = evenly(len(rows), count)
        rows.select([*own] * -(-_LEAST // count)).to_parquet(file)
    return folder


def curve(
    output: Path, crops: Path, base: Path, steps: list[int], scratch: bool, test: CropDataset, quick: bool
) -> dict:
    """What is measured of a training after so many steps, a list for each figure."""
    points = []
    for count in steps:
        train(output, crops, str(base), count, scratch)
        points.append(measure(output, test, 16 if quick else 128))
        print(output.parent.name, output.name, count, points[-1], file=sys.stderr)
    return {key: [point[key] for point in points] for key in points[0]}


def train(output: Path, crops: Path, base: str, steps: int, from_scratch: bool) -> None:
    """Up to `steps`, going on where the last call stopped; a constant rate, so that stopping changes nothing."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "-m", "cascade.training.train_controlnet"]
    command += ["--data", str(crops), "--base_model", base, "--output_dir", str(output)]
    command += ["--max_train_steps", str(steps), "--lr_scheduler", "constant_with_warmup", "--lr_warmup_steps", "50"]
    command += ["--train_batch_size", "32", "--mixed_precision", "bf16", "--resume_from_checkpoint", "latest"]
    command += ["--decoder_max_train_steps", "0"]  # the autoencoder stays the same for both
    command += ["--checkpointing_steps", "50", "--report_to", "none", "--from_scratch", str(from_scratch).lower()]
    subprocess.run(command, check=True)


@torch.no_grad()
def measure(folder: Path, crops: CropDataset, count: int) -> dict:
    """Validation loss, Fréchet distance and agreement with the masks."""
    pipeline = TexturePipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    network = Controlled(pipeline.unet, pipeline.controlnet, pipeline.prompt)
    loss = DenoisingLoss(network, LatentEncoder(pipeline.vae), pipeline.scheduler).eval()
    rows = np.linspace(0, len(crops) - 1, 4 * 32).astype(int).reshape(4, 32)
    losses = [float(loss(crops[list(r)], torch.Generator().manual_seed(n))) for n, r in enumerate(rows)]
    masks, real, brightness = pick(crops, count)
    made = pipeline(masks, brightness, num_inference_steps=20, generator=torch.Generator().manual_seed(0)).images
    shown = photograph_crops(
        made, masks, Statistics.load(folder), pipeline.config.pixel_size_um, np.random.default_rng(0)
    )
    seen = [encoder_features(pipeline.vae, all_orientations(images)) for images in (shown, real)]
    return {
        "validation_loss": round(float(np.mean(losses)), 5),
        "fid": round(frechet_distance(*seen), 5),
        "alignment": round(float(otsu_alignment(made, masks).mean()), 4),
    }


def seg(folder: Path, data: Path, seeds: int, quick: bool) -> list[float]:
    """Of segmenters trained on planes of nuclei2d's cells with this texture, on BBBC039 `02`."""
    planes, count = folder / "planes", 10 if quick else 100
    model = CascadePipeline.from_pretrained(embedded("nuclei2d"), texture=TexturePipeline.from_pretrained(folder))
    model.save_pretrained(folder / "model")
    command = [sys.executable, "-m", "cascade", "generate", "--model", str(folder / "model"), "--bank", str(4 * count)]
    subprocess.run([*command, "--num_images", str(count), "--output_dir", str(planes)], check=True)
    real = Source(data / "BBBC039", "gt", ("02",), 2 if quick else None, (0.65, 0.65)).load()
    own = replace(NARROW, steps=20) if quick else NARROW
    run_trainings(
        {"synthetic": Source(planes).load()}, real, lambda images, seed: trained(images, own, seed), seeds,
        folder / "segmenters", repr(own),
    )  # fmt: skip
    runs = [json.loads((folder / "segmenters" / "runs" / f"synthetic_{n}.json").read_text()) for n in range(seeds)]
    return [round(run["scores"]["seg"], 4) for run in runs]


if __name__ == "__main__":
    main()
