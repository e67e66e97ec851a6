"""DDPM from sketches: whole annotated scenes, painted from rough drawings of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from diffusers.utils import BaseOutput

from cascade.annotation import Annotation, Sample
from cascade.diffusion.arguments import check_count, check_generator
from cascade.diffusion.painting import PaintingSettings, Solver
from cascade.diffusion.partial import blurred, denoise_from, timesteps, towards
from cascade.diffusion.pixel_shuffle_unet import PixelShuffleUNet
from cascade.diffusion.tiles import PAINTING, check_tiles, count_tiles, in_tiles
from cascade.hub.stages import HubStage
from cascade.memory import micro_batch
from cascade.optics.camera import digitise
from cascade.optics.vary import Microscope, draw_microscope, widest
from cascade.optics.window import Window, check_window
from cascade.pipelines.painter import check_spacing
from cascade.rng import seed_from, torch_stream
from cascade.sketch.channels import draw_channels, of_record
from cascade.sketch.settings import SketchSettings

Array = npt.NDArray[Any]

_TILE = {2: (1024, 1024), 3: (64, 256, 256)}  # pixels: 0.4 GB of float32 for the embedded networks


@dataclass
class SketchOutput(BaseOutput):
    """samples: one for each annotation, with its image in the data set's dtype; empty where sketches were given.

    images: float32 in camera units, as large as the sketches. sketches: what they were painted from, camera units.
    """

    samples: list[Sample]
    images: list[Array]
    sketches: list[Array]


class SketchPipeline(HubStage, DiffusionPipeline):
    """Paints annotations of whole scenes without having seen one: trained on raw images alone (DDPM from sketches,
    journal, Fig. 1).

    Args:
        unet: of one image channel or several, 2D or 3D.
        scheduler: the noise schedule.
        spacing_um: voxel size of the images that it was trained on, y x or z y x.
        windows: `low`, `high`, `gamma` of the intensity window, one of each channel.
        dtype: of those images.
        sketch: how sketches are drawn, see `record_of`, fitted to those images; None where no one has fitted any.
        t_start, sigma, num_inference_steps, solver, guidance_um: with which it paints well, see `PaintingSettings`.
    """

    networks: ClassVar = {"unet": PixelShuffleUNet}
    fitted: ClassVar = ("sketch",)
    bar: ClassVar = PAINTING

    def __init__(
        self,
        unet: PixelShuffleUNet,
        scheduler: DDPMScheduler,
        spacing_um: list[float] | None = None,
        windows: list[dict[str, float]] | None = None,
        dtype: str = "uint16",
        sketch: dict[str, Any] | None = None,
        t_start: int = 400,
        sigma: float = 1.0,
        num_inference_steps: int = 16,
        solver: str = "dpm++",
        guidance_um: float = 0.0,
    ):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        PaintingSettings(
            t_start=t_start,
            sigma=sigma,
            num_inference_steps=num_inference_steps,
            solver=cast(Solver, solver),
            guidance_um=guidance_um,
        )
        spacing_um = [float(one) for one in spacing_um or [1.0] * unet.config.dimensions]
        channels = unet.config.in_channels
        windows = windows or [asdict(Window(0.0, 65535.0))] * channels
        if len(windows) != channels:
            raise ValueError(f"{len(windows)} windows for a network of {channels} channels: one for each")
        [Window(**one) for one in windows]  # what cannot be is said now
        if len(spacing_um) != unet.config.dimensions:
            raise ValueError(f"spacing_um has {len(spacing_um)} lengths, the network {unet.config.dimensions} axes")
        self._sketch = sketch
        self.register_to_config(
            spacing_um=spacing_um,
            windows=windows,
            dtype=dtype,
            t_start=t_start,
            sigma=sigma,
            num_inference_steps=num_inference_steps,
            solver=solver,
            guidance_um=guidance_um,
        )

    @property
    def windows(self) -> list[Window]:
        """Camera units to [0, 1] and back, of each channel."""
        return [Window(**one) for one in self.config.windows]

    @property
    def spacing_um(self) -> tuple[float, ...]:
        """Voxel size of what it paints, y x or z y x."""
        return tuple(self.config.spacing_um)

    @property
    def sketch_settings(self) -> tuple[SketchSettings, ...]:
        """How each channel is drawn in sketches; raises ValueError where no one has fitted that."""
        return self._sketched()[0]

    @property
    def cell_channel(self) -> int:
        """Number of the channel, from 1, that shows the cells, see `draw_channels`."""
        return self._sketched()[1]

    def _sketched(self) -> tuple[tuple[SketchSettings, ...], int]:
        if self._sketch is None:
            raise ValueError("this model does not say how sketches are drawn: give settings, as fit_sketch finds them")
        return of_record(self._sketch, self.unet.config.in_channels)

    @torch.inference_mode()
    def __call__(
        self,
        annotations: Annotation | Sequence[Annotation] | None = None,
        *,
        sketches: Array | Sequence[Array] | None = None,
        settings: SketchSettings | None = None,
        generator: torch.Generator | None = None,
        micro_batch_size: int | None = None,
        **painting: Any,
    ) -> SketchOutput:
        """Paint annotations, or sketches (Y, X), (Z, Y, X), with several channels (C, …), in camera units.

        settings: of sketches of one channel, which are drawn of annotations, default the model's. painting: fields of
        `PaintingSettings`, default the model's. micro_batch_size: images of one size that are painted together, default
        as many as memory has room for.

        Image n depends on the generator's seed and on n alone. Raises ValueError for annotations of another dimension
        or voxel size than the model's, sketches that lie beyond its window or hold NaN, t_start outside 1 … T, and more
        steps than t_start.
        """
        check_generator(generator)
        check_count("micro_batch_size", micro_batch_size)
        how = self.painting(**painting)
        seed = seed_from(generator)
        if (annotations is None) == (sketches is None):
            raise ValueError("give either annotations or sketches")
        scenes = [annotations] if isinstance(annotations, Annotation) else list(annotations or [])
        for scene in scenes:
            check_spacing(scene, self.spacing_um)
        if sketches is None:
            own, cell_channel = ([settings], 1) if settings else self._sketched()
            drawn = [draw_channels(scene, own, seed, n, cell_channel) for n, scene in enumerate(scenes)]
            scenes, drawings = [told for told, _ in drawn], [sketch for _, sketch in drawn]
        else:
            drawings = [sketches] if isinstance(sketches, np.ndarray) else list(sketches)
        images = self._painted(drawings, [(seed, n) for n in range(len(drawings))], how, micro_batch_size)
        samples = [
            Sample(digitise(image, self.config.dtype), scene, seed, n)
            for n, (image, scene) in enumerate(zip(images, scenes, strict=False))
        ]
        return SketchOutput(samples=samples, images=images, sketches=drawings)

    @torch.inference_mode()
    def paint(
        self, annotation: Annotation, seed: int, index: int, how: PaintingSettings | None = None, *, vary: float = 0.0
    ) -> Sample:
        """An annotation's sample, which depends on the annotation, seed and index alone. vary: how far microscopes
        differ, see `draw_microscope`."""
        check_spacing(annotation, self.spacing_um)
        settings, cell_channel = self._sketched()
        told, sketch = draw_channels(annotation, settings, seed, index, cell_channel)
        window, dtype = widest(self.windows), self.config.dtype
        drawn = draw_microscope(vary, seed, index, window, dtype, self.spacing_um, noise_is_there=True)
        microscope = drawn or Microscope()
        sketch = microscope.of_sketch(sketch, annotation.labels > 0, self.spacing_um)
        image = self._painted([sketch], [(seed, index)], self.painting(**vars(how or PaintingSettings())), 1)[0]
        image = microscope.of_image(image, self.windows)
        return Sample(digitise(image, dtype), told, seed, index, microscope=microscope.record())

    def painting(self, **given: Any) -> PaintingSettings:
        """Settings of which those that are not given are the model's. Raises ValueError for those that cannot be."""
        asked = PaintingSettings(**given)
        if self.in_few_steps:
            fixed = ("t_start", "num_inference_steps", "solver")
            odd = [name for name in fixed if getattr(asked, name) not in (None, self.config[name])]
            if odd:
                usual = f"{odd[0]} {self.config[odd[0]]}"
                raise ValueError(f"few-step weights paint with {usual} alone: leave {odd[0]} out, or `few_steps`")
        own = {one.name: self.config[one.name] for one in fields(asked) if one.name in self.config}
        if asked.t_start is not None and asked.num_inference_steps is None:  # as near to each other as the model's
            own["num_inference_steps"] = max(round(own["num_inference_steps"] * asked.t_start / own["t_start"]), 1)
        if asked.solver == "ancestral" and asked.num_inference_steps is None:
            own["num_inference_steps"] = asked.t_start or own["t_start"]
        whole = replace(asked, **{name: value for name, value in own.items() if getattr(asked, name) is None})
        assert whole.t_start and whole.num_inference_steps  # noqa: PT018
        timesteps(whole.t_start, whole.num_inference_steps, self.scheduler.config.num_train_timesteps)
        if whole.tile_size:
            overlap = self._overlap(whole, whole.tile_size)
            check_tiles(self.unet.config.dimensions, whole.tile_size, overlap, self.unet.factor)
        return whole

    def _painted(
        self, sketches: list[Array], seeds: list[tuple[int, int]], how: PaintingSettings, at_once: int | None
    ) -> list[Array]:
        """Images in camera units, (C, …) or without channels as the sketches are; those of one size together."""
        inputs = [self._stretched(sketch) for sketch in sketches]
        images: list[Array | None] = [None] * len(inputs)
        for shape in dict.fromkeys(one.shape for one in inputs):
            alike = [n for n, one in enumerate(inputs) if one.shape == shape]
            most = at_once or micro_batch(_bytes_of(self.unet, self._tile(how, shape[1:])), self.device, 8, 64)
            for start in range(0, len(alike), most):
                part = alike[start : start + most]
                made = self._denoised(torch.stack([inputs[n] for n in part]), [seeds[n] for n in part], how)
                for n, image in zip(part, made, strict=True):
                    whole = np.stack([w.restore(0.5 + 0.5 * c) for w, c in zip(self.windows, image, strict=True)])
                    images[n] = whole if sketches[n].ndim == whole.ndim else whole[0]
        return cast("list[Array]", images)

    def _stretched(self, sketch: Array) -> torch.Tensor:
        """A sketch as the network sees it, (C, …) float32 in [−1, 1]."""
        axes, channels = self.unet.config.dimensions, self.unet.config.in_channels
        given = sketch[None] if sketch.ndim == axes else sketch
        if given.ndim != axes + 1 or len(given) != channels:
            raise ValueError(
                f"a sketch for this model has {axes} axes"
                + f" and {channels} channels before them" * (channels > 1)
                + f", got one of shape {sketch.shape}"
            )
        if not np.isfinite(given).all():
            raise ValueError("the sketch holds values that are no intensities (NaN or infinite)")
        for window, one in zip(self.windows, given, strict=True):
            check_window(one, window)
        stretched = [2 * window.stretch(one) - 1 for window, one in zip(self.windows, given, strict=True)]
        return torch.from_numpy(np.stack(stretched).astype(np.float32))

    def _denoised(self, inputs: torch.Tensor, seeds: list[tuple[int, int]], how: PaintingSettings) -> Array:
        """(B, C, …) in [−1, 1], each with the noise of its own seed and number."""
        assert how.t_start and how.num_inference_steps and how.solver  # noqa: PT018
        assert how.sigma is not None
        sketch = blurred(inputs.to(self.device, self.unet.dtype), how.sigma)
        fields_of_noise = [torch_stream(seed, "noise of sketch", number) for seed, number in seeds]

        def noise() -> torch.Tensor:
            drawn = [torch.randn(inputs.shape[1:], generator=one) for one in fields_of_noise]
            return torch.stack(drawn).to(sketch.device, sketch.dtype)

        tile = self._tile(how, tuple(inputs.shape[2:]))
        overlap = self._overlap(how, tile)
        tiles = count_tiles(inputs.shape[2:], tile, overlap, self.unet.factor)
        bar = self.progress_bar(total=how.num_inference_steps * tiles)

        def predict(sample: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            align, each = self.unet.factor, bar.update
            return in_tiles(lambda part: self.unet(part, t).sample, sample, tile, overlap, align=align, each=each)

        guidance = (how.guidance_um or 0.0) / self.spacing_um[-1]
        adjust = towards(sketch, guidance) if guidance else None
        made = denoise_from(
            predict,
            self.scheduler,
            sketch,
            noise(),
            how.t_start,
            how.num_inference_steps,
            solver=how.solver,
            adjust=adjust,
            generator=noise,
        )
        bar.close()
        return cast(Array, made.float().clamp(-1, 1).cpu().numpy())

    def _tile(self, how: PaintingSettings, size: tuple[int, ...]) -> tuple[int, ...]:
        """Pixels of a tile, as large as the image where that is small."""
        factor = self.unet.factor
        if how.tile_size:
            return how.tile_size
        return tuple(min(most, -(-n // factor) * factor) for most, n in zip(_TILE[len(size)], size, strict=True))

    def _overlap(self, how: PaintingSettings, tile: tuple[int, ...]) -> int:
        """Pixels that tiles share."""
        usual: int = min(self.unet.reach, *(one // 2 for one in tile))
        return usual if how.tile_overlap is None else how.tile_overlap


def _bytes_of(unet: PixelShuffleUNet, tile: tuple[int, ...]) -> float:
    """About what the network holds of a tile: eight maps of its first level."""
    return 32.0 * unet.config.block_out_channels[0] * float(np.prod(tile)) / unet.config.stem ** len(tile)
