import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionControlNetPipeline

from cascade.diffusion.conditioning import conditioning_image
from cascade.diffusion.latent_space import scale_latents, unscale_latents
from cascade.diffusion.latents import slice_latents
from cascade.diffusion.losses import DenoisingLoss
from cascade.diffusion.sampling import denoise, make_scheduler
from cascade.hub.embedded import embedded
from cascade.hub.folders import ModelError
from cascade.pipelines.texture import TexturePipeline
from cascade.rng import seed_from

MASKS = np.zeros((6, 32, 32), bool)
for n in range(5):
    MASKS[n, 8 - n : 20 + n, 8:20] = True
LIGHT = np.linspace(0.2, 0.7, 6).astype(np.float32)
CELLS = np.array([0, 0, 1, 1, 1, 1])


def run(texture, masks=MASKS, light=LIGHT, cells=CELLS, **options):
    texture.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 4, "generator": torch.Generator().manual_seed(0)} | options
    return texture(masks, light, cells, **options).images


def test_a_batch_equals_singles(texture):
    together, one_by_one = run(texture), run(texture, micro_batch_size=1)
    np.testing.assert_allclose(together, one_by_one, atol=2e-4)
    assert together.shape == (6, 32, 32)
    assert together[:5].std() > 0


def test_empty_slices_cost_nothing_and_change_nothing(texture):
    calls = []
    texture.unet.register_forward_hook(lambda *_: calls.append(1))
    images = run(texture, MASKS[5:], LIGHT[5:], CELLS[5:])
    assert not calls
    assert not images.any()
    with_empty = run(texture)
    np.testing.assert_allclose(with_empty[:5], run(texture, MASKS[:5], LIGHT[:5], CELLS[:5]), atol=2e-4)


def test_the_same_seed_gives_the_same_bytes_and_rho_ties_slices(texture):
    assert run(texture).tobytes() == run(texture).tobytes()
    masks, light, cells = MASKS[[0, 0, 0]], np.full(3, 0.4, np.float32), np.zeros(3, int)
    same = run(texture, masks, light, cells, rho=float("inf"))
    np.testing.assert_allclose(same[0], same[1], atol=1e-5)
    tied, free = run(texture, masks, light, cells, rho=2.0), run(texture, masks, light, cells, rho=0.0)
    assert np.corrcoef(tied[0].ravel(), tied[1].ravel())[0, 1] > np.corrcoef(free[0].ravel(), free[1].ravel())[0, 1]


def test_it_follows_its_condition(texture):
    for zero in (*texture.controlnet.controlnet_down_blocks, texture.controlnet.controlnet_cond_embedding.conv_out):
        zero.weight.data.normal_(0, 0.3)  # as if trained: they start at zero
    shifted = np.roll(MASKS, 6, 2)
    assert np.abs(run(texture) - run(texture, shifted)).max() > 1e-3
    assert np.abs(run(texture) - run(texture, light=LIGHT + 0.2)).max() > 1e-4


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_stable_diffusions_own_pipeline_makes_the_same_images():
    texture = TexturePipeline.from_pretrained(embedded("nuclei2d") / "texture")
    texture.register_to_config(grain={"sd": 0.0, "length_px": 0.0})
    masks = np.zeros((2, 64, 64), bool)
    masks[0, 20:44, 24:40], masks[1, 16:48, 16:48] = True, True
    light, cells = np.array([0.3, 0.5], np.float32), np.arange(2)
    made = run(texture, masks, light, cells)
    parts = (texture.vae, None, None, texture.unet, texture.controlnet, texture.scheduler, None, None)
    stock = StableDiffusionControlNetPipeline(*parts, requires_safety_checker=False)
    stock.set_progress_bar_config(disable=True)
    seed = seed_from(torch.Generator().manual_seed(0))
    prompt = texture.prompt(2)
    theirs = stock(
        image=conditioning_image(torch.from_numpy(masks).float()[:, None], torch.from_numpy(light)),
        prompt_embeds=prompt,
        num_inference_steps=4,
        guidance_scale=1.0,
        latents=slice_latents(torch.arange(2), (4, 16, 16), 0.7, seed),
        output_type="pt",
    ).images
    np.testing.assert_allclose(made, theirs.mean(1).numpy(), atol=1e-4)
    assert made.std() > 0.02


def test_wrong_shapes_are_refused(texture):
    with pytest.raises(ValueError, match="multiples of 2"):
        run(texture, MASKS[:, :31])
    with pytest.raises(ValueError, match="3 brightness values for 6 masks"):
        run(texture, light=LIGHT[:3])


def test_a_saved_pipeline_is_the_same(texture, tmp_path):
    texture.save_pretrained(tmp_path / "t")
    loaded = TexturePipeline.from_pretrained(tmp_path / "t")
    np.testing.assert_allclose(run(texture), run(loaded), atol=1e-5)
    assert loaded.window == texture.window
    names = set(loaded.unet.state_dict())
    assert {"conv_in.weight", "mid_block.resnets.0.conv1.weight", "time_embedding.linear_1.weight"} <= names


def test_a_missing_component_and_a_pickle_are_named(texture, tmp_path):
    texture.save_pretrained(tmp_path / "t")
    weights = tmp_path / "t" / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({"x": torch.zeros(1)}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ModelError, match=r"unet/diffusion_pytorch_model.bin: pickled weights are not read"):
        TexturePipeline.from_pretrained(tmp_path / "t")
    weights.with_suffix(".bin").unlink()
    (tmp_path / "t" / "controlnet" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"controlnet/config.json.* is missing"):
        TexturePipeline.from_pretrained(tmp_path / "t")
    with pytest.raises(ModelError, match="neither a folder nor a model on the Hub"):
        TexturePipeline.from_pretrained(str(tmp_path / "nowhere"))


class Oracle(torch.nn.Module):
    """Knows x_0, and answers whatever a scheduler asks for."""

    def __init__(self, clean, scheduler):
        super().__init__()
        self.clean, self.scheduler = clean, scheduler

    def forward(self, noisy, timesteps, batch):
        t = timesteps.reshape(-1).expand(len(noisy)).cpu()
        alpha = self.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1).clamp(min=1e-9)
        noise = (noisy - alpha.sqrt() * self.clean) / (1 - alpha).sqrt()
        kind = self.scheduler.config.prediction_type
        return noise if kind == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * self.clean


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_perfect_network_has_no_loss_and_is_sampled_exactly(kind):
    clean = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    scheduler = make_scheduler(kind)
    oracle = Oracle(clean, scheduler)
    loss = DenoisingLoss(oracle, lambda batch, generator: (clean, batch), scheduler)
    assert loss({}, torch.Generator().manual_seed(1)) < 1e-4
    start = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    found = denoise(oracle, scheduler, start, {}, 10)
    assert torch.allclose(found, clean, atol=0.02)


def test_the_loss_of_knowing_nothing_is_the_variance_of_its_target():
    clean = torch.randn(64, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    loss = DenoisingLoss(
        lambda noisy, t, batch: torch.zeros_like(noisy), lambda batch, generator: (clean, batch), DDPMScheduler()
    )
    assert float(loss({}, torch.Generator().manual_seed(1))) == pytest.approx(1, abs=0.03)


def test_latents_are_scaled_there_and_back(texture):
    texture.vae.register_to_config(scaling_factor=0.3, shift_factor=1.5)
    latents = torch.randn(2, 4, 8, 8)
    assert torch.allclose(unscale_latents(scale_latents(latents, texture.vae), texture.vae), latents, atol=1e-6)
