import numpy as np
import pytest
from conftest import tiny_texture
from scipy import ndimage

from cascade.evaluation.distribution import distribution, tiles
from cascade.evaluation.labelled import LabelledImage
from cascade.evaluation.scattering import filter_bank, names, scattering, scattering_features

NAMES = names()
FIRST = slice(1, 19)


def wave(scale: int, turn: int, size: int = 96) -> np.ndarray:
    """A plane wave with the frequency and the direction of a wavelet."""
    angle, frequency = (2 - turn) * np.pi / 6, 0.75 * np.pi / 2**scale
    y, x = np.indices((size, size))
    return np.cos(frequency * (y * np.cos(angle) + x * np.sin(angle)))


@pytest.fixture(scope="module")
def texture():
    """Smoothed noise, (6, 96, 96), positive."""
    noise = np.random.default_rng(0).standard_normal((6, 96, 96))
    return 5 + ndimage.gaussian_filter(noise, (0, 1.5, 1.5), mode="wrap") / 0.19


def test_filters_have_no_mean_and_together_nothing_is_amplified():
    wavelets, smooth = filter_bank((112, 112))
    assert smooth[0, 0] == pytest.approx(1)
    assert max(abs(one[:, 0, 0]).max() for one in wavelets) < 1e-12
    mirrored = [np.roll(np.flip(one, (1, 2)), 1, (1, 2)) for one in wavelets]
    total = smooth**2 + 0.5 * sum((a**2 + b**2).sum(0) for a, b in zip(wavelets, mirrored, strict=True))
    assert total.max() < 1 + 1e-9  # Littlewood-Paley: so scattering brings images no further apart
    ring = np.hypot(*np.meshgrid(np.fft.fftfreq(112), np.fft.fftfreq(112), indexing="ij"))
    assert total[ring < 0.4].min() > 0.2  # and no frequency is lost


@pytest.mark.parametrize(("scale", "turn"), [(0, 0), (0, 4), (1, 2), (2, 5)])
def test_a_plane_wave_excites_its_own_wavelet(scale, turn):
    (found,) = scattering(wave(scale, turn)[None])
    assert NAMES[1 + int(found[FIRST].argmax())] == f"{scale}.{turn}"


def test_flat_images_have_light_only():
    (found,) = scattering(np.full((1, 64, 80), 7.0))
    assert found[0] == pytest.approx(7, rel=1e-5)
    assert np.abs(found[1:]).max() < 1e-4


def test_coefficients_grow_with_the_image_and_hardly_change_as_it_moves(texture):
    found = scattering(texture)
    np.testing.assert_allclose(scattering(3 * texture), 3 * found, rtol=1e-3)
    moved = scattering(np.roll(texture, (5, -3), (1, 2)))
    assert np.abs(moved / found - 1).max() < 0.1
    assert np.abs(scattering(0.7 * texture[::-1])[::-1] / found - 0.7).max() < 1e-3  # each image by itself


def test_a_quarter_turn_turns_the_coefficients(texture):
    turned = scattering(np.rot90(texture, 1, (1, 2)).copy())
    found = scattering(texture)
    partner = {f"{j}.{t}": f"{j}.{(t + 3) % 6}" for j in range(3) for t in range(6)}
    order = [NAMES.index(" ".join(partner.get(part, part) for part in name.split())) for name in NAMES]
    assert np.abs(turned / found[:, order] - 1).max() < 0.05


def test_energy_decays_from_order_to_order(texture):
    found = scattering(texture) ** 2
    assert (found[:, 0] > found[:, FIRST].sum(1)).all()
    assert (found[:, FIRST].sum(1) > found[:, 19:].sum(1)).all()


def test_features_are_in_units_of_spread():
    rng = np.random.default_rng(0)
    test = np.exp(rng.normal(1, [0.5, 2], (4000, 2)))
    found = scattering_features(test, test)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(found.std(0), 1, atol=0.01)
    shift = scattering_features(2 * test, test) - found
    np.testing.assert_allclose(shift.mean(0), np.log(2) / np.array([0.5, 2]), rtol=0.05)
    assert np.isfinite(scattering_features(np.zeros((3, 2)), test)).all()


def test_small_images_are_refused():
    with pytest.raises(ValueError, match=r"at least 16 pixels a side, got \(2, 12, 40\)"):
        scattering(np.zeros((2, 12, 40)))


def test_tiles_cover_planes_and_whole_stacks():
    plane = np.arange(70 * 40.0).reshape(70, 40)
    one = LabelledImage(plane, plane * 0, (1, 1), whole=np.stack([plane, -plane]))
    found = tiles([one], 32)
    assert found.shape == (4, 32, 32)
    np.testing.assert_array_equal(found[0], plane[2:34, 4:36])
    np.testing.assert_array_equal(found[3], -plane[36:68, 4:36])  # the rest is left out on all sides alike
    assert tiles([one], 48).shape == (0, 48, 48)
    assert len(tiles([one] * 9, 32, limit=7)) == 7


def field(seed: int, noise: float) -> list[LabelledImage]:
    """A large image of smooth texture with five square cells, and noise."""
    rng = np.random.default_rng(seed)
    image = 5 + ndimage.gaussian_filter(rng.standard_normal((320, 320)), 1.5) / 0.19
    labels = np.kron(np.arange(100).reshape(10, 10) % 20 == 7, np.ones((32, 32), int))
    return [LabelledImage(image + rng.normal(0, noise, image.shape), ndimage.label(labels)[0], (1, 1))]


def test_both_judges_tell_the_noisy_set_and_give_a_floor():
    real, test, noisy = field(0, 0.1), field(1, 0.1), field(2, 0.3)
    vae = tiny_texture().vae.eval()
    found = distribution(real, test, {"synthetic": noisy}, vae, size=32, tile=16)
    assert 0 < found["fid_scattering_r2r"] < found["fid_scattering_floor"]  # which has half as many tiles
    assert found["fid_scattering_r2s"] > 3 * found["fid_scattering_r2r"]
    assert found["kid_scattering_r2s"] > 10 * abs(found["kid_scattering_r2r"])
    keys = ("fid", "kid", "fid_scattering", "kid_scattering")
    assert found["distances"] == {"synthetic": {key: found[f"{key}_r2s"] for key in keys}}
    assert found["kid_r2s"] is not None
    assert found["kid_floor"] is not None
    small = distribution(real, test, {}, vae, size=32, tile=400)
    assert small["fid_scattering_r2r"] is None
    assert small["fid_scattering_floor"] is None
    assert "fid_r2s" not in small
