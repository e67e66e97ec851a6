"""Train the MaskDDPM on the outlines of annotated cells.

accelerate launch training/train_mask_ddpm.py --config configs/mask_ddpm_nuclei2d.yaml --data crops --output_dir mask
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DModel
from torch.nn import functional as F

from cascade.data.dataset import CropDataset
from cascade.diffusion.encoders import OutlineEncoder
from cascade.diffusion.losses import DenoisingLoss
from cascade.diffusion.networks import Outlines
from cascade.diffusion.sampling import denoise, make_scheduler
from cascade.evaluation.shape import outline_statistics
from cascade.export.preview import image_grid
from cascade.geometry.grid import signed_distance
from cascade.hub import folders as hub
from cascade.hub.cards import write_card
from cascade.hub.embedded import stage_of
from cascade.pipelines.mask_ddpm import MaskDDPMPipeline, clean_mask
from cascade.rng import torch_stream
from cascade.training.loop import TrainingSettings, make_accelerator, training_loop
from cascade.training.settings import parse, run


@dataclass
class Settings(TrainingSettings):
    """Settings of the MaskDDPM."""

    data: list[str] = field(default_factory=list)
    """Folders of `cascade prepare`."""
    base_model: str = ""
    """A trained stage to go on from: nuclei2d, nuclei3d, folder or Hub id. `unet` is then not looked at."""
    representation: str = "distance"
    """distance: the signed distance to the outline; binary: the mask itself, as in the paper."""
    truncation_px: float = 8.0
    sample_size: int = 32
    """Resolution at which the diffusion runs; a distance map loses nothing at half the crop's."""
    max_relative_height: float = 0.5
    """Of slices through cells in stacks: only those this near to the middle show a cell's silhouette."""
    unet: dict = field(default_factory=lambda: dict(block_out_channels=[32, 64, 96], layers_per_block=1))
    """Arguments of diffusers' UNet2DModel."""
    prediction_type: str = "v_prediction"


class _Rows(torch.utils.data.Dataset):
    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        return {"row": torch.as_tensor(indices)}


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    settings = parse(Settings, __doc__.splitlines()[0], argv)
    output = Path(settings.output_dir)
    accelerator = make_accelerator(settings)
    crops = CropDataset(settings.data, settings.max_relative_height)
    masks = crops.columns["mask"][:, 0].numpy()
    distances = torch.from_numpy(np.stack([signed_distance(mask, (1, 1)) for mask in masks]))[:, None]
    side = settings.sample_size
    levels = len(settings.unet["block_out_channels"])
    defaults = dict(
        sample_size=side,
        in_channels=1,
        out_channels=1,
        down_block_types=["DownBlock2D"] * (levels - 1) + ["AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D"] + ["UpBlock2D"] * (levels - 1),
        norm_num_groups=16,
        attention_head_dim=16,
    )
    torch.manual_seed(settings.seed)
    if settings.base_model:
        unet = MaskDDPMPipeline.from_pretrained(stage_of(settings.base_model, "mask")).unet
        if unet.config.sample_size != side:
            raise ValueError(
                f"{settings.base_model} draws at {unet.config.sample_size} pixels: make --sample_size {side} the same"
            )
    else:
        unet = UNet2DModel(**(defaults | settings.unet))
    scheduler = make_scheduler(settings.prediction_type)
    encoder = OutlineEncoder(distances, side, settings.representation, settings.truncation_px)
    loss = DenoisingLoss(Outlines(unet), encoder, scheduler)
    generator = torch_stream(settings.seed, "preview", device=accelerator.device)
    noise = torch.randn((64, 1, side, side), generator=generator, device=accelerator.device)
    for step in training_loop(loss, _Rows(len(distances)), settings, accelerator):
        if step.preview and accelerator.is_main_process:
            maps = denoise(loss.network, scheduler, noise, {}, 25)[:, 0]
            image_grid(0.5 - 0.5 * maps.float().cpu().numpy(), output / f"preview_{step.number:06d}.png")
    if accelerator.is_main_process:
        pipeline = MaskDDPMPipeline(
            unet.to("cpu"),
            scheduler,
            crop_size=masks.shape[-1],
            pixel_size_um=crops.pixel_size_um,
            representation=settings.representation,
            truncation_px=settings.truncation_px,
        )
        pipeline.save_pretrained(output)
        preview = output / f"preview_{step.number:06d}.png"
        write_card(
            output,
            "Outlines of cells (MaskDDPM)",
            "MaskDDPMPipeline",
            crops.statistics,
            asdict(settings),
            step.loss,
            settings.base_model or None,
            preview,
            _metrics(maps[:, None], F.interpolate(distances, size=(side, side), mode="area")),
        )
        if settings.push_to_hub:
            hub.push(pipeline, settings.hub_model_id or output.name, cards=output)
    accelerator.end_training()


def _metrics(drawn: torch.Tensor, real: torch.Tensor) -> dict[str, float]:
    """Area and solidity of drawn outlines against those of real ones, both (N, 1, H, W) maps, negative inside."""
    masks = [np.stack([clean_mask(plane, 1) for plane in maps[:, 0].cpu().numpy() < 0]) for maps in (drawn, real)]
    drawn, real = (each[each.any((1, 2))] for each in masks)
    metrics = {"share of usable outlines": len(drawn) / len(masks[0])}
    if len(drawn) and len(real):
        a, b = outline_statistics(drawn), outline_statistics(real)
        metrics["mean area, drawn / real"] = float(a.area.mean() / b.area.mean())
        metrics["mean solidity, drawn / real"] = float(a.solidity.mean() / b.solidity.mean())
    return metrics


if __name__ == "__main__":
    run(main)
