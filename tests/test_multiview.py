import numpy as np
import pytest
import torch
from conftest import ellipse

from cascade.diffusion.sampling import make_scheduler
from cascade.geometry.cameras import Cameras, hemisphere, ring
from cascade.multiview.losses import Multiview, MultiviewEncoder
from cascade.multiview.network import MultiviewNetwork
from cascade.multiview.outlines import frame_outlines
from cascade.multiview.renders import HarmonicRenders
from cascade.multiview.sampling import trilinear
from cascade.pipelines.multiview import MultiviewPipeline
from cascade.shapes.harmonics import ShapeLaw


def tiny_network():
    torch.manual_seed(0)
    return MultiviewNetwork(16, (16, 32), volume_size=8, volume_channels=(8, 16), view_channels=8)


@pytest.fixture(scope="module")
def network():
    network = tiny_network().eval()
    for parameter in network.parameters():  # away from the zeros that some layers start with
        parameter.data.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return network


def predict(network, noisy, condition, cameras):
    with torch.no_grad():
        return network(noisy, torch.tensor(400), condition, cameras)


def inputs(views):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, views, 16, 16, generator=generator), torch.randn(2, 16, 16, generator=generator)


@pytest.mark.parametrize("cameras", [hemisphere(4), ring(6, 30), hemisphere(1)])
def test_any_view_set_will_do(network, cameras):
    noisy, condition = inputs(len(cameras))
    assert predict(network, noisy, condition, cameras).shape == noisy.shape
    with pytest.raises(ValueError, match="views for"):
        predict(network, noisy[:, :0], condition, cameras)


def test_views_are_a_set_not_a_list(network):
    cameras = hemisphere(5)
    noisy, condition = inputs(5)
    order = torch.tensor([3, 0, 4, 1, 2])
    straight = predict(network, noisy, condition, cameras)
    shuffled = predict(network, noisy[:, order], condition, Cameras(cameras.axes[order]))
    assert torch.allclose(straight[:, order], shuffled, atol=1e-4)


def test_views_know_of_each_other_and_of_the_condition(network):
    cameras = hemisphere(4)
    noisy, condition = inputs(4)
    before = predict(network, noisy, condition, cameras)
    other = noisy.clone()
    other[:, 2] += 1
    assert (predict(network, other, condition, cameras) - before)[:, 0].abs().max() > 1e-4
    assert (predict(network, noisy, -condition, cameras) - before).abs().max() > 1e-4
    alone = predict(network, noisy[:1], condition[:1], cameras)
    assert torch.allclose(alone, before[:1], atol=1e-4)  # cells do not know of each other


def test_the_shadow_holds_every_view_and_is_the_condition_along_z(network):
    cameras = hemisphere(6)
    renders = HarmonicRenders(cameras, ShapeLaw(degree=4), 16)
    _, condition, views = renders.draw(8, torch.Generator().manual_seed(0))
    shadow = network._shadow(condition, cameras)
    assert torch.equal(shadow[:, 0], condition)  # the first camera looks along z
    assert not ((views < -0.1) & (shadow > 0.1)).any()  # a solid with this outline casts no view beyond it
    assert (shadow < 0).float().mean() > (views < 0).float().mean()


def test_training_data_are_consistent_solids():
    renders = HarmonicRenders(hemisphere(6), ShapeLaw(degree=4), 32)
    _, condition, views = renders.draw(16, torch.Generator().manual_seed(0))
    assert views.shape == (16, 6, 32, 32)
    assert torch.equal(views[:, 0], condition)  # the first camera looks along z, as the condition does
    area = (condition < 0).float().mean((1, 2)) * 4
    assert (area > 0.9 * np.pi * 0.38**2).all()
    assert (area < 1.1 * np.pi * 0.5**2).all()
    edge = torch.cat([views[..., 0, :], views[..., -1, :], views[..., 0], views[..., -1]], -1)
    assert (edge > 0).all()
    wild = HarmonicRenders(hemisphere(6), ShapeLaw(degree=4, anisotropy=0.6), 32)
    wild.draw(32, torch.Generator().manual_seed(0))
    assert wild.rejected > 0


