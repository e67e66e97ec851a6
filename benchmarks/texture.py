"""Texture: agreement with masks, distance to real crops, coherence in depth, and speed against diffusers' own pipeline.

    python benchmarks/texture.py [--quick] [--output_dir DIR]

Needs CASCADE_DATA with BBBC039 and BBBC050. Prints one JSON object on its last line. Masks and real crops are those of
validation sequences; dense labels of BBBC050 are only used to measure. FID and KID are on features of the embedded
autoencoder (all eight orientations of each crop), not on Inception's, whose weights are not part of this package.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import data_folder, machine
from stages import SETS, crops_of, load, texture

from cascade.data.dataset import CropDataset
from cascade.data.frames import find_frames
from cascade.diffusion.conditioning import conditioning_image
from cascade.evaluation.distribution import (
    all_orientations,
    depth_correlation,
    encoder_features,
    frechet_distance,
    histogram_distance,
    kernel_distance,
    spectrum_distance,
)
from cascade.export.preview import image_grid, sample_preview
from cascade.scene import photograph_crops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller run of everything, in under a minute")
    parser.add_argument("--output_dir", type=Path, help="keep pictures here")
    options = parser.parse_args()
    data = data_folder()
    report, count = {}, 24 if options.quick else 500
    with tempfile.TemporaryDirectory() as folder:
        for name in list(SETS)[: 1 if options.quick else 2]:
            pipeline = load(name)
            train, test = (
                crops_of(data, SETS[name], part, Path(folder) / f"{name}_{part}") for part in ("train", "test")
            )
            report[name] = {"alignment_ratio": texture(pipeline, test, count, None, name)["alignment_ratio"]}
            report[name] |= realism(pipeline, train, test, count, options.output_dir, name)
            if name == "nuclei2d":
                report |= speed(pipeline, test, options.quick)
    if not options.quick:
        report["depth_correlation"] = depth(data, options.output_dir)
    report["machine"] = machine()
    print(json.dumps(report))


def pick(crops: CropDataset, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks, images in [0, 1] and wanted brightness of `count` crops, evenly spread."""
    total = len(crops.columns["mask"])
    rows = np.linspace(0, total - 1, min(count, total)).astype(int)
    images = crops.columns["image"][rows, 0].float().numpy() / 2 + 0.5
    return crops.columns["mask"][rows, 0].numpy(), images, crops.columns["brightness"][rows].numpy()


def draw(pipeline, masks: np.ndarray, brightness: np.ndarray, steps: int, seed: int = 0) -> np.ndarray:
    """Textured crops as the camera sees them."""
    made = pipeline.texture(
        masks, brightness, num_inference_steps=steps, generator=torch.Generator().manual_seed(seed)
    ).images
    return photographed(pipeline, made, masks)


