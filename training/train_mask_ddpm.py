"""Train the MaskDDPM on the outlines of annotated cells.

accelerate launch training/train_mask_ddpm.py --config configs/mask_ddpm_nuclei2d.yaml --data crops --output_dir mask
"""

if __name__ == "__main__":  # Ctrl-C during the imports below ends in one line, too
    from cascade.entry import end_in_one_line

    end_in_one_line()

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from diffusers import UNet2DModel
from torch.nn import functional as F

from cascade.data.dataset import CropDataset
from cascade.diffusion.encoders import OutlineEncoder
from cascade.diffusion.losses import DenoisingLoss
from cascade.diffusion.networks import Outlines
from cascade.diffusion.sampling import denoise, make_scheduler, second_order
from cascade.evaluation.shape import outline_ratios
from cascade.hub.embedded import stage_of
from cascade.pipelines.mask_ddpm import MaskDDPMPipeline, clean_mask
from cascade.rng import torch_stream
from cascade.settings import at_least, positive
from cascade.training.batches import Rows
from cascade.training.finish import draw_preview, save_stage
from cascade.training.loop import training_loop
from cascade.training.networks import new_outline_unet
from cascade.training.script import parse, run
from cascade.training.settings import (
    Prediction,
    TrainingSettings,
    as_base,
    check_arguments,
    check_folders,
    check_levels,
)
from cascade.training.start import claimed, make_accelerator
from cascade.training.update import Update


@dataclass(frozen=True, kw_only=True)
class Settings(TrainingSettings):
    """Settings of the MaskDDPM."""

    data: tuple[str, ...] = ()
    """Folders of `cascade prepare`."""
    base_model: str = ""
    """A trained stage to go on from: nuclei2d, nuclei3d, folder or Hub id. `unet` is then not looked at, and
    representation, truncation_px and prediction_type are its own."""
    representation: Literal["distance", "binary"] = "distance"
    """distance: the signed distance to the outline; binary: the mask itself, as in the paper."""
    truncation_px: float = 8.0
    sample_size: int = 32
    """Resolution at which the diffusion runs; a distance map loses nothing at half the crop's."""
    max_relative_height: float = 0.5
    """Of slices through cells in stacks: only those this near to the middle show a cell's silhouette."""
    unet: dict[str, Any] = field(default_factory=lambda: dict(block_out_channels=[32, 64, 96], layers_per_block=1))
    """Arguments of diffusers' UNet2DModel."""
    prediction_type: Prediction = "v_prediction"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_folders(self.output_dir, self.data, self.base_model)
        at_least(self, sample_size=1)
        positive(self, "truncation_px", "max_relative_height")
        check_levels(self, "unet")
        check_arguments("unet", self.unet, UNet2DModel)
        halved = 2 ** (len(self.unet["block_out_channels"]) - 1)
        if not self.base_model and self.sample_size % halved:
            raise ValueError(
                f"sample_size must be a multiple of {halved} for a unet of as many levels, got {self.sample_size}"
            )


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    settings = parse(Settings, __doc__, argv)
    with claimed(settings):
        _train(settings, CropDataset(settings.data, max_relative_height=settings.max_relative_height))


def _train(settings: Settings, crops: CropDataset) -> None:
    accelerator = make_accelerator(settings)
    masks = crops.columns["mask"][:, 0].numpy()
    side = settings.sample_size
    if settings.base_model:
        trained = MaskDDPMPipeline.from_pretrained(stage_of(settings.base_model, "mask"))
        unet, learnt = trained.unet, {name: trained.config[name] for name in ("representation", "truncation_px")}
        settings = as_base(settings, **learnt, prediction_type=trained.scheduler.config.prediction_type)
        if unet.config.sample_size != side:
            raise ValueError(
                f"{settings.base_model} draws at {unet.config.sample_size} pixels: make --sample_size {side} the same"
            )
    else:
        unet = new_outline_unet(settings.unet, side=side, seed=settings.seed)
    scheduler = make_scheduler(settings.prediction_type)
    encoder = OutlineEncoder(masks, side, settings.representation, settings.truncation_px)
    loss = DenoisingLoss(Outlines(unet), encoder, scheduler)
    generator = torch_stream(settings.seed, "preview", device=accelerator.device)
    noise = torch.randn((64, 1, side, side), generator=generator, device=accelerator.device)
    fixed = ("prediction_type", "representation", "truncation_px", "sample_size")
    update = Update(loss=loss, identity={name: getattr(settings, name) for name in fixed})
    for step in training_loop([update], Rows(len(masks), crops.fingerprint), settings, accelerator):
        if step.preview and accelerator.is_main_process:
            maps = denoise(loss.network, scheduler, noise, {}, 25)
            draw_preview(0.5 - 0.5 * maps[:, 0].float().cpu().numpy(), settings, step)
    if accelerator.is_main_process:
        pipeline = MaskDDPMPipeline(
            unet.to("cpu"),
            second_order(scheduler),
            crop_size=masks.shape[-1],
            pixel_size_um=crops.pixel_size_um,
            representation=settings.representation,
            truncation_px=settings.truncation_px,
        )
        metrics = _metrics(maps, F.interpolate(encoder.distances, size=(side, side), mode="area"))
        title, base = "Outlines of cells (MaskDDPM)", settings.base_model or None
        save_stage(pipeline, settings, step, title=title, data=crops.statistics, base_model=base, metrics=metrics)
    accelerator.end_training()


def _metrics(drawn: torch.Tensor, real: torch.Tensor) -> dict[str, float]:
    """Area and solidity of drawn outlines against those of real ones, both (N, 1, H, W) maps, negative inside."""
    masks = [np.stack([clean_mask(plane, 1) for plane in maps[:, 0].cpu().numpy() < 0]) for maps in (drawn, real)]
    return outline_ratios(*masks)


if __name__ == "__main__":
    run(main)
