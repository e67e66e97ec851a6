"""Three-dimensional shapes: accuracy, robustness, speed and realism of the multiview and NeuS stages.

    python benchmarks/shapes.py [--quick]

Prints one JSON object on its last line. `realism` needs CASCADE_DATA with BBBC050, whose dense labels (_ST) are used
here for evaluation only; without it, it is null.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from common import data_folder, machine
from scipy import ndimage

from cascade import MultiviewPipeline, embedded, prepare
from cascade.data.dataset import CropDataset
from cascade.data.frames import find_frames
from cascade.data.settings import PrepareSettings
from cascade.evaluation.shape import outline_statistics
from cascade.evaluation.solids import cells_of, distances, solid_statistics
from cascade.export.mesh import solid_mesh
from cascade.geometry.cameras import Cameras, hemisphere
from cascade.geometry.grid import Grid, signed_distance, voxelize
from cascade.multiview.outlines import diameters_um, silhouettes_of_slices
from cascade.multiview.renders import HarmonicRenders
from cascade.neus.fit import fit_views
from cascade.neus.settings import NeuSSettings
from cascade.neus.views import view_residuals
from cascade.population.cells import solids_um
from cascade.rng import stream
from cascade.shapes.ellipsoid import ellipsoid_of_outline
from cascade.shapes.harmonic_solids import harmonic_solids
from cascade.shapes.harmonics import ShapeLaw

SEED = 20_001  # of held-out shapes: no training uses it
SPACING = (1.75, 0.8, 0.8)
FAITHFUL_STEPS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller run of everything, in under a minute")
    quick = parser.parse_args().quick
    count = 8 if quick else 200
    accuracy = neus_accuracy(count)
    pipeline = MultiviewPipeline.from_pretrained(embedded("nuclei3d") / "multiview")
    pipeline.set_progress_bar_config(disable=True)
    report = {
        **accuracy,
        **speed(quick, accuracy["seconds_per_cell"]),
        **consistency(pipeline, 3 if quick else 64),
        "robustness_drop": robustness(8, (32,)) if quick else robustness(64, (32, 64)),
        "scaling": scaling(pipeline, quick),
        "realism": realism(pipeline, 3, [1]) if quick else realism(pipeline, 150, range(1, 10)),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "machine": machine(),
    }
    print(json.dumps(report))


def held_out(count: int, cameras: Cameras, seed: int = SEED, size: int = 32):
    return HarmonicRenders(cameras, ShapeLaw(), size).draw(count, torch.Generator().manual_seed(seed))


def iou(field, shapes) -> np.ndarray:
    """Against the true solids, at 64³."""
    points = torch.from_numpy(Grid.centred((64,) * 3, (1 / 32,) * 3).points_um())
    with torch.no_grad():
        found = torch.cat([field.sdf(part.expand(len(shapes), -1, -1)) for part in points.split(65_536)], 1) < 0
    truth = shapes.sdf(points) < 0
    return ((found & truth).sum(1) / (found | truth).sum(1)).numpy()


def fit_all(maps: torch.Tensor, cameras: Cameras, shapes) -> tuple[np.ndarray, float, list]:
    """IoU of each, seconds per cell, and the fits, in batches of 32."""
    scores, fits, seconds = [], [], 0.0
    for start in range(0, len(maps), 32):
        clock = time.perf_counter()
        fits.append(fit_views(maps[start : start + 32], cameras))
        seconds += time.perf_counter() - clock
        scores.append(iou(fits[-1].field, shapes[start : start + 32]))
    return np.concatenate(scores), seconds / len(maps), fits


def neus_accuracy(count: int) -> dict:
    cameras = hemisphere(16)
    shapes, _, maps = held_out(count, cameras)
    scores, seconds, fits = fit_all(maps, cameras, shapes)
    solids = [fit.solid(n) for fit in fits for n in range(len(fit.residual))]
    meshes = [solid_mesh(lambda p, s=s: s(torch.from_numpy(p).float()).numpy(), (1.9,) * 3, 1 / 32) for s in solids]
    eight = hemisphere(8)
    shapes, _, maps = held_out(count, eight)
    fewer, _, _ = fit_all(maps, eight, shapes)
    return {
        "neus_iou_mean": round(float(scores.mean()), 4),
        "neus_iou_min": round(float(scores.min()), 4),
        "neus_iou_mean_8_views": round(float(fewer.mean()), 4),
        "meshes_watertight": bool(all(mesh.is_watertight for mesh in meshes)),
        "converged": float(np.mean([bool(c) for fit in fits for c in fit.converged])),
        "seconds_per_cell": round(seconds, 4),
    }


def speed(quick: bool, seconds_per_cell: float) -> dict:
    """The faithful field at SyncDreamer's settings: a few steps measured, its 2000 projected."""
    cameras = hemisphere(16)
    _, _, maps = held_out(1, cameras)
    times = []
    for steps in (1, 2 if quick else 6):
        clock = time.perf_counter()
        fit_views(maps, cameras, NeuSSettings.faithful(steps))
        times.append((steps, time.perf_counter() - clock))
    (few, short), (many, long) = times
    step = (long - short) / (many - few)  # what is outside the steps cancels
    return {
        "faithful_seconds_per_step": round(step, 3),
        "faithful_seconds_projected": round(step * FAITHFUL_STEPS),
        "speedup_over_faithful": round(step * FAITHFUL_STEPS / seconds_per_cell),
    }


