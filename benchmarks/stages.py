"""Every stage of the embedded models against the real data they were made from.

    python benchmarks/stages.py [--quick]

Needs CASCADE_DATA with BBBC039 and BBBC050. Prints one JSON object on its last line; what each figure means is said
where it is measured.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import data_folder, machine, new_cells

from cascade import CascadePipeline, embedded, prepare
from cascade.data.dataset import CropDataset
from cascade.data.settings import PrepareSettings, ThinSettings
from cascade.data.thin import thin
from cascade.diffusion.alignment import otsu_alignment
from cascade.diffusion.latents import correlated_noise
from cascade.evaluation.shape import nearest_iou, outline_statistics
from cascade.evenly import evenly
from cascade.export.preview import image_grid
from cascade.geometry.cameras import hemisphere
from cascade.geometry.grid import Grid
from cascade.multiview.renders import HarmonicRenders
from cascade.neus.fit import fit_views
from cascade.neus.views import view_residuals
from cascade.optics.camera import photograph_crops
from cascade.pipelines.texture import MIN_ALIGNMENT
from cascade.population.cells import confined
from cascade.population.clustering import touching_fraction
from cascade.shapes.harmonics import ShapeLaw

SETS = {
    "nuclei2d": dict(folder="BBBC039", train=["01"], test=["02"], crop_size=64, spacing_um=[0.65, 0.65]),
    "nuclei3d": dict(
        folder="BBBC050",
        train=[f"{n:02d}" for n in range(1, 10)],
        test=["10", "11"],
        test_truth="st",  # dense labels, for measuring only: the sparse ones have fewer than 100 cells
        crop_size=64,
        pixel_size_um=0.4,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller run of everything")
    parser.add_argument("--output_dir", type=Path, help="keep pictures here")
    options = parser.parse_args()
    data = data_folder()
    report = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, source in SETS.items():
            crops = {part: crops_of(data, source, part, Path(folder) / f"{name}_{part}") for part in ("train", "test")}
            pipeline = load(name)
            report[name] = {
                "outlines": outlines(pipeline, crops["train"], 100 if options.quick else 500),
                "texture": texture(pipeline, crops["test"], 60 if options.quick else 500, options.output_dir, name),
                "population": population(pipeline, options.quick),
            }
            if pipeline.multiview is not None:
                report[name]["views"] = views(pipeline, 8 if options.quick else 64)
            report |= new_cells(pipeline, options.quick)
            print(name, json.dumps(report[name], indent=1), flush=True)
    report["neus"] = neus(16 if options.quick else 100)
    report["latent_correlation"] = latents()
    report["machine"] = machine()
    print(json.dumps(report))


def load(name: str, dtype: torch.dtype = torch.float32) -> CascadePipeline:
    """An embedded model that shows no progress bars."""
    pipeline = CascadePipeline.from_pretrained(embedded(name), dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def crops_of(data: Path, source: dict, part: str, folder: Path, frames: int | None = None) -> CropDataset:
    """The crops of the training or test sequences; of so many of their frames, if not of all."""
    arguments = {key: source[key] for key in ("crop_size", "spacing_um", "pixel_size_um") if key in source}
    images, truth = data / source["folder"], source.get(f"{part}_truth", "gt")
    if frames is not None:
        few = folder.with_name(f"{folder.name}_few")
        images = thin(ThinSettings(images, output_dir=few, truth=truth, frames=frames, sequences=source[part]))
    prepare(PrepareSettings(images, output_dir=folder, truth=truth, sequences=source[part], **arguments))
    return CropDataset(str(folder))


def outlines(pipeline, crops: CropDataset, count: int) -> dict:
    """Generated outlines against the real ones the model learned: means, and how far from copies they are.

    Of slices through cells in stacks, those that the model was trained on: near the middle.
    """
    start = time.perf_counter()
    made = pipeline.mask(count, generator=torch.Generator().manual_seed(1))
    seconds = (time.perf_counter() - start) / count
    near = crops.columns["relative_height"].abs() <= 0.5
    real = crops.columns["mask"][near, 0].numpy()
    a, b = outline_statistics(made.masks), outline_statistics(real)
    within = nearest_iou(real[evenly(len(real), count)])
    return {
        "count": count,
        "seconds_each": round(seconds, 4),
        "drawn_again": made.rejected,
        **{
            f"{key}_ratio": round(float(getattr(a, key).mean() / getattr(b, key).mean()), 4)
            for key in ("area", "solidity", "eccentricity")
        },
        "area_spread_ratio": round(float(a.area.std() / b.area.std()), 4),
        "nearest_iou_among_generated": _summary(nearest_iou(made.masks)),
        "nearest_iou_to_training": _summary(nearest_iou(made.masks, real)),
        "nearest_iou_among_real": _summary(within),
    }


def pick(crops: CropDataset, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks, light above background in camera units, and mean light in the mask of `count` crops, evenly drawn."""
    rows = evenly(len(crops.columns["mask"]), count)
    own = crops.statistics[0]
    images = crops.columns["image"][rows, 0].float().numpy() / 2 + 0.5
    light = own.window.restore(crops.columns["brightness"][rows].numpy()) - own.background.level
    return crops.columns["mask"][rows, 0].numpy(), own.window.restore(images) - own.background.level, light


