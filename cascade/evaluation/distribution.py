"""How far two sets of crops are apart: Fréchet and kernel distances of features, histograms, power spectra."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import linalg, ndimage, stats

from cascade.evaluation.labelled import LabelledImage
from cascade.evaluation.scattering import scattering, scattering_features
from cascade.evenly import evenly
from cascade.optics.window import Window
from cascade.rng import stream

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


def frechet_distance(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Fréchet distance of two feature sets (N, D), (M, D) taken as Gaussians (Heusel et al., 2017, Eq. 6).

    With Inception features this is the FID. Raises ValueError if there are fewer samples than features: the
    covariance would be singular and the distance an artefact of it.

    .. math:: d^2 = |μ_a - μ_b|^2 + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^{1/2})

    >>> a = np.random.default_rng(0).normal(size=(200, 3))
    >>> round(frechet_distance(a, a), 6), round(frechet_distance(a, a + [2, 0, 0]), 6)
    (0.0, 4.0)
    """
    if min(len(a), len(b)) <= a.shape[1]:
        raise ValueError(f"{len(a)} and {len(b)} samples for {a.shape[1]} features: give more samples than features")
    ca, cb = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = linalg.eigh(ca)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    mixed = np.sqrt(np.maximum(linalg.eigvalsh(root @ cb @ root), 0)).sum()  # tr (Σ_a Σ_b)^{1/2}
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * mixed)


