"""A stage whose folder also says how it draws in few steps."""

import shutil

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel
from huggingface_hub.utils import filter_repo_objects

from cascade.commands.cli import main
from cascade.diffusion.sampling import denoise
from cascade.generation.shards import folder_sha256, load_job
from cascade.hub.embedded import embedded
from cascade.hub.few_steps import save_few_steps
from cascade.hub.folders import FEW_STEPS, ModelError, model_folder
from cascade.pipelines.mask_ddpm import MaskDDPMPipeline


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(embedded("nuclei2d") / "mask", tmp_path / "mask")
    (tmp_path / "mask" / FEW_STEPS).unlink(missing_ok=True)
    return tmp_path / "mask"


def test_the_second_weights_are_taken_where_they_are_there(folder):
    base, distilled = (MaskDDPMPipeline.from_pretrained(folder) for _ in range(2))
    torch.manual_seed(0)
    with torch.no_grad():
        for value in distilled.unet.parameters():
            value += 1e-2 * torch.randn_like(value)
    distilled.register_to_config(num_inference_steps=3)
    save_few_steps(base, distilled, folder, rank=1000)  # of full rank
    loaded = MaskDDPMPipeline.from_pretrained(folder, few_steps=True)
    assert loaded.config.num_inference_steps == 3
    wanted = distilled.unet.state_dict()
    assert all(torch.allclose(value, wanted[name], atol=1e-3) for name, value in loaded.unet.state_dict().items())
    first = MaskDDPMPipeline.from_pretrained(folder)
    assert first.config.num_inference_steps == 10
    assert all(torch.equal(value, first.unet.state_dict()[name]) for name, value in base.unet.state_dict().items())
    given = MaskDDPMPipeline.from_pretrained(folder, few_steps=True, unet=base.unet)  # which the difference is not of
    assert given.config.num_inference_steps == 10
    loaded.save_pretrained(folder.parent / "saved")
    again = MaskDDPMPipeline.from_pretrained(folder.parent / "saved")
    assert again.config.num_inference_steps == 3
    assert all(torch.equal(value, again.unet.state_dict()[name]) for name, value in loaded.unet.state_dict().items())


def test_what_belongs_to_another_stage_is_refused(folder):
    for spoilt in (b"cut", b""):
        (folder / FEW_STEPS).write_bytes(spoilt)
        with pytest.raises(ModelError, match=rf"{FEW_STEPS}: does not belong to this stage"):
            MaskDDPMPipeline.from_pretrained(folder, few_steps=True)


def test_a_data_set_is_drawn_in_few_steps(tmp_path, monkeypatch, capsys):
    calls = []
    call = UNet2DModel.forward

    def counted(self, *given, **more):
        calls.append(1)
        return call(self, *given, **more)

    monkeypatch.setattr(UNet2DModel, "forward", counted)
    small = ["--canvas_size", "128", "128", "--cells_per_image", "4"]
    arguments = ["generate", *small, "--output_dir", str(tmp_path / "set")]
    assert main([*arguments, "--few_steps"]) == 0
    assert len(calls) == 2
    assert load_job(tmp_path / "set").settings["few_steps"] is True
    assert main(arguments) == 1  # more steps make another data set
    assert "made with other model, few_steps" in capsys.readouterr().err


def test_a_model_without_weights_for_few_steps_says_so(tmp_path, capsys):
    shutil.copytree(embedded("nuclei2d"), tmp_path / "model", ignore=shutil.ignore_patterns(FEW_STEPS))
    arguments = ["generate", "--model", str(tmp_path / "model"), "--few_steps", "--output_dir", str(tmp_path / "set")]
    assert main(arguments) == 1
    assert "no stage has weights for few steps" in capsys.readouterr().err
    assert folder_sha256(tmp_path / "model") == folder_sha256(
        embedded("nuclei2d")
    )  # sets begun without are gone on with


@pytest.mark.parametrize(("steps", "order"), [(2, 2), (4, 1)])
def test_what_was_taught_ddims_steps_makes_them(steps, order, folder):
    """Of two steps DPM-Solver++ of the second order makes the same."""
    base, distilled = (MaskDDPMPipeline.from_pretrained(folder) for _ in range(2))
    distilled.register_to_config(num_inference_steps=steps)
    save_few_steps(base, distilled, folder, rank=1)
    loaded = MaskDDPMPipeline.from_pretrained(folder, few_steps=True)
    assert loaded.scheduler.config.solver_order == order
    ddim = DDIMScheduler.from_config(loaded.scheduler.config, clip_sample=False, set_alpha_to_one=True)
    noise, ends = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)), []
    for scheduler in (loaded.scheduler, ddim):
        ends.append(denoise(lambda sample, t, told: 0.3 * sample, scheduler, noise, {}, steps))
    assert torch.allclose(*ends, atol=1e-3)


def test_a_stage_on_the_hub_is_downloaded_with_them(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **how: asked.update(how) or str(tmp_path))
    assert model_folder("someone/sketches") == tmp_path
    found = list(filter_repo_objects([FEW_STEPS, "one_file.safetensors"], allow_patterns=asked["allow_patterns"]))
    assert found == [FEW_STEPS]
