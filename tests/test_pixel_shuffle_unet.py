"""The pixel-shuffle U-Net: any size, what a pixel depends on, and shuffles against their definition."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cascade.diffusion.pixel_shuffle_unet import PixelShuffleUNet, pixel_shuffle, pixel_unshuffle


def random_unet(dimensions=2, seed=0, **options) -> PixelShuffleUNet:
    """With no weight at nought, as `last` is before a training."""
    torch.manual_seed(seed)
    unet = PixelShuffleUNet(dimensions=dimensions, **({"block_out_channels": (4, 8)} | options)).eval()
    with torch.no_grad():
        unet.last.weight.normal_(0, 0.3)
        unet.last.bias.normal_(0, 0.3)
    return unet


@pytest.mark.parametrize(
    ("dimensions", "options", "size"),
    [
        (2, {}, (21, 30)),
        (2, {"stem": 2, "block_out_channels": (4, 8, 8)}, (17, 64)),
        (2, {"in_channels": 3, "out_channels": 3, "stem": 4}, (9, 31)),
        (2, {"block_out_channels": (4, 8, 8, 8)}, (1, 5)),
        (3, {}, (5, 9, 14)),
        (3, {"in_channels": 2, "out_channels": 1, "stem": 2}, (3, 8, 17)),
        (3, {"block_out_channels": (4,)}, (3, 4, 5)),
    ],
)
@torch.inference_mode()
def test_images_of_any_size_keep_it(dimensions, options, size):
    unet = random_unet(dimensions, **options)
    given = torch.randn(2, unet.config.in_channels, *size)
    made = unet(given, torch.tensor([3, 700])).sample
    assert made.shape == (2, unet.config.out_channels, *size)
    assert made.isfinite().all()
    assert made.std() > 0
    alone = unet(given[1:], 700, return_dict=False)[0]  # a time for all, and a batch of one
    torch.testing.assert_close(made[1:], alone, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_an_untrained_network_predicts_nought():
    unet = PixelShuffleUNet(block_out_channels=(4, 8))
    assert not unet(torch.randn(1, 1, 16, 16), 5).sample.any()


@torch.inference_mode()
def test_sizes_that_are_no_multiple_are_mirrored_at_the_far_ends():
    unet = random_unet(block_out_channels=(4, 8, 8))
    image = torch.randn(1, 1, 10, 16)
    whole = torch.cat([image, image[:, :, [8, 7]]], 2)
    torch.testing.assert_close(unet(image, 9).sample, unet(whole, 9).sample[:, :, :10])


@pytest.mark.parametrize(("axes", "factor"), [(2, 2), (2, 3), (3, 2), (3, 3)])
def test_a_shuffle_is_what_its_definition_says(axes, factor):
    """Shi et al., CVPR 2016, Eq. 4, for any number of axes."""
    size = (2, 3, 4)[-axes:]
    hidden = torch.randn(2, 2 * factor**axes, *size)
    made = pixel_shuffle(hidden, factor)
    assert made.shape == (2, 2, *(factor * n for n in size))
    for place in itertools.product(*(range(factor * n) for n in size)):
        channel = np.ravel_multi_index([at % factor for at in place], (factor,) * axes)
        for c in range(2):
            wanted = hidden[:, c * factor**axes + channel, *(at // factor for at in place)]
            assert torch.equal(made[:, c, *place], wanted)
    if axes == 2:
        assert torch.equal(made, F.pixel_shuffle(hidden, factor))
    assert torch.equal(pixel_unshuffle(made, factor), hidden)
    assert pixel_shuffle(hidden, 1) is hidden
    assert pixel_unshuffle(hidden, 1) is hidden


def reached(unet: PixelShuffleUNet, axis: int) -> tuple[int, int]:
    """How far before and behind it a pixel's prediction depends on others, along an axis: the farthest of all places
    of a pixel in one of the coarsest level."""
    axes, factor = unet.config.dimensions, unet.factor
    length = 2 * (unet.reach // factor + 3) * factor
    before = behind = 0
    for at in range(length // 2, length // 2 + factor):
        size = [factor] * axes
        size[axis] = length
        image = torch.randn(1, 1, *size, dtype=torch.float64, requires_grad=True)
        place = [factor // 2] * axes
        place[axis] = at
        unet.double()(image, 100).sample[0, 0, *place].backward()
        seen = image.grad[0, 0].abs().movedim(axis, 0).reshape(length, -1).amax(1).nonzero().ravel()
        before, behind = max(before, at - int(seen[0])), max(behind, int(seen[-1]) - at)
    return before, behind


@pytest.mark.parametrize(
    ("dimensions", "widths", "stem"),
    [(2, (4,), 1), (2, (4, 8), 1), (2, (4, 8), 2), (2, (4, 4, 8), 2), (2, (4, 4, 4, 8), 1), (3, (2, 4), 1)],
)
def test_the_reach_is_how_far_gradients_come_from(dimensions, widths, stem):
    unet = random_unet(dimensions, block_out_channels=widths, stem=stem)
    for axis in range(dimensions):
        before, behind = reached(unet, axis)
        assert before == unet.reach
        assert unet.reach - unet.factor < behind <= unet.reach


@torch.inference_mode()
def test_one_pixel_changes_nothing_beyond_the_reach():
    unet = random_unet()
    image = torch.randn(1, 1, 64, 64)
    other = image.clone()
    other[0, 0, 31, 33] += 5
    changed = (unet(image, 100).sample != unet(other, 100).sample)[0, 0]
    rows, columns = changed.nonzero().T
    assert changed[31, 33]
    assert max(abs(rows - 31).max(), abs(columns - 33).max()) <= unet.reach
    instance = random_unet(norm="instance")
    assert (instance(image, 100).sample != instance(other, 100).sample).all()


@torch.inference_mode()
def test_blocks_are_told_the_time():
    unet, image = random_unet(), torch.randn(1, 1, 16, 16)
    assert not torch.allclose(unet(image, 10).sample, unet(image, 900).sample)
    with pytest.raises(ValueError, match="told the time: give timestep"):
        unet(image)
    timeless = random_unet(timed=False)
    assert torch.equal(timeless(image).sample, timeless(image, 900).sample)
    assert not [name for name, _ in timeless.named_parameters() if "time" in name]


@torch.inference_mode()
def test_channel_norm_makes_the_mean_square_of_each_pixel_one():
    norm = random_unet().middle.norms[0]
    made = norm(7 + 3 * torch.randn(2, 8, 5, 6))
    torch.testing.assert_close(made.square().mean(1), torch.ones(2, 5, 6), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"dimensions": 3, "stem": 2, "norm": "instance"}, {"timed": False, "in_channels": 2}]
)
@torch.inference_mode()
def test_it_comes_back_from_a_folder(options, tmp_path):
    unet = random_unet(**options)
    unet.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    back = PixelShuffleUNet.from_pretrained(tmp_path)
    assert (back.reach, back.factor) == (unet.reach, unet.factor)
    image = torch.randn(1, unet.config.in_channels, *(8, 12, 16)[-unet.config.dimensions :])
    torch.testing.assert_close(back(image, 30).sample, unet(image, 30).sample)
    weights = back.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in unet.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimensions": 1}, "dimensions must be 2 or 3, got 1"),
        ({"norm": "batch"}, 'norm must be "channel" or "instance", got \'batch\''),
    ],
)
def test_what_cannot_be_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        PixelShuffleUNet(block_out_channels=(4, 8), **options)
