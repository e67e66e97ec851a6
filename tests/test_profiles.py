"""Profile and spectrum of the central xz slice against closed forms."""

import numpy as np
import pytest

from cascade.evaluation.profiles import intensity_profile, intensity_spectrum, profile_agreement

SPACING = (0.5, 0.25, 0.25)


def stack(seed=0, shape=(40, 21, 80)):
    return np.random.default_rng(seed).normal(100, 5, shape)


def test_the_profile_is_that_of_the_middle_slice():
    image = np.zeros((4, 5, 6))
    image[:, 2] = np.arange(6)
    image[:, 3] = 100
    np.testing.assert_array_equal(intensity_profile(image), 4 * np.arange(6))
    with pytest.raises(ValueError, match=r"a stack \(Z, Y, X\) has xz slices, got an image of shape \(4, 5\)"):
        intensity_profile(image[..., 0])


@pytest.mark.parametrize(("axis", "period_um"), [(0, 4.0), (2, 4.0), (2, 1.5)])
def test_a_wave_is_found_at_its_frequency_along_either_axis(axis, period_um):
    shape = (80, 3, 160)
    along = np.arange(shape[axis]) * SPACING[axis]
    wave = np.moveaxis(
        np.broadcast_to(np.sin(2 * np.pi * along / period_um), (*np.delete(shape, axis), shape[axis])), -1, axis
    )
    frequency, amplitude = intensity_spectrum(wave, SPACING)
    assert frequency[amplitude.argmax()] == pytest.approx(1 / period_um, abs=1 / 32)
    assert frequency.max() <= 1 / (2 * max(SPACING[0], SPACING[2])) + 1e-9
    assert np.all(np.diff(frequency) > 0)


def test_white_noise_is_flat_and_as_strong_as_it_is():
    """E|FFT| of noise under a window is σ √(π/4 Σ w²)."""
    image = stack(shape=(200, 3, 200))
    _, amplitude = intensity_spectrum(image, (1.0, 1.0, 1.0))
    window = np.multiply.outer(*[np.hanning(202)[1:-1]] * 2)
    wanted = 5 * np.sqrt(np.pi / 4 * (window**2).sum()) / window.sum()
    np.testing.assert_allclose(amplitude[3:], wanted, rtol=0.15)


def test_agreement_is_perfect_with_itself_and_says_how_far_it_is():
    image = stack()
    same = profile_agreement(image, image, SPACING)
    assert same == {"profile_zncc": pytest.approx(1), "spectrum_decades": 0}
    stronger = profile_agreement(image, 100 + 10 * (image - 100), SPACING)
    assert stronger["spectrum_decades"] == pytest.approx(1)
    assert stronger["profile_zncc"] == pytest.approx(1)
    assert abs(profile_agreement(image, stack(1), SPACING)["profile_zncc"]) < 0.5
