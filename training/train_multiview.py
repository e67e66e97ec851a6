"""Train the multiview model on spherical-harmonic solids; it needs no data set.

accelerate launch training/train_multiview.py --config configs/multiview.yaml --output_dir model/multiview
"""

if __name__ == "__main__":  # Ctrl-C during the imports below ends in one line, too
    from cascade.entry import end_in_one_line

    end_in_one_line()

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

from cascade.diffusion.losses import DenoisingLoss
from cascade.diffusion.sampling import denoise, make_scheduler, second_order
from cascade.geometry.cameras import view_set
from cascade.hub.embedded import stage_of
from cascade.multiview.losses import Multiview, MultiviewEncoder
from cascade.multiview.network import MultiviewNetwork
from cascade.multiview.renders import HarmonicRenders
from cascade.pipelines.multiview import MultiviewPipeline
from cascade.rng import torch_stream
from cascade.settings import at_least
from cascade.shapes.harmonics import ShapeLaw
from cascade.shapes.surface import render_surface
from cascade.training.batches import Rows
from cascade.training.finish import draw_preview, save_stage
from cascade.training.loop import training_loop
from cascade.training.script import parse, run
from cascade.training.settings import Prediction, TrainingSettings, as_base, check_arguments, check_folders
from cascade.training.start import claimed, make_accelerator
from cascade.training.update import Update


@dataclass(frozen=True, kw_only=True)
class Settings(TrainingSettings):
    """Settings of the multiview model."""

    base_model: str = ""
    """A trained stage to go on from: nuclei3d, folder or Hub id. `network` is then not looked at, and
    prediction_type is its own."""
    views: Literal["hemisphere", "ring"] = "hemisphere"
    """hemisphere, or ring (SyncDreamer's)."""
    num_views: int = 16
    law: dict[str, Any] = field(default_factory=dict)
    """Fields of ShapeLaw: degree, gamma, roughness, anisotropy."""
    network: dict[str, Any] = field(default_factory=dict)
    """Arguments of MultiviewNetwork."""
    drop_condition: float = 0.1
    prediction_type: Prediction = "v_prediction"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_folders(self.output_dir, base_model=self.base_model)
        at_least(self, num_views=1)
        check_arguments("law", self.law, ShapeLaw)
        check_arguments("network", self.network, MultiviewNetwork)
        if not 0 <= self.drop_condition < 1:
            raise ValueError(f"drop_condition must be at least 0 and below 1, got {self.drop_condition}")


_MANY = 1 << 20  # samples of an epoch: as many as anyone asks for, drawn on the device that trains


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    settings = parse(Settings, __doc__, argv)
    with claimed(settings):
        _train(settings)


def _train(settings: Settings) -> None:
    accelerator = make_accelerator(settings)
    torch.manual_seed(settings.seed)
    if settings.base_model:
        trained = MultiviewPipeline.from_pretrained(stage_of(settings.base_model, "multiview"))
        network = trained.network
        settings = as_base(settings, prediction_type=trained.scheduler.config.prediction_type)
    else:
        network = MultiviewNetwork(**settings.network)
    size, device = network.config.sample_size, accelerator.device
    cameras, law = view_set(settings.views, settings.num_views).to(device), ShapeLaw(**settings.law)
    renders = HarmonicRenders(cameras, law, size)
    scheduler = make_scheduler(settings.prediction_type)
    model = Multiview(network, cameras)
    loss = DenoisingLoss(model, MultiviewEncoder(renders, settings.drop_condition), scheduler)
    generator = torch_stream(settings.seed, "preview", device=device)
    shapes, condition, truth = renders.draw(8, generator)
    shading = 2 * render_surface(shapes, cameras, size)[1][..., 0] + 1  # −1, bright, where the surface faces the camera
    noise = torch.randn(truth.shape, generator=generator, device=device)
    drawn_from = f"{settings.views} of {settings.num_views}, {law}, dropped {settings.drop_condition}"
    update = Update(loss=loss, identity={"prediction_type": settings.prediction_type})
    for step in training_loop([update], Rows(_MANY, drawn_from), settings, accelerator):
        if step.preview and accelerator.is_main_process:
            views = denoise(model, scheduler, noise, {"condition": condition}, 20)
            outline = condition[:, None]
            rows = torch.cat([outline, views, outline, truth, outline, shading], 1).flatten(0, 1)
            draw_preview(0.5 - 0.5 * rows.cpu().numpy(), settings, step, columns=settings.num_views + 1)
    if accelerator.is_main_process:
        pipeline = MultiviewPipeline(
            network.to("cpu"), second_order(scheduler), settings.views, settings.num_views, asdict(law)
        )
        named = "IoU of the predicted view along z with the input outline"
        metrics = {named: _iou(views[:, 0], condition)} if settings.views == "hemisphere" else None
        title, base = "Views of solids from one outline", settings.base_model or None
        save_stage(pipeline, settings, step, title=title, data=[], base_model=base, metrics=metrics)
    accelerator.end_training()


def _iou(views: torch.Tensor, condition: torch.Tensor) -> float:
    inside, wanted = views < 0, condition < 0
    return float(((inside & wanted).sum((1, 2)) / (inside | wanted).sum((1, 2)).clamp(min=1)).mean())


if __name__ == "__main__":
    run(main)
