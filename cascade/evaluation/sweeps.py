"""Forward and backward sweeps: up to which time, and how smooth, sketches are best noised and painted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.filters import threshold_otsu
from tqdm.auto import tqdm

from cascade.evaluation.images import bhattacharyya, histograms, kullback_leibler, paired_metrics
from cascade.optics.window import Window
from cascade.rng import stream

Array = npt.NDArray[Any]
Paint = Callable[[Sequence[Array], int, float], Sequence[Array]]
"""(sketches in camera units, t_start, sigma in pixels) -> images in camera units."""

KEPT, ALIKE, DETAILED = 0.95, 0.02, 0.8
"""Share of the best structure that is still kept; Bhattacharyya distance up to which noised sketches count as noised
real images, histograms that have 98 % in common; and share of the real images' fine detail that is enough, or 1 / 0.8
not too much."""
_NOISE_PX = 1.0  # of the Gaussian after which structure is looked for
_FINE_PX = 2.0  # of the Gaussian that takes fine detail away


@dataclass(frozen=True, eq=False)
class SketchedImage:
    """A real image (Y, X) or (Z, Y, X) and its sketch, camera units; and where the sketch has its light, bool."""

    image: Array
    sketch: Array
    structure: Array


@dataclass(frozen=True)
class Tried:
    """What a pair of t_start and σ gives, over all images.

    kld: Kullback-Leibler divergence of noised real images from noised sketches, nats; bd: Bhattacharyya distance; psnr
    (dB), ssim, mae (of the window) and zncc of what is painted, against the real images; structure: IoU of what is
    bright in the painted images (Otsu) with cells, or walls; detail: what is fine in them, in that of the real images.
    psnr_of_images: of each image, in their order, of several channels of each of them.
    """

    t_start: int
    sigma: float
    kld: float
    bd: float
    psnr: float
    ssim: float
    mae: float
    zncc: float
    structure: float
    detail: float
    psnr_of_images: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Sweep:
    """All pairs, the earliest first; what the images became by each; and the structure in the real images."""

    tried: list[Tried]
    painted: dict[tuple[int, float], list[Array]]
    real_structure: float

    @property
    def t_starts(self) -> list[int]:
        return sorted({one.t_start for one in self.tried})

    @property
    def sigmas(self) -> list[float]:
        return sorted({one.sigma for one in self.tried})

    def at(self, t_start: int, sigma: float) -> Tried:
        """What a pair gave."""
        return next(one for one in self.tried if (one.t_start, one.sigma) == (t_start, sigma))


def sweep(
    scenes: Sequence[SketchedImage],
    paint: Paint,
    *,
    window: Window,
    kept: Sequence[float],
    t_starts: Sequence[int],
    sigmas: Sequence[float],
    seed: int = 0,
) -> Sweep:
    """Noise sketches up to every t_start after a blur by every σ, compare them with the real images noised likewise,
    and paint them (DDPM from sketches: workshop, Fig. 2; journal, Table 1 and Fig. 2).

    window: of the model. kept: ᾱ of its schedule by time, so that noise up to t_start leaves √kept[t_start − 1] of an
    image. Raises ValueError for scenes of which nothing can be measured.
    """
    if not scenes:
        raise ValueError("there is no image to tune on")
    tried, shown = [], {}
    with tqdm(total=len(t_starts) * len(sigmas), desc="tuning", unit="pair") as bar:
        for t_start in sorted(set(t_starts)):
            for sigma in sorted(set(sigmas)):
                p, q, _ = forward(scenes, window, kept[t_start - 1], sigma, seed)
                made = paint([one.sketch for one in scenes], t_start, sigma)
                found = [_backward(one, image, window) for one, image in zip(scenes, made, strict=True)]
                means = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
                each = tuple(one["psnr"] for one in found)
                tried.append(
                    Tried(t_start, sigma, kullback_leibler(p, q), bhattacharyya(p, q), **means, psnr_of_images=each)
                )
                shown[t_start, sigma] = list(made)
                bar.update()
    real = [structure_kept(one.image, one, window) for one in scenes]
    return Sweep(tried, shown, float(np.mean(real)))


def recommended(found: Sweep) -> Tried:
    """The pair to paint with: "as early as possible" (journal), but so late that fine detail is made.

    Of the pairs that keep structure (at least `KEPT` of the best of the sweep), whose noised sketches have the
    histogram of noised real images (a Bhattacharyya distance of at most `ALIKE`), and whose painted images have the
    fine detail of real ones (`DETAILED` of it at least), the earliest, and of several σ there the one with the highest
    ZNCC. Where none meets one of these, the one that is nearest to it goes on.
    """
    best = max(one.structure for one in found.tried)
    left = _nearest(found.tried, lambda one: KEPT - one.structure / max(best, 1e-9))
    left = _nearest(left, lambda one: one.bd - ALIKE)
    left = _nearest(left, lambda one: abs(np.log(max(one.detail, 1e-9))) + np.log(DETAILED))
    return min(left, key=lambda one: (one.t_start, -one.zncc))


def _nearest(tried: list[Tried], beyond: Callable[[Tried], float]) -> list[Tried]:
    """Those that are not beyond a bound, or else the one that is least so."""
    return [one for one in tried if beyond(one) <= 0] or [min(tried, key=beyond)]


def forward(
    scenes: Sequence[SketchedImage], window: Window, kept: float, sigma: float, seed: int = 0
) -> tuple[Array, Array, Array]:
    """Histograms of all real images and of all sketches, blurred by σ pixels, with the same noise; and their bins.

    kept: ᾱ, what is left of an image's variance.
    """
    real, drawn = [], []
    for n, one in enumerate(scenes):
        noise = stream(seed, "forward", n).standard_normal(one.image.shape, np.float32)
        real.append(noised(one.image, window, kept, noise).ravel())
        drawn.append(noised(one.sketch, window, kept, noise, sigma).ravel())
    return histograms(np.concatenate(real), np.concatenate(drawn))


def noised(image: Array, window: Window, kept: float, noise: Array, sigma: float = 0.0) -> Array:
    """An image as the network sees it, in [−1, 1], blurred by σ pixels, and noised until √kept of it is left (DDPM,
    Eq. 4)."""
    seen = 2 * window.stretch(image) - 1
    if sigma:
        seen = ndimage.gaussian_filter(seen, sigma, mode="nearest", truncate=3.0)
    return np.asarray(np.sqrt(kept) * seen + np.sqrt(1 - kept) * noise, np.float32)


def structure_kept(image: Array, scene: SketchedImage, window: Window) -> float:
    """IoU of what Otsu's threshold calls bright in an image with the structure of its sketch; of cells that are dark in
    the sketch, what it calls dark. 0 for an image without contrast.

    >>> structure = np.zeros((96, 96), bool)
    >>> structure[16:80, 16:80] = True
    >>> image = np.where(structure, 300.0, 100.0)
    >>> structure_kept(image, SketchedImage(image, image, structure), Window(0, 1000)) > 0.9
    True
    """
    seen = ndimage.gaussian_filter(window.stretch(image), _NOISE_PX)
    if not np.ptp(seen) > 0:
        return 0.0
    bright = seen > threshold_otsu(seen)
    inside = scene.structure
    if inside.any() and not inside.all() and scene.sketch[inside].mean() < scene.sketch[~inside].mean():
        bright = ~bright
    return float((bright & inside).sum() / max(int((bright | inside).sum()), 1))


def detail(image: Array, scene: SketchedImage, window: Window) -> float:
    """Standard deviation of what is finer than `_FINE_PX` in an image, its texture and its noise, inside the structure
    of a sketch and away from its outlines; of the window's range after gamma."""
    seen = window.stretch(image)
    fine = seen - ndimage.gaussian_filter(seen, _FINE_PX, mode="nearest")
    inside = ndimage.distance_transform_edt(scene.structure) > 2 * _FINE_PX
    inside = inside if inside.any() else scene.structure
    return float(fine[inside].std()) if inside.any() else 0.0


def _backward(scene: SketchedImage, painted: Array, window: Window) -> dict[str, float]:
    """Metrics in units of the window."""
    real, made = (np.clip((one.astype(np.float32) - window.low) / window.span, 0, 1) for one in (scene.image, painted))
    with np.errstate(divide="ignore"):  # of an image that is the real one
        found = paired_metrics(real, made, data_range=1.0)
    found["structure"] = structure_kept(painted, scene, window)
    found["detail"] = detail(painted, scene, window) / max(detail(scene.image, scene, window), 1e-9)
    return {name: found[name] for name in ("psnr", "ssim", "mae", "zncc", "structure", "detail")}