def wanted(pipeline, light: np.ndarray) -> np.ndarray:
    """What the texture model is told of cells with this light."""
    return pipeline.statistics.window.stretch(pipeline.statistics.background.level + light)


def photographed(pipeline, images: np.ndarray, masks: np.ndarray, light: np.ndarray | None = None) -> np.ndarray:
    """Light above background of textured crops, with camera noise, as `cascade prepare` leaves it in real ones. With
    `light`, first scaled to it and confined to cell and halo, as they are composed."""
    statistics = pipeline.statistics
    window, level, pixel = statistics.window, statistics.background.level, pipeline.texture.config.pixel_size_um
    if light is not None:
        halo = statistics.halo.radius_px * statistics.spacing_um[-1] / pixel
        signal = window.restore(images) - level
        cells = [confined(*each, halo) for each in zip(signal, masks, light, strict=True)]
        images = window.stretch(level + np.stack(cells))
    return window.restore(photograph_crops(images, masks, statistics, pixel, np.random.default_rng(0))) - level


def shown(pipeline, signal: np.ndarray) -> np.ndarray:
    """Light above background as grey values in [0, 1], the same for all crops."""
    return pipeline.statistics.window.stretch(pipeline.statistics.background.level + signal)


def texture(pipeline, crops: CropDataset, count: int, folder: Path | None, name: str) -> dict:
    """Otsu's segmentation of textured crops of validation masks against those masks, and the same of the real crops.

    As they are composed: those that do not show their mask drawn again, confined to the cell and its halo, as
    `cascade prepare` leaves real crops; `as_drawn` is before all that. They are as bright as the real cells. Real and
    generated crops are compared over the masks that were not rejected, and over all of them.
    """
    masks, real, light = pick(crops, count)
    options = dict(cell_index=np.arange(len(masks)), num_inference_steps=20)
    asked = wanted(pipeline, light)
    start = time.perf_counter()
    first = pipeline.texture(masks, asked, generator=torch.Generator().manual_seed(2), **options).images
    seconds = (time.perf_counter() - start) / len(masks)
    drawn = pipeline.texture.draw_aligned(masks, asked, generator=torch.Generator().manual_seed(2), **options)
    made, kept = drawn.images, drawn.alignment >= MIN_ALIGNMENT
    real, as_drawn, seen = (
        shown(pipeline, signal)
        for signal in (real, photographed(pipeline, first, masks), photographed(pipeline, made, masks, light))
    )
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        image_grid(np.stack([real, seen], 1)[:96].reshape(-1, *seen.shape[1:]), folder / f"texture_{name}.png", 24)
    generated, reference = otsu_alignment(seen, masks), otsu_alignment(real, masks)
    statistics = pipeline.statistics
    halo = statistics.halo.radius_px * statistics.spacing_um[-1] / pipeline.texture.config.pixel_size_um
    far = np.stack([_beyond(mask, halo + 2) for mask in masks])
    bright = statistics.window.restore(made) - statistics.background.level > 0.25 * light[:, None, None]
    means = [m[k].mean() for m, k in zip(made, masks, strict=True)]
    return {
        "count": len(masks),
        "seconds_each": round(seconds, 4),
        "drawn_again": drawn.failed[:-1],
        "rejected": drawn.failed[-1],
        "otsu_iou_as_drawn": round(float(otsu_alignment(as_drawn, masks).mean()), 4),
        "otsu_iou_generated": round(float(generated[kept].mean()), 4),
        "otsu_iou_real": round(float(reference[kept].mean()), 4),
        "alignment_ratio": round(float(generated[kept].mean() / reference[kept].mean()), 4),
        "alignment_ratio_with_rejected": round(float(generated.mean() / reference.mean()), 4),
        "crops_with_light_beyond_the_halo": round(float((bright & far).any((1, 2)).mean()), 4),
        "brightness_correlation": round(float(np.corrcoef(means, asked)[0, 1]), 4),
    }


