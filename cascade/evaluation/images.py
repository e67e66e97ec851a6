"""Metrics of paired images, and of their intensity distributions."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import metrics, segmentation


def paired_metrics(
    real: npt.NDArray[Any], made: npt.NDArray[Any], *, data_range: float | None = None
) -> dict[str, float]:
    """PSNR (dB), SSIM, MAE, NRMSE and ZNCC of two images (Y, X) or (Z, Y, X) of the same place.

    data_range: of the intensities, which PSNR, SSIM and NRMSE are relative to; default that of the real image. SSIM is
    of windows of seven pixels, of fewer where a stack has fewer slices. Raises ValueError for different shapes, less
    than three pixels along an axis, or intensities without a range.

    >>> image = np.arange(100.0).reshape(10, 10)
    >>> found = paired_metrics(image, image + 9.9)
    >>> [round(found[name], 1) for name in ("psnr", "mae", "nrmse", "zncc")]
    [20.0, 9.9, 0.1, 1.0]
    """
    if real.shape != made.shape:
        raise ValueError(f"paired images need one shape, not {real.shape} and {made.shape}")
    if min(real.shape) < 3:
        raise ValueError(f"paired images need three pixels along each axis, got {real.shape}: compare slices as planes")
    real, made = real.astype(np.float64), made.astype(np.float64)
    scale = float(np.ptp(real)) if data_range is None else data_range
    if not scale > 0:
        raise ValueError(f"intensities span {scale:g}, not above 0: give data_range if the image is constant")
    window = min(7, (min(real.shape) - 1) // 2 * 2 + 1)
    return {
        "psnr": float(metrics.peak_signal_noise_ratio(real, made, data_range=scale)),
        "ssim": float(metrics.structural_similarity(real, made, data_range=scale, win_size=window)),
        "mae": float(np.abs(real - made).mean()),
        "nrmse": float(np.sqrt(((real - made) ** 2).mean()) / scale),
        "zncc": zncc(real, made),
    }


def zncc(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Zero-normalised cross-correlation in [−1, 1]; 0 where an image is constant."""
    spread = a.std() * b.std()
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else 0.0


def histograms(
    a: npt.NDArray[Any], b: npt.NDArray[Any], bins: int = 100
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Normalised histograms of two sets of intensities over their common range, and the bins' edges.

    The range is that of all but a thousandth at either end, which the outermost bins hold: a hot pixel would else
    leave all others in the first one.
    """
    ends = np.percentile(a, [0.1, 99.9]), np.percentile(b, [0.1, 99.9])
    low, high = np.min(ends), np.max(ends)
    edges = np.linspace(low, high, bins + 1)
    p, q = (np.histogram(np.clip(values, low, high), edges)[0] for values in (a, b))
    return p / p.sum(), q / q.sum(), edges


def kullback_leibler(p: npt.NDArray[Any], q: npt.NDArray[Any], floor: float = 1e-9) -> float:
    """D(p ‖ q) in nats of two histograms; empty bins are lifted to `floor`."""
    p, q = (np.maximum(h, floor) / np.maximum(h, floor).sum() for h in (p, q))
    return float((p * np.log(p / q)).sum())


def bhattacharyya(p: npt.NDArray[Any], q: npt.NDArray[Any]) -> float:
    """−ln Σ √(pq) of two normalised histograms: 0 where they are equal, inf where they do not meet."""
    overlap = float(np.sqrt(p * q).sum())
    return -float(np.log(overlap)) if overlap > 0 else float("inf")


def rim_profiles(
    images: list[npt.NDArray[Any]], labels: list[npt.NDArray[Any]], reach_px: int = 8
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Distances (D,) from the rim in pixels, negative inside, and each cell's mean light there, (C, D), NaN where a
    cell has no such pixel; planes, or every slice of stacks. Light is counted from 0 at the image's median outside
    cells to 1 at the cell's mean. A pixel outside belongs to the nearest cell."""
    distance = np.arange(-reach_px, reach_px + 1)
    rows = []
    for image, mask in zip(images, labels, strict=True):
        planes = zip(image, mask, strict=True) if image.ndim == 3 else [(image, mask)]
        for plane, found in planes:
            if found.any() and not found.all():
                rows.append(_rims(plane.astype(np.float32), found, reach_px))
    return distance, np.concatenate(rows) if rows else np.empty((0, len(distance)))


def _rims(plane: npt.NDArray[Any], labels: npt.NDArray[Any], reach: int) -> npt.NDArray[Any]:
    ids, flat = np.unique(labels, return_inverse=True)
    level = np.median(plane[labels == 0])
    means = np.bincount(flat.ravel(), plane.ravel()) / np.bincount(flat.ravel())
    walls = segmentation.find_boundaries(labels, mode="inner")
    inside = ndimage.distance_transform_edt(~walls)
    outside, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    owner = np.searchsorted(ids, labels[tuple(nearest)])
    signed = np.rint(np.where(labels > 0, -inside, outside)).astype(int) + reach
    near = (signed >= 0) & (signed <= 2 * reach)
    place = owner[near] * (2 * reach + 1) + signed[near]
    light = (plane[near] - level) / np.maximum(means[owner[near]] - level, 1e-6)
    count = np.bincount(place, minlength=len(ids) * (2 * reach + 1))
    with np.errstate(invalid="ignore"):
        profiles = np.bincount(place, light, len(count)) / count
    return profiles.reshape(len(ids), -1)[ids > 0]
