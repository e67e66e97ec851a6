"""Finetune a Stable-Diffusion-layout model with a ControlNet, to give masks the texture of a data set's cells.

    accelerate launch training/train_controlnet.py --base_model base --data crops --output_dir model/texture

--base_model is a folder of `train_ldm.py`, or any Stable Diffusion such as stable-diffusion-v1-5/stable-diffusion-v1-5;
or nuclei2d, nuclei3d or another cascade, or its texture stage, whose ControlNet is gone on with, too.
"""

from collections import deque
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel

from cascade.data.dataset import CropDataset
from cascade.data.grain import measure_grain
from cascade.diffusion.alignment import otsu_alignment
from cascade.diffusion.conditioning import conditioning_image
from cascade.diffusion.encoders import LatentEncoder
from cascade.diffusion.losses import AutoencoderLoss, DenoisingLoss
from cascade.diffusion.networks import Controlled
from cascade.diffusion.prompt import EmptyPrompt
from cascade.diffusion.sampling import denoise
from cascade.export.preview import image_grid
from cascade.files import replacing_folder
from cascade.hub import folders as hub
from cascade.hub.cards import write_card
from cascade.hub.embedded import stage_of
from cascade.memory import micro_batch
from cascade.pipelines.texture import TexturePipeline, bytes_of_a_crop, decode_latents
from cascade.rng import torch_stream
from cascade.training.loop import TrainingSettings, end_phase, make_accelerator, training_loop
from cascade.training.settings import parse, run


@dataclass
class Settings(TrainingSettings):
    """Settings of the texture model."""

    base_model: str = ""
    """nuclei2d, nuclei3d, or folder or Hub id of the pretrained model."""
    data: list[str] = field(default_factory=list)
    """Folders of `cascade prepare`."""
    trainable_unet: str = "all"
    """all, decoder (the authors' sd_locked=False) or none."""
    from_scratch: bool = False
    """Ablation: keep the autoencoder, but start UNet and ControlNet from random weights."""
    gradient_checkpointing: bool = False
    decoder_max_train_steps: int = 200
    """The autoencoder's decoder is first taught the data's own crops, their background above all; 0: left as it is.
    The latents keep their meaning, so nothing else has to be learned anew."""
    decoder_train_batch_size: int = 16
    decoder_learning_rate: float = 2e-4
    num_validation_images: int = 32
    """Crops of the data that are drawn anew in every preview, and measured for the card."""
    num_inference_steps: int = 25
    """Of a preview."""


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    settings = parse(Settings, __doc__.splitlines()[0], argv)
    if not settings.base_model:
        raise ValueError("--base_model is missing: nuclei2d, nuclei3d, a folder of train_ldm.py or a Stable Diffusion")
    if settings.trainable_unet not in ("all", "decoder", "none"):
        raise ValueError(f'--trainable_unet is "all", "decoder" or "none", not {settings.trainable_unet!r}')
    output = Path(settings.output_dir)
    crops = CropDataset(settings.data)
    vae, unet, controlnet, prompt, scheduler = _load_base(stage_of(settings.base_model, "texture"))
    vae = _teach_decoder(vae, crops, settings)
    accelerator = make_accelerator(settings)
    device = accelerator.device
    torch.manual_seed(settings.seed)
    if settings.from_scratch:
        unet, controlnet = UNet2DConditionModel.from_config(unet.config), None
    factor_steps = len(vae.config.block_out_channels) - 1
    if controlnet is None:
        controlnet = ControlNetModel.from_unet(
            unet,
            conditioning_embedding_out_channels=(16, 32, 96, 256)[: factor_steps + 1],
            conditioning_channels=3,
        )
    _freeze(unet, settings.trainable_unet)
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        controlnet.enable_gradient_checkpointing()
    network = Controlled(unet, controlnet, prompt)
    loss = DenoisingLoss(network, LatentEncoder(vae.to(device)), scheduler)

    count = min(settings.num_validation_images, len(crops))
    shown = crops[torch.linspace(0, len(crops) - 1, count).long().tolist()]
    condition = conditioning_image(shown["mask"], shown["brightness"]).to(device)
    side = crops.columns["mask"].shape[-1] // 2**factor_steps
    shape = (count, unet.config.in_channels, side, side)
    noise = torch.randn(shape, generator=torch_stream(settings.seed, "preview")).to(device)
    at_once = micro_batch(bytes_of_a_crop(vae, condition[0, 0].numel()), device, on_cpu=count, on_gpu=count)

    def drawn(start: int) -> torch.Tensor:
        part = slice(start, start + at_once)
        batch = {"condition": condition[part]}
        return decode_latents(vae, denoise(network, scheduler, noise[part], batch, settings.num_inference_steps)).cpu()

    for step in training_loop(loss, crops, settings, accelerator):
        if step.preview and accelerator.is_main_process:
            images = torch.cat([drawn(start) for start in range(0, count, at_once)])
            rows = torch.stack([shown["image"][:, 0] / 2 + 0.5, images, shown["mask"][:, 0]], 1).flatten(0, 1)
            image_grid(rows.numpy(), output / f"preview_{step.number:06d}.png", columns=24)
    if accelerator.is_main_process:
        statistics, images, masks = crops.statistics[0], images.numpy(), shown["mask"][:, 0].numpy() > 0
        grain = measure_grain(vae, crops)
        pipeline = TexturePipeline(
            vae.to("cpu"),
            unet.to("cpu"),
            controlnet.to("cpu"),
            scheduler,
            prompt.to("cpu"),
            pixel_size_um=crops.pixel_size_um,
            window=statistics.to_dict()["window"],
            grain=asdict(grain),
        )
        statistics.save(output)
        pipeline.save_pretrained(output)
        preview = output / f"preview_{step.number:06d}.png"
        write_card(
            output,
            "Texture of cells (ControlNet)",
            "TexturePipeline",
            crops.statistics,
            asdict(settings),
            step.loss,
            settings.base_model,
            preview,
            {
                "IoU of Otsu's segmentation with the mask, generated crops": otsu_alignment(images, masks).mean(),
                "the same, real crops": otsu_alignment(shown["image"][:, 0].numpy(), masks).mean(),
            },
        )
        if settings.push_to_hub:
            hub.push(pipeline, settings.hub_model_id or output.name, cards=output)
    accelerator.end_training()


