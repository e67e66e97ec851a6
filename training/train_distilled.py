"""Distil a trained outline or texture stage into one that draws as well in a few steps.

accelerate launch training/train_distilled.py --base_model model --stage texture --data crops --output_dir fast/texture

What comes out is the stage as it was, and beside it, small, what makes it draw in a few steps where that is asked for
(`few_steps=True`, `cascade generate --few_steps`).
"""

if __name__ == "__main__":  # Ctrl-C during the imports below ends in one line, too
    from cascade.entry import end_in_one_line

    end_in_one_line()

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch

from cascade.data.dataset import CropDataset
from cascade.diffusion.distillation import ConsistencyLoss, trailing_times
from cascade.diffusion.encoders import LatentEncoder, OutlineEncoder
from cascade.diffusion.losses import Encode
from cascade.diffusion.networks import Controlled, Outlines
from cascade.diffusion.sampling import denoise
from cascade.evenly import evenly
from cascade.hub.embedded import stage_of
from cascade.hub.few_steps import first_order, save_few_steps
from cascade.pipelines.mask_ddpm import MaskDDPMPipeline
from cascade.pipelines.texture import TexturePipeline, decode_latents
from cascade.rng import torch_stream
from cascade.settings import at_least
from cascade.training.batches import Rows, TrainingData
from cascade.training.finish import draw_preview, save_stage
from cascade.training.loop import training_loop
from cascade.training.script import parse, run
from cascade.training.settings import TrainingSettings, check_folders
from cascade.training.start import claimed, make_accelerator
from cascade.training.update import Update

_SHOWN = 24  # drawn by the teacher and, beneath, from the same noise by the student


@dataclass(frozen=True, kw_only=True)
class Settings(TrainingSettings):
    """Settings of a distillation."""

    base_model: str = ""
    """The teacher: nuclei2d, nuclei3d, a folder or Hub id."""
    stage: Literal["texture", "mask"] = "texture"
    data: tuple[str, ...] = ()
    """Folders of `cascade prepare`, those that the teacher was trained on."""
    num_inference_steps: int = 2
    """Of the student."""
    substeps: int = 10
    """Steps of the teacher for each of them."""
    rank: int = 16
    """Of the difference to the teacher that is kept of each weight."""
    max_relative_height: float = 0.5
    """For outlines, of slices through cells in stacks: only those this near to the middle."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.base_model:
            raise ValueError("--base_model is missing: the stage that is to be made faster")
        check_folders(self.output_dir, self.data, self.base_model)
        at_least(self, num_inference_steps=1, substeps=1, rank=1)


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    settings = parse(Settings, __doc__, argv)
    with claimed(settings):
        _train(settings)


def _train(settings: Settings) -> None:
    accelerator = make_accelerator(settings)
    texture = settings.stage == "texture"
    crops = CropDataset(settings.data, max_relative_height=1e9 if texture else settings.max_relative_height)
    device = accelerator.device
    kind = TexturePipeline if texture else MaskDDPMPipeline
    pipeline = kind.from_pretrained(stage_of(settings.base_model, settings.stage)).to(device)
    pixel = pipeline.config.pixel_size_um
    if not math.isclose(crops.pixel_size_um, pixel, rel_tol=0.01):
        raise ValueError(
            f"{settings.data[0]}: crops of {crops.pixel_size_um:g} µm a pixel, and {settings.base_model} draws at "
            f"{pixel:g}: give those that it was trained on, or prepare with --pixel_size_um {pixel:g}"
        )
    student, encode = _texture(pipeline) if texture else _outlines(pipeline, crops)
    teacher, few = deepcopy(student), settings.num_inference_steps
    times = trailing_times(pipeline.scheduler, few, settings.substeps)
    loss = ConsistencyLoss(student, teacher, encode, pipeline.scheduler, times=times, substeps=settings.substeps)
    data: TrainingData = crops if texture else Rows(len(crops.columns["mask"]), crops.fingerprint)
    shown = {name: value.to(device) for name, value in data[evenly(len(data), _SHOWN)].items()}
    clean, told = encode(shown, torch_stream(settings.seed, "crops", device=device))
    noise = torch.randn(clean.shape, generator=torch_stream(settings.seed, "preview", device=device), device=device)
    wanted = denoise(teacher, pipeline.scheduler, noise, told, few * settings.substeps)
    fixed = {name: getattr(settings, name) for name in ("stage", "num_inference_steps", "substeps")}
    for step in training_loop([Update(loss=loss, network=student, identity=fixed)], data, settings, accelerator):
        if step.preview and accelerator.is_main_process:
            drawn = denoise(student, first_order(pipeline.scheduler), noise, told, few)
            pairs = torch.cat([_seen(pipeline, wanted), _seen(pipeline, drawn)])
            draw_preview(pairs.cpu().numpy(), settings, step, columns=_SHOWN)
    if accelerator.is_main_process:
        pipeline.to("cpu").register_to_config(num_inference_steps=few)
        if texture:
            crops.statistics[0].save(settings.output_dir)
        metrics = {
            "rms difference to the teacher from the same noise": float((drawn - wanted).square().mean().sqrt()),
            "the same, two draws of the teacher": float((wanted - wanted.roll(1, 0)).square().mean().sqrt()),
        }
        title = f"{'Texture' if texture else 'Outlines'} of cells, distilled to {few} steps"
        base = settings.base_model
        stage = kind.from_pretrained(stage_of(base, settings.stage))
        stage.few_steps_file = save_few_steps(stage, pipeline, settings.output_dir, rank=settings.rank)
        save_stage(stage, settings, step, title=title, data=crops.statistics, base_model=base, metrics=metrics)
    accelerator.end_training()


def _texture(pipeline: TexturePipeline) -> tuple[torch.nn.Module, Encode]:
    network = Controlled(pipeline.unet, pipeline.controlnet, pipeline.prompt).requires_grad_(True)
    pipeline.prompt.requires_grad_(False)
    return network, LatentEncoder(pipeline.vae)


def _outlines(pipeline: MaskDDPMPipeline, crops: CropDataset) -> tuple[torch.nn.Module, Encode]:
    masks, config = crops.columns["mask"][:, 0].numpy(), pipeline.config
    encode = OutlineEncoder(masks, pipeline.unet.config.sample_size, config.representation, config.truncation_px)
    return Outlines(pipeline.unet).requires_grad_(True), encode


def _seen(pipeline: TexturePipeline | MaskDDPMPipeline, clean: torch.Tensor) -> torch.Tensor:
    """Pictures (N, H, W) in [0, 1] of what was drawn."""
    if isinstance(pipeline, TexturePipeline):
        return decode_latents(pipeline.vae, clean)
    return 0.5 - 0.5 * clean[:, 0].float()


if __name__ == "__main__":
    run(main)