def views(pipeline, count: int) -> dict:
    """Generated outlines to solids: do predicted views agree with each other and with the outline?

    `predicted_view_along_z` is what the network makes of the view along z left to itself; the pipeline gives it.
    """
    masks = pipeline.mask(count, generator=torch.Generator().manual_seed(3)).masks
    pixel = pipeline.texture.config.pixel_size_um
    start = time.perf_counter()
    seen = pipeline.multiview(masks, pixel, generator=torch.Generator().manual_seed(4))
    sampling = (time.perf_counter() - start) / count
    start = time.perf_counter()
    together, cameras, weights = seen.constraints()
    fit = fit_views(together, cameras, weights=weights)
    fitting = (time.perf_counter() - start) / count
    residual = view_residuals(fit.field.sdf, together, cameras)
    free = pipeline.multiview(masks, pixel, generator=torch.Generator().manual_seed(4), keep_outline=False)
    front, wanted = free.views[:, 0] < 0, free.condition < 0
    agree = (front & wanted).sum((1, 2)) / (front | wanted).sum((1, 2))
    again = pipeline.multiview(masks[:1].repeat(8, 0), pixel, generator=torch.Generator().manual_seed(5))
    solids = fit_views(again.views, again.cameras)
    points = torch.from_numpy(Grid.centred((48,) * 3, (1 / 24,) * 3).points_um())
    inside = solids.field.sdf(points.expand(8, -1, -1)) < 0
    pairs = [
        float((inside[i] & inside[j]).sum() / (inside[i] | inside[j]).sum()) for i in range(8) for j in range(i + 1, 8)
    ]
    return {
        "count": count,
        "seconds_each_sampling": round(sampling, 3),
        "seconds_each_fitting": round(fitting, 3),
        "predicted_view_along_z_iou": _summary(agree.numpy()),
        "solid_along_z_iou": _summary(1 - residual[:, -1].numpy()),
        "views_reprojected_iou": _summary(1 - residual[:, :-1].mean(1).numpy()),
        "converged": float(fit.converged.float().mean()),
        "iou_between_solids_of_one_outline": _summary(np.array(pairs)),
    }


def population(pipeline, quick: bool) -> dict:
    """Clustering as p rises, with everything else the same."""
    spacing = pipeline.statistics.spacing_um
    flat = pipeline.statistics.ndim == 2
    canvas = (256, 256) if flat else (40, 128, 128)
    count = 14 if flat else 8
    found = {}
    for p in (0.0, 1.0) if quick else (0.0, 0.5, 1.0):
        sample = pipeline(
            canvas_size=canvas,
            cells_per_image=count,
            clustering_probability=p,
            num_inference_steps=4,
            generator=torch.Generator().manual_seed(6),
        ).samples[0]
        found[str(p)] = round(touching_fraction(sample.labels, spacing, 2 * max(spacing)), 3)
    return {"touching_fraction_by_p": found}


def neus(count: int) -> dict:
    """Solids fitted to true views of held-out harmonic shapes, at 64³."""
    result = {}
    for number in (16, 8):
        cameras = hemisphere(number)
        renders = HarmonicRenders(cameras, ShapeLaw(), 32)
        shapes, _, maps = renders.draw(count, torch.Generator().manual_seed(12345))
        start = time.perf_counter()
        fits = [fit_views(part, cameras) for part in maps.split(32)]
        seconds = (time.perf_counter() - start) / count
        points = torch.from_numpy(Grid.centred((64,) * 3, (1 / 32,) * 3).points_um())
        iou = []
        for part, fit in enumerate(fits):
            some = shapes[part * 32 : (part + 1) * 32]
            found = fit.field.sdf(points.expand(len(some), -1, -1)) < 0
            truth = some.sdf(points) < 0
            iou.append((found & truth).sum(1) / (found | truth).sum(1))
        iou = torch.cat(iou).numpy()
        result[f"iou_{number}_views"] = _summary(iou) | {"min": round(float(iou.min()), 4)}
        result[f"seconds_each_{number}_views"] = round(seconds, 3)
    return result


def latents() -> dict:
    """Correlation of latents between slices, all pairs, against ρ² / (1 + ρ²)."""
    found = {}
    for rho in (0.0, 0.7, 2.0):
        drawn = correlated_noise(8, (4, 64, 64), rho, torch.Generator().manual_seed(0)).flatten(1)
        pairs = torch.corrcoef(drawn)[~torch.eye(8, dtype=torch.bool)]
        found[str(rho)] = {"mean": round(float(pairs.mean()), 4), "equation_2": round(rho**2 / (1 + rho**2), 4)}
    return found


def _beyond(mask: np.ndarray, distance: float) -> np.ndarray:
    from scipy import ndimage

    return ndimage.distance_transform_edt(~mask) > distance


def _summary(values: np.ndarray) -> dict:
    return {"mean": round(float(values.mean()), 4), "p5": round(float(np.percentile(values, 5)), 4),
            "p95": round(float(np.percentile(values, 95)), 4)}  # fmt: skip


if __name__ == "__main__":
    main()
