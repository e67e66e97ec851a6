"""Train a conditional GAN that paints annotations: images, and annotations of them or of others.

accelerate launch training/train_gan.py --config configs/gan_membrane3d.yaml --data IMAGES --output_dir model
"""

if __name__ == "__main__":  # Ctrl-C during the imports below ends in one line, too
    from cascade.entry import end_in_one_line

    end_in_one_line()

import logging
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from cascade.data.conditioned import AnnotatedImages, ConditionedPatches, read_annotated
from cascade.diffusion.pixel_shuffle_unet import PixelShuffleUNet
from cascade.gan.augmentation import AdaptiveAugmentation
from cascade.gan.collapse import Watch
from cascade.gan.discriminator import PatchDiscriminator
from cascade.gan.encoder import ConditionedEncoder
from cascade.gan.losses import DiscriminatorLoss, GeneratorLoss, Objective, generated
from cascade.gan.networks import new_discriminator, new_generator
from cascade.gan.painting import check_scalings
from cascade.hub import folders as hub
from cascade.hub.stages import load_network
from cascade.pipelines.conditional_gan import ConditionalGANPipeline
from cascade.settings import at_least
from cascade.training.finish import draw_preview, origins, save_stage
from cascade.training.loop import Step, training_loop
from cascade.training.script import parse, run
from cascade.training.settings import OptimizerSettings, PainterSettings, check_arguments, check_folders, check_levels
from cascade.training.start import claimed, make_accelerator
from cascade.training.update import Update

log = logging.getLogger(__name__)

_SHOWN = 8  # patches of a preview
_JUDGE = "discriminator"
_OWN = ("dimensions", "in_channels", "out_channels", "timed")  # arguments of the networks that other settings say
Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Settings(PainterSettings):
    """Settings of the conditional GAN."""

    data: str
    """A folder of images, labelled or not, planes or stacks."""
    annotations: str = ""
    """A folder of labels that belong to none of the images, as `cascade simulate` writes them, for one; default those
    of the images themselves, with which they are learnt in pairs: labels beside them, else cells that are found."""
    truth: Literal["gt", "st"] = "gt"
    """The Cell Tracking Challenge's gold or silver truth."""
    structure: Literal["auto", "cells", "membranes"] = "auto"
    """What the images show."""
    condition: Literal["binary", "sketch"] = "binary"
    """What of an annotation is painted: a mask of cells or membranes, as in the paper; or a sketch, in which each cell
    is as bright as it is asked to be."""
    discriminator: dict[str, Any] = field(
        default_factory=lambda: dict(block_out_channels=[32, 64, 128], detail_gain=8.0)
    )
    """Arguments of `PatchDiscriminator`; the paper's levels are 64, 128, 256, 512, 512, and its detail_gain is 0."""
    objective: Objective = "modern"
    """paper: log-likelihood, as in pix2pix; modern: relativistic pairing with R1 and R2 penalties."""
    gradient_penalty: float = 0.05
    """Weight of the penalties of the modern objective. The patches that are judged overlap, which multiplies it."""
    identity_weight: float = 10.0
    """Of the identity loss, in that of the adversarial one; 0 for none."""
    pair_weight: float = 10.0
    """Of the distance to the real image of an annotation, where there are pairs; the paper has none, 0."""
    pair_box_px: int = 4
    """Side of the boxes over which both are averaged before; by single pixels, images without noise are the nearest."""
    position: bool = True
    """Tell both networks where in the specimen voxels lie (f_pos, Eq. 1)."""
    alpha: float = 100.0
    """Of f_pos inside the specimen, in voxels."""
    beta: float = 100.0
    """The same outside."""
    noise: bool = True
    """Give the generator noise, so that it makes of one annotation many images; the paper's is given none."""
    augmentation: bool = True
    """Alter what the discriminator sees, the more the better it knows the real images (ADA)."""
    augmentation_target: float = 0.6
    """E[sign D(real)] that is aimed at."""
    augmentation_step: float = 0.05
    """By which the probability of alterations changes."""
    augmentation_interval: int | None = None
    """Steps between two changes; default an epoch, in which each image is seen once."""
    discriminator_learning_rate: float | None = None
    """Default the generator's."""
    train_batch_size: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_folders(self.output_dir, [self.data, *[self.annotations][: bool(self.annotations)]], self.base_model)
        check_levels(self, "discriminator")
        check_arguments("unet", self.unet, PixelShuffleUNet, own=_OWN)
        check_arguments("discriminator", self.discriminator, PatchDiscriminator, own=_OWN)
        check_scalings(self.alpha, self.beta)
        at_least(self, gradient_penalty=0, identity_weight=0, pair_weight=0, pair_box_px=1, augmentation_interval=1)
        least = 2 ** len(self.discriminator["block_out_channels"])
        if min(self.patch_size) < least:
            raise ValueError(
                f"patch_size must be at least {least} for a discriminator of as many levels, got {self.patch_size}"
            )


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    settings = parse(Settings, __doc__, argv)
    with claimed(settings):
        data = read_annotated(
            settings.data,
            settings.annotations or None,
            truth=settings.truth,
            sequences=settings.sequences,
            spacing_um=settings.spacing_um,
            structure=None if settings.structure == "auto" else settings.structure,
            gamma=settings.gamma,
        )
        patches = ConditionedPatches(
            data,
            settings.patch_size,
            condition=settings.condition,
            position=settings.position,
            alpha=settings.alpha,
            beta=settings.beta,
            seed=settings.seed,
        )
        _train(settings, data, patches)


