import numpy as np
import pytest
from scipy import ndimage

from cascade.evaluation.images import bhattacharyya, histograms, kullback_leibler, paired_metrics, rim_profiles, zncc
from cascade.evaluation.sources import Source


def test_paired_metrics_of_a_case_done_by_hand():
    rng = np.random.default_rng(0)
    real = rng.uniform(0, 100, (64, 64))
    real[0, 0], real[0, 1] = 0, 100
    made = real + np.where(np.indices(real.shape).sum(0) % 2, 5.0, -5.0)
    found = paired_metrics(real, made)
    assert found["mae"] == pytest.approx(5)
    assert found["nrmse"] == pytest.approx(0.05)
    assert found["psnr"] == pytest.approx(20 * np.log10(100 / 5))
    assert 0.9 < found["ssim"] < 1
    same = paired_metrics(real, 1e-6 + real)
    assert same["ssim"] == pytest.approx(1)
    assert same["zncc"] == pytest.approx(1)
    assert paired_metrics(real, made, data_range=200)["nrmse"] == pytest.approx(0.025)
    with pytest.raises(ValueError, match="one shape"):
        paired_metrics(real, made[:-1])


def test_paired_stacks_may_have_few_slices():
    rng = np.random.default_rng(0)
    for slices in (3, 4, 5, 6, 7, 20):
        real = rng.uniform(0, 100, (slices, 32, 32))
        assert paired_metrics(real, real + 1e-6)["ssim"] == pytest.approx(1)
        assert paired_metrics(real, rng.permuted(real, axis=1))["ssim"] < 0.5
    with pytest.raises(ValueError, match=r"three pixels along each axis, got \(2, 32, 32\): compare slices"):
        paired_metrics(real[:2], real[:2])
    with pytest.raises(ValueError, match="not above 0: give data_range"):
        paired_metrics(np.ones((9, 9)), real[0, :9, :9])
    assert paired_metrics(np.ones((9, 9)), real[0, :9, :9], data_range=100)["nrmse"] > 0


@pytest.fixture(params=["noise", "a real frame"])
def pair(request) -> tuple[np.ndarray, np.ndarray]:
    """An image, and another one of the same."""
    if request.param == "noise":
        rng = np.random.default_rng(1)
        real = rng.uniform(0, 100, (24, 24))
        return real, real + rng.normal(0, 10, real.shape)
    real = Source(request.getfixturevalue("real_data") / "BBBC039", sequences=("02",)).load()[0].image
    return real, ndimage.median_filter(real, 3)


def test_psnr_and_ssim_are_those_of_their_definitions(pair):
    """SSIM: Wang et al., IEEE TIP 13 (2004), Eq. 13, in windows of 7×7 pixels."""
    real, made = (image.astype(float) for image in pair)
    found, dynamic = paired_metrics(*pair), np.ptp(real)
    assert found["psnr"] == pytest.approx(10 * np.log10(dynamic**2 / ((real - made) ** 2).mean()), abs=1e-6)
    windows = [np.lib.stride_tricks.sliding_window_view(a, (7, 7)).reshape(-1, 49) for a in (real, made)]
    (mx, my), (vx, vy) = ([f(w) for w in windows] for f in (lambda w: w.mean(1), lambda w: w.var(1, ddof=1)))
    covariance = ((windows[0] - mx[:, None]) * (windows[1] - my[:, None])).sum(1) / 48
    c1, c2 = ((k * dynamic) ** 2 for k in (0.01, 0.03))
    ssim = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    print(f"SSIM {found['ssim']:.4f}, differs by {abs(found['ssim'] - ssim.mean()):.0e}")
    assert found["ssim"] == pytest.approx(ssim.mean(), abs=1e-6)


def test_zncc_ignores_gain_and_offset():
    image = np.random.default_rng(0).random((20, 20))
    assert zncc(image, 3 * image + 7) == pytest.approx(1)
    assert zncc(image, -image) == pytest.approx(-1)
    assert zncc(image, np.ones_like(image)) == 0


def test_histogram_distances_are_those_of_gaussians():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 2_000_000), rng.normal(1, 1, 2_000_000)
    p, q, _ = histograms(a, b, 200)
    assert kullback_leibler(p, q) == pytest.approx(0.5, rel=0.03)  # (Δμ)² / 2σ²
    assert bhattacharyya(p, q) == pytest.approx(1 / 8, rel=0.03)  # (Δμ)² / 8σ²
    assert bhattacharyya(p, p) == pytest.approx(0, abs=1e-9)
    assert bhattacharyya(np.array([1.0, 0]), np.array([0, 1.0])) == float("inf")


def test_a_hot_pixel_does_not_hide_a_difference():
    rng = np.random.default_rng(0)
    a, b = rng.normal(100, 5, (2, 200, 200)) + np.array([0, 5])[:, None, None]
    clean = bhattacharyya(*histograms(a, b)[:2])
    a[0, 0] = 65535
    p, q, edges = histograms(a, b)
    assert bhattacharyya(p, q) == pytest.approx(clean, rel=0.02)
    assert edges[-1] < 200
    assert p.sum() == pytest.approx(1)
    assert q.sum() == pytest.approx(1)


def test_a_profile_across_the_rim_finds_a_blurred_edge():
    labels = np.zeros((80, 80), int)
    y, x = np.mgrid[:80, :80]
    for n, (cy, cx) in enumerate([(20, 20), (55, 50)], 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < 12**2] = n
    image = 100 + 50.0 * (labels > 0)
    distance, profiles = rim_profiles([image, np.stack([image, image])], [labels, np.stack([labels, 0 * labels])])
    assert profiles.shape == (4, 17)
    np.testing.assert_allclose(profiles[:, distance <= 0], 1)
    np.testing.assert_allclose(profiles[:, distance > 0], 0)
    _, soft = rim_profiles([ndimage.gaussian_filter(image, 2)], [labels])
    middle = np.flatnonzero(distance == 1)[0]
    assert 0.2 < soft[0, middle] < 0.6
    assert (np.diff(soft.mean(0)[4:14]) < 0).all()