def _teach_decoder(vae: AutoencoderKL, crops: CropDataset, settings: Settings) -> AutoencoderKL:
    """Finetune the decoder alone; what is finished is kept in `training_decoder` and taken from there on resuming."""
    folder = Path(settings.output_dir) / "training_decoder"
    if settings.decoder_max_train_steps == 0:
        return vae
    if settings.resume_from_checkpoint and (folder / "vae" / "config.json").is_file():
        return AutoencoderKL.from_pretrained(folder / "vae", use_safetensors=True)
    phase = replace(
        settings,
        output_dir=str(folder),
        max_train_steps=settings.decoder_max_train_steps,
        train_batch_size=settings.decoder_train_batch_size,
        learning_rate=settings.decoder_learning_rate,
        lr_warmup_steps=min(settings.lr_warmup_steps, settings.decoder_max_train_steps // 10),
    )
    accelerator = make_accelerator(phase)
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    if settings.gradient_checkpointing:
        vae.enable_gradient_checkpointing()
    deque(training_loop(AutoencoderLoss(vae, kl_weight=0.0), crops, phase, accelerator), maxlen=0)  # no previews
    if accelerator.is_main_process:
        with replacing_folder(folder / "vae") as place:
            vae.save_pretrained(place)
    accelerator.wait_for_everyone()
    end_phase(accelerator)
    return vae


def _load_base(path_or_repo_id: str):
    """Autoencoder, UNet, ControlNet (None: there is none), empty prompt and scheduler of a Stable-Diffusion layout."""
    folder = hub.base_model_folder(path_or_repo_id)
    vae = AutoencoderKL.from_pretrained(folder / "vae", use_safetensors=True)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=True)
    if unet.config.in_channels != vae.config.latent_channels:
        raise hub.ModelError(
            f"{folder}: the UNet wants {unet.config.in_channels} latent channels, the autoencoder makes "
            f"{vae.config.latent_channels}; take both from one model"
        )
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    controlnet = None
    if (folder / "controlnet" / "config.json").is_file():
        controlnet = ControlNetModel.from_pretrained(folder / "controlnet", use_safetensors=True)
    return vae, unet, controlnet, _empty_prompt(folder), scheduler


def _empty_prompt(folder: Path) -> EmptyPrompt:
    """The stored embedding of "", or what the model's own text encoder makes of it."""
    if (folder / "prompt" / "config.json").is_file():
        return EmptyPrompt.from_pretrained(folder / "prompt", use_safetensors=True)
    hub.check_components(
        folder, "Stable Diffusion", {"tokenizer": "tokenizer_config.json", "text_encoder": "config.json"}
    )
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", use_safetensors=True)
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    tokens = tokenizer("", padding="max_length", max_length=length, return_tensors="pt")
    with torch.no_grad():
        return EmptyPrompt.of(encoder(tokens.input_ids)[0])


def _freeze(unet: UNet2DConditionModel, trainable: str) -> None:
    unet.requires_grad_(trainable == "all")
    if trainable == "decoder":
        for part in (unet.up_blocks, unet.conv_norm_out, unet.conv_out):
            part.requires_grad_(True)


if __name__ == "__main__":
    run(main)
