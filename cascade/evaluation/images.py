"""Metrics of paired images, and of their intensity distributions."""

import numpy as np
from skimage import metrics


def paired_metrics(real: np.ndarray, made: np.ndarray, data_range: float | None = None) -> dict[str, float]:
    """PSNR (dB), SSIM, MAE, NRMSE and ZNCC of two images (Y, X) or (Z, Y, X) of the same place.

    data_range: of the intensities; default that of the real image. Raises ValueError for different shapes.
    """
    if real.shape != made.shape:
        raise ValueError(f"paired images need one shape, not {real.shape} and {made.shape}")
    real, made = real.astype(np.float64), made.astype(np.float64)
    scale = float(np.ptp(real)) if data_range is None else data_range
    return {
        "psnr": float(metrics.peak_signal_noise_ratio(real, made, data_range=scale)),
        "ssim": float(metrics.structural_similarity(real, made, data_range=scale)),
        "mae": float(np.abs(real - made).mean()),
        "nrmse": float(metrics.normalized_root_mse(real, made, normalization="min-max")),
        "zncc": zncc(real, made),
    }


def zncc(a: np.ndarray, b: np.ndarray) -> float:
    """Zero-normalised cross-correlation in [−1, 1]; 0 where an image is constant."""
    spread = a.std() * b.std()
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else 0.0


def histograms(a: np.ndarray, b: np.ndarray, bins: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalised histograms of two sets of intensities over their common range, and the bins' edges."""
    edges = np.linspace(min(a.min(), b.min()), max(a.max(), b.max()), bins + 1)
    p, q = (np.histogram(values, edges)[0] for values in (a, b))
    return p / p.sum(), q / q.sum(), edges


def kullback_leibler(p: np.ndarray, q: np.ndarray, floor: float = 1e-9) -> float:
    """D(p ‖ q) in nats of two histograms; empty bins are lifted to `floor`."""
    p, q = (np.maximum(h, floor) / np.maximum(h, floor).sum() for h in (p, q))
    return float((p * np.log(p / q)).sum())


def bhattacharyya(p: np.ndarray, q: np.ndarray) -> float:
    """−ln Σ √(pq) of two normalised histograms: 0 where they are equal, inf where they do not meet."""
    overlap = float(np.sqrt(p * q).sum())
    return -float(np.log(overlap)) if overlap > 0 else float("inf")