def consistency(pipeline, count: int) -> dict:
    """From one mask: do the predicted views agree with the solid fitted to them, and that solid with the mask?"""
    cameras = pipeline.cameras
    _, condition, _ = held_out(count, cameras, SEED + 1)
    masks = condition.numpy() < 0
    clock = time.perf_counter()
    seen = pipeline(masks, 1.0, generator=torch.Generator().manual_seed(0))
    sampling = (time.perf_counter() - clock) / count
    views, both, weights = seen.constraints()
    fit = fit_views(views, both, weights=weights)
    residual = view_residuals(fit.field.sdf, views, both)
    again = pipeline(masks[:1].repeat(6, 0), 1.0, generator=torch.Generator().manual_seed(1))
    views, both, weights = again.constraints()
    solids = fit_views(views, both, weights=weights)
    points = torch.from_numpy(Grid.centred((48,) * 3, (1 / 24,) * 3).points_um())
    inside = solids.field.sdf(points.expand(6, -1, -1)) < 0
    pairs = [float((inside[i] & inside[j]).sum() / (inside[i] | inside[j]).sum()) for i in range(6) for j in range(i)]
    own = 1 - view_residuals(solids.field.sdf, views, both)[:, -1]
    return {
        "view_consistency_iou": round(float(1 - residual[:, :-1].mean()), 4),
        "input_view_iou": round(float(1 - residual[:, -1].mean()), 4),
        "multiview_seconds_per_cell": round(sampling, 3),
        "rejected": round(float(1 - fit.converged.float().mean()), 4),
        "iou_between_solids_of_one_mask": {"mean": round(np.mean(pairs), 4), "min": round(min(pairs), 4)},
        "their_least_iou_with_the_mask": round(float(own.min()), 4),
    }


def robustness(count: int, sizes: tuple[int, ...]) -> dict:
    """What is lost when views are spoilt: of 32 pixels, the multiview model's, and of 64, those of 64³ volumes."""
    cameras, found = hemisphere(16), {}
    for size in sizes:
        shapes, _, maps = held_out(count, cameras, SEED + 2, size)
        clean = fit_all(maps, cameras, shapes)[0].mean()
        rng = np.random.default_rng(0)
        flipped = torch.from_numpy(np.stack([[_flip(view, rng) for view in cell] for cell in maps.numpy()])).float()
        wrong = maps.clone()
        for n in range(count):
            for view in rng.choice(16, 2, replace=False):
                wrong[n, view] = maps[(n + 1) % count, rng.integers(16)]
        spoilt = {"ten_percent_of_pixels_flipped": flipped, "two_of_sixteen_views_wrong": wrong}
        drops = {name: clean - fit_all(views, cameras, shapes)[0].mean() for name, views in spoilt.items()}
        found[f"{size}_pixels"] = {name: round(float(drop), 4) for name, drop in (drops | {"clean": clean}).items()}
    return found


