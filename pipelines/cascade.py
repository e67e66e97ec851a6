"""The whole cascade: sparse annotations' models in, densely annotated images out."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from scipy import ndimage
from tqdm.auto import tqdm

from cascade import hub
from cascade.cameras import Cameras, along_z
from cascade.cells import Slices, plane_slices, slice_light, solid_slices, solids_um, textured_cell
from cascade.data.statistics import FILE_NAME, Statistics
from cascade.export.card import write_cascade_card
from cascade.grid import SignedDistance
from cascade.neus.fit import NeuSSettings, fit_views
from cascade.pipelines.mask_ddpm import MaskDDPMPipeline
from cascade.pipelines.multiview import MultiviewPipeline
from cascade.pipelines.texture import TexturePipeline
from cascade.population import UNPLACED, Cell, compose, ellipsoid_region, place
from cascade.rng import seed_from, stream, torch_stream

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """One annotated image. image: uint16 (or the data set's dtype), camera units; labels: uint16, 0 = background."""

    image: np.ndarray
    labels: np.ndarray
    spacing_um: tuple[float, ...]
    cells: list[dict]
    """One record per label, in order: label, centroid_um, area_um2 or volume_um3, brightness, outline (H, W) bool at
    outline_pixel_um; in 3D also the residual of its views, and `solid`, its signed distance around `origin_um`."""
    seed: int
    index: int
    counts: dict[str, int] = field(default_factory=dict)
    """What was drawn again or left out, and how often."""


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
        statistics: dict,
        multiview: MultiviewPipeline | None = None,
    ):
        super().__init__()
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
    def device(self) -> torch.device:
        """Where the stages are."""
        return self.texture.device

    def to(self, *args, **kwargs) -> "CascadePipeline":
        """Move every stage; diffusers' own `to` does not reach nested pipelines."""
        for stage in (self.mask, self.multiview, self.texture):
            if stage is not None:
                stage.to(*args, **kwargs)
        return self

    @classmethod
    def from_pretrained(
        cls,
        path_or_repo_id,
        revision: str | None = None,
        token: str | None = None,
        torch_dtype=torch.float32,
        **kwargs,
    ) -> "CascadePipeline":
        """Load a saved cascade, or a folder that the training scripts filled (mask/, texture/, [multiview/]).

        A 3D folder without its own multiview/ takes the embedded one, which was trained on harmonic shapes and fits
        any data set. Keyword arguments `mask`, `multiview`, `texture` replace stages. Raises `hub.ModelError` if a
        stage is missing or pickled.
        """
        folder = hub.model_folder(path_or_repo_id, revision, token)
        needed = [name for name in ("mask", "texture") if name not in kwargs]
        hub.check_components(folder, cls.__name__, dict.fromkeys(needed, "model_index.json"))
        statistics = _saved_statistics(folder)
        if len(statistics["spacing_um"]) == 3 and "multiview" not in kwargs:
            source = folder / "multiview"
            if not (source / "model_index.json").is_file():
                if (folder / "model_index.json").is_file():
                    raise hub.ModelError(f"{folder}: multiview/ is missing; copy it there, or pass multiview=…")
                from cascade.assets import embedded

                source = embedded("nuclei3d") / "multiview"
                log.info("%s has no multiview stage of its own: using the embedded one", folder)
            kwargs["multiview"] = MultiviewPipeline.from_pretrained(source, torch_dtype=torch_dtype)
        for name, stage in (("mask", MaskDDPMPipeline), ("texture", TexturePipeline)):
            if name not in kwargs:
                kwargs[name] = stage.from_pretrained(folder / name, torch_dtype=torch_dtype)
        pipeline = cls(statistics=statistics, **kwargs)
        pipeline.register_to_config(_name_or_path=str(path_or_repo_id))
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
        micro_batch_size: int = 32,
        neus: NeuSSettings | None = None,
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
            micro_batch_size: slices per network call.
            neus: how solids are fitted.

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
            )
        )
        return CascadeOutput([s.image for s in samples], [s.labels for s in samples], samples)

    def generate(self, seed: int, indices: range, **options) -> Iterator[Sample]:
        """The same one by one, for data sets larger than memory; `indices` are the images' numbers under `seed`."""
        bar = tqdm(indices, desc="images", unit="image", **getattr(self, "_progress_bar_config", {}))
        for index in bar:
            yield self._sample(seed, index, bar, **options)

    def _sample(
        self,
        seed: int,
        index: int,
        bar,
        canvas_size=None,
        cells_per_image=None,
        clustering_probability=None,
        rho: float = 0.7,
        num_inference_steps: int = 20,
        micro_batch_size: int = 32,
        neus: NeuSSettings | None = None,
    ) -> Sample:
        statistics = self.statistics
        canvas = tuple(canvas_size or statistics.image_shape)
        if len(canvas) != statistics.ndim or min(canvas) < 1:
            raise ValueError(f"canvas_size {canvas}: this model makes {statistics.ndim}D images, one size per axis")
        rng = stream(seed, "image", index)
        region, share = _region(statistics, canvas)
        like = int(rng.integers(len(statistics.cells_per_image)))  # a real image, for what goes together in one
        count = cells_per_image or max(round(statistics.cells_per_image[like] * share), 1)
        level = float(rng.choice(statistics.background.levels))

        bar.set_postfix_str(f"{count} cells: outlines")
        shapes = self._shapes(count, seed, index, num_inference_steps, micro_batch_size, neus, rng, bar)
        light = _draw_light(statistics, shapes.area_um2, like, rng)
        bar.set_postfix_str(f"{count} cells: texture")
        cells = self._texture(shapes, light, seed, index, rho, num_inference_steps, micro_batch_size)
        bar.set_postfix_str(f"{count} cells: population")
        p = statistics.clustering_probability if clustering_probability is None else clustering_probability
        order = np.argsort([-cell.mask.sum() for cell in cells], kind="stable")  # large cells find room first
        cells = [cells[n] for n in order]
        corners = place([cell.mask for cell in cells], canvas, p, rng, region)
        unplaced = int((corners == UNPLACED).any(1).sum())
        if unplaced:
            log.warning(
                "image %d: %d of %d cells found no room on a canvas of %s; enlarge canvas_size or ask for fewer",
                index, unplaced, count, "×".join(map(str, canvas)),
            )  # fmt: skip
        background = statistics.background.draw(canvas, rng, level)
        image, labels, placed = compose(cells, corners, background)
        image = _digitise(statistics.noise.add(image, rng), statistics.dtype)
        records = _records(labels, [cells[n] for n in placed], corners[placed], statistics.spacing_um)
        counts = shapes.counts | {"cells without room": unplaced}
        return Sample(image, labels.astype(np.uint16), statistics.spacing_um, records, seed, index, counts)

    def _shapes(self, count: int, seed: int, index: int, steps, micro_batch_size, neus, rng, bar) -> "_Shapes":
        statistics = self.statistics
        generator = torch_stream(seed, "outlines", index)
        pixel_um, size = self.texture.config.pixel_size_um, self.mask.config.crop_size
        drawn = self.mask(count, steps, generator, micro_batch_size)
        if not np.isclose(drawn.pixel_size_um, pixel_um, rtol=1e-3):
            raise ValueError(
                f"the mask stage draws at {drawn.pixel_size_um:g} µm per pixel, the texture stage was trained at "
                f"{pixel_um:g}: train both on the same crops"
            )
        masks, counts = drawn.masks, {"outlines drawn again": drawn.rejected}
        area = masks.sum((1, 2)) * pixel_um**2
        if statistics.ndim == 2:
            slices = [plane_slices(mask, pixel_um, statistics.spacing_um) for mask in masks]
            return _Shapes(masks, slices, area, [None] * count, np.zeros(count), counts)
        mean, spread = statistics.axial.elongation
        elongation = np.clip(rng.normal(mean, spread, count), 0.5 * mean, 1.5 * mean)
        solids: list[SignedDistance | None] = [None] * count
        residual, missing, counts["solids rejected"] = np.full(count, np.nan), np.arange(count), 0
        for attempt in range(4):
            bar.set_postfix_str(f"{count} cells: views")
            generator = torch_stream(seed, "views", index, attempt)
            views = self.multiview(masks[missing], pixel_um, generator=generator)
            bar.set_postfix_str(f"{count} cells: solids")
            cameras = Cameras(torch.cat([views.cameras.axes, along_z().axes.to(views.cameras.axes)]))
            weights = torch.tensor([1.0] * len(views.cameras) + [2.0])  # the outline itself is certain
            fit = fit_views(
                torch.cat([views.views, views.condition[:, None]], 1),
                cameras,
                neus,
                torch_stream(seed, "rays", index, attempt, device=views.views.device),
                weights,
                views.truncation,
            )
            fitted = solids_um(fit, views.unit_um, elongation[missing])
            for n, cell in enumerate(missing):
                if fit.converged[n]:
                    solids[cell], residual[cell] = fitted[n], float(fit.residual[n].mean())
            missing = np.array([n for n in missing if solids[n] is None], int)
            counts["solids rejected"] += len(missing)
            if not len(missing):
                break
        if len(missing) == count:
            raise RuntimeError("no solid could be fitted to the predicted views: the multiview stage is not trained")
        kept = [n for n in range(count) if solids[n] is not None]
        slices = []
        for n in kept:
            height = 2 * elongation[n] * _reach_um(masks[n], pixel_um)
            slices.append(solid_slices(solids[n], height, size, pixel_um, statistics.spacing_um))
        return _Shapes(masks[kept], slices, area[kept], [solids[n] for n in kept], residual[kept], counts)

    def _texture(self, shapes: "_Shapes", light: np.ndarray, seed, index, rho, steps, micro_batch_size):
        statistics, window = self.statistics, self.texture.window
        level = statistics.background.level
        lights = [slice_light(s, value, statistics.axial) for s, value in zip(shapes.slices, light, strict=True)]
        owners = np.concatenate([np.full(len(s.masks), n) for n, s in enumerate(shapes.slices)])
        images = self.texture(
            np.concatenate([s.masks for s in shapes.slices]),
            window.stretch(level + np.concatenate(lights)),
            owners,
            rho=rho,
            num_inference_steps=steps,
            generator=torch_stream(seed, "texture", index),
            micro_batch_size=micro_batch_size,
        ).images
        pixel_um = self.texture.config.pixel_size_um
        cells = []
        for n, slices in enumerate(shapes.slices):
            info = {
                "outline": shapes.masks[n],
                "outline_pixel_um": pixel_um,
                "brightness": float(level + light[n]),
            }
            if shapes.solids[n] is not None:
                info |= {"solid": shapes.solids[n], "residual": float(shapes.residual[n])}
            cells.append(
                textured_cell(
                    slices, images[owners == n], lights[n], window, level, statistics.halo, pixel_um,
                    statistics.spacing_um, info,
                )
            )  # fmt: skip
        return cells


