import numpy as np
import pytest
import torch

from cascade.diffusion.conditioning import conditioning_image
from cascade.diffusion.latents import correlated_noise, depth_correlated_noise, slice_latents
from cascade.diffusion.sampling import denoise, ideal_prediction, make_scheduler


@pytest.mark.parametrize("rho", [0.0, 0.7, 2.0, float("inf")])
def test_latents_have_the_covariance_of_equation_2(rho):
    drawn = correlated_noise(5, (50_000,), rho, torch.Generator().manual_seed(0)).double()
    expected = 1.0 if rho == float("inf") else rho**2 / (1 + rho**2)
    covariance = np.cov(drawn.numpy())
    np.testing.assert_allclose(np.diag(covariance), 1, atol=0.03)
    np.testing.assert_allclose(covariance[~np.eye(5, dtype=bool)], expected, atol=0.03)  # all pairs, also the first
    np.testing.assert_allclose(drawn.mean(1), 0, atol=0.03)


def test_cells_do_not_share_latents_nor_depend_on_each_other():
    cells = torch.tensor([0, 0, 1, 1, 1, 4])
    shape = (4, 64, 64)
    together = slice_latents(cells, shape, 2.0, seed=9)
    alone = slice_latents(torch.tensor([1, 1, 1]), shape, 2.0, seed=9)
    assert torch.equal(together[2:5], alone)
    assert abs(float((together[0] * together[2]).mean())) < 0.03
    assert float((together[0] * together[1]).mean()) == pytest.approx(0.8, abs=0.03)
    assert not torch.equal(alone, slice_latents(torch.tensor([1, 1, 1]), shape, 2.0, seed=9, attempt=1))


def test_correlation_falls_with_distance_along_z():
    heights = torch.tensor([4.0, 0.0, 1.0, 7.5])  # in any order, unevenly spaced
    drawn = depth_correlated_noise(heights, (60_000,), 2.0, torch.Generator().manual_seed(0)).double()
    expected = torch.exp(-(heights[:, None] - heights[None]).abs() / 2.0).double()
    np.testing.assert_allclose(np.cov(drawn.numpy()), expected.numpy(), atol=0.02)
    cells = torch.tensor([0, 0, 1, 1])
    latents = slice_latents(cells, (60_000,), 0.0, 1, heights_um=torch.tensor([0.0, 1.0, 0.0, 1.0]), length_um=1.0)
    assert float((latents[2] * latents[3]).mean()) == pytest.approx(np.exp(-1), abs=0.02)
    assert abs(float((latents[0] * latents[2]).mean())) < 0.02
    with pytest.raises(ValueError, match="correlation_length_um must be > 0"):
        depth_correlated_noise(heights, (4,), 0.0, torch.Generator())


def test_rho_must_not_be_negative():
    with pytest.raises(ValueError, match="rho must be ≥ 0"):
        correlated_noise(2, (4,), -0.1, torch.Generator())


def test_the_condition_tells_outline_brightness_and_depth():
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, 6:26, 6:26] = 1
    image = conditioning_image(mask, torch.tensor([0.25, 0.75]))
    assert image.shape == (2, 3, 32, 32)
    assert torch.equal(image[:, :1], mask)
    assert image[0, 1].max() == 0.25
    assert image[1, 1, 10, 10] == 0.75
    assert image[0, 2, 6, 16] == pytest.approx(1 / 8)
    assert image[0, 2, 8, 16] == pytest.approx(3 / 8)
    assert image[0, 2, 16, 16] == 1
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        conditioning_image(mask[:, 0], torch.ones(2))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_an_ideal_prediction_leads_to_what_is_known(kind):
    scheduler = make_scheduler(kind)
    clean = torch.rand(2, 3, 8, 8)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    made = denoise(lambda x, t, batch: ideal_prediction(scheduler, x, t, clean), scheduler, noise, {}, 10)
    torch.testing.assert_close(made, clean, atol=1e-4, rtol=0)
