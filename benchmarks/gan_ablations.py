"""What each part of the conditional GAN's training is worth: trained from scratch without it, in equal steps.

    python benchmarks/gan_ablations.py [--quick] [--steps 400 500] [--only NAME …] [--output_dir DIR]

Membranes: the columns of root_membrane below 120 with their labels, in two overlapping parts, and root_unlabelled with
cells that are found in it. Measured on the root's other columns, at each of --steps, of the averaged weights: NRMSE,
SSIM and ZNCC in units of the model's window, from labels and from cells found in the image; FID by wavelet scattering
of tiles of 64², to be compared with each other only; and `noise`, the spread of two paintings of one annotation. GANs
swing: that is why there are several steps. Prints one JSON object on its last line; `painted.png` has a row for each of
--steps and a column for each training.

Needs CASCADE_DATA with root_membrane and root_unlabelled.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import data_folder, machine
from gan import TRAINED_COLUMNS, Pair, in_window, root
from scipy import ndimage
from skimage.io import imsave
from tifffile import imwrite

from cascade.data.tissue_detection import detect_tissue
from cascade.evaluation.distribution import frechet_distance
from cascade.evaluation.scattering import scattering, scattering_features
from cascade.geometry.slices import matched_slices
from cascade.pipelines.conditional_gan import ConditionalGANPipeline
from cascade.reading import read_image, read_labels

SPACING = (0.25, 0.1625, 0.1625)
DARK, GLARE = 6, 45  # of root_unlabelled, smoothed: less is outside the root; voxels above are few and far brighter
PAPER = ["--objective", "paper", "--pair_weight", "0", "--noise", "false"]
TRAININGS = {
    "all": [],
    "no position": ["--position", "false"],
    "no augmentation": ["--augmentation", "false"],
    "paper's objective": ["--objective", "paper"],
    "no identity loss": ["--identity_weight", "0"],
    "paper": [*PAPER, "--discriminator", '{"block_out_channels": [16, 32, 64]}'],
}
SMALL = ["--unet", '{"block_out_channels": [8, 16], "stem": 2}', "--patch_size", "8", "32", "32"]
SMALL += ["--discriminator", '{"block_out_channels": [8, 16]}']


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two and four steps of small networks")
    parser.add_argument("--steps", type=int, nargs="+", default=[400, 500], help="where to measure, ascending")
    parser.add_argument("--only", nargs="+", choices=tuple(TRAININGS), default=list(TRAININGS))
    parser.add_argument("--output_dir", type=Path, help="keep the trainings here, and go on from there")
    options = parser.parse_args()
    if not data_folder().is_dir():
        parser.error(f"{data_folder()} is not there: set CASCADE_DATA to the folder of the data sets")
    steps = [2, 4] if options.quick else options.steps
    with tempfile.TemporaryDirectory() as place:
        folder = options.output_dir or Path(place)
        prepare(folder / "data", quick=options.quick)
        found: dict = {}
        painted: dict = {}
        pairs = [root(options.quick, found=how) for how in (False, True)]
        for name in options.only:
            own = folder / name.replace(" ", "_").replace("'", "")
            for count in steps:
                train(folder / "data", own, count, [*TRAININGS[name], *(SMALL if options.quick else [])])
                row, image = measure(own, pairs)
                found.setdefault(name, {})[count] = row
                painted.setdefault(count, []).append(image)
                print(name, count, json.dumps(row), file=sys.stderr, flush=True)
        imsave(folder / "painted.png", np.concatenate([np.concatenate(row, 1) for row in painted.values()]))
    print(json.dumps({"ablations": found, "machine": machine()}))


def prepare(folder: Path, *, quick: bool) -> None:
    """Images and labels to train on, where they are not there yet."""
    if (folder / "dataset.json").is_file():
        return
    folder.mkdir(parents=True)
    image = read_image(data_folder() / "root_membrane" / "root.tif")[..., :TRAINED_COLUMNS]
    labels = matched_slices(read_labels(data_folder() / "root_membrane" / "root_masks.tif"))[..., :TRAINED_COLUMNS]
    for name, rows in (("root_a", slice(0, 130)), ("root_b", slice(70, 200))):
        imwrite(folder / f"{name}.tif", image[:, rows].astype(np.uint16))
        imwrite(folder / f"{name}_masks.tif", labels[:, rows].astype(np.uint16))
    if not quick:
        image = read_image(data_folder() / "root_unlabelled" / "root.tif")
        imwrite(folder / "unlabelled_masks.tif", found_cells(image).astype(np.uint16))
        imwrite(folder / "unlabelled.tif", np.minimum(image, GLARE).astype(np.uint16))
    (folder / "dataset.json").write_text(json.dumps({"spacing_um": SPACING}))


def found_cells(image: np.ndarray) -> np.ndarray:
    """Cells that `detect_tissue` finds within the root."""
    smooth = ndimage.gaussian_filter(image.astype(np.float32), (2, 3, 3))
    inside = ndimage.binary_opening(ndimage.binary_fill_holes(smooth > DARK), iterations=2)
    pieces, _ = ndimage.label(inside)
    return np.where(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1, detect_tissue(image, SPACING), 0)


def train(data: Path, output: Path, steps: int, how: list[str]) -> None:
    """Up to `steps`, going on where the last call stopped; a constant rate, so that stopping changes nothing."""
    command = [sys.executable, "-m", "cascade.training.train_gan", "--config", "configs/gan_membrane3d.yaml"]
    command += ["--data", str(data), "--output_dir", str(output), "--max_train_steps", str(steps), *how]
    command += ["--lr_scheduler", "constant_with_warmup", "--lr_warmup_steps", "10", "--ema_decay", "0.98"]
    command += ["--checkpointing_steps", "100", "--resume_from_checkpoint", "latest", "--report_to", "none"]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1], stdout=sys.stderr)


def measure(folder: Path, pairs: list[Pair]) -> tuple[dict, np.ndarray]:
    """Figures, and a plane of the middle as it is painted, uint8."""
    pipeline = ConditionalGANPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    window, row = pipeline.window, {}
    for name, pair, count in (("manual", pairs[0], 2), ("automatic", pairs[1], 1)):
        made = [pipeline(pair.annotation, generator=torch.Generator().manual_seed(n)).images[0] for n in range(count)]
        own = in_window(window, pair.image, made[0])
        row[name] = {key: round(float(own[key]), 3) for key in ("nrmse", "ssim", "zncc")}
        if count == 2:
            linear = [np.clip((one - window.low) / (window.high - window.low), 0, 1) for one in (*made, pair.image)]
            row["noise"] = round(float((linear[0] - linear[1]).std() / 2**0.5), 4)
            drawn, real = (scattering(tiles(one)) for one in (linear[0], linear[2]))
            if len(drawn) > drawn.shape[1]:
                features = (scattering_features(one, real) for one in (drawn, real))
                row["fid_scattering"] = round(frechet_distance(*features), 1)
            plane = linear[0][len(linear[0]) // 2]
    return row, (255 * plane).astype(np.uint8)


def tiles(image: np.ndarray, side: int = 64) -> np.ndarray:
    """Of every slice, overlapping by half, (N, side, side)."""
    steps = [range(0, n - side + 1, side // 2) for n in image.shape[1:]]
    parts = [plane[y : y + side, x : x + side] for plane in image for y in steps[0] for x in steps[1]]
    return np.stack(parts).astype(np.float32)


if __name__ == "__main__":
    main()
