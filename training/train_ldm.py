"""Train the small foundation: a KL autoencoder, then an unconditional latent diffusion model, on many nuclei crops.

    accelerate launch training/train_ldm.py --config configs/ldm_nuclei.yaml --data crops_a crops_b --output_dir base

The output folder is a Stable-Diffusion-layout model: `train_controlnet.py --base_model base` finetunes it.
"""

if __name__ == "__main__":  # Ctrl-C during the imports below ends in one line, too
    from cascade.entry import end_in_one_line

    end_in_one_line()

import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from cascade.data.dataset import CropDataset
from cascade.diffusion.encoders import LatentEncoder
from cascade.diffusion.losses import DenoisingLoss
from cascade.diffusion.networks import Unconditional
from cascade.diffusion.prompt import EmptyPrompt
from cascade.diffusion.sampling import denoise, make_scheduler
from cascade.hub import folders as hub
from cascade.hub.cards import write_card
from cascade.pipelines.texture import decode_latents
from cascade.rng import torch_stream
from cascade.settings import at_least, positive
from cascade.training.autoencoder import normalise_latents, train_autoencoder
from cascade.training.finish import draw_preview, preview_of, uploading
from cascade.training.loop import training_loop
from cascade.training.networks import new_autoencoder, new_latent_unet
from cascade.training.script import parse, run
from cascade.training.settings import Prediction, TrainingSettings, check_arguments, check_folders, check_levels
from cascade.training.start import check_output, claimed, make_accelerator
from cascade.training.update import Update


@dataclass(frozen=True, kw_only=True)
class Settings(TrainingSettings):
    """Settings of the foundation; the loop's own hold for the diffusion model, `vae_` ones for the autoencoder."""

    data: tuple[str, ...] = ()
    """Folders of `cascade prepare`, all of one crop size."""
    vae: dict[str, Any] = field(default_factory=lambda: dict(block_out_channels=[32, 64, 96], layers_per_block=1))
    """Arguments of diffusers' AutoencoderKL."""
    vae_max_train_steps: int = 4000
    vae_train_batch_size: int = 32
    vae_learning_rate: float = 5e-4
    vae_kl_weight: float = 0.05
    unet: dict[str, Any] = field(default_factory=lambda: dict(block_out_channels=[48, 96, 144], layers_per_block=2))
    """Arguments of diffusers' UNet2DConditionModel."""
    prediction_type: Prediction = "v_prediction"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_folders(self.output_dir, self.data)
        at_least(self, vae_max_train_steps=1, vae_train_batch_size=1, vae_kl_weight=0)
        positive(self, "vae_learning_rate")
        check_levels(self, "vae", "unet")
        check_arguments("vae", self.vae, AutoencoderKL)
        check_arguments("unet", self.unet, UNet2DConditionModel)


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    settings = parse(Settings, __doc__, argv)
    with claimed(settings) as output:
        phase = replace(settings, output_dir=str(output / "training_unet"))
        check_output(phase, output / "prompt" / "config.json")
        dataset = CropDataset(settings.data, any_pixel_size=True)
        _train_unet(settings, phase, dataset, _train_vae(settings, dataset, output), output)


def _train_vae(settings: Settings, dataset: CropDataset, output: Path) -> AutoencoderKL:
    phase = replace(
        settings,
        output_dir=str(output / "training_vae"),
        max_train_steps=settings.vae_max_train_steps,
        train_batch_size=settings.vae_train_batch_size,
        learning_rate=settings.vae_learning_rate,
    )
    side = dataset.columns["image"].shape[-1]
    return train_autoencoder(
        lambda: new_autoencoder(settings.vae, side=side, seed=settings.seed),
        dataset,
        phase,
        output / "vae",
        kl_weight=settings.vae_kl_weight,
        origin={"vae": settings.vae},
        shown=dataset[torch.linspace(0, len(dataset) - 1, 32).long().tolist()]["image"],
        finish=lambda vae: normalise_latents(vae, dataset, torch_stream(settings.seed, "latents", device=vae.device)),
    )


def _train_unet(settings: Settings, phase: Settings, dataset: CropDataset, vae: AutoencoderKL, output: Path) -> None:
    accelerator = make_accelerator(phase)
    channels = vae.config.latent_channels
    side = dataset.columns["image"].shape[-1] // 2 ** (len(vae.config.block_out_channels) - 1)
    unet = new_latent_unet(settings.unet, channels=channels, side=side, seed=settings.seed)
    prompt = EmptyPrompt(1, unet.config.cross_attention_dim)
    scheduler = make_scheduler(settings.prediction_type)
    network = Unconditional(unet, prompt)
    vae.to(accelerator.device)
    loss = DenoisingLoss(network, LatentEncoder(vae), scheduler)
    noise = torch.randn((32, channels, side, side), generator=torch_stream(settings.seed, "preview"))
    update = Update(loss=loss, identity={"prediction_type": settings.prediction_type})
    for step in training_loop([update], dataset, phase, accelerator):
        if step.preview and accelerator.is_main_process:
            latents = denoise(network, scheduler, noise.to(accelerator.device), {}, 25)
            draw_preview(decode_latents(vae, latents).cpu().numpy(), phase, step)
    if accelerator.is_main_process:
        for name, part in {"unet": unet, "scheduler": scheduler, "prompt": prompt}.items():
            part.save_pretrained(output / name)
        preview = output / "preview.png"
        shutil.copy(preview_of(phase, step), preview)
        title, recipe = "Foundation for textures of cells", asdict(settings)
        write_card(output, title, None, dataset.statistics, recipe, step.loss, None, preview)
        if settings.push_to_hub:
            parts = [f"{name}/*" for name in ("vae", "unet", "scheduler", "prompt")]
            name = settings.hub_model_id or output.resolve().name
            with uploading(output):
                hub.upload(output, name, "Upload a foundation for textures", [*parts, "README.md", "preview.png"])
    accelerator.end_training()


if __name__ == "__main__":
    run(main)
