"""Texture: agreement with masks, distance to real crops, coherence in depth, and speed against diffusers' own pipeline.

    python benchmarks/texture.py [--quick] [--output_dir DIR]

Needs CASCADE_DATA with BBBC039 and BBBC050. Prints one JSON object on its last line. Masks and real crops are those of
validation sequences; dense labels of BBBC050 are only used to measure. fid and kid are on features of the embedded
autoencoder (all eight orientations of each crop), not on Inception's, whose weights are not part of this package;
fid_scattering and kid_scattering on features that nobody trained. Each has a floor: two halves of the real crops.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import data_folder, machine
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from stages import SETS, crops_of, load, photographed, pick, shown, texture, wanted

from cascade import CascadePipeline, embedded
from cascade.data.dataset import CropDataset
from cascade.data.frames import find_frames
from cascade.diffusion.alignment import otsu_alignment
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
from cascade.evaluation.scattering import scattering, scattering_features
from cascade.export.preview import image_grid, sample_preview
from cascade.optics.grain import Grain


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
                crops_of(data, SETS[name], part, Path(folder) / f"{name}_{part}", 6 if options.quick else None)
                for part in ("train", "test")
            )
            report[name] = texture(pipeline, test, count, options.output_dir, name)
            report[name] |= realism(pipeline, train, test, count, options.output_dir, name)
            if name == "nuclei2d":
                report |= speed(pipeline, test, options.quick)
                report["distilled"] = distilled(pipeline, test, count)
    if not options.quick:
        report["depth_correlation"] = depth(data, options.output_dir)
    report["machine"] = machine()
    print(json.dumps(report))


def features(pipeline, images: np.ndarray) -> np.ndarray:
    """Of all eight orientations of each crop."""
    return encoder_features(pipeline.texture.vae, all_orientations(images))


def draw(pipeline, masks: np.ndarray, light: np.ndarray, steps: int) -> np.ndarray:
    """Textured crops as they are composed and the camera sees them, grey values in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    made = pipeline.texture(masks, wanted(pipeline, light), num_inference_steps=steps, generator=generator).images
    return shown(pipeline, photographed(pipeline, made, masks, light))


def realism(pipeline, train: CropDataset, test: CropDataset, count: int, folder: Path | None, name: str) -> dict:
    """Generated crops of validation masks against real validation crops; real training crops are the floor."""
    masks, real, light = pick(test, count)
    real = shown(pipeline, real)
    other = shown(pipeline, pick(train, len(real))[1])
    made = draw(pipeline, masks, light, 20)
    seen = {key: features(pipeline, images) for key, images in (("real", real), ("other", other), ("made", made))}
    # Each generated crop's nearest training crop, against how near a real validation crop comes to one.
    bank = shown(pipeline, pick(train, 10_000)[1]).reshape(-1, real[0].size)
    nearest = {key: _nearest(images.reshape(len(images), -1), bank) for key, images in (("made", made), ("real", real))}
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        image_grid(np.stack([real, made], 1)[:96].reshape(-1, *made.shape[1:]), folder / f"crops_{name}.png", 24)
    scale = float(real.std())
    found = {"crops": len(real)} | floor(seen["real"].reshape(8, len(real), -1), real)
    for key, images in (("r2r", other), ("r2s", made)):
        features_of = seen["other" if key == "r2r" else "made"]
        found |= {
            f"fid_{key}": round(frechet_distance(features_of, seen["real"]), 5),
            f"kid_{key}": round(kernel_distance(features_of, seen["real"]), 6),
            **independent(images, real, key),
            f"histogram_{key}": round(histogram_distance(images, real) / scale, 4),
            f"spectrum_{key}": round(spectrum_distance(images, real), 4),
        }
    for key, distances in nearest.items():
        found |= {f"nearest_training_rms_{key}": round(float(distances.mean()), 4)}
        found |= {f"nearest_training_rms_{key}_least": round(float(distances.min()), 4)}
    return found


def independent(images: np.ndarray, real: np.ndarray, key: str) -> dict:
    """Distances by wavelet scattering; FID needs more crops than its 127 features."""
    made, like = (scattering(crops) for crops in (images, real))
    pair = scattering_features(made, like), scattering_features(like, like)
    found = {f"kid_scattering_{key}": round(kernel_distance(*pair), 5)}
    if min(map(len, pair)) > made.shape[1]:
        found[f"fid_scattering_{key}"] = round(frechet_distance(*pair), 3)
    return found