def kernel_distance(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Unbiased MMD² with the kernel (x·y / D + 1)³ (Bińkowski et al., 2018): with Inception features the KID."""
    kaa, kbb, kab = (_cubic(x, y) for x, y in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    within = (kaa.sum() - np.trace(kaa)) / (n * (n - 1)) + (kbb.sum() - np.trace(kbb)) / (m * (m - 1))
    return float(within - 2 * kab.mean())


def _cubic(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return (x.astype(np.float64) @ y.T.astype(np.float64) / x.shape[1] + 1) ** 3


@torch.inference_mode()
def encoder_features(vae: "AutoencoderKL", images: npt.NDArray[Any], *, batch_size: int = 64) -> npt.NDArray[Any]:
    """Features (N, D) of grey crops (N, H, W) in [0, 1]: an autoencoder's last encoder layer, averaged over the crop.

    D is the encoder's widest layer; unlike Inception it has seen microscopy, and it needs no download.
    """
    encoder, rows = vae.encoder, []
    device, dtype = next(vae.parameters()).device, next(vae.parameters()).dtype
    seen: list[torch.Tensor] = []
    handle = encoder.conv_norm_out.register_forward_hook(lambda module, given, made: seen.append(made))
    try:
        for part in torch.from_numpy(np.asarray(images, np.float32)).split(batch_size):
            vae.encode((2 * part[:, None] - 1).expand(-1, vae.config.in_channels, -1, -1).to(device, dtype))
            rows.append(seen.pop().float().mean((2, 3)).cpu())
    finally:
        handle.remove()
    return torch.cat(rows).numpy()


def all_orientations(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Square images (N, H, H) in their eight flips and quarter turns, (8 N, H, H)."""
    turns = [np.rot90(images, k, (1, 2)) for k in range(4)]
    return np.concatenate([*turns, *(turn[:, :, ::-1] for turn in turns)])


def histogram_distance(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Wasserstein distance of two sets of intensities, in their unit."""
    return float(stats.wasserstein_distance(a.ravel(), b.ravel()))


def radial_spectrum(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Mean power of images (N, H, W) by spatial frequency 0, 1, … cycles per image, averaged over directions."""
    height, width = images.shape[-2:]
    power = (np.abs(np.fft.fft2(images)) ** 2).mean(0) / (height * width)
    fy, fx = np.fft.fftfreq(height, 1 / height), np.fft.fftfreq(width, 1 / width)
    ring = np.rint(np.hypot(fy[:, None], fx[None])).astype(int)
    count = min(height, width) // 2 + 1
    total = np.bincount(ring.ravel(), power.ravel(), minlength=count)
    return (total / np.maximum(np.bincount(ring.ravel(), minlength=count), 1))[:count]


def spectrum_distance(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Mean absolute difference of the log10 radial spectra of two sets of images: 1 is a factor of ten in power."""
    return float(np.abs(np.log10(radial_spectrum(a)[1:] / radial_spectrum(b)[1:])).mean())


def depth_correlation(image: npt.NDArray[Any], labels: npt.NDArray[Any], *, min_px: int = 30) -> npt.NDArray[Any]:
    """Correlation of intensities between neighbouring slices inside a cell, one value per cell and pair of slices.

    image, labels: (Z, Y, X). Pixels that the cell has in both slices count, and there must be `min_px` of them.
    """
    found = []
    for z in range(len(image) - 1):
        shared = np.where(labels[z] == labels[z + 1], labels[z], 0)
        for label, count in zip(*np.unique(shared[shared > 0], return_counts=True), strict=True):
            if count >= min_px:
                inside = shared == label
                pair = np.corrcoef(image[z][inside], image[z + 1][inside])
                found.append(pair[0, 1])
    return np.nan_to_num(np.array(found))


def patches(images: list[LabelledImage], window: Window, size: int, *, limit: int = 600) -> npt.NDArray[Any]:
    """Patches (N, size, size) in [0, 1] centred on cells, at most `limit`; none of images no larger than they are."""
    places = []  # (image, plane, centre), of every cell in every plane
    for number, one in enumerate(images):
        stack, masks = (array[None] if array.ndim == 2 else array for array in (one.image, one.labels))
        if min(stack.shape[1:]) <= size:
            continue
        for z, labels in enumerate(masks):
            for label, box in enumerate(ndimage.find_objects(labels), 1):
                if box is not None:
                    inside = np.argwhere(labels[box] == label).mean(0)
                    places.append((number, z, *(int(c + b.start) for c, b in zip(inside, box, strict=True))))
    chosen = np.empty((min(limit, len(places)), size, size), np.float32)
    for patch, n in zip(chosen, evenly(len(places), limit), strict=True):
        number, z, y, x = places[n]
        image = images[number].image
        padded = np.pad(image if image.ndim == 2 else image[z], size // 2, mode="reflect")
        patch[:] = window.stretch(padded[y : y + size, x : x + size])
    return chosen


def tiles(images: list[LabelledImage], size: int, *, limit: int = 600) -> npt.NDArray[Any]:
    """Patches (N, size, size) in camera units, cut side by side from every plane, at most `limit`, evenly drawn.

    Cells or none, of stacks every plane counts, also where a single slice is annotated. Planes that are smaller give
    none.
    """
    places = []  # (image, plane, corner)
    for number, one in enumerate(images):
        stack = _planes(one)
        rows, columns = (_starts(n, size) for n in stack.shape[1:])
        places += [(number, z, y, x) for z in range(len(stack)) for y in rows for x in columns]
    chosen = np.empty((min(limit, len(places)), size, size), np.float32)
    for tile, n in zip(chosen, evenly(len(places), limit), strict=True):
        number, z, y, x = places[n]
        tile[:] = _planes(images[number])[z, y : y + size, x : x + size]
    return chosen


def _planes(one: LabelledImage) -> npt.NDArray[Any]:
    return one.stored[None] if one.stored.ndim == 2 else one.stored


def _starts(length: int, size: int) -> list[int]:
    """Where tiles begin: as many as there is room for, evenly over the length."""
    count = length // size
    return [round((n + 0.5) * (length - count * size) / count) + n * size for n in range(count)]


def distribution(
    real_train: list[LabelledImage],
    real_test: list[LabelledImage],
    others: dict[str, list[LabelledImage]],
    vae: "AutoencoderKL",
    *,
    size: int = 64,
    tile: int = 96,
) -> dict[str, Any]:
    """FID and KID, real to real and real to synthetic, by two judges.

    `fid`, `kid`: features of an autoencoder's encoder (`vae`), see `encoder_features`, the mean over eight orientations
    of patches of `size` pixels around cells. `fid_scattering`, `kid_scattering`: features that nobody trained, see
    `scattering_features`, of `tiles` of `tile` pixels. Where they disagree, believe the second: the autoencoder has
    part in making the images.

    Each with `_r2r`, training to test images, if there are some to train on; `_r2s`, those of `others["synthetic"]` to
    test images; and `_floor`, two random halves of the test images' patches, half as many as the others compare.
    `distances` holds all of `others` by name. None where there are too few patches, as where no image is large enough.

    The fewer samples, the greater is a Fréchet distance, so that all sets give as many, those of the smallest that has
    enough: `fid_patches` and `fid_tiles`. Kernel distances are of all that there are.
    """
    window = _window(real_train or real_test)

    def encoded(images: list[LabelledImage]) -> npt.NDArray[Any]:
        seen = patches(images, window, size)
        return encoder_features(vae, all_orientations(seen)).reshape(8, len(seen), -1).mean(0) if len(seen) else seen

    tested, scattered = encoded(real_test), scattering(tiles(real_test, tile))

    sets = [*others.values(), *([real_train] if real_train else [])]
    seen = [(encoded(images), scattering(tiles(images, tile))) for images in sets]
    num_patches, num_tiles = (_enough([one[n] for one in seen]) for n in (0, 1))
    compared = [
        _distances(patch, tested, num_patches) | _independent(some, scattered, num_tiles) for patch, some in seen
    ]
    halves = [part[stream(0, "halves").permutation(len(part))] for part in (tested, scattered)]
    (first, second), (one, other) = (np.array_split(part, 2) for part in halves)
    found = dict(zip(others, compared, strict=False))
    ends = {"floor": _distances(first, second, len(first)) | _independent(one, other, len(one))}
    ends |= {"r2r": compared[-1]} if real_train else {}
    ends |= {"r2s": found["synthetic"]} if "synthetic" in found else {}
    return {
        **{f"{key}_{end}": value for end, values in ends.items() for key, value in values.items()},
        "distances": found,
        "fid_patches": num_patches,
        "fid_tiles": num_tiles,
        "features": "encoder of the autoencoder of nuclei2d",
        "features_scattering": "logarithms of wavelet scattering, in units of their spread among test tiles",
    }


def _enough(sets: list[npt.NDArray[Any]]) -> int:
    """Samples that all sets of features (N, D) give which have more than D; 0 if none has."""
    return min((len(one) for one in sets if one.ndim == 2 and len(one) > one.shape[1]), default=0)


def _distances(seen: npt.NDArray[Any], test: npt.NDArray[Any], count: int) -> dict[str, float | None]:
    """Fréchet distance of `count` of them, kernel distance of all."""
    few = min(len(seen), len(test))
    return {
        "fid": frechet_distance(seen[evenly(len(seen), count)], test) if few > np.prod(test.shape[1:]) else None,
        "kid": kernel_distance(seen, test) if few > 1 else None,
    }


def _independent(seen: npt.NDArray[Any], test: npt.NDArray[Any], count: int) -> dict[str, float | None]:
    """Distances of scattering coefficients, by features in units of those of the test tiles."""
    if min(len(seen), len(test)) < 2:
        return {"fid_scattering": None, "kid_scattering": None}
    found = _distances(scattering_features(seen, test), scattering_features(test, test), count)
    return {f"{key}_scattering": value for key, value in found.items()}


def _window(images: list[LabelledImage]) -> Window:
    values = np.concatenate([one.image.ravel()[:: max(one.image.size // 20_000, 1)] for one in images])
    low, high = np.percentile(values, [0.5, 99.9])
    return Window(float(low), float(high if high > low else low + 1))
