"""A stage whose folder also says how it draws in few steps."""

import shutil

import pytest
import torch

from cascade.hub.embedded import embedded
from cascade.hub.few_steps import FEW_STEPS, save_few_steps
from cascade.hub.folders import ModelError
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
    assert first.config.num_inference_steps == 20
    assert all(torch.equal(value, first.unet.state_dict()[name]) for name, value in base.unet.state_dict().items())
    given = MaskDDPMPipeline.from_pretrained(folder, few_steps=True, unet=base.unet)  # which the difference is not of
    assert given.config.num_inference_steps == 20
    loaded.save_pretrained(folder.parent / "saved")
    again = MaskDDPMPipeline.from_pretrained(folder.parent / "saved")
    assert again.config.num_inference_steps == 3
    assert all(torch.equal(value, again.unet.state_dict()[name]) for name, value in loaded.unet.state_dict().items())


def test_what_belongs_to_another_stage_is_refused(folder):
    for spoilt in (b"cut", b""):
        (folder / FEW_STEPS).write_bytes(spoilt)
        with pytest.raises(ModelError, match=rf"{FEW_STEPS}: does not belong to this stage"):
            MaskDDPMPipeline.from_pretrained(folder, few_steps=True)