def floor(seen: np.ndarray, real: np.ndarray) -> dict:
    """Of two halves of the real crops; features are (8, N, D)."""
    mixed = np.random.default_rng(0).permutation(len(real))
    halves = mixed[::2], mixed[1::2]
    parts = [seen[:, half].reshape(-1, seen.shape[-1]) for half in halves]
    found = {"fid_floor": round(frechet_distance(*parts), 5), "kid_floor": round(kernel_distance(*parts), 6)}
    return found | independent(real[halves[0]], real[halves[1]], "floor")


def _nearest(images: np.ndarray, bank: np.ndarray) -> np.ndarray:
    square = (images**2).sum(1)[:, None] + (bank**2).sum(1)[None] - 2 * images @ bank.T
    return np.sqrt(np.maximum(square.min(1), 0) / images.shape[1])


def speed(pipeline, crops: CropDataset, quick: bool) -> dict:
    """This pipeline against diffusers' StableDiffusionControlNetPipeline, slice by slice: in as many steps without
    guidance, which is the same work, and with guidance 5 in 50 steps, as the paper's authors have it.

    Same weights, same machine, both float32 and, for this pipeline, also bfloat16. Images of both get grain and camera
    noise and are confined to the cell, so that the distances compare what the samplers make.
    """
    masks, real, light = pick(crops, 32 if quick else 256)
    draw(pipeline, masks[:8], light[:8], 2)  # warm up
    rate, made = _rate(pipeline, masks, light, 20)
    slices = 2 if quick else 160  # enough for a Fréchet distance; a slice takes as long as any other
    asked = wanted(pipeline, light[:slices])
    _stock(pipeline, masks[:1], asked[:1], 2, 1.0)  # warm up
    report = {"slices_per_second": round(rate, 2)}
    for name, steps, guidance in (("same_steps", 20, 1.0), ("paper", 50, 5.0)):
        start = time.perf_counter()
        stock = _stock(pipeline, masks[:slices], asked, steps, guidance)
        theirs = slices / (time.perf_counter() - start)
        report |= {
            f"slices_per_second_stock_{name}": round(theirs, 3),
            f"speedup_over_stock_{name}": round(rate / theirs, 1),
        }
    if quick:
        return report
    masks, light = masks[:slices], light[:slices]
    target = features(pipeline, shown(pipeline, real[:slices]))

    def fid(images: np.ndarray) -> float:
        seen = shown(pipeline, photographed(pipeline, images, masks, light))
        return round(frechet_distance(features(pipeline, seen), target), 5)

    texture_stage = pipeline.texture

    def fid_scattering(images: np.ndarray) -> float:
        seen = shown(pipeline, photographed(pipeline, images, masks, light))
        return independent(seen, shown(pipeline, real[:slices]), "r2s")["fid_scattering_r2s"]

    report |= {"fid_this": fid(made[:slices]), "fid_stock": fid(stock)}
    report |= {"fid_scattering_this": fid_scattering(made[:slices]), "fid_scattering_stock": fid_scattering(stock)}
    schedule = texture_stage.scheduler
    for name, scheduler in (
        ("ddim", DDIMScheduler.from_config(schedule.config)),
        ("dpm_solver", DPMSolverMultistepScheduler.from_config(schedule.config)),
    ):
        texture_stage.scheduler = scheduler
        report[f"fid_by_steps_{name}"] = {
            steps: fid(_rate(pipeline, masks, light, steps)[1]) for steps in (5, 10, 15, 20, 25, 50)
        }
    texture_stage.scheduler = schedule
    report["slices_per_second_by_batch"] = {
        batch: round(_rate(pipeline, masks[:64], light[:64], 20, micro_batch_size=batch)[0], 2)
        for batch in (1, 4, 16, 32, 64)
    }
    wide = {side: np.pad(masks[:16], [(0, 0)] + [((side - 64) // 2,) * 2] * 2) for side in (64, 96, 128)}
    report["slices_per_second_by_side"] = {
        side: round(_rate(pipeline, padded, light[:16], 20)[0], 2) for side, padded in wide.items()
    }
    half = load("nuclei2d", torch.bfloat16)
    rate, made = _rate(half, masks, light, 20)
    report |= {"slices_per_second_bfloat16": round(rate, 2), "fid_bfloat16": fid(made)}
    return report


def _rate(pipeline, masks: np.ndarray, light: np.ndarray, steps: int | None, **options) -> tuple[float, np.ndarray]:
    """Slices per second, and the images."""
    start, generator = time.perf_counter(), torch.Generator().manual_seed(0)
    asked = wanted(pipeline, light)
    made = pipeline.texture(masks, asked, num_inference_steps=steps, generator=generator, **options).images
    return len(masks) / (time.perf_counter() - start), made


def distilled(pipeline, crops: CropDataset, count: int) -> dict:
    """The weights for few steps against the usual ones, each in the steps that it draws well with: slices a second,
    FID to real crops by features that nobody trained, and how far Otsu's segmentation of what is drawn fits the mask.

    `fid_ratio` needs more crops than features, and is left out of --quick.
    """
    few = CascadePipeline.from_pretrained(embedded("nuclei2d"), few_steps=True)
    few.set_progress_bar_config(disable=True)
    masks, real, light = pick(crops, count)
    real = shown(pipeline, real)
    rates, fids, fits = [], [], []
    for one in (pipeline, few):
        _rate(one, masks[:8], light[:8], None)  # warm up
        rate, made = _rate(one, masks, light, None)
        seen = shown(one, photographed(one, made, masks, light))
        rates.append(rate)
        fids.append(independent(seen, real, "r2s").get("fid_scattering_r2s"))
        fits.append(float(otsu_alignment(seen, masks).mean()))
    found = {"speedup": round(rates[1] / rates[0], 2), "alignment_difference": round(fits[1] - fits[0], 4)}
    return found | ({} if fids[0] is None else {"fid_ratio": round(fids[1] / fids[0], 3)})


def _stock(pipeline, masks: np.ndarray, brightness: np.ndarray, steps: int, guidance_scale: float) -> np.ndarray:
    """The same crops by diffusers' own pipeline, one after the other; with this pipeline's grain. The stage knows one
    prompt, so that guidance changes nothing but the time."""
    from diffusers import StableDiffusionControlNetPipeline

    stage = pipeline.texture
    parts = (stage.vae, None, None, stage.unet, stage.controlnet, stage.scheduler, None, None)
    stock = StableDiffusionControlNetPipeline(*parts, requires_safety_checker=False)
    stock.set_progress_bar_config(disable=True)
    prompt, side = stage.prompt(1), masks.shape[-1]
    condition = conditioning_image(torch.from_numpy(masks).float()[:, None], torch.from_numpy(brightness).float())
    generator, drawn = torch.Generator().manual_seed(0), []
    for one in condition:
        (image,) = stock(
            prompt_embeds=prompt, negative_prompt_embeds=prompt, image=one[None], height=side, width=side,
            num_inference_steps=steps, guidance_scale=guidance_scale, generator=generator, output_type="pt",
        ).images  # fmt: skip
        drawn.append(image.mean(0).numpy())
    noise = torch.randn(masks.shape, generator=generator).numpy()
    return Grain(**stage.config.grain).add(np.stack(drawn), noise)


def depth(data: Path, folder: Path | None) -> dict:
    """Correlation between neighbouring slices inside cells: real stacks, and generated ones at several ρ."""
    frames, _ = find_frames(data / "BBBC050", "st", SETS["nuclei3d"]["test"])
    pairs = [(frame.image(), frame.labels()) for frame in frames]
    found = {"real": _mean_and_error(pairs)}
    pipeline = load("nuclei3d")
    for rho in (0.0, 0.7, 2.0):
        samples = pipeline(
            num_images=3, rho=rho, cells_per_image=12, generator=torch.Generator().manual_seed(7)
        ).samples
        found[str(rho)] = _mean_and_error([(sample.image, sample.labels) for sample in samples])
        if folder:
            sample_preview(samples[0], folder / f"depth_rho_{rho:g}.png")
    return found


def _mean_and_error(stacks: list[tuple[np.ndarray, np.ndarray]]) -> dict:
    """Of the correlations of all pairs of slices, with the standard error over stacks' cells."""
    values = np.concatenate([depth_correlation(image.astype(np.float32), labels) for image, labels in stacks])
    return {"mean": round(float(values.mean()), 4), "error": round(float(values.std() / np.sqrt(len(values))), 4)}


if __name__ == "__main__":
    main()
