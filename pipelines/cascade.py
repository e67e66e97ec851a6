"""The whole cascade: sparse annotations' models in, densely annotated images out."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from tqdm.auto import tqdm

from cascade.geometry.grid import SignedDistance
from cascade.hub import folders as hub
from cascade.hub.cards import write_cascade_card
from cascade.hub.statistics import saved_statistics
from cascade.memory import micro_batch
from cascade.multiview.outlines import diameters_um, heights_um, silhouettes_of_slices
from cascade.neus.fit import fit_views
from cascade.neus.settings import NeuSSettings
from cascade.optics.statistics import Statistics
from cascade.pipelines.mask_ddpm import MaskDDPMPipeline
from cascade.pipelines.multiview import MultiviewPipeline
from cascade.pipelines.texture import MIN_ALIGNMENT, TexturePipeline
from cascade.population.bank import draw_uses, used
from cascade.population.cells import Slices, plane_slices, slice_light, solid_slices, solids_um, textured_cell
from cascade.population.compositing import Cell
from cascade.population.picture import Sample, take_picture
from cascade.population.scene import draw_light, plan_scene
from cascade.rng import seed_from, stream, torch_stream
from cascade.shapes.ellipsoid import ellipsoid_of_outline
from cascade.shapes.harmonic_solids import harmonic_solids

log = logging.getLogger(__name__)

SHAPES = ("multiview", "harmonics", "ellipsoids")
_BYTES_OF_A_FIT = {"grid": 16e6, "mlp": 2e9}  # a cell's share of the memory of a NeuS fit, measured


@dataclass
class CascadeOutput(BaseOutput):
    """images, labels: one array (Y, X) or (Z, Y, X) per sample. samples: the same with everything known about them."""

    images: list[np.ndarray]
    labels: list[np.ndarray]
    samples: list[Sample]

    def save(self, output_dir: str | Path, format: str | tuple[str, ...] = "ctc") -> Path:
        """Write all samples as a data set with a preview; formats: see `cascade.export.formats`."""
        from cascade.export.save import save_samples

        return save_samples(self.samples, output_dir, (format,) if isinstance(format, str) else tuple(format))


class CascadePipeline(DiffusionPipeline):
    """Outlines → [views → solids → slices] → texture → population; 2D data sets skip the bracket.

    Args:
        mask, texture: the stages' pipelines.
        multiview: for 3D data sets.
        statistics: of the real data set, see `cascade.data.statistics.Statistics`, as a dict.
    """

    _optional_components = ["multiview"]  # noqa: RUF012 - as diffusers declares it

    def __init__(
        self,
        mask: MaskDDPMPipeline,
        texture: TexturePipeline,
        statistics: dict | None = None,  # a default, or diffusers takes it for a component
        multiview: MultiviewPipeline | None = None,
    ):
        super().__init__()
        if statistics is None:
            raise ValueError("a cascade needs statistics=…: Statistics.load(crops).to_dict()")
        self.register_modules(mask=mask, multiview=multiview, texture=texture)
        self.register_to_config(statistics=statistics)
        if self.statistics.ndim == 3 and multiview is None:
            raise ValueError(
                "a 3D data set needs the multiview stage: pass multiview=MultiviewPipeline.from_pretrained(…)"
            )

    @property
    def statistics(self) -> Statistics:
        """What was fitted to the real data set."""
        return Statistics.from_dict(self.config.statistics)

    @property
    def stages(self) -> list[DiffusionPipeline]:
        """Mask, multiview where there is one, texture."""
        return [stage for stage in (self.mask, self.multiview, self.texture) if stage is not None]

    @property
    def device(self) -> torch.device:
        """Where the stages are."""
        return self.texture.device

    def to(self, *args, **kwargs) -> "CascadePipeline":
        """Move every stage; diffusers' own `to` does not reach nested pipelines."""
        for stage in self.stages:
            stage.to(*args, **kwargs)
        return self

    def set_progress_bar_config(self, **kwargs) -> None:
        """Of the whole and of every stage."""
        super().set_progress_bar_config(**kwargs)
        for stage in self.stages:
            stage.set_progress_bar_config(**kwargs)

    @classmethod
    def from_pretrained(
        cls,
        path_or_repo_id,
        revision: str | None = None,
        token: str | None = None,
        dtype: torch.dtype = torch.float32,
        **kwargs,
    ) -> "CascadePipeline":
        """Load a saved cascade, "nuclei2d", "nuclei3d", or a folder that the scripts filled (mask/, texture/, …).

        A 3D folder without its own multiview/ takes the embedded one, which was trained on harmonic shapes and fits
        any data set. Keyword arguments `mask`, `multiview`, `texture` replace stages. Raises `hub.ModelError` if a
        stage is missing or pickled.
        """
        folder = hub.model_folder(path_or_repo_id, revision, token)
        dtype = kwargs.pop("torch_dtype", dtype)  # as diffusers called it until 0.42
        needed = [name for name in ("mask", "texture") if name not in kwargs]
        hub.check_components(folder, cls.__name__, dict.fromkeys(needed, "model_index.json"))
        statistics = saved_statistics(folder)
        if len(statistics["spacing_um"]) == 3 and "multiview" not in kwargs:
            source = folder / "multiview"
            if not (source / "model_index.json").is_file():
                if (folder / "model_index.json").is_file():
                    raise hub.ModelError(f"{folder}: multiview/ is missing; copy it there, or pass multiview=…")
                from cascade.hub.embedded import embedded

                source = embedded("nuclei3d") / "multiview"
                log.info("%s has no multiview stage of its own: using the embedded one", folder)
            kwargs["multiview"] = MultiviewPipeline.from_pretrained(source, dtype=dtype)
        for name, stage in (("mask", MaskDDPMPipeline), ("texture", TexturePipeline)):
            if name not in kwargs:
                kwargs[name] = stage.from_pretrained(folder / name, dtype=dtype)
        pipeline = cls(statistics=statistics, **kwargs)
        pipeline.register_to_config(_name_or_path=str(folder))
        return pipeline

    def save_pretrained(self, save_directory, **kwargs) -> None:
        """Write all stages, each loadable on its own, and a card that says what they were made from."""
        super().save_pretrained(save_directory, **kwargs)
        write_cascade_card(Path(save_directory), self.statistics)

    def push_to_hub(self, repo_id: str, private: bool | None = None, token: str | None = None) -> str:
        """Upload the whole cascade with its card; returns the commit's address."""
        return hub.push(self, repo_id, private, token)

    def __call__(
        self,
        num_images: int = 1,
        canvas_size: tuple[int, ...] | None = None,
        cells_per_image: int | None = None,
        clustering_probability: float | None = None,
        rho: float = 0.7,
        num_inference_steps: int = 20,
        generator: torch.Generator | None = None,
        micro_batch_size: int | None = None,
        neus: NeuSSettings | None = None,
        region: np.ndarray | None = None,
        max_overlap: float = 0.0,
        correlation_length_um: float | None = None,
        min_alignment: float = MIN_ALIGNMENT,
        bank: list[Cell] | None = None,
        reading: str = "silhouette",
        shapes: str = "multiview",
    ) -> CascadeOutput:
        """Generate annotated images.

        Args:
            num_images: how many.
            canvas_size: (Y, X) or (Z, Y, X) voxels, default the real images'.
            cells_per_image: default drawn from the real images' numbers, scaled to the canvas.
            clustering_probability: p of the population synthesis, default fitted to the real images.
            rho: strength of the texture that a cell's slices share (Eq. 2).
            num_inference_steps: DDIM steps of outlines and texture.
            generator: one seed is drawn from it; image n depends on that seed and n alone.
            micro_batch_size: outlines, cells or slices per network call; default by the free memory.
            neus: how solids are fitted.
            region: where cell centres may lie, an array as large as the canvas; default where the real cells lie.
            max_overlap: share of a cell that may lie on others, see `cascade.population.place`.
            correlation_length_um: instead of `rho`, texture whose correlation falls off along z with this length.
            min_alignment: IoU with its mask that a textured cell must reach (`otsu_alignment`), or it is drawn again.
            bank: cells to use again and again, turned, instead of making new ones for every image: those of `cells`.
            reading: what an outline says of a solid, in 3D. "silhouette": all of it seen along z, as in the paper;
                "section": where a plane cut it, at a height drawn at random, so that most cells are larger.
            shapes: where solids come from, in 3D. "multiview": imagined views and NeuS; "harmonics": random harmonic
                solids of the outlines' areas; "ellipsoids": those with the outlines' areas and second moments. The
                last two are what the first is compared with, and take no time.

        Raises ValueError for arguments that do not fit the data set.
        """
        samples = list(
            self.generate(
                seed_from(generator),
                range(num_images),
                canvas_size=canvas_size,
                cells_per_image=cells_per_image,
                clustering_probability=clustering_probability,
                rho=rho,
                num_inference_steps=num_inference_steps,
                micro_batch_size=micro_batch_size,
                neus=neus,
                region=region,
                max_overlap=max_overlap,
                correlation_length_um=correlation_length_um,
                min_alignment=min_alignment,
                bank=bank,
                reading=reading,
                shapes=shapes,
            )
        )
        return CascadeOutput([s.image for s in samples], [s.labels for s in samples], samples)

    def generate(
        self,
        seed: int,
        indices: Iterable[int],
        canvas_size: tuple[int, ...] | None = None,
        cells_per_image: int | None = None,
        clustering_probability: float | None = None,
        region: np.ndarray | None = None,
        max_overlap: float = 0.0,
        bank: list[Cell] | None = None,
        **options,
    ) -> Iterator[Sample]:
        """The same one by one, for data sets larger than memory; `indices` are the images' numbers under `seed`."""
        bar = tqdm(indices, desc="images", unit="image", **getattr(self, "_progress_bar_config", {}))
        statistics = self.statistics
        for index in bar:
            wanted = (canvas_size, cells_per_image, clustering_probability, region, max_overlap)
            scene = plan_scene(statistics, seed, index, *wanted)
            if bank is None:
                cells, counts = self.cells(scene.cells, seed, index, scene.like, tell=bar.set_postfix_str, **options)
            else:
                level, counts = statistics.background.level, {}
                cells = [used(bank, use, level) for use in draw_uses(bank, scene, statistics, seed, index)]
            bar.set_postfix_str("population")
            sample = take_picture(cells, scene, statistics, seed, index, counts)
            if bank is None and len(cells) < 0.8 * scene.cells:
                log.warning(
                    "image %d: %d of %d cells could not be made: %s",
                    index,
                    scene.cells - len(cells),
                    scene.cells,
                    ", ".join(f"{number} {what}" for what, number in counts.items() if number),
                )
            if sample.counts["cells without room"]:
                log.warning(
                    "image %d: %d of %d cells found no room on a canvas of %s; enlarge canvas_size or ask for fewer",
                    index,
                    sample.counts["cells without room"],
                    scene.cells,
                    "×".join(map(str, scene.canvas)),
                )
            yield sample

    def cells(
        self,
        count: int,
        seed: int,
        index: int = 0,
        like: int | None = None,
        rho: float = 0.7,
        num_inference_steps: int = 20,
        micro_batch_size: int | None = None,
        neus: NeuSSettings | None = None,
        correlation_length_um: float | None = None,
        min_alignment: float = MIN_ALIGNMENT,
        reading: str = "silhouette",
        shapes: str = "multiview",
        tell: Callable[[str], None] = lambda stage: None,
    ) -> tuple[list[Cell], dict[str, int]]:
        """Textured cells, not yet placed, as bright as those of real image `like` (None: of all); what was drawn again.

        Left out and counted are a cell whose solid could not be fitted, four times over, and one whose texture did
        not show its mask, three times over. `tell` is called with the name of each stage. Raises RuntimeError if that
        is true of all of them, and they are more than a few.
        """
        if reading not in ("silhouette", "section"):
            raise ValueError(f'reading must be "silhouette" or "section", got {reading!r}')
        if shapes not in SHAPES:
            raise ValueError(f"shapes must be one of {', '.join(SHAPES)}, got {shapes!r}")
        tell(f"{count} cells: outlines")
        masks, counts = self._outlines(count, seed, index, num_inference_steps, micro_batch_size)
        pixel_um = self.texture.config.pixel_size_um
        solids: list[SignedDistance | None] = [None] * count
        residual = np.zeros(count)
        if self.statistics.ndim == 2:
            slices = [plane_slices(mask, pixel_um, self.statistics.spacing_um) for mask in masks]
        else:
            axial = self.statistics.axial
            cut = np.full(count, np.sqrt(1 - axial.section**2))  # outlines are from the middle half of cells
            if reading == "section":
                cut = stream(seed, "sections", index).uniform(-1, 1, count)
            masks = silhouettes_of_slices(masks, cut)
            mean, spread = axial.elongation
            drawn = stream(seed, "elongation", index).normal(1, spread / mean, count)
            elongation = axial.elongations(diameters_um(masks, pixel_um)) * np.clip(drawn, 0.5, 1.5)
            if shapes == "multiview":
                given = (masks, elongation, seed, index, neus, micro_batch_size, tell)
                solids, heights, residual, failed = self._solids(*given)
                counts |= {"solids drawn again": sum(failed[:-1]), "solids rejected": failed[-1]}
            elif shapes == "harmonics":
                area = masks.sum((1, 2)) * pixel_um**2
                solids, heights = harmonic_solids(area, elongation, torch_stream(seed, "harmonics", index))
            else:
                solids = [ellipsoid_of_outline(m, pixel_um, e) for m, e in zip(masks, elongation, strict=True)]
                heights = heights_um(masks, pixel_um, elongation)
            kept = [n for n in range(count) if solids[n] is not None]
            masks, solids, residual = masks[kept], [solids[n] for n in kept], residual[kept]
            size, spacing = self.mask.config.crop_size, self.statistics.spacing_um
            tall = zip(solids, heights[kept], strict=True)
            slices = [solid_slices(solid, height, size, pixel_um, spacing) for solid, height in tall]
        tell(f"{count} cells: texture")
        light = draw_light(self.statistics, masks.sum((1, 2)) * pixel_um**2, like, stream(seed, "light", index))
        infos = [
            {"outline": mask, "outline_pixel_um": pixel_um}
            | ({} if solid is None else {"solid": solid, "residual": float(value)})
            for mask, solid, value in zip(masks, solids, residual, strict=True)
        ]
        options = dict(rho=rho, num_inference_steps=num_inference_steps, micro_batch_size=micro_batch_size)
        options["correlation_length_um"] = correlation_length_um
        return self._texture(slices, light, infos, seed, index, counts, min_alignment, **options), counts

    def _outlines(self, count: int, seed: int, index: int, steps: int, micro_batch_size: int | None):
        drawn = self.mask(
            count,
            num_inference_steps=steps,
            generator=torch_stream(seed, "outlines", index),
            micro_batch_size=micro_batch_size,
        )
        pixel_um = self.texture.config.pixel_size_um
        if not np.isclose(drawn.pixel_size_um, pixel_um, rtol=1e-3):
            raise ValueError(
                f"the mask stage draws at {drawn.pixel_size_um:g} µm per pixel, the texture stage was trained at "
                f"{pixel_um:g}: train both on the same crops"
            )
        return drawn.masks, {"outlines drawn again": drawn.rejected}

    def _solids(
        self, masks: np.ndarray, elongation: np.ndarray, seed: int, index: int, neus: NeuSSettings | None, batch, tell
    ):
        """Solids in µm (None where none could be fitted), bounds on their heights, residuals, and failures by round."""
        count, pixel_um = len(masks), self.texture.config.pixel_size_um
        solids: list[SignedDistance | None] = [None] * count
        residual, missing = np.full(count, np.nan), np.arange(count)
        failed: list[int] = []
        for attempt in range(4):
            tell(f"{count} cells: views")
            stream_of_views = torch_stream(seed, "views", index, attempt)
            seen = self.multiview(masks[missing], pixel_um, generator=stream_of_views, micro_batch_size=batch)
            tell(f"{count} cells: solids")
            views, cameras, certain = seen.constraints()
            at_once = micro_batch(_BYTES_OF_A_FIT[(neus or NeuSSettings()).field], views.device, on_cpu=32, on_gpu=512)
            for start in range(0, len(missing), at_once):
                part = slice(start, start + at_once)
                rays = torch_stream(seed, "rays", index, attempt, start, device=views.device)
                fit = fit_views(views[part], cameras, neus, generator=rays, weights=certain, truncation=seen.truncation)
                fitted = solids_um(fit, seen.unit_um[part], elongation[missing[part]])
                for cell, solid, good, error in zip(missing[part], fitted, fit.converged, fit.residual, strict=True):
                    if good:
                        solids[cell], residual[cell] = solid, float(error.mean())
            missing = np.array([n for n in missing if solids[n] is None], int)
            failed.append(len(missing))
            if not len(missing):
                break
        if len(missing) == count >= 4:
            raise RuntimeError("no solid could be fitted to the predicted views: the multiview stage is not trained")
        return solids, heights_um(masks, pixel_um, elongation), residual, failed

    def _texture(
        self, slices: list[Slices], light: np.ndarray, infos: list[dict], seed, index, counts, minimum, **options
    ):
        """Cells with texture; one whose texture does not show its mask is drawn again twice, then left out."""
        if not slices:
            return []
        statistics, window = self.statistics, self.texture.window
        level, pixel_um = statistics.background.level, self.texture.config.pixel_size_um
        lights = [slice_light(s, value, statistics.axial) for s, value in zip(slices, light, strict=True)]
        owners = np.concatenate([np.full(len(s.masks), n) for n, s in enumerate(slices)])
        masks = np.concatenate([s.masks & s.in_focus[:, None, None] for s in slices])
        wanted = window.stretch(level + np.concatenate(lights))
        heights = statistics.spacing_um[0] * np.concatenate([np.arange(len(s.masks)) for s in slices])
        drawn = self.texture.draw_aligned(
            masks,
            wanted,
            owners,
            min_alignment=minimum,
            generator=torch_stream(seed, "texture", index),
            heights_um=heights,
            **options,
        )
        score = drawn.alignment
        counts |= {"textures drawn again": sum(drawn.failed[:-1]), "textures rejected": drawn.failed[-1]}
        counts["smaller than a voxel"] = sum(not one.voxels.any() for one in slices)
        if drawn.failed[-1] == len(slices) >= 8:
            raise RuntimeError(
                "no texture shows its mask: the texture stage is not trained enough (cascade generate --min_alignment "
                "0 takes them as they are)"
            )
        return [
            textured_cell(
                one,
                drawn.images[owners == n],
                lights[n],
                window,
                level,
                statistics.halo,
                pixel_um,
                statistics.spacing_um,
                infos[n] | {"brightness": float(level + light[n]), "alignment": float(score[n])},
            )
            for n, one in enumerate(slices)
            if score[n] >= minimum and one.voxels.any()
        ]
