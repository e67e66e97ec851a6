"""Finetune a Stable-Diffusion-layout model with a ControlNet, to give masks the texture of a data set's cells.

    accelerate launch training/train_controlnet.py --base_model base --data crops --output_dir model/texture

--base_model is a folder of `train_ldm.py`, or any Stable Diffusion such as stable-diffusion-v1-5/stable-diffusion-v1-5;
or nuclei2d, nuclei3d or another cascade, or its texture stage, whose ControlNet is gone on with, too.
"""

if __name__ == "__main__":  # Ctrl-C during the imports below ends in one line, too
    from cascade.entry import end_in_one_line

    end_in_one_line()

from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
from diffusers import UNet2DConditionModel

from cascade.data.dataset import CropDataset
from cascade.data.grain import measure_grain
from cascade.diffusion.alignment import otsu_alignment
from cascade.diffusion.conditioning import conditioning_image
from cascade.diffusion.encoders import LatentEncoder
from cascade.diffusion.losses import DenoisingLoss
from cascade.diffusion.networks import Controlled
from cascade.diffusion.sampling import denoise
from cascade.hub.embedded import stage_of
from cascade.memory import micro_batch
from cascade.pipelines.texture import TexturePipeline, bytes_of_a_crop, decode_latents
from cascade.rng import torch_stream
from cascade.settings import at_least, positive
from cascade.training.autoencoder import teach_decoder
from cascade.training.base_model import freeze, load_base
from cascade.training.finish import draw_preview, save_stage
from cascade.training.loop import training_loop
from cascade.training.networks import new_controlnet
from cascade.training.script import parse, run
from cascade.training.settings import TrainingSettings, check_folders
from cascade.training.start import claimed, make_accelerator
from cascade.training.update import Update


@dataclass(frozen=True, kw_only=True)
class Settings(TrainingSettings):
    """Settings of the texture model."""

    base_model: str = ""
    """nuclei2d, nuclei3d, or folder or Hub id of the pretrained model."""
    data: tuple[str, ...] = ()
    """Folders of `cascade prepare`."""
    trainable_unet: Literal["all", "decoder", "none"] = "all"
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.base_model:
            raise ValueError(
                "--base_model is missing: nuclei2d, nuclei3d, a folder of train_ldm.py or a Stable Diffusion"
            )
        check_folders(self.output_dir, self.data, self.base_model)
        at_least(self, decoder_max_train_steps=0, decoder_train_batch_size=1)
        at_least(self, num_validation_images=1, num_inference_steps=1)
        positive(self, "decoder_learning_rate")


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    settings = parse(Settings, __doc__, argv)
    with claimed(settings):
        _train(settings, CropDataset(settings.data))


def _train(settings: Settings, crops: CropDataset) -> None:
    vae, unet, controlnet, prompt, scheduler, drawing = load_base(stage_of(settings.base_model, "texture"))
    if settings.decoder_max_train_steps:
        phase = replace(
            settings,
            max_train_steps=settings.decoder_max_train_steps,
            train_batch_size=settings.decoder_train_batch_size,
            learning_rate=settings.decoder_learning_rate,
        )
        again = settings.gradient_checkpointing
        vae = teach_decoder(vae, crops, phase, base_model=settings.base_model, gradient_checkpointing=again)
    accelerator = make_accelerator(settings)
    device = accelerator.device
    torch.manual_seed(settings.seed)
    if settings.from_scratch:
        unet, controlnet = UNet2DConditionModel.from_config(unet.config), None
    controlnet = controlnet or new_controlnet(unet, vae)
    freeze(unet, settings.trainable_unet)
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        controlnet.enable_gradient_checkpointing()
    network = Controlled(unet, controlnet, prompt)
    loss = DenoisingLoss(network, LatentEncoder(vae.to(device)), scheduler)

    count = min(settings.num_validation_images, len(crops))
    shown = crops[torch.linspace(0, len(crops) - 1, count).long().tolist()]
    truth, masks = shown["image"][:, 0] / 2 + 0.5, shown["mask"][:, 0]
    condition = conditioning_image(shown["mask"], shown["brightness"]).to(device)
    side = crops.columns["mask"].shape[-1] // 2 ** (len(vae.config.block_out_channels) - 1)
    shape = (count, unet.config.in_channels, side, side)
    noise = torch.randn(shape, generator=torch_stream(settings.seed, "preview")).to(device)
    at_once = micro_batch(bytes_of_a_crop(vae, condition[0, 0].numel()), device, on_cpu=count, on_gpu=count)

    def drawn(start: int) -> torch.Tensor:
        part = slice(start, start + at_once)
        batch = {"condition": condition[part]}
        return decode_latents(vae, denoise(network, scheduler, noise[part], batch, settings.num_inference_steps)).cpu()

    update = Update(loss=loss, identity={"prediction_type": scheduler.config.prediction_type})
    for step in training_loop([update], crops, settings, accelerator):
        if step.preview and accelerator.is_main_process:
            images = torch.cat([drawn(start) for start in range(0, count, at_once)])
            draw_preview(torch.stack([truth, images, masks], 1).flatten(0, 1).numpy(), settings, step, columns=24)
    if accelerator.is_main_process:
        statistics, inside = crops.statistics[0], masks.numpy() > 0
        grain = measure_grain(vae, crops)
        pipeline = TexturePipeline(
            vae.to("cpu"),
            unet.to("cpu"),
            controlnet.to("cpu"),
            prompt=prompt.to("cpu"),
            **drawing,
            pixel_size_um=crops.pixel_size_um,
            window=statistics.to_dict()["window"],
            grain=asdict(grain),
        )
        statistics.save(settings.output_dir)
        metrics = {
            "IoU of Otsu's segmentation with the mask, generated crops": otsu_alignment(images.numpy(), inside).mean(),
            "the same, real crops": otsu_alignment(shown["image"][:, 0].numpy(), inside).mean(),
        }
        title, base = "Texture of cells (ControlNet)", settings.base_model
        save_stage(pipeline, settings, step, title=title, data=crops.statistics, base_model=base, metrics=metrics)
    accelerator.end_training()


if __name__ == "__main__":
    run(main)
