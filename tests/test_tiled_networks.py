"""A network's answer from tiles: that of the whole image, whatever the tiles."""

import numpy as np
import pytest
import torch
from test_pixel_shuffle_unet import random_unet

from cascade.diffusion.tiles import in_tiles, reflected


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "align"),
    [
        ((50, 70), (16, 24), 8, 8),
        ((33, 16), (16, 16), 0, 1),
        ((100, 5), (16, 16), 15, 1),
        ((9, 40, 21), (4, 16, 8), 2, 2),
        ((7, 9, 11), (8, 8, 8), 4, 4),
    ],
)
@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_a_function_of_single_pixels_is_as_it_is(size, tile, overlap, align, at_once):
    image = torch.randn(2, 3, *size)
    seen = []

    def square(part: torch.Tensor) -> torch.Tensor:
        seen.append(part.shape)
        return torch.cat([part.square(), part[:, :1]], 1)

    made = in_tiles(square, image, tile, overlap, align=align, at_once=at_once)
    torch.testing.assert_close(made, square(image), atol=2e-6, rtol=2e-6)
    tiles = seen[:-1]
    assert all(part[2 + axis] <= tile[axis] for part in tiles for axis in range(len(size)))
    assert max(part[0] for part in tiles) <= 2 * at_once


def test_tiles_begin_where_the_network_halves_and_share_the_overlap():
    corners = []

    def where(part: torch.Tensor) -> torch.Tensor:
        corners.append(int(part[0, 0, 0]))
        return part

    for size in (65, 96, 100, 200, 333):
        for overlap in (0, 5, 8, 20):
            corners.clear()
            in_tiles(where, torch.arange(float(size)).reshape(1, 1, size), (32,), overlap, align=8)
            steps = np.diff(corners)
            assert corners[0] == 0
            assert corners[-1] + 32 == -(-size // 8) * 8
            assert not any(corner % 8 for corner in corners)
            assert (steps > 0).all()
            assert 32 - steps.max() >= overlap
            fewest = -(-(corners[-1]) // ((32 - overlap) // 8 * 8))
            assert len(steps) == fewest


def test_an_end_of_the_image_is_no_border_of_a_tile():
    """What a tile is wrong in at its borders: all but nothing of it is seen where another one ends with the image."""

    def wrong_at_borders(part: torch.Tensor) -> torch.Tensor:
        made = torch.zeros_like(part)
        made[..., 0] = made[..., -1] = 1.0
        return made

    made = in_tiles(wrong_at_borders, torch.zeros(1, 1, 256), (240,), 60, align=8)[0, 0]
    assert (made[0], made[-1]) == (1, 1)  # as of the whole image
    assert made[1:-1].max() < 1e-3  # the first tile ends at 239, 17 before the image does


def span(image: torch.Tensor) -> float:
    """From the least to the most."""
    return float(image.max() - image.min())


def borders(size: int, tile: int, overlap: int, align: int, reach: int) -> torch.Tensor:
    """Places along an axis that are as near as `reach` to the border of a tile, but not to the image's own."""
    corners: list[int] = []

    def where(part: torch.Tensor) -> torch.Tensor:
        corners.append(int(part[0, 0, 0]))
        return part

    in_tiles(where, torch.arange(float(size)).reshape(1, 1, size), (tile,), overlap, align=align)
    near = torch.zeros(size, dtype=torch.bool)
    for edge in {one for corner in corners for one in (corner, corner + tile)} - {0, -(-size // align) * align}:
        near[max(edge - reach, 0) : edge + reach] = True
    return near


@pytest.mark.parametrize(
    ("dimensions", "options", "size", "tile"),
    [
        (2, {}, (150, 131), (64, 64)),
        (2, {"stem": 2, "in_channels": 2, "out_channels": 2}, (190, 260), (112, 128)),
        (3, {}, (27, 80, 48), (28, 64, 48)),
    ],
)
@torch.inference_mode()
def test_tiles_that_share_twice_the_reach_make_the_whole_images_prediction(dimensions, options, size, tile):
    unet = random_unet(dimensions, **options)
    image = torch.randn(1, unet.config.in_channels, *size)
    whole = unet(image, 300).sample
    overlap = 2 * unet.reach
    made = in_tiles(lambda part: unet(part, 300).sample, image, tile, overlap, align=unet.factor)
    near = torch.zeros(size, dtype=torch.bool)
    for axis, (n, t) in enumerate(zip(size, tile, strict=True)):
        along = borders(n, t, overlap, unet.factor, unet.reach) if n > t else torch.zeros(n, dtype=torch.bool)
        near |= along.reshape([-1 if a == axis else 1 for a in range(dimensions)])
    assert 0.01 < near.float().mean() < 0.95  # both kinds of places are there
    difference = (made - whole).abs().amax((0, 1))
    assert difference[~near].max() < 2e-5 * span(whole)
    assert difference.max() < 0.01 * span(whole)


@pytest.mark.parametrize(("share", "most"), [(0.5, 0.08), (1.0, 0.02), (1.5, 0.01)])
@torch.inference_mode()
def test_smaller_overlaps_differ_by_less_than_a_hundredth_nearly_everywhere(share, most):
    """White noise and random weights: with those of a training less comes from far away."""
    unet = random_unet(block_out_channels=(4, 8, 8), stem=2)
    image = torch.randn(1, 1, 300, 280)
    whole = unet(image, 300).sample
    overlap = int(share * unet.reach)
    made = in_tiles(lambda part: unet(part, 300).sample, image, (128, 128), overlap, align=unet.factor)
    difference = (made - whole).abs() / span(whole)
    assert 0 < difference.max() < most
    assert (difference > 0.01).float().mean() < 0.03
    assert difference.mean() < 0.002


@torch.inference_mode()
def test_an_image_as_small_as_a_tile_is_given_as_it_is():
    unet, image = random_unet(), torch.randn(1, 1, 21, 30)
    made = in_tiles(lambda part: unet(part, 300).sample, image, (32, 30), 8, align=2)
    assert torch.equal(made, unet(image, 300).sample)


@torch.inference_mode()
def test_other_numbers_of_tiles_at_once_change_nothing():
    unet, image = random_unet(), torch.randn(2, 1, 90, 70)
    one, many = (in_tiles(lambda part: unet(part, 300).sample, image, (32, 32), 12, align=2, at_once=n) for n in (1, 5))
    torch.testing.assert_close(one, many, atol=1e-5, rtol=1e-5)


def test_pixels_are_mirrored_as_numpy_does():
    image = torch.randn(2, 1, 5, 7)
    for factor in (4, 16):
        pads = [(0, 0), (0, 0), *((0, -n % factor) for n in (5, 7))]
        np.testing.assert_array_equal(reflected(image, factor), np.pad(image, pads, mode="reflect"))
    assert torch.equal(reflected(image[..., :1, :], 8)[..., 7, :7], image[..., 0, :])


@pytest.mark.parametrize(
    ("tile", "overlap", "align", "message"),
    [
        ((16,), 4, 1, "tile_size has 1 sides, the images have 2"),
        ((16, 8), 8, 1, r"tiles of \(16, 8\) pixels must be larger than their overlap, which is 8"),
        ((16, 16), -1, 1, "larger than their overlap"),
        ((16, 20), 4, 8, r"tile_size must be multiples of 8 for this network, got \(16, 20\)"),
    ],
)
def test_tiles_that_cannot_be_are_refused(tile, overlap, align, message):
    with pytest.raises(ValueError, match=message):
        in_tiles(lambda part: part, torch.zeros(1, 1, 32, 32), tile, overlap, align=align)
