import numpy as np
import pytest
from conftest import field_of_view, tiny_texture
from diffusers import AutoencoderKL
from scipy import ndimage

from cascade.evaluation.distribution import (
    all_orientations,
    depth_correlation,
    distribution,
    encoder_features,
    frechet_distance,
    histogram_distance,
    kernel_distance,
    patches,
    radial_spectrum,
    spectrum_distance,
)
from cascade.evaluation.labelled import LabelledImage
from cascade.evaluation.sources import Source
from cascade.hub.embedded import embedded
from cascade.optics.window import Window
from cascade.pipelines.texture import TexturePipeline


def test_the_frechet_distance_of_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((40_000, 3)) * [1, 2, 0.5]
    b = rng.standard_normal((40_000, 3)) * [2, 2, 1.5] + [1, 0, -2]
    # commuting covariances: |Δμ|² + Σ (σ_a − σ_b)²
    assert frechet_distance(a, b) == pytest.approx(5 + 1 + 0 + 1, rel=0.03)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="more samples than features"):
        frechet_distance(a[:3], b)


def test_a_real_set_has_no_distance_to_itself(real_data):
    images = Source(real_data / "BBBC039", sequences=("02",)).load()[:20]
    corners = [(y, x) for y in (0, 128, 256) for x in (0, 128, 256)]
    crops = np.stack([one.image[y : y + 64, x : x + 64] for one in images for y, x in corners])
    vae = TexturePipeline.from_pretrained(embedded("nuclei2d") / "texture").vae
    features = encoder_features(vae, all_orientations(np.clip(crops / crops.max(), 0, 1)))
    print(f"FID of a set to itself: {frechet_distance(features, features):.0e}")
    assert abs(frechet_distance(features, features)) < 1e-3
    faint = encoder_features(vae, all_orientations(0.5 * crops[::3] / crops.max()))
    print(f"FID to one half as bright: {frechet_distance(faint, features):.2f}")
    assert frechet_distance(faint, features) > 0.05


def test_the_kernel_distance_is_unbiased_and_sees_a_shift():
    rng = np.random.default_rng(0)
    same = [kernel_distance(rng.standard_normal((60, 8)), rng.standard_normal((60, 8))) for _ in range(60)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(60)
    assert kernel_distance(rng.standard_normal((60, 8)) + 1, rng.standard_normal((60, 8))) > 5 * np.std(same)


def test_features_are_of_the_crop_and_not_of_the_batch():
    vae = tiny_texture().vae.eval()
    crops = np.random.default_rng(0).random((5, 32, 32), np.float32)
    features = encoder_features(vae, crops, batch_size=2)
    assert features.shape == (5, vae.config.block_out_channels[-1])
    np.testing.assert_allclose(features[3], encoder_features(vae, crops[3:4])[0], atol=1e-5)


def test_patches_are_of_cells_in_images_that_are_large_enough():
    image, labels = field_of_view(np.random.default_rng(0))
    some = [LabelledImage(image, labels * 0, (1, 1)), LabelledImage(image, np.where(labels == 3, 3, 0), (1, 1))]
    (found,) = patches(some, Window(0.0, 2000.0, 1.0), 32)
    y, x = (int(c) for c in ndimage.center_of_mass(labels == 3))
    around = np.pad(image, 16, mode="reflect")[y : y + 32, x : x + 32]
    np.testing.assert_allclose(found, np.clip(around / 2000, 0, 1), atol=1e-6)
    assert patches(some[:1], Window(0.0, 1.0), 32).shape == (0, 32, 32)
    assert patches(some, Window(0.0, 1.0), 160).shape == (0, 160, 160)


def test_spectra_tell_scale_and_histograms_shift():
    rng = np.random.default_rng(0)
    x = np.indices((64, 64))[1]
    wave = np.cos(2 * np.pi * 9 * x / 64)[None]
    spectrum = radial_spectrum(wave)
    assert spectrum.argmax() == 9
    noise = rng.standard_normal((50, 64, 64))
    np.testing.assert_allclose(radial_spectrum(noise)[1:], 1, atol=0.15)  # white: its variance at every frequency
    assert spectrum_distance(10 * noise, noise) == pytest.approx(2, abs=0.01)
    assert histogram_distance(noise, noise + 3) == pytest.approx(3, abs=1e-6)


def test_depth_correlation_is_that_of_the_texture():
    rng = np.random.default_rng(0)
    labels = np.zeros((6, 60, 120), int)
    labels[:, 5:55, 5:55], labels[:, 5:55, 65:115] = 1, 2
    common = rng.standard_normal((1, 60, 120))
    image = np.sqrt(0.6) * common + np.sqrt(0.4) * rng.standard_normal((6, 60, 120))
    found = depth_correlation(image, labels)
    assert len(found) == 10
    assert found.mean() == pytest.approx(0.6, abs=0.02)
    labels[3:, 5:55, 5:55] = 3  # another cell begins: no pair across the border
    assert len(depth_correlation(image, labels)) == 9


def test_sets_of_any_size_are_as_far_from_one_of_their_law():
    """A Fréchet distance grows as samples grow few: all sets of a report give as many."""
    rng = np.random.default_rng(0)

    def of_one_law(count):
        images = ndimage.gaussian_filter(rng.normal(size=(count, 96, 96)), (0, 1, 1)) * 40 + 200
        labels = np.zeros((96, 96), np.int32)
        labels[40:60, 40:60] = 1
        return [LabelledImage(image, labels, (1.0, 1.0)) for image in images]

    vae = AutoencoderKL.from_pretrained(embedded("nuclei2d") / "texture" / "vae")
    found = distribution(of_one_law(150), of_one_law(200), {"synthetic": of_one_law(400)}, vae, size=96)
    assert (found["fid_tiles"], found["fid_patches"]) == (150, 0)
    assert found["fid_scattering_r2s"] == pytest.approx(found["fid_scattering_r2r"], rel=0.1)
