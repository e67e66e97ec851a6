"""Train the small foundation: a KL autoencoder, then an unconditional latent diffusion model, on many nuclei crops.

    accelerate launch training/train_ldm.py --config configs/ldm_nuclei.yaml --data crops_a crops_b --output_dir base

The output folder is a Stable-Diffusion-layout model: `train_controlnet.py --base_model base` finetunes it.
"""

import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from cascade.data.dataset import CropDataset
from cascade.diffusion.encoders import LatentEncoder
from cascade.diffusion.latent_space import to_channels
from cascade.diffusion.losses import AutoencoderLoss, DenoisingLoss
from cascade.diffusion.networks import Unconditional
from cascade.diffusion.prompt import EmptyPrompt
from cascade.diffusion.sampling import denoise, make_scheduler
from cascade.export.preview import image_grid
from cascade.files import replacing_folder
from cascade.hub import folders as hub
from cascade.hub.cards import write_card
from cascade.pipelines.texture import decode_latents
from cascade.rng import torch_stream
from cascade.training.loop import TrainingSettings, end_phase, make_accelerator, training_loop
from cascade.training.settings import parse, run


@dataclass
class Settings(TrainingSettings):
    """Settings of the foundation; the loop's own hold for the diffusion model, `vae_` ones for the autoencoder."""

    data: list[str] = field(default_factory=list)
    """Folders of `cascade prepare`, all of one crop size."""
    vae: dict = field(default_factory=lambda: dict(block_out_channels=[32, 64, 96], layers_per_block=1))
    """Arguments of diffusers' AutoencoderKL."""
    vae_max_train_steps: int = 4000
    vae_train_batch_size: int = 32
    vae_learning_rate: float = 5e-4
    vae_kl_weight: float = 0.05
    unet: dict = field(default_factory=lambda: dict(block_out_channels=[48, 96, 144], layers_per_block=2))
    """Arguments of diffusers' UNet2DConditionModel."""
    prediction_type: str = "v_prediction"


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    settings = parse(Settings, __doc__.splitlines()[0], argv)
    output = Path(settings.output_dir)
    dataset = CropDataset(settings.data)
    vae = _train_vae(settings, dataset, output)
    _train_unet(settings, dataset, vae, output)


def _train_vae(settings: Settings, dataset: CropDataset, output: Path) -> AutoencoderKL:
    if (output / "vae" / "config.json").is_file() and settings.resume_from_checkpoint:
        return AutoencoderKL.from_pretrained(output / "vae")
    phase = replace(
        settings,
        output_dir=str(output / "training_vae"),
        max_train_steps=settings.vae_max_train_steps,
        train_batch_size=settings.vae_train_batch_size,
        learning_rate=settings.vae_learning_rate,
    )
    accelerator = make_accelerator(phase)
    levels = len(settings.vae["block_out_channels"])
    defaults = dict(
        in_channels=1,
        out_channels=1,
        latent_channels=4,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        norm_num_groups=16,
        sample_size=dataset.columns["image"].shape[-1],
    )
    torch.manual_seed(settings.seed)
    vae = AutoencoderKL(**(defaults | settings.vae))
    loss = AutoencoderLoss(vae, settings.vae_kl_weight)
    shown = dataset[torch.linspace(0, len(dataset) - 1, 32).long().tolist()]["image"]
    for step in training_loop(loss, dataset, phase, accelerator):
        if step.preview and accelerator.is_main_process:
            with torch.no_grad():
                images = to_channels(shown.to(accelerator.device), vae)
                decoded = vae.decode(vae.encode(images).latent_dist.mode()).sample
            pairs = torch.stack([images.mean(1), decoded.mean(1)], 1).flatten(0, 1)
            image_grid(pairs.cpu().numpy() / 2 + 0.5, Path(phase.output_dir) / f"preview_{step.number:06d}.png")
    _normalise_latents(vae, dataset, torch_stream(settings.seed, "latents", device=accelerator.device))
    if accelerator.is_main_process:
        with replacing_folder(output / "vae") as folder:
            vae.save_pretrained(folder)
    accelerator.wait_for_everyone()
    end_phase(accelerator)
    return vae.to("cpu")


@torch.no_grad()
def _normalise_latents(vae: AutoencoderKL, dataset: CropDataset, generator: torch.Generator) -> None:
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


def _train_unet(settings: Settings, dataset: CropDataset, vae: AutoencoderKL, output: Path) -> None:
    phase = replace(settings, output_dir=str(output / "training_unet"))
    accelerator = make_accelerator(phase)
    channels, levels = vae.config.latent_channels, len(settings.unet["block_out_channels"])
    side = dataset.columns["image"].shape[-1] // 2 ** (len(vae.config.block_out_channels) - 1)
    defaults = dict(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        down_block_types=["DownBlock2D"] + ["CrossAttnDownBlock2D"] * (levels - 1),
        up_block_types=["CrossAttnUpBlock2D"] * (levels - 1) + ["UpBlock2D"],
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=16,
    )
    torch.manual_seed(settings.seed)
    unet = UNet2DConditionModel(**(defaults | settings.unet))
    prompt = EmptyPrompt(1, unet.config.cross_attention_dim)
    scheduler = make_scheduler(settings.prediction_type)
    network = Unconditional(unet, prompt)
    vae.to(accelerator.device)
    loss = DenoisingLoss(network, LatentEncoder(vae), scheduler)
    noise = torch.randn((32, channels, side, side), generator=torch_stream(settings.seed, "preview"))
    for step in training_loop(loss, dataset, phase, accelerator):
        if step.preview and accelerator.is_main_process:
            latents = denoise(network, scheduler, noise.to(accelerator.device), {}, 25)
            images = decode_latents(vae, latents)
            image_grid(images.cpu().numpy(), Path(phase.output_dir) / f"preview_{step.number:06d}.png")
    if accelerator.is_main_process:
        unet.save_pretrained(output / "unet")
        scheduler.save_pretrained(output / "scheduler")
        prompt.save_pretrained(output / "prompt")
        preview = output / "preview.png"
        shutil.copy(Path(phase.output_dir) / f"preview_{step.number:06d}.png", preview)
        write_card(
            output,
            "Foundation for textures of cells",
            None,
            dataset.statistics,
            asdict(settings),
            step.loss,
            None,
            preview,
        )
        if settings.push_to_hub:
            parts = [f"{name}/*" for name in ("vae", "unet", "scheduler", "prompt")]
            name = settings.hub_model_id or output.name
            hub.upload(output, name, "Upload a foundation for textures", [*parts, "README.md", "preview.png"])
    accelerator.end_training()


if __name__ == "__main__":
    run(main)
