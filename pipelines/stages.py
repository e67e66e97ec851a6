"""The stages of the cascade, joined: outlines to solids to slices to textured cells."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.annotation import CellRecord
from cascade.geometry.grid import SignedDistance
from cascade.memory import micro_batch
from cascade.multiview.outlines import diameters_um, heights_um, silhouettes_of_slices
from cascade.neus.fit import fit_views
from cascade.neus.settings import NeuSSettings
from cascade.optics.axial import Axial
from cascade.optics.statistics import Statistics
from cascade.pipelines.mask_ddpm import MaskDDPMPipeline
from cascade.pipelines.multiview import MultiviewPipeline
from cascade.pipelines.texture import TexturePipeline
from cascade.population.cells import Slices, plane_slices, slice_light, solid_slices, solids_um, textured_cell
from cascade.population.compositing import Cell
from cascade.population.scene import draw_light
from cascade.population.settings import CascadeSettings
from cascade.rng import stream, torch_stream
from cascade.shapes.ellipsoid import ellipsoid_of_outline
from cascade.shapes.harmonic_solids import harmonic_solids
from cascade.shapes.inflated import RELIEF, inflated_outline

_BYTES_OF_A_FIT = {"grid": 16e6, "mlp": 2e9}  # a cell's share of the memory of a NeuS fit, measured
_ROUNDS = 4  # of views and fits, before a solid is given up


@dataclass(frozen=True)
class Stages:
    """The trained stages, and the statistics of the real images."""

    mask: MaskDDPMPipeline
    texture: TexturePipeline
    multiview: MultiviewPipeline | None
    statistics: Statistics

    @property
    def pixel_um(self) -> float:
        """Pixel size of outlines and textures."""
        return float(self.texture.config.pixel_size_um)


@dataclass(frozen=True)
class Draw:
    """Which cells are drawn: those of image `index` under `seed`, as bright as those of real image `like` (None: of
    all). `tell` is called with the name of each stage."""

    num_cells: int
    seed: int
    index: int
    like: int | None = None
    neus: NeuSSettings | None = None
    tell: Callable[[str], None] = lambda stage: None


def draw_cells(stages: Stages, draw: Draw, settings: CascadeSettings) -> tuple[list[Cell], dict[str, int]]:
    """Textured cells, not yet placed; and what was drawn again.

    Left out and counted are a cell whose solid could not be fitted, four times over, and one whose texture did not show
    its mask, three times over. Raises RuntimeError if that is true of all of them, and they are more than a few.
    """
    # 1. Outlines
    draw.tell(f"{draw.num_cells} cells: outlines")
    masks, counts = _outlines(stages, draw, settings)

    # 2. Slices, in 3D those of solids
    if stages.statistics.ndim == 2:
        slices = [plane_slices(mask, stages.pixel_um, stages.statistics.spacing_um) for mask in masks]
        records = [CellRecord(outline=mask, outline_pixel_um=stages.pixel_um) for mask in masks]
    else:
        masks, slices, records, failed = _solid_cells(stages, draw, settings, masks)
        counts |= failed

    # 3. Texture
    draw.tell(f"{draw.num_cells} cells: texture")
    area_um2 = masks.sum((1, 2)) * stages.pixel_um**2
    light = draw_light(stages.statistics, area_um2, draw.like, stream(draw.seed, "light", draw.index))
    cells, failed = paint_slices(stages, slices, light, records, draw.seed, draw.index, settings)
    if failed.get("textures rejected") == len(slices) >= 8:
        raise RuntimeError(
            "no texture shows its mask: the texture stage is not trained enough (cascade generate --min_alignment "
            "0 takes them as they are)"
        )
    shown = [cell for cell in cells if cell is not None and (cell.record.alignment or 0.0) >= settings.min_alignment]
    return shown, counts | failed


def _outlines(stages: Stages, draw: Draw, settings: CascadeSettings) -> tuple[npt.NDArray[Any], dict[str, int]]:
    drawn = stages.mask(
        draw.num_cells,
        num_inference_steps=settings.num_inference_steps,
        generator=torch_stream(draw.seed, "outlines", draw.index),
        micro_batch_size=settings.micro_batch_size,
    )
    if not np.isclose(drawn.pixel_size_um, stages.pixel_um, rtol=1e-3):
        raise ValueError(
            f"the mask stage draws at {drawn.pixel_size_um:g} µm per pixel, the texture stage was trained at "
            f"{stages.pixel_um:g}: train both on the same crops"
        )
    return drawn.masks, {"outlines drawn again": drawn.rejected}


def _solid_cells(
    stages: Stages, draw: Draw, settings: CascadeSettings, masks: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], list[Slices], list[CellRecord], dict[str, int]]:
    """Silhouettes, slices and records of the solids that the outlines became, and how many did not."""
    axial, pixel_um, count = _axial(stages.statistics), stages.pixel_um, len(masks)
    cut = np.full(count, np.sqrt(1 - axial.section**2))  # where outlines are cut on average
    if settings.reading == "section":
        cut = stream(draw.seed, "sections", draw.index).uniform(-1, 1, count)
    masks = silhouettes_of_slices(masks, cut)
    mean, spread = axial.elongation
    drawn = stream(draw.seed, "elongation", draw.index).normal(1, spread / mean, count)
    elongation = axial.elongations(diameters_um(masks, pixel_um)) * np.clip(drawn, 0.5, 1.5)
    solids: list[SignedDistance | None]
    residual: list[float | None] = [None] * count
    failed: dict[str, int] = {}
    if settings.shapes == "multiview":
        solids, fitted, again = _fitted_solids(stages, draw, settings, masks, elongation)
        residual, heights = [*map(float, fitted)], heights_um(masks, pixel_um, elongation)
        failed = {"solids drawn again": sum(again[:-1]), "solids rejected": again[-1]}
    elif settings.shapes == "harmonics":
        area = masks.sum((1, 2)) * pixel_um**2
        made, heights = harmonic_solids(area, elongation, torch_stream(draw.seed, "harmonics", draw.index))
        solids = [*made]
    else:
        each = zip(masks, elongation, strict=True)
        if settings.shapes == "inflated":
            rng = stream(draw.seed, "inflated", draw.index)
            solids = [inflated_outline(mask, pixel_um, tall, rng) for mask, tall in each]
            heights = elongation * diameters_um(masks, pixel_um) * (1 + RELIEF)
        else:
            solids = [ellipsoid_of_outline(mask, pixel_um, tall) for mask, tall in each]
            heights = heights_um(masks, pixel_um, elongation)
    kept = [(n, solid) for n, solid in enumerate(solids) if solid is not None]
    size, spacing = stages.mask.config.crop_size, stages.statistics.spacing_um
    slices = [solid_slices(solid, heights[n], size, pixel_um, spacing) for n, solid in kept]
    records = [
        CellRecord(outline=masks[n], outline_pixel_um=pixel_um, solid=solid, residual=residual[n]) for n, solid in kept
    ]
    return masks[[n for n, _ in kept]], slices, records, failed


def _fitted_solids(
    stages: Stages, draw: Draw, settings: CascadeSettings, masks: npt.NDArray[Any], elongation: npt.NDArray[Any]
) -> tuple[list[SignedDistance | None], npt.NDArray[Any], list[int]]:
    """Solids in µm (None where none could be fitted), their residuals, and failures by round."""
    if stages.multiview is None:
        raise ValueError(
            "shapes='multiview' needs that stage: CascadePipeline(…, multiview=MultiviewPipeline.from_pretrained(…))"
        )
    count, neus = len(masks), draw.neus or NeuSSettings()
    solids: list[SignedDistance | None] = [None] * count
    residual, missing = np.full(count, np.nan), np.arange(count)
    failed: list[int] = []
    for attempt in range(_ROUNDS):
        draw.tell(f"{count} cells: views")
        generator = torch_stream(draw.seed, "views", draw.index, attempt)
        batch = settings.micro_batch_size
        seen = stages.multiview(masks[missing], stages.pixel_um, generator=generator, micro_batch_size=batch)
        draw.tell(f"{count} cells: solids")
        views, cameras, certain = seen.constraints()
        at_once = micro_batch(_BYTES_OF_A_FIT[neus.field], views.device, on_cpu=32, on_gpu=512)
        for start in range(0, len(missing), at_once):
            part = slice(start, start + at_once)
            rays = torch_stream(draw.seed, "rays", draw.index, attempt, start, device=views.device)
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
    return solids, residual, failed


def paint_slices(
    stages: Stages,
    slices: list[Slices],
    light: npt.NDArray[Any],
    records: list[CellRecord],
    seed: int,
    index: int,
    settings: CascadeSettings,
) -> tuple[list[Cell | None], dict[str, int]]:
    """Cells with texture, whose middle planes have the wanted `light` (C,) above background; and what was drawn again.

    One whose texture does not show its mask is drawn again twice, and then is as it came last, which its record's
    alignment says. One smaller than a voxel is None.
    """
    if not slices:
        return [], {}
    statistics, window = stages.statistics, stages.texture.window
    level = statistics.background.level
    lights = [slice_light(s, value, statistics.axial) for s, value in zip(slices, light, strict=True)]
    owners = np.concatenate([np.full(len(s.masks), n) for n, s in enumerate(slices)])
    drawn = stages.texture.draw_aligned(
        np.concatenate([s.masks & s.in_focus[:, None, None] for s in slices]),
        window.stretch(level + np.concatenate(lights)),
        owners,
        min_alignment=settings.min_alignment,
        generator=torch_stream(seed, "texture", index),
        heights_um=statistics.spacing_um[0] * np.concatenate([np.arange(len(s.masks)) for s in slices]),
        rho=settings.rho,
        num_inference_steps=settings.num_inference_steps,
        micro_batch_size=settings.micro_batch_size,
        correlation_length_um=settings.correlation_length_um,
    )
    cells: list[Cell | None] = []
    for n, one in enumerate(slices):
        if not one.voxels.any():
            cells.append(None)
            continue
        record = replace(records[n], brightness=float(level + light[n]), alignment=float(drawn.alignment[n]))
        cells.append(
            textured_cell(
                one,
                drawn.images[owners == n],
                lights[n],
                window,
                level,
                statistics.halo,
                stages.pixel_um,
                statistics.spacing_um,
                record,
            )
        )
    counts = {"textures drawn again": sum(drawn.failed[:-1]), "textures rejected": drawn.failed[-1]}
    return cells, counts | {"smaller than a voxel": sum(not one.voxels.any() for one in slices)}


def _axial(statistics: Statistics) -> Axial:
    if statistics.axial is None:
        raise ValueError("statistics of stacks lack 'axial': make them anew with 'cascade prepare'")
    return statistics.axial
