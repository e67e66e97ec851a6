"""What a pipeline cannot be called with: one clear error before any network is."""

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel

from cascade.diffusion.sampling import make_scheduler
from cascade.multiview.network import MultiviewNetwork
from cascade.pipelines.mask_ddpm import MaskDDPMPipeline
from cascade.pipelines.multiview import MultiviewPipeline

MASKS = np.pad(np.ones((2, 16, 16), bool), ((0, 0), (8, 8), (8, 8)))
LIGHT = np.array([0.4, 0.5])


def unused(network):
    """The network, which fails the test if it is asked for anything."""
    network.register_forward_pre_hook(lambda *_: pytest.fail("a network was called"))
    return network


@pytest.fixture(scope="module")
def outlines():
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    unet = UNet2DModel(sample_size=16, in_channels=1, out_channels=1, norm_num_groups=4, add_attention=False, **blocks)
    return MaskDDPMPipeline(unused(unet), make_scheduler(), crop_size=16)


@pytest.fixture(scope="module")
def views():
    network = MultiviewNetwork(16, (16,), volume_size=4, volume_channels=(8, 16), view_channels=4)
    return MultiviewPipeline(unused(network), make_scheduler(), num_views=2)


STEPS = ("num_inference_steps", (0, -1, 2.5, True))
BATCH = ("micro_batch_size", (0, -3))
GUIDANCE = ("guidance_scale", (float("nan"), float("inf")))


def each(*arguments):
    return pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in arguments for value in values])


@each(("num_masks", (0, -1, 1.5)), STEPS, BATCH, ("min_area_px", (0,)), ("max_rounds", (0,)))
def test_outlines(outlines, name, value):
    with pytest.raises(ValueError, match=rf"{name} must be a whole number from 1 on, got {value}"):
        outlines(**{name: value})


@each(("pixel_size_um", (0.0, float("nan"))), STEPS, BATCH, GUIDANCE)
def test_views(views, name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        views(MASKS, **({"pixel_size_um": 0.5} | {name: value}))
    with pytest.raises(ValueError, match="masks must be at least one outline"):
        views(MASKS[:0], 0.5)


@each(STEPS, BATCH, GUIDANCE)
def test_textures(texture, name, value):
    unused(texture.unet)
    with pytest.raises(ValueError, match=f"{name} must be"):
        texture(MASKS, LIGHT, **{name: value})


def test_masks_and_light_of_textures(texture):
    unused(texture.unet)
    with pytest.raises(ValueError, match="masks must be at least one slice"):
        texture(MASKS[:0], LIGHT[:0])
    with pytest.raises(ValueError, match="masks must be at least one slice"):
        texture.draw_aligned(MASKS[:0], LIGHT[:0], np.arange(0))
    with pytest.raises(ValueError, match=r"brightness must be finite, got nan at \[1\]"):
        texture(MASKS, np.array([0.4, np.nan]))
    with pytest.raises(ValueError, match=r"heights_um must be finite, got inf at \[0\]"):
        texture(MASKS, LIGHT, heights_um=np.array([np.inf, 0.0]), correlation_length_um=1.0)
    with pytest.raises(ValueError, match="min_alignment must be a finite number, got nan"):
        texture.draw_aligned(MASKS, LIGHT, np.arange(2), min_alignment=float("nan"))
    with pytest.raises(ValueError, match="max_draws must be"):
        texture.draw_aligned(MASKS, LIGHT, np.arange(2), max_draws=0)


def test_a_number_is_no_generator(outlines, views, texture):
    unused(texture.unet)
    for call in (
        lambda: outlines(generator=0),
        lambda: views(MASKS, 0.5, generator=0),
        lambda: texture(MASKS, LIGHT, generator=0),
        lambda: texture.draw_aligned(MASKS, LIGHT, np.arange(2), generator=0),
    ):
        with pytest.raises(TypeError, match=r"generator must be a torch.Generator, got 0: torch.Generator\(\)"):
            call()


def test_guidance_goes_from_nothing_to_the_condition():
    """At scale 1 nothing is asked twice; at 0 the condition does not matter; beyond 1 it counts for more."""
    from cascade.diffusion.sampling import guided

    calls = []

    def network(noisy, t, batch):
        calls.append(batch)
        return noisy + batch["condition"]

    noisy, batch = torch.zeros(1, 2), {"condition": torch.tensor([[3.0, 5.0]])}
    assert guided(network, 1.0, nothing=1.0) is network
    assert torch.equal(guided(network, 0.0, nothing=1.0)(noisy, None, batch), torch.ones(1, 2))
    assert torch.equal(guided(network, 2.0, nothing=1.0)(noisy, None, batch), torch.tensor([[5.0, 9.0]]))
    assert len(calls) == 4
