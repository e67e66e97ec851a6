from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cascade.data.grain import measure_grain
from cascade.optics.grain import Grain

SIDE = 48


class LowPass:
    """An autoencoder that carries nothing finer than a gradient: crops decode to what was put under their grain."""

    def __init__(self, smooth):
        self.config, self.smooth, self.seen = SimpleNamespace(in_channels=1), smooth, 0

    def parameters(self):
        return iter([torch.zeros(1)])

    def encode(self, part):
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: len(part)))

    def decode(self, count):
        self.seen += count
        return SimpleNamespace(sample=self.smooth[self.seen - count : self.seen])


def crops_with(grain: Grain, camera_sd: float, count=40):
    rng = np.random.default_rng(0)
    y, x = np.indices((SIDE, SIDE)) - SIDE / 2
    masks = np.repeat((np.hypot(y, x) < 18)[None], count, 0)
    smooth = np.where(masks, rng.uniform(0.3, 0.7, (count, 1, 1)) + 0.002 * x, 0.1).astype(np.float32)
    grained = grain.add(smooth, rng.standard_normal(smooth.shape).astype(np.float32))
    noisy = grained + camera_sd * rng.standard_normal(smooth.shape)
    columns = {
        "image": torch.tensor(2 * noisy - 1).float()[:, None],
        "mask": torch.tensor(masks).float()[:, None],
        "noise_sd": torch.full((count,), 2 * camera_sd),
    }

    class Crops:
        statistics = [SimpleNamespace(noise=SimpleNamespace(kernel=[[1.0]]))]  # noqa: RUF012

        def __len__(self):
            return count

        def __getitem__(self, rows):
            return {key: value[rows] for key, value in columns.items()}

    return LowPass(torch.tensor(2 * smooth - 1)[:, None]), Crops()


@pytest.mark.parametrize("length", [0.0, 0.7, 1.2])
def test_grain_is_found_again_beneath_camera_noise(length):
    found = measure_grain(*crops_with(Grain(0.04, length), camera_sd=0.01))
    assert found.sd == pytest.approx(0.04, rel=0.1)
    assert found.length_px == pytest.approx(length, abs=0.15)


def test_what_is_camera_noise_alone_is_no_grain():
    assert measure_grain(*crops_with(Grain(0.0), camera_sd=0.02)).sd < 0.004


def test_grain_has_the_variance_and_correlation_it_says():
    images = np.full((16, 64, 64), 0.5, np.float32)
    noise = np.random.default_rng(0).standard_normal(images.shape).astype(np.float32)
    made = Grain(0.05, 1.0).add(images, noise) / 0.5 - 1
    assert made.std() == pytest.approx(0.05, rel=0.05)
    along = (made[:, 1:] * made[:, :-1]).mean() / made.var()
    assert along == pytest.approx(np.exp(-1 / 4), abs=0.03)
    assert np.array_equal(Grain().add(images, noise), images)
