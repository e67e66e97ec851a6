"""Conditional GAN: whole annotated volumes, painted in one network call, with position and quality under control."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput

from cascade.annotation import Annotation, Sample
from cascade.diffusion.arguments import check_count, check_generator
from cascade.diffusion.pixel_shuffle_unet import PixelShuffleUNet
from cascade.diffusion.tiles import PAINTING, check_tiles, count_tiles, in_tiles
from cascade.gan.condition import Condition, condition_of, position_of
from cascade.gan.networks import painted
from cascade.gan.painting import ALPHA, BETA, QualitySettings, check_scalings
from cascade.hub import folders as hub
from cascade.hub.stages import HubStage
from cascade.memory import micro_batch
from cascade.optics.camera import digitise
from cascade.optics.window import Window
from cascade.pipelines.painter import check_spacing
from cascade.rng import seed_from, stream, torch_stream
from cascade.sketch.draw import asked
from cascade.sketch.settings import SketchSettings

Array = npt.NDArray[Any]

_TILE = {2: (1024, 1024), 3: (64, 256, 256)}  # pixels: 0.4 GB of float32 for the embedded networks


@dataclass
class GANOutput(BaseOutput):
    """samples: one for each annotation, with its image in the data set's dtype. images: the same, float32 in camera
    units."""

    samples: list[Sample]
    images: list[Array]


class ConditionalGANPipeline(HubStage, DiffusionPipeline):
    """Paints annotations with a generator that is told where in the specimen each voxel lies (3D fluorescence
    microscopy data synthesis for segmentation and benchmarking, Eschweiler et al., 2021, Fig. 1).

    Args:
        generator: a pixel-shuffle U-Net without time, 2D or 3D; its channels are an annotation, its positions, and
            noise, the last two if it is told them; what it makes, see `painted`.
        spacing_um: voxel size of the images that it was trained on, y x or z y x.
        window: `low`, `high`, `gamma` of the intensity window.
        dtype: of those images.
        sketch: fields of `SketchSettings`, fitted to those images: whether cells or membranes are shown to it, and how.
        condition: "binary" or "sketch", see `condition_of`.
        alpha, beta: of f_pos (Eq. 1), in voxels, with which it was trained.
        position, noise: whether the generator is told f_pos, and given noise.
    """

    networks: ClassVar = {"generator": PixelShuffleUNet}
    fitted: ClassVar = ("sketch",)
    bar: ClassVar = PAINTING
    scheduled: ClassVar[bool] = False

    def __init__(
        self,
        generator: PixelShuffleUNet,
        spacing_um: list[float] | None = None,
        window: dict[str, float] | None = None,
        dtype: str = "uint16",
        sketch: dict[str, Any] | None = None,
        condition: str = "binary",
        alpha: float = ALPHA,
        beta: float = BETA,
        position: bool = True,
        noise: bool = True,
    ):
        super().__init__()
        self.register_modules(generator=generator)
        check_scalings(alpha, beta)
        spacing_um = [float(one) for one in spacing_um or [1.0] * generator.config.dimensions]
        if len(spacing_um) != generator.config.dimensions:
            raise ValueError(
                f"spacing_um has {len(spacing_um)} lengths, the generator {generator.config.dimensions} axes"
            )
        told = 1 + position + noise
        if generator.config.in_channels != told:
            raise ValueError(f"a generator of {generator.config.in_channels} channels, which is told {told} of them")
        if condition not in ("binary", "sketch"):
            raise ValueError(f"condition must be binary or sketch, got {condition!r}")
        window = window or asdict(Window(0.0, 65535.0))
        Window(**window)  # what cannot be is said now
        self._sketch = sketch or SketchSettings().record()
        self.register_to_config(
            spacing_um=spacing_um,
            window=window,
            dtype=dtype,
            condition=condition,
            alpha=float(alpha),
            beta=float(beta),
            position=position,
            noise=noise,
        )

    @classmethod
    def from_pretrained(
        cls, path_or_repo_id: str | Path, revision: str | None = None, token: str | None = None, **options: Any
    ) -> Self:
        """Load from a folder or a Hub repository, see `HubStage.from_pretrained`.

        Raises `hub.ModelError` for a folder whose discriminator, which only training needs, is of other dimensions than
        its generator, too.
        """
        folder = hub.model_folder(path_or_repo_id, revision, token)
        stage = super().from_pretrained(folder, **options)
        judge = folder / "discriminator" / "config.json"
        if judge.is_file():
            axes, own = hub.read_json(judge).get("dimensions"), stage.generator.config.dimensions
            if axes != own:
                raise hub.ModelError(f"{judge.parents[1]}: a discriminator of {axes}D images beside a {own}D generator")
        return stage

    @property
    def window(self) -> Window:
        """Camera units to [0, 1] and back."""
        return Window(**self.config.window)

    @property
    def spacing_um(self) -> tuple[float, ...]:
        """Voxel size of what it paints, y x or z y x."""
        return tuple(self.config.spacing_um)

    @property
    def sketch_settings(self) -> SketchSettings:
        """How annotations are shown to the generator."""
        return SketchSettings(**self._sketch)

    @torch.inference_mode()
    def __call__(
        self,
        annotations: Annotation | Sequence[Annotation],
        alpha: float | None = None,
        beta: float | None = None,
        *,
        generator: torch.Generator | None = None,
        micro_batch_size: int | None = None,
        **tiles: Any,
    ) -> GANOutput:
        """Paint annotations.

        alpha, beta, tiles: fields of `QualitySettings`, default the model's. micro_batch_size: images of one size that
        are painted together, default as many as memory has room for. Image n depends on the generator's seed and on n
        alone. Raises ValueError for annotations of another dimension or voxel size than the model's, and for α or β
        where an annotation has no foreground.
        """
        check_generator(generator)
        check_count("micro_batch_size", micro_batch_size)
        how = self.painting(alpha=alpha, beta=beta, **tiles)
        seed = seed_from(generator)
        scenes = [annotations] if isinstance(annotations, Annotation) else list(annotations)
        told = [self._told(scene, seed, n, how) for n, scene in enumerate(scenes)]
        images = self._painted([one for one, _ in told], how, micro_batch_size)
        samples = [
            Sample(digitise(image, self.config.dtype), scene, seed, n)
            for n, (image, (_, scene)) in enumerate(zip(images, told, strict=True))
        ]
        return GANOutput(samples=samples, images=images)

    @torch.inference_mode()
    def paint(self, annotation: Annotation, seed: int, index: int, how: QualitySettings | None = None) -> Sample:
        """An annotation's sample, which depends on the annotation, seed and index alone."""
        whole = self.painting(**vars(how or QualitySettings()))
        told, annotation = self._told(annotation, seed, index, whole)
        image = self._painted([told], whole, 1)[0]
        return Sample(digitise(image, self.config.dtype), annotation, seed, index)

    def painting(self, **given: Any) -> QualitySettings:
        """Settings of a painting. Raises ValueError for those that cannot be."""
        how = QualitySettings(**given)
        if how.tile_size:
            check_tiles(
                self.generator.config.dimensions,
                how.tile_size,
                self._overlap(how, how.tile_size),
                self.generator.factor,
            )
        return how

    def check(self, annotation: Annotation) -> None:
        """Raises ValueError for an annotation of another dimension or voxel size than the model's images."""
        check_spacing(annotation, self.spacing_um)

    def _told(
        self, annotation: Annotation, seed: int, index: int, how: QualitySettings
    ) -> tuple[torch.Tensor, Annotation]:
        """What the generator is told of an annotation, (C, *size) in [−1, 1], and the annotation with what was asked of
        its cells."""
        self.check(annotation)
        settings, kind = self.sketch_settings, cast(Condition, self.config.condition)
        rng = stream(seed, "sketch", index)
        channels: list[Array] = [condition_of(annotation, kind, settings, self.window, rng)]
        if self.config.position:
            alpha, beta = how.alpha or self.config.alpha, how.beta or self.config.beta
            told = how.alpha is not None or how.beta is not None
            channels.append(position_of(annotation, alpha, beta, asked=told))
        elif how.alpha is not None or how.beta is not None:
            raise ValueError(
                "this model is not told where voxels lie: alpha and beta mean nothing to it, leave them out"
            )
        inputs = [torch.from_numpy(channel) for channel in channels]
        if self.config.noise:
            inputs.append(torch.randn(inputs[0].shape, generator=torch_stream(seed, "noise of volume", index)))
        if kind == "sketch":
            annotation = asked(annotation, settings, stream(seed, "sketch", index))
        return torch.stack(inputs), annotation

    def _painted(self, inputs: list[torch.Tensor], how: QualitySettings, at_once: int | None) -> list[Array]:
        """Images in camera units; those of one size together."""
        images: list[Array | None] = [None] * len(inputs)
        for shape in dict.fromkeys(one.shape for one in inputs):
            alike = [n for n, one in enumerate(inputs) if one.shape == shape]
            tile = self._tile(how, tuple(shape[1:]))
            most = at_once or micro_batch(_bytes_of(self.generator, tile), self.device, 8, 64)
            overlap, align = self._overlap(how, tile), self.generator.factor
            for start in range(0, len(alike), most):
                part = alike[start : start + most]
                given = torch.stack([inputs[n] for n in part]).to(self.device, self.generator.dtype)
                with self.progress_bar(total=count_tiles(shape[1:], tile, overlap, align)) as bar:
                    each = bar.update
                    made = in_tiles(self._predict, given, tile, overlap, align=align, crop=how.tile_crop, each=each)
                for n, image in zip(part, made.float().clamp(-1, 1).cpu().numpy(), strict=True):
                    images[n] = self.window.restore(0.5 + 0.5 * image[0])
        return cast("list[Array]", images)

    def _predict(self, part: torch.Tensor) -> torch.Tensor:
        return painted(self.generator, part)

    def _tile(self, how: QualitySettings, size: tuple[int, ...]) -> tuple[int, ...]:
        """Pixels of a tile, as large as the image where that is small."""
        factor = self.generator.factor
        if how.tile_size:
            return how.tile_size
        return tuple(min(most, -(-n // factor) * factor) for most, n in zip(_TILE[len(size)], size, strict=True))

    def _overlap(self, how: QualitySettings, tile: Sequence[int]) -> list[int]:
        """Pixels that tiles share along each axis."""
        usual = self.generator.reach + 1 if how.tile_overlap is None else how.tile_overlap  # one more to be blurred
        return [min(usual + 2 * how.tile_crop, one // 2) if how.tile_overlap is None else usual for one in tile]


def _bytes_of(network: PixelShuffleUNet, tile: Sequence[int]) -> float:
    """About what the network holds of a tile: eight maps of its first level."""
    return 32.0 * network.config.block_out_channels[0] * float(np.prod(tile)) / network.config.stem ** len(tile)