def test_conditions_are_dropped_for_guidance():
    renders = HarmonicRenders(hemisphere(3), ShapeLaw(degree=4), 16)
    encoder = MultiviewEncoder(renders, 0.5)
    _, batch = encoder({"row": torch.arange(64)}, torch.Generator().manual_seed(0))
    dropped = (batch["condition"] == 1).all(2).all(1)
    assert 16 < dropped.sum() < 48


def test_outlines_are_framed_by_area_and_back():
    masks = np.stack([ellipse((64, 64), (30, 34), (a, b)) for a, b in ((12, 12), (20, 9), (28, 4))])
    framed = frame_outlines(masks, 0.4, 32)
    area_um2 = (framed.maps < 0).mean((1, 2)) * (2 * framed.unit_um) ** 2
    np.testing.assert_allclose(area_um2, masks.sum((1, 2)) * 0.16, rtol=0.06)
    equivalent = np.sqrt(masks.sum((1, 2)) * 0.16 / np.pi) / framed.unit_um
    np.testing.assert_allclose(equivalent[:2], 0.45, atol=0.01)
    assert equivalent[2] < 0.4  # too long to be framed by its area
    inside = np.argwhere(framed.maps[0] < 0)
    np.testing.assert_allclose(inside.mean(0), 15.5, atol=0.3)
    with pytest.raises(ValueError, match="outline 1 is empty"):
        frame_outlines(np.stack([masks[0], masks[0] & False]), 1.0, 16)


def test_a_saved_pipeline_draws_the_same(tmp_path):
    pipeline = MultiviewPipeline(tiny_network(), make_scheduler(), "hemisphere", 4, {"degree": 4})
    pipeline.set_progress_bar_config(disable=True)
    masks = np.stack([ellipse((32, 32), (16, 16), (7, 9))] * 3)

    def draw(pipeline, masks, **options):
        return pipeline(masks, 0.5, num_inference_steps=3, generator=torch.Generator().manual_seed(0), **options)

    first = draw(pipeline, masks)
    assert first.views.shape == (3, 4, 16, 16)
    torch.testing.assert_close(first.views[:, 0], first.condition, atol=1e-4, rtol=0)  # it is given
    assert not torch.allclose(draw(pipeline, masks, keep_outline=False).views[:, 0], first.condition, atol=0.1)
    assert torch.equal(first.condition[0], first.condition[1])
    assert not torch.allclose(first.views[0], first.views[1])  # another seed, another solid
    pipeline.save_pretrained(tmp_path)
    loaded = MultiviewPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert torch.allclose(draw(loaded, masks).views, first.views, atol=1e-5)
    assert torch.allclose(draw(loaded, masks, micro_batch_size=1).views, first.views, atol=1e-3)
    assert draw(loaded, masks, guidance_scale=2.0).views.shape == first.views.shape
    assert draw(loaded, masks, cameras=ring(6)).views.shape == (3, 6, 16, 16)
    with pytest.raises(ValueError, match="add the batch axis"):
        draw(loaded, masks[0])


def test_the_model_module_trains_every_parameter():
    network, cameras = tiny_network(), hemisphere(4)
    model = Multiview(network, cameras)
    noisy, condition = inputs(4)
    loss = sum(model(noisy, torch.tensor([t, 900]), {"condition": condition}).square().mean() for t in (10, 500))
    loss.backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None]
    assert not silent


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_volumes_are_read_and_learnt_as_by_grid_sample(dtype):
    """The same values, and the same gradients, where places are exact."""
    volumes, points = torch.randn(2, 3, 4, 5, 6).to(dtype), 2.4 * torch.rand(7, 8, 9, 3) - 1.2
    ours, theirs = (volumes.clone().requires_grad_() for _ in range(2))
    weight = torch.randn(2, 3, 7, 8, 9)
    (trilinear(ours, points).float() * weight).sum().backward()
    sampled = torch.nn.functional.grid_sample(theirs.float(), points.expand(2, -1, -1, -1, -1), align_corners=False)
    (sampled * weight).sum().backward()
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(trilinear(volumes, points).float(), sampled, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=4 * tolerance, rtol=tolerance)