@dataclass(frozen=True)
class _Shapes:
    """Cells before they have texture, one entry each."""

    masks: np.ndarray
    slices: list[Slices]
    area_um2: np.ndarray
    solids: list[SignedDistance | None]
    residual: np.ndarray
    counts: dict[str, int]


def _saved_statistics(folder: Path) -> dict:
    """From a saved cascade's model_index.json, or from what the training scripts left beside the stages."""
    if hub.pipeline_class(folder) == CascadePipeline.__name__:
        return CascadePipeline.load_config(folder)["statistics"]
    for candidate in (folder, folder / "texture"):
        if (candidate / FILE_NAME).is_file():
            return Statistics.load(candidate).to_dict()
    raise hub.ModelError(f"{folder}: no {FILE_NAME}; copy it there from the crops that the stages were trained on")


def _region(statistics: Statistics, canvas: tuple[int, ...]) -> tuple[np.ndarray | None, float]:
    """Where cell centres may lie on the canvas, and how many cells it holds compared with a real image."""
    if statistics.region_um is None:
        return None, float(np.prod(canvas) / np.prod(statistics.image_shape))
    half = 0.5 * np.array(canvas) * statistics.spacing_um
    fitted = np.minimum(statistics.region_um, half)
    share = float(np.prod(fitted / np.array(statistics.region_um)))
    return ellipsoid_region(canvas, statistics.spacing_um, fitted), share


