"""Intensity profile of a stack's central xz slice, and its spectrum."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.evaluation.images import zncc

_RINGS = 32  # of a spectrum


def central_slice(image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The central xz slice (Z, X) of a stack (Z, Y, X). Raises ValueError for anything else."""
    if image.ndim != 3:
        raise ValueError(f"a stack (Z, Y, X) has xz slices, got an image of shape {image.shape}")
    return image[:, image.shape[1] // 2].astype(np.float64)


def intensity_profile(image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Intensities of the central xz slice, summed over z: (X,) (3D microscopy synthesis by conditional GAN, Figs. 7, 9,
    11, left).

    >>> intensity_profile(np.arange(12.0).reshape(2, 3, 2)).tolist()
    [10.0, 12.0]
    """
    return np.asarray(central_slice(image).sum(0))


def intensity_spectrum(
    image: npt.NDArray[Any], spacing_um: Sequence[float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Frequencies (F,) in 1/µm and amplitudes (F,) of the central xz slice (the same figures, right), means over rings
    of |FFT| of the slice less its mean, under a Hann window; relative to the slice's size, in the image's units.

    spacing_um: z y x. Rings go to the highest frequency that both axes have; those without a frequency are left out.

    >>> x = np.arange(64)
    >>> wave = np.broadcast_to(np.sin(2 * np.pi * x / 8), (64, 3, 64))
    >>> frequency, amplitude = intensity_spectrum(wave, (0.5, 0.5, 0.5))
    >>> round(float(frequency[amplitude.argmax()]), 2)  # a wave of 4 µm, to a ring
    0.26
    """
    plane = central_slice(image)
    window = np.multiply.outer(*(np.hanning(n + 2)[1:-1] for n in plane.shape))
    amplitude = np.abs(np.fft.fft2((plane - plane.mean()) * window)) / window.sum()
    along = [np.fft.fftfreq(n, s) for n, s in zip(plane.shape, (spacing_um[0], spacing_um[2]), strict=True)]
    radius = np.hypot(*np.meshgrid(*along, indexing="ij"))
    highest = min(np.abs(one).max() for one in along)
    ring = np.minimum((radius / highest * _RINGS).astype(int), _RINGS)
    count = np.bincount(ring.ravel(), minlength=_RINGS + 1)[:_RINGS]
    sums, radii = (np.bincount(ring.ravel(), what.ravel(), _RINGS + 1)[:_RINGS] for what in (amplitude, radius))
    there = count > 0
    return radii[there] / count[there], sums[there] / count[there]


def profile_agreement(real: npt.NDArray[Any], made: npt.NDArray[Any], spacing_um: Sequence[float]) -> dict[str, float]:
    """Of two stacks of the same place: correlation of their profiles, and the mean difference of their spectra in
    decades (0.3 is a factor of two), without the slices' mean."""
    real_spectrum, made_spectrum = (intensity_spectrum(one, spacing_um)[1] for one in (real, made))
    least = 1e-9 + 1e-6 * float(real_spectrum.max())
    decades = np.log10(np.maximum(made_spectrum, least) / np.maximum(real_spectrum, least))
    return {
        "profile_zncc": zncc(intensity_profile(real), intensity_profile(made)),
        "spectrum_decades": float(np.abs(decades).mean()),
    }
