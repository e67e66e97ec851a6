"""The autoencoder's phase of a training, which another phase follows."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from cascade.data.dataset import CropDataset
from cascade.diffusion.latent_space import to_channels
from cascade.diffusion.losses import AutoencoderLoss
from cascade.files import read_record, replacing, replacing_folder
from cascade.training.checkpoints import check_same
from cascade.training.finish import draw_preview
from cascade.training.loop import training_loop
from cascade.training.settings import OptimizerSettings, TrainingSettings
from cascade.training.start import end_phase, make_accelerator
from cascade.training.update import Update

_FINISHED = "finished.json"  # with what a phase was trained; it comes last, when all else is in place
_OWN = ("seed", "max_train_steps", "train_batch_size", "gradient_accumulation_steps", "mixed_precision")


def train_autoencoder(
    make: Callable[[], AutoencoderKL],
    dataset: CropDataset,
    phase: TrainingSettings,
    folder: Path,
    *,
    kl_weight: float,
    origin: Mapping[str, Any],
    shown: torch.Tensor | None = None,
    finish: Callable[[AutoencoderKL], None] | None = None,
) -> AutoencoderKL:
    """Train what `make` gives; it is kept in `folder` and, once finished, taken from there on resuming.

    phase: settings of this phase alone, with a folder for its checkpoints; a checkpoint that they name is the next
    phase's, and this one goes on from its own latest. origin: what it starts from, by name. shown: crops (N, 1, H, W)
    whose reconstructions the previews show. finish: what is still done to the trained autoencoder, on its device.

    Raises CheckpointError where what is finished was trained with other data or settings, or from something else.
    """
    phase = replace(phase, resume_from_checkpoint=phase.resume_from_checkpoint and "latest")
    names = [*(one.name for one in fields(OptimizerSettings)), *_OWN]
    recipe = {"data": dataset.fingerprint, "samples": len(dataset), "kl_weight": kl_weight, **origin}
    recipe = json.loads(json.dumps(recipe | {name: getattr(phase, name) for name in names}))
    finished = Path(phase.output_dir) / _FINISHED
    if phase.resume_from_checkpoint and finished.is_file() and (folder / "config.json").is_file():
        check_same(folder, read_record(finished, "remove it, and the autoencoder is trained again"), recipe)
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
        finished.unlink(missing_ok=True)
        with replacing_folder(folder) as place:
            vae.save_pretrained(place)
        with replacing(finished) as partial:
            partial.write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    accelerator.wait_for_everyone()
    end_phase(accelerator)
    return vae.to("cpu")


def teach_decoder(
    vae: AutoencoderKL,
    crops: CropDataset,
    phase: TrainingSettings,
    *,
    base_model: str,
    gradient_checkpointing: bool = False,
) -> AutoencoderKL:
    """Finetune the decoder alone, in a folder of its own within the training's; latents keep their meaning.

    base_model: which the autoencoder is of.
    """
    folder, steps = Path(phase.output_dir) / "training_decoder", phase.max_train_steps
    phase = replace(phase, output_dir=str(folder), lr_warmup_steps=min(phase.lr_warmup_steps, steps // 10))
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    if gradient_checkpointing:
        vae.enable_gradient_checkpointing()
    origin = {"base_model": str(Path(base_model).resolve()) if Path(base_model).exists() else base_model}
    return train_autoencoder(lambda: vae, crops, phase, folder / "vae", kl_weight=0.0, origin=origin)


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
