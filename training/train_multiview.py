"""Train the multiview model on spherical-harmonic solids; it needs no data set.

accelerate launch training/train_multiview.py --config configs/multiview.yaml --output_dir model/multiview
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from cascade.diffusion.losses import DenoisingLoss
from cascade.diffusion.sampling import denoise, make_scheduler
from cascade.export.preview import image_grid
from cascade.geometry.cameras import view_set
from cascade.hub import folders as hub
from cascade.hub.cards import write_card
from cascade.hub.embedded import stage_of
from cascade.multiview.losses import Multiview, MultiviewEncoder
from cascade.multiview.network import MultiviewNetwork
from cascade.multiview.renders import HarmonicRenders
from cascade.pipelines.multiview import MultiviewPipeline
from cascade.rng import torch_stream
from cascade.shapes.harmonics import ShapeLaw
from cascade.shapes.surface import render_surface
from cascade.training.loop import TrainingSettings, make_accelerator, training_loop
from cascade.training.settings import parse, run


@dataclass
class Settings(TrainingSettings):
    """Settings of the multiview model."""

    base_model: str = ""
    """A trained stage to go on from: nuclei3d, folder or Hub id. `network` is then not looked at."""
    views: str = "hemisphere"
    """hemisphere, or ring (SyncDreamer's)."""
    num_views: int = 16
    law: dict = field(default_factory=dict)
    """Fields of ShapeLaw: degree, gamma, roughness, anisotropy."""
    network: dict = field(default_factory=dict)
    """Arguments of MultiviewNetwork."""
    drop_condition: float = 0.1
    prediction_type: str = "v_prediction"


class _Count(torch.utils.data.Dataset):
    """As many samples as anyone asks for; the shapes themselves are drawn on the device that trains."""

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        return {"index": torch.as_tensor(indices)}


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    settings = parse(Settings, __doc__.splitlines()[0], argv)
    output = Path(settings.output_dir)
    accelerator = make_accelerator(settings)
    torch.manual_seed(settings.seed)
    if settings.base_model:
        network = MultiviewPipeline.from_pretrained(stage_of(settings.base_model, "multiview")).network
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
    for step in training_loop(loss, _Count(), settings, accelerator):
        if step.preview and accelerator.is_main_process:
            views = denoise(model, scheduler, noise, {"condition": condition}, 20)
            outline = condition[:, None]
            rows = torch.cat([outline, views, outline, truth, outline, shading], 1).flatten(0, 1)
            sheet = output / f"preview_{step.number:06d}.png"
            image_grid(0.5 - 0.5 * rows.cpu().numpy(), sheet, settings.num_views + 1)
    if accelerator.is_main_process:
        pipeline = MultiviewPipeline(network.to("cpu"), scheduler, settings.views, settings.num_views, asdict(law))
        pipeline.save_pretrained(output)
        preview = output / f"preview_{step.number:06d}.png"
        write_card(
            output,
            "Views of solids from one outline",
            "MultiviewPipeline",
            [],
            asdict(settings),
            step.loss,
            settings.base_model or None,
            preview,
            {"IoU of the predicted view along z with the input outline": _iou(views[:, 0], condition)}
            if settings.views == "hemisphere"
            else None,
        )
        if settings.push_to_hub:
            hub.push(pipeline, settings.hub_model_id or output.name, cards=output)
    accelerator.end_training()


def _iou(views: torch.Tensor, condition: torch.Tensor) -> float:
    inside, wanted = views < 0, condition < 0
    return float(((inside & wanted).sum((1, 2)) / (inside | wanted).sum((1, 2)).clamp(min=1)).mean())


if __name__ == "__main__":
    run(main)