def _train(settings: Settings, data: AnnotatedImages, patches: ConditionedPatches) -> None:
    accelerator = make_accelerator(settings)
    pipeline, judge = _networks(settings, data)
    each = max(len(data.images) // (settings.train_batch_size * accelerator.num_processes), 1)
    augmentation, watch = None, Watch()
    if settings.augmentation:
        augmentation = AdaptiveAugmentation(
            target=settings.augmentation_target,
            step=settings.augmentation_step,
            interval=(settings.augmentation_interval or each) * settings.gradient_accumulation_steps,
        )
    common = (pipeline.generator, judge, ConditionedEncoder(turns=settings.turns), augmentation)
    fixed: dict[str, str | float] = {"objective": settings.objective, "noise": settings.noise}
    fixed |= {"turns": settings.turns, "augmentation": settings.augmentation}
    made = GeneratorLoss(
        *common,
        objective=settings.objective,
        identity_weight=settings.identity_weight,
        pair_weight=settings.pair_weight * patches.pairs,
        noise=settings.noise,
        pair_box_px=settings.pair_box_px,
    )
    judged = DiscriminatorLoss(
        *common,
        watch,
        objective=settings.objective,
        gradient_penalty=settings.gradient_penalty,
        noise=settings.noise,
    )
    updates = [
        Update(loss=made, network=pipeline.generator, name="generator", identity=fixed),
        Update(loss=judged, network=judge, name=_JUDGE, optimizer=_of_judge(settings)),
    ]
    state = {} if augmentation is None else {"augmentation": augmentation}
    said: set[str] = set()
    for step in training_loop(updates, patches, settings, accelerator, state=state):
        if step.number % settings.logging_steps == 0:
            strength = augmentation.p if augmentation else 0.0
            found = {"accuracy": watch.accuracy, "variance": watch.variance, "augmentation": strength}
            accelerator.log(found, step=step.number)
            _tell(watch, step, said)
        if step.preview and accelerator.is_main_process:
            draw_preview(_preview(pipeline, patches, accelerator.device), settings, step, columns=4)
    if accelerator.is_main_process:
        _finish(settings, data, pipeline.to("cpu"), judge.to("cpu"), step, watch)
    accelerator.end_training()


def _networks(settings: Settings, data: AnnotatedImages) -> tuple[ConditionalGANPipeline, PatchDiscriminator]:
    """The pipeline that is trained, and its discriminator; those of the base model where there is one."""
    torch.manual_seed(settings.seed)
    axes = len(settings.patch_size)
    if settings.base_model:
        base = ConditionalGANPipeline.from_pretrained(settings.base_model)
        folder = hub.model_folder(settings.base_model) / _JUDGE
        told = {name: base.config[name] for name in ("position", "noise", "condition")}
        asked = {name: getattr(settings, name) for name in told}
        if told != asked or base.generator.config.dimensions != axes:
            raise ValueError(f"{settings.base_model} was trained with {told} in {len(base.spacing_um)}D: give the same")
        generator = base.generator
        judge = load_network(PatchDiscriminator, folder) if folder.is_dir() else None
    else:
        generator, judge = new_generator(axes, settings.position, settings.noise, settings.unet), None
    judge = judge or new_discriminator(axes, settings.position, settings.discriminator)
    pipeline = ConditionalGANPipeline(
        generator,
        spacing_um=list(data.spacing_um),
        window=asdict(data.window),
        dtype=str(data.images[0].dtype),
        sketch=data.sketch.record(),
        condition=settings.condition,
        alpha=settings.alpha,
        beta=settings.beta,
        position=settings.position,
        noise=settings.noise,
    )
    return pipeline, judge


def _of_judge(settings: Settings) -> OptimizerSettings:
    """How the discriminator is moved: like the generator, at its own rate."""
    given = {one.name: getattr(settings, one.name) for one in fields(OptimizerSettings)}
    rate = settings.discriminator_learning_rate or settings.learning_rate
    return OptimizerSettings(**given | {"learning_rate": rate})


def _tell(watch: Watch, step: Step, said: set[str]) -> None:
    """Warn of what goes wrong, of each once."""
    for verdict in watch.verdicts():
        if (kind := verdict[:20]) not in said:
            said.add(kind)
            log.warning("step %d: %s", step.number, verdict)


def _preview(pipeline: ConditionalGANPipeline, patches: ConditionedPatches, device: torch.device) -> Array:
    """Rows of an annotation, where it lies, what is painted of it and a real image, its own where there are pairs:
    (N, H, W) in [0, 1], of stacks the middle plane."""
    batch = patches[list(range(_SHOWN))]
    given = {name: values.to(device) for name, values in batch.items()}
    noise = torch.Generator(device).manual_seed(0)
    where = given.get("annotation_position")
    with torch.inference_mode():
        made = generated(pipeline.generator, given["annotation"], where, noise, pipeline.config.noise)
    columns = [given["annotation"], torch.zeros_like(made) if where is None else where, made, given["image"]]
    shown = torch.stack(columns, 1).flatten(0, 1)[:, 0].float().cpu().numpy()
    planes = shown if shown.ndim == 3 else shown[:, shown.shape[1] // 2]
    return np.clip(0.5 + 0.5 * planes, 0, 1)


def _finish(
    settings: Settings,
    data: AnnotatedImages,
    pipeline: ConditionalGANPipeline,
    judge: PatchDiscriminator,
    step: Step,
    watch: Watch,
) -> None:
    """Save the pipeline, and beside it the discriminator, which only training needs."""
    folder = Path(settings.output_dir) / _JUDGE
    judge.save_pretrained(folder)
    hub.forget_paths(folder)
    found = {"accuracy of the discriminator": watch.accuracy, "variance over that of real images": watch.variance}
    save_stage(
        pipeline,
        settings,
        step,
        title="Volumes painted from annotations (conditional GAN)",
        data=origins([settings.data], settings.licence),
        base_model=settings.base_model or None,
        metrics=found if watch.count else {},
    )


if __name__ == "__main__":
    run(main)
