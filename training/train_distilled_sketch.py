"""Distil a DDPM from sketches into one that paints as well in one to four steps.

accelerate launch training/train_distilled_sketch.py --base_model sketch2d --data IMAGES --output_dir fast

What comes out is the model as it was, and beside it, small, what makes it paint in a few steps from its own t_start
where that is asked for (`few_steps=True`, `cascade generate --few_steps`).
"""

if __name__ == "__main__":  # Ctrl-C during the imports below ends in one line, too
    from cascade.entry import end_in_one_line

    end_in_one_line()

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cascade.data.patches import PatchDataset
from cascade.diffusion.distillation import ConsistencyLoss
from cascade.diffusion.encoders import PatchEncoder
from cascade.diffusion.networks import Scenes
from cascade.diffusion.partial import denoise_from, timesteps
from cascade.evenly import evenly
from cascade.hub.few_steps import save_few_steps
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.rng import torch_stream
from cascade.settings import at_least
from cascade.training.finish import draw_preview, origins, save_stage
from cascade.training.loop import training_loop
from cascade.training.script import parse, run
from cascade.training.settings import TrainingSettings, check_folders
from cascade.training.start import claimed, make_accelerator
from cascade.training.update import Update

_SHOWN = 8  # painted by the teacher and, beneath, from the same noise by the student


@dataclass(frozen=True, kw_only=True)
class Settings(TrainingSettings):
    """Settings of a distillation."""

    base_model: str = ""
    """The teacher: sketch2d, a folder or Hub id."""
    data: tuple[str, ...] = ()
    """Raw images, those that the teacher was trained on: a folder, or files."""
    sequences: tuple[str, ...] = ()
    """Which of a Cell Tracking Challenge folder's; default all."""
    time_as_depth: bool = False
    """The planes of a sequence are one volume, time along z."""
    licence: str = "not stated"
    """Of the images, and whom to cite."""
    patch_size: tuple[int, ...] = (128, 128)
    """Pixels of the patches that are learnt, y x or z y x."""
    turns: bool = True
    """Also turn patches by quarters: not where light comes from one side."""
    num_inference_steps: int = 2
    """Of the student, from the teacher's t_start on."""
    substeps: int = 8
    """Steps of the teacher for each of them."""
    rank: int = 32
    """Of the difference to the teacher that is kept of each weight."""
    train_batch_size: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.base_model:
            raise ValueError("--base_model is missing: the model that is to be made faster")
        check_folders(self.output_dir, self.data, self.base_model)
        at_least(self, num_inference_steps=1, substeps=1, rank=1)


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    settings = parse(Settings, __doc__, argv)
    with claimed(settings):
        teacher = SketchPipeline.from_pretrained(settings.base_model)
        patches = PatchDataset(
            settings.data[0] if len(settings.data) == 1 else settings.data,
            settings.patch_size,
            sequences=settings.sequences,
            channels=teacher.unet.config.in_channels,
            time_as_depth=settings.time_as_depth,
            windows=teacher.windows,
            seed=settings.seed,
        )
        _train(settings, patches, teacher)


def _train(settings: Settings, patches: PatchDataset, pipeline: SketchPipeline) -> None:
    accelerator = make_accelerator(settings)
    device, few = accelerator.device, settings.num_inference_steps
    pipeline.to(device)
    scheduler, t_start = pipeline.scheduler, pipeline.config.t_start
    student = Scenes(pipeline.unet).requires_grad_(True)
    teacher = deepcopy(student)
    steps = few * settings.substeps
    times = timesteps(t_start, steps, scheduler.config.num_train_timesteps).tolist()
    encode = PatchEncoder(turns=settings.turns)
    loss = ConsistencyLoss(student, teacher, encode, scheduler, times=times, substeps=settings.substeps)
    clean = patches[evenly(len(patches), _SHOWN)]["image"].to(device)
    noise = torch.randn(clean.shape, generator=torch_stream(settings.seed, "preview", device=device), device=device)

    def painted(network: torch.nn.Module, num_inference_steps: int) -> torch.Tensor:
        with torch.inference_mode():
            return denoise_from(
                lambda sample, t: network(sample, t, {}), scheduler, clean, noise, t_start, num_inference_steps,
                solver="ddim",
            )  # fmt: skip

    wanted = painted(teacher, steps)
    fixed = {"num_inference_steps": few, "substeps": settings.substeps, "turns": settings.turns}
    for step in training_loop([Update(loss=loss, network=student, identity=fixed)], patches, settings, accelerator):
        if step.preview and accelerator.is_main_process:
            drawn = painted(student, few)
            draw_preview(np.concatenate([_planes(wanted), _planes(drawn)]), settings, step, columns=_SHOWN)
    if accelerator.is_main_process:
        pipeline.to("cpu").register_to_config(num_inference_steps=few, solver="ddim")
        metrics = {
            "rms difference to the teacher from the same noise": float((drawn - wanted).square().mean().sqrt()),
            "the same, of the teacher in as few steps": float(
                (painted(teacher, few) - wanted).square().mean().sqrt()
            ),
        }  # fmt: skip
        base = SketchPipeline.from_pretrained(settings.base_model)
        base.few_steps_file = save_few_steps(base, pipeline, settings.output_dir, rank=settings.rank)
        title = f"Scenes painted from sketches (DDPM), distilled to {few} steps"
        data, name = origins(settings.data, settings.licence), settings.base_model
        save_stage(base, settings, step, title=title, data=data, base_model=name, metrics=metrics)
    accelerator.end_training()


def _planes(images: torch.Tensor) -> npt.NDArray[Any]:
    """Pictures (N, H, W) in [0, 1]: the first channel, of stacks the plane in the middle."""
    seen = images[:, 0].float().clamp(-1, 1).cpu().numpy() * 0.5 + 0.5
    return seen if seen.ndim == 3 else seen[:, seen.shape[1] // 2]


if __name__ == "__main__":
    run(main)