def _draw_light(statistics: Statistics, area_um2: np.ndarray, like: int, rng: np.random.Generator) -> np.ndarray:
    """Light above background for cells of given areas, as bright as cells of like size in real image `like`.

    Real cells of that image are drawn and matched by the rank of their area, which keeps what size and brightness
    have to do with each other; where it has fewer than eight annotated cells, cells of all images help out.
    """
    own = np.flatnonzero(np.array(statistics.cell_image) == like)
    if len(own) < 8:
        own = np.concatenate([own, rng.choice(len(statistics.cell_image), 8 - len(own))])
    picked = rng.choice(own, len(area_um2), replace=len(own) < len(area_um2))
    real_area = np.array(statistics.cell_area_um2)[picked]
    real_light = np.array(statistics.cell_brightness)[picked] - statistics.background.level
    light = np.empty(len(area_um2))
    light[np.argsort(area_um2, kind="stable")] = real_light[np.argsort(real_area, kind="stable")]
    return np.maximum(light, 1.0)


def _reach_um(mask: np.ndarray, pixel_um: float) -> float:
    """Largest distance of an outline from its centroid."""
    places = np.argwhere(mask)
    return float(np.sqrt(((places - places.mean(0)) ** 2).sum(1)).max() + 1) * pixel_um


def _digitise(image: np.ndarray, dtype: str) -> np.ndarray:
    """Camera units as integers of the data set's dtype; a float data set is written as uint16."""
    kind = np.dtype(dtype if np.dtype(dtype).kind == "u" else "uint16")
    return np.clip(np.rint(image), 0, np.iinfo(kind).max).astype(kind)


def _records(labels: np.ndarray, cells: list[Cell], corners: np.ndarray, spacing_um) -> list[dict]:
    """One record per label, in order."""
    ids = np.arange(1, len(cells) + 1)
    centroids = ndimage.center_of_mass(labels > 0, labels, ids) if len(ids) else []
    sizes = np.bincount(labels.ravel(), minlength=len(cells) + 1)[1:]
    size_name = "area_um2" if labels.ndim == 2 else "volume_um3"
    return [
        {
            "label": int(label),
            "centroid_um": _scaled(centroid, spacing_um),
            "origin_um": _scaled(corner + cell.centre, spacing_um),
            size_name: float(size * np.prod(spacing_um)),
            **cell.info,
        }
        for label, centroid, size, cell, corner in zip(ids, centroids, sizes, cells, corners, strict=True)
    ]


def _scaled(voxels, spacing_um) -> tuple[float, ...]:
    return tuple(float(v * s) for v, s in zip(voxels, spacing_um, strict=True))
