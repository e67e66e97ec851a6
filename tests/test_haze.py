import numpy as np
import pytest
from scipy import ndimage

from cascade.optics.haze import cone_sigma, haze_reach, spread_haze

SPACING = (2.0, 0.8, 0.8)


def balls(shape: tuple[int, ...], count: int = 12) -> np.ndarray:
    """Balls of 6 µm radius, some of them across the border, 500 bright."""
    rng, there = np.random.default_rng(0), np.ones(shape, bool)
    there[tuple(rng.integers(0, n, count) for n in shape)] = False
    return 500 * (ndimage.distance_transform_edt(there, sampling=SPACING) < 6).astype(np.float32)


def plane_by_plane(light: np.ndarray, length_um: tuple[float, float], slope: float) -> np.ndarray:
    """Every plane, blurred as much as it is out of focus, in every other: in full resolution."""
    out = np.zeros_like(light)
    for away in range(len(light)):
        um = away * SPACING[0]
        share = SPACING[0] / (np.sqrt(2 * np.pi) * length_um[0]) * np.exp(-0.5 * (um / length_um[0]) ** 2)
        sigma = np.hypot(length_um[1], slope * um) / SPACING[1]
        seen = share * ndimage.gaussian_filter(light, (0, sigma, sigma), mode="constant", truncate=6)
        out[away:] += seen[: len(light) - away]
        if away:
            out[:-away] += seen[away:]
    return out


@pytest.mark.parametrize(
    ("length_um", "slope", "close"), [((100.0, 2.4), 0.35, 1e-3), ((40.0, 5.0), 0.2, 0.03), ((90.0, 12.0), 0.0, 0.05)]
)
@pytest.mark.parametrize("shape", [(17, 70, 61), (30, 33, 90)])
def test_haze_is_that_of_every_plane_blurred_as_much_as_it_is_out_of_focus(length_um, slope, close, shape):
    light = balls(shape)
    wanted = plane_by_plane(light, length_um, slope)
    found = spread_haze(light, length_um, slope, SPACING)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=close * wanted.max())


def test_all_the_light_is_in_every_plane_of_a_cone():
    light = np.zeros((21, 121, 121), np.float32)
    light[10, 60, 60] = 1e6
    spread = spread_haze(light, (1e5, 2.0), 0.3, SPACING)
    np.testing.assert_allclose(spread.sum((1, 2)), spread.sum((1, 2)).mean(), rtol=1e-3)
    x = (np.arange(121) - 60) * SPACING[2]
    widths = np.sqrt((spread.sum(1) * x**2).sum(1) / spread.sum((1, 2)))
    np.testing.assert_allclose(widths, cone_sigma(2.0, 0.3, np.abs(np.arange(21) - 10) * SPACING[0]), rtol=0.02)


def test_what_lies_beyond_its_reach_changes_nothing():
    light = balls((12, 60, 200))
    reach = haze_reach((80.0, 3.0), 0.3, SPACING, 12)
    whole = spread_haze(light, (80.0, 3.0), 0.3, SPACING)[:, :, 100:]
    part = spread_haze(light[:, :, 100 - reach :], (80.0, 3.0), 0.3, SPACING)[:, :, reach:]
    assert reach < 60
    np.testing.assert_allclose(part, whole, atol=0.01 * whole.max())