def photographed(pipeline, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    pixel = pipeline.texture.config.pixel_size_um
    return photograph_crops(images, masks, pipeline.statistics, pixel, np.random.default_rng(0))


def features(pipeline, images: np.ndarray) -> np.ndarray:
    """Of all eight orientations of each crop."""
    return encoder_features(pipeline.texture.vae, all_orientations(images))


def realism(pipeline, train: CropDataset, test: CropDataset, count: int, folder: Path | None, name: str) -> dict:
    """Generated crops of validation masks against real validation crops; real training crops are the floor."""
    masks, real, brightness = pick(test, count)
    _, other, _ = pick(train, len(real))
    made = draw(pipeline, masks, brightness, 20)
    seen = {key: features(pipeline, images) for key, images in (("real", real), ("other", other), ("made", made))}
    # Each generated crop's nearest training crop, against how near a real validation crop comes to one.
    bank = pick(train, 10_000)[1].reshape(-1, real[0].size)
    nearest = {key: _nearest(images.reshape(len(images), -1), bank) for key, images in (("made", made), ("real", real))}
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        image_grid(np.stack([real, made], 1)[:96].reshape(-1, *made.shape[1:]), folder / f"crops_{name}.png", 24)
    scale = float(real.std())
    return {
        "crops": len(real),
        "fid_r2r": round(frechet_distance(seen["other"], seen["real"]), 5),
        "fid_r2s": round(frechet_distance(seen["made"], seen["real"]), 5),
        "kid_r2r": round(kernel_distance(seen["other"], seen["real"]), 6),
        "kid_r2s": round(kernel_distance(seen["made"], seen["real"]), 6),
        "histogram_r2r": round(histogram_distance(other, real) / scale, 4),
        "histogram_r2s": round(histogram_distance(made, real) / scale, 4),
        "spectrum_r2r": round(spectrum_distance(other, real), 4),
        "spectrum_r2s": round(spectrum_distance(made, real), 4),
        "nearest_training_rms_made": round(float(nearest["made"].mean()), 4),
        "nearest_training_rms_real": round(float(nearest["real"].mean()), 4),
        "nearest_training_rms_made_least": round(float(nearest["made"].min()), 4),
        "nearest_training_rms_real_least": round(float(nearest["real"].min()), 4),
    }


def _nearest(images: np.ndarray, bank: np.ndarray) -> np.ndarray:
    square = (images**2).sum(1)[:, None] + (bank**2).sum(1)[None] - 2 * images @ bank.T
    return np.sqrt(np.maximum(square.min(1), 0) / images.shape[1])


def speed(pipeline, crops: CropDataset, quick: bool) -> dict:
    """This pipeline against diffusers' StableDiffusionControlNetPipeline, slice by slice, guidance 5, 50 steps."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionControlNetPipeline

    texture_stage = pipeline.texture
    masks, real, brightness = pick(crops, 64 if quick else 256)
    draw(pipeline, masks[:32], brightness[:32], 2)  # warm up
    start = time.perf_counter()
    made = draw(pipeline, masks, brightness, 20)
    ours = len(masks) / (time.perf_counter() - start)
    stock = StableDiffusionControlNetPipeline(
        texture_stage.vae, None, None, texture_stage.unet, texture_stage.controlnet, texture_stage.scheduler, None,
        None, requires_safety_checker=False,
    )  # fmt: skip
    stock.set_progress_bar_config(disable=True)
    prompt = texture_stage.prompt(1)
    condition = conditioning_image(torch.from_numpy(masks).float()[:, None], torch.from_numpy(brightness))
    slices = 2 if quick else 128  # enough for a Fréchet distance; a slice takes as long as any other
    side = masks.shape[-1]
    generator, drawn = torch.Generator().manual_seed(0), []
    start = time.perf_counter()
    for one in condition[:slices]:
        (image,) = stock(
            prompt_embeds=prompt, negative_prompt_embeds=prompt, image=one[None], height=side, width=side,
            num_inference_steps=50, guidance_scale=5.0, generator=generator, output_type="pt",
        ).images  # fmt: skip
        drawn.append(image.mean(0).numpy())
    theirs = slices / (time.perf_counter() - start)
    report = {
        "slices_per_second": round(ours, 2),
        "slices_per_second_stock": round(theirs, 3),
        "speedup_over_stock": round(ours / theirs, 1),
    }
    if not quick:
        target = features(pipeline, real[:slices])
        report["fid_this"] = round(frechet_distance(features(pipeline, made[:slices]), target), 5)
        stocked = photographed(pipeline, np.stack(drawn), masks[:slices])
        report["fid_stock"] = round(frechet_distance(features(pipeline, stocked), target), 5)
        report["fid_by_steps"] = {
            steps: round(
                frechet_distance(features(pipeline, draw(pipeline, masks[:128], brightness[:128], steps)), target), 5
            )
            for steps in (5, 10, 15, 20, 25, 50)
        }
        schedule = texture_stage.scheduler
        texture_stage.scheduler = DPMSolverMultistepScheduler.from_config(schedule.config)
        report["fid_by_steps_dpm_solver"] = {
            steps: round(
                frechet_distance(features(pipeline, draw(pipeline, masks[:128], brightness[:128], steps)), target), 5
            )
            for steps in (5, 10, 15, 20)
        }
        texture_stage.scheduler = schedule
        report["slices_per_second_by_batch"] = {}
        for batch in (1, 4, 16, 32, 64):
            start = time.perf_counter()
            texture_stage(masks[:64], brightness[:64], num_inference_steps=5, micro_batch_size=batch)
            report["slices_per_second_by_batch"][batch] = round(64 / (time.perf_counter() - start) / 4, 2)
        report["slices_per_second_by_batch"]["note"] = "at 20 steps, scaled from 5"
    return report


def depth(data: Path, folder: Path | None) -> dict:
    """Correlation between neighbouring slices inside cells: real stacks, and generated ones at several ρ."""
    frames, _ = find_frames(data / "BBBC050", "st", SETS["nuclei3d"]["test"])
    real = np.concatenate([depth_correlation(f.image().astype(np.float32), f.labels()) for f in frames[::2]])
    found = {"real": round(float(real.mean()), 4)}
    pipeline = load("nuclei3d")
    for rho in (0.0, 0.7, 2.0):
        sample = pipeline(rho=rho, cells_per_image=14, generator=torch.Generator().manual_seed(7)).samples[0]
        made = depth_correlation(sample.image.astype(np.float32), sample.labels)
        found[str(rho)] = round(float(made.mean()), 4)
        if folder:
            sample_preview(sample, folder / f"depth_rho_{rho:g}.png")
    return found


if __name__ == "__main__":
    main()
