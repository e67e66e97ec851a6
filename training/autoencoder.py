"""The autoencoder's phase of a training, which another phase follows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from cascade.data.dataset import CropDataset
from cascade.diffusion.latent_space import to_channels
from cascade.diffusion.losses import AutoencoderLoss
from cascade.files import replacing_folder
from cascade.training.finish import draw_preview
from cascade.training.loop import training_loop
from cascade.training.settings import TrainingSettings
from cascade.training.start import end_phase, make_accelerator
from cascade.training.update import Update


def train_autoencoder(
    make: Callable[[], AutoencoderKL],
    dataset: CropDataset,
    phase: TrainingSettings,
    folder: Path,
    *,
    kl_weight: float,
    shown: torch.Tensor | None = None,
    finish: Callable[[AutoencoderKL], None] | None = None,
) -> AutoencoderKL:
    """Train what `make` gives; it is kept in `folder` and, once finished, taken from there on resuming.

    phase: settings of this phase alone, with a folder for its checkpoints. shown: crops (N, 1, H, W) whose
    reconstructions the previews show. finish: what is still done to the trained autoencoder, on its device.
    """
    if phase.resume_from_checkpoint and (folder / "config.json").is_file():
        return AutoencoderKL.from_pretrained(folder, use_safetensors=True)
    accelerator = make_accelerator(phase)
    vae = make()
    update = Update(loss=AutoencoderLoss(vae, kl_weight))
    for step in training_loop([update], dataset, phase, accelerator):
        if shown is not None and step.preview and accelerator.is_main_process:
            draw_preview(_reconstructions(vae, shown.to(accelerator.device)).numpy(), phase, step)
    if finish is not None:
        finish(vae)
    if accelerator.is_main_process:
        with replacing_folder(folder) as place:
            vae.save_pretrained(place)
    accelerator.wait_for_everyone()
    end_phase(accelerator)
    return vae.to("cpu")


def teach_decoder(
    vae: AutoencoderKL, crops: CropDataset, phase: TrainingSettings, *, gradient_checkpointing: bool = False
) -> AutoencoderKL:
    """Finetune the decoder alone, in a folder of its own within the training's; latents keep their meaning."""
    folder, steps = Path(phase.output_dir) / "training_decoder", phase.max_train_steps
    phase = replace(phase, output_dir=str(folder), lr_warmup_steps=min(phase.lr_warmup_steps, steps // 10))
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    if gradient_checkpointing:
        vae.enable_gradient_checkpointing()
    return train_autoencoder(lambda: vae, crops, phase, folder / "vae", kl_weight=0.0)


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, dataset: CropDataset, generator: torch.Generator) -> None:
    """Make latents of mean 0 and, with scaling_factor, variance 1.

    The mean goes into the biases of the 1×1 convolutions around the latents, not into shift_factor, which Stable
    Diffusion's pipelines do not look at.
    """
    images = dataset[torch.linspace(0, len(dataset) - 1, 512).long().tolist()]["image"].to(vae.device)
    latents = torch.cat([vae.encode(to_channels(part, vae)).latent_dist.sample(generator) for part in images.split(32)])
    mean = latents.mean()
    vae.quant_conv.bias[: vae.config.latent_channels] -= mean
    vae.post_quant_conv.bias += vae.post_quant_conv.weight.sum((1, 2, 3)) * mean
    vae.register_to_config(scaling_factor=float(1 / latents.std()))


@torch.no_grad()
def _reconstructions(vae: AutoencoderKL, shown: torch.Tensor) -> torch.Tensor:
    """Pairs of a crop and what the autoencoder makes of it, (2 N, H, W) in [0, 1]."""
    images = to_channels(shown, vae)
    decoded = vae.decode(vae.encode(images).latent_dist.mode()).sample
    return torch.stack([images.mean(1), decoded.mean(1)], 1).flatten(0, 1).cpu() / 2 + 0.5
