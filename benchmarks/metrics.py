"""How far are the metrics from independent ones, on real frames? SEG, AP, PSNR, SSIM, and the FID of a set to itself.

    python benchmarks/metrics.py

Needs CASCADE_DATA with BBBC039, and the extra `cellpose`. What is judged are cells found by Otsu's threshold
and a watershed, and frames after a median filter; the judges are py-ctcmetrics, Cellpose, and SSIM as its authors
define it, written out. Prints one JSON object on its last line.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from cellpose.metrics import average_precision
from common import data_folder, machine
from ctc_metrics.scripts.evaluate import evaluate_sequence
from scipy import ndimage
from skimage import feature, filters, measure, segmentation

from cascade.assets import embedded
from cascade.evaluation.distribution import all_orientations, encoder_features, frechet_distance
from cascade.evaluation.experiment import Source
from cascade.evaluation.images import paired_metrics
from cascade.evaluation.segmentation import score
from cascade.pipelines.texture import TexturePipeline

FRAMES = 20


def found_cells(image: np.ndarray) -> np.ndarray:
    """Labels by Otsu's threshold and a watershed of the distances."""
    smooth = ndimage.gaussian_filter(image.astype(float), 1)
    inside = smooth > filters.threshold_otsu(smooth)
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), 1)
    peaks = feature.peak_local_max(depth, min_distance=5, labels=measure.label(inside))
    markers = np.zeros(image.shape, int)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return segmentation.watershed(-depth, markers, mask=inside)


def seg_of_the_challenge(truths: list[np.ndarray], predictions: list[np.ndarray]) -> float:
    """SEG as py-ctcmetrics finds it in files."""
    with tempfile.TemporaryDirectory() as folder:
        truth_folder, result_folder = Path(folder) / "01_GT", Path(folder) / "01_RES"
        for made in (truth_folder / "SEG", truth_folder / "TRA", result_folder):
            made.mkdir(parents=True)
        tracks: dict[Path, list[str]] = {
            truth_folder / "TRA" / "man_track.txt": [],
            result_folder / "res_track.txt": [],
        }
        for t, (truth, predicted) in enumerate(zip(truths, predictions, strict=True)):
            tifffile.imwrite(truth_folder / "SEG" / f"man_seg{t:03d}.tif", truth.astype(np.uint16))
            for track, path, labels in zip(
                tracks,
                (truth_folder / "TRA" / f"man_track{t:03d}.tif", result_folder / f"mask{t:03d}.tif"),
                (truth, predicted),
                strict=True,
            ):
                unique = np.where(labels > 0, labels + 1000 * t, 0)  # every frame's cells are tracks of their own
                tifffile.imwrite(path, unique.astype(np.uint16))
                tracks[track] += [f"{n} {t} {t} 0" for n in np.unique(unique) if n]
        for path, lines in tracks.items():
            path.write_text("\n".join(lines) + "\n")
        return float(evaluate_sequence(str(result_folder), str(truth_folder), ["SEG"])["SEG"])


def ssim_written_out(real: np.ndarray, made: np.ndarray) -> float:
    """Wang et al., IEEE TIP 13 (2004), Eq. 13, in windows of 7×7 pixels."""
    x, y = (np.lib.stride_tricks.sliding_window_view(a.astype(float), (7, 7)).reshape(-1, 49) for a in (real, made))
    (mx, my), (vx, vy) = (x.mean(1), y.mean(1)), (x.var(1, ddof=1), y.var(1, ddof=1))
    covariance = ((x - mx[:, None]) * (y - my[:, None])).sum(1) / 48
    c1, c2 = ((k * float(np.ptp(real))) ** 2 for k in (0.01, 0.03))
    return float(((2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def main() -> None:
    images = Source(data_folder() / "BBBC039", sequences=("02",)).load()[:FRAMES]
    truths, predictions = [one.labels for one in images], [found_cells(one.image) for one in images]
    ours = score(truths, predictions)
    relabelled = [np.unique(labels, return_inverse=True)[1].reshape(labels.shape) for labels in truths]
    theirs = average_precision(relabelled, predictions, [0.5, 0.6, 0.7, 0.8, 0.9])[0].mean(0)
    report = {
        "machine": machine(),
        "seg": ours.seg,
        "seg_difference": abs(ours.seg - seg_of_the_challenge(truths, predictions)),
        "ap_difference": float(np.abs(np.array(list(ours.ap.values())) - theirs).max()),
    }
    psnr, ssim = [], []
    for one in images[:5]:
        made = ndimage.median_filter(one.image, 3)
        found = paired_metrics(one.image, made)
        error = ((one.image.astype(float) - made) ** 2).mean()
        psnr.append(abs(found["psnr"] - 10 * np.log10(float(np.ptp(one.image)) ** 2 / error)))
        ssim.append(abs(found["ssim"] - ssim_written_out(one.image, made)))
    report |= {"psnr_difference": float(max(psnr)), "ssim_difference": float(max(ssim))}
    vae = TexturePipeline.from_pretrained(embedded("nuclei2d") / "texture").vae
    crops = np.stack(
        [one.image[y : y + 64, x : x + 64] for one in images for y in (0, 128, 256) for x in (0, 128, 256)]
    )
    features = encoder_features(vae, all_orientations(np.clip(crops / crops.max(), 0, 1)))
    report["fid_of_a_set_to_itself"] = frechet_distance(features, features)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