def _flip(view: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A silhouette with a tenth as many pixels as it has flipped along its boundary, as a distance map again."""
    mask = view < 0
    rim = np.argwhere(ndimage.binary_dilation(mask) & ~ndimage.binary_erosion(mask))
    picked = rim[rng.choice(len(rim), min(round(0.1 * mask.sum()), len(rim)), replace=False)]
    mask[tuple(picked.T)] ^= True
    distance = ndimage.gaussian_filter(signed_distance(mask, (1, 1)), 0.5)
    return np.clip(distance * (2 / len(view)) / 0.25, -1, 1)


def scaling(pipeline, quick: bool) -> dict:
    """Seconds per cell of the fit by batch, nodes per axis and number of views, and of sampling by number of views."""
    found = {"fit_by_batch": {}, "fit_by_nodes": {}, "fit_by_views": {}, "sampling_by_views": {}}
    for batch in (8,) if quick else (1, 8, 32, 64):
        cameras = hemisphere(16)
        _, _, maps = held_out(batch, cameras)
        clock = time.perf_counter()
        fit_views(maps, cameras)
        found["fit_by_batch"][batch] = round((time.perf_counter() - clock) / batch, 4)
    for nodes in () if quick else (17, 33, 65):
        cameras = hemisphere(16)
        _, _, maps = held_out(8, cameras)
        clock = time.perf_counter()
        fit_views(maps, cameras, NeuSSettings(nodes=nodes))
        found["fit_by_nodes"][nodes] = round((time.perf_counter() - clock) / 8, 4)
    for views in (8,) if quick else (4, 8, 16, 32):
        cameras = hemisphere(views)
        _, condition, maps = held_out(8, cameras)
        clock = time.perf_counter()
        fit_views(maps, cameras)
        found["fit_by_views"][views] = round((time.perf_counter() - clock) / 8, 4)
        clock = time.perf_counter()
        pipeline(condition[:4].numpy() < 0, 1.0, cameras=cameras, generator=torch.Generator().manual_seed(0))
        found["sampling_by_views"][views] = round((time.perf_counter() - clock) / 4, 4)
    return found


def realism(pipeline, count: int, embryos: Iterable[int]) -> dict | None:
    """Wasserstein distances of shape statistics to the dense labels of embryos 10 and 11, in their spread.

    Every method starts from the same annotated slices of `embryos`. `floor` is these embryos' dense labels.
    """
    data = data_folder() / "BBBC050"
    if not data.is_dir():
        return None
    train = [f"{n:02d}" for n in embryos]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "crops"
        prepare(PrepareSettings(data, output_dir=output, sequences=train, crop_size=64, pixel_size_um=0.4))
        crops = CropDataset(str(output))
    axial, rng = crops.statistics[0].axial, stream(0, "realism")
    masks, u = crops.columns["mask"][:, 0].numpy(), crops.columns["relative_height"].numpy()
    middle = rng.permutation(np.flatnonzero(np.abs(u) <= 0.5))[:count]
    anywhere = rng.permutation(len(masks))[:count]
    relative = np.clip(rng.normal(1, axial.elongation[1] / axial.elongation[0], count), 0.5, 1.5)
    whole = silhouettes_of_slices(masks[anywhere], rng.uniform(-1, 1, len(anywhere)))
    sections = silhouettes_of_slices(masks[middle], np.full(len(middle), np.sqrt(1 - axial.section**2)))
    tall = axial.elongations(diameters_um(sections, 0.4)) * relative[: len(middle)]
    made = {
        "multiview_neus_silhouettes": from_views(pipeline, sections, tall),
        "multiview_neus_slices": from_views(
            pipeline, whole, axial.elongations(diameters_um(whole, 0.4)) * relative[: len(whole)]
        ),
        "scaled_harmonics": harmonic_solids(sections.sum((1, 2)) * 0.4**2, tall, torch.Generator().manual_seed(7))[0],
        "ellipsoids": [ellipsoid_of_outline(m, 0.4, e) for m, e in zip(sections, tall, strict=True)],
    }
    real = {part: _dense(data, names) for part, names in (("train", train), ("test", ["10", "11"]))}
    grid = Grid.centred((41, 49, 49), SPACING)
    found = {"floor": distances(real["train"], real["test"])}
    for name, solids in made.items():
        volumes = [voxelize(solid, grid).array for solid in solids]
        found[name] = distances(solid_statistics(volumes, SPACING), real["test"])
    for row in found.values():
        row["mean"] = float(np.mean(list(row.values())))
    found["solidity_of_outlines"] = float(outline_statistics(masks[middle]).solidity.mean())
    return {k: v if isinstance(v, float) else {n: round(x, 3) for n, x in v.items()} for k, v in found.items()}


def from_views(pipeline, masks: np.ndarray, elongation: np.ndarray, pixel_um: float = 0.4) -> list:
    """Solids of outlines, by imagined views and NeuS; those that are not rejected."""
    seen = pipeline(masks, pixel_um, generator=torch.Generator().manual_seed(0))
    views, both, weights = seen.constraints()
    solids = []
    for start in range(0, len(views), 32):
        part = slice(start, start + 32)
        fit = fit_views(views[part], both, weights=weights)
        fitted = solids_um(fit, seen.unit_um[part], elongation[part])
        solids += [solid for solid, good in zip(fitted, fit.converged, strict=True) if good]
    return solids


def _dense(data: Path, sequences: list[str]):
    frames, _ = find_frames(data, "st", sequences)
    return solid_statistics([mask for frame in frames for mask in cells_of(frame.labels())], SPACING)


if __name__ == "__main__":
    main()
