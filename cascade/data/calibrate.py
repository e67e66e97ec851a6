"""The simulators' numbers at which what they make has the measures of real cells."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import wasserstein_distance

from cascade.annotation import Annotation
from cascade.data.measures import FEW_WHOLE, Measures, measure_labels, measure_masks, nearest_distances
from cascade.data.ties import Ties
from cascade.draws import at_rank, tied
from cascade.rng import stream
from cascade.simulators.nuclei import NucleiSettings, bodies_of, nuclei
from cascade.simulators.tissue import TissueSettings, tissue

_QUANTILES = 33
_INNER = (0.02, 0.98)  # extremes of small samples say nothing
_CELLS = {2: 160, 3: 80}  # of scenes that are compared with the real ones
_FEWEST_SCENES, _MOST_SCENES = 4, 6
_GOLDEN = 0.618
_ALONE = 40  # single cells that are measured at each deformation
_LONGEST, _FLATTEST = 3.0, (0.25, 4.0)  # that a tissue's cells can be
_COARSE, _TISSUE, _TISSUE_ROUNDS = 6, 24, 4  # voxels of a radius, and radii of a stack, that tissues are compared at
_SHAPE_ROUNDS, _CROWD_ROUNDS = 3, 2
_BISECTIONS = 4
_WIDTHS, _SPREAD = (0.0, 0.5, 1.0), 9  # of the clustering of cells about its middle, and quantiles of it
_DEFORMATIONS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)  # radii: beyond, cells come to pieces


def quantiles(values: npt.NDArray[Any]) -> tuple[float, ...]:
    """Evenly spaced quantiles, at most 33, of a sample.

    >>> quantiles(np.array([3.0, 1.0, 2.0]))
    (1.0, 2.0, 3.0)
    """
    count = min(len(np.unique(values)), _QUANTILES)
    return tuple(np.quantile(values, np.linspace(0, 1, count)).tolist()) if count else ()


def nuclei_like(
    real: Measures,
    image_shape: Sequence[int],
    spacing_um: Sequence[float],
    *,
    ties: Ties | None = None,
    canvas_size: Sequence[int] | None = None,
    seed: int = 0,
) -> NucleiSettings:
    """Settings at which `nuclei` makes what was measured on images of `image_shape`.

    ties: what goes with the number of cells, and with the image; default nothing does.

    Sizes, elongations, brightness and numbers are taken as they are distributed, numbers in proportion to the canvas.
    Then a few scenes are simulated: `clustering` is searched until the next cell is as far, on average and in its
    spread, `touching` corrected until as many touch, and `deformation` and elongations until cells are as solid and as
    long as real ones; those that touch take from each other, and deformation makes cells longer.

    Raises ValueError where no whole cell was measured, and where more cells are asked for than fit.
    """
    if not len(real.radius_um):
        raise ValueError("no whole cell was measured: all are cut by the border; give larger images")
    canvas = tuple(int(n) for n in (canvas_size or image_shape))
    counts = real.cells_per_image * (np.prod(canvas) / np.prod(image_shape))
    settings = NucleiSettings(
        canvas_size=canvas,
        spacing_um=tuple(float(s) for s in spacing_um),
        num_cells=quantiles(counts),
        radius_um=quantiles(real.radius_um),
        elongation=quantiles(real.elongation),
        axial_elongation=quantiles(real.axial_elongation) if len(canvas) == 3 else (1.0,),
        brightness=quantiles(real.brightness) or None,
        **vars(ties or Ties()),
    )
    solidity = _solidity_by_deformation(settings, seed)
    wanted = np.quantile(real.solidity, np.linspace(*_INNER, _QUANTILES))
    settings = replace(settings, deformation=_deformation(wanted, solidity))
    settings = _with_crowding(settings, real, seed)
    for number in range(_SHAPE_ROUNDS):
        scenes = _scenes(settings, seed, f"shapes {number}")
        made = measure_labels((one.labels for one in scenes), settings.spacing_um)
        step = 1 / (number + 1)  # other scenes each time, so that what chance makes of one is not fitted
        wanted = wanted + step * _apart(made.solidity, real.solidity, len(wanted))
        tall = settings.axial_elongation
        settings = replace(
            settings,
            deformation=_deformation(wanted, solidity),
            elongation=_moved(settings.elongation, step, made.elongation, real.elongation, 1.0),
            axial_elongation=_moved(tall, step, made.axial_elongation, real.axial_elongation, 0.2),
        )
    return settings


def tissue_like(
    real: Measures,
    image_shape: Sequence[int],
    spacing_um: Sequence[float],
    *,
    canvas_size: Sequence[int] | None = None,
    seed: int = 0,
) -> TissueSettings:
    """Settings at which a tissue's cells are as large and as long as those measured on images of `image_shape`.

    Sizes, elongations and the height of cells are taken as they are, and corrected for what becomes of them in tissues
    that are simulated on coarser voxels: sizes, where the border cuts most cells, so that those that are cut were
    measured.
    Raises ValueError where no whole cell was measured.
    """
    flat, tall = real.elongation, real.axial_elongation if len(spacing_um) == 3 else np.ones(1)
    if not len(real.radius_um) or not len(tall):
        raise ValueError("no whole cell was measured: all are cut by the border; give larger images")
    lengths = np.array(image_shape) * spacing_um
    radius, axial = float(np.mean(real.radius_um)), float(np.clip(np.median(tall), *_FLATTEST))
    coarse = np.maximum(spacing_um, radius / _COARSE)
    least = float((20 * coarse.prod()) ** (1 / len(coarse)))  # diameter of ten voxels
    settings = TissueSettings(
        canvas_size=tuple(np.maximum(np.minimum(lengths, _TISSUE * radius) / coarse, 1).astype(int).tolist()),
        spacing_um=tuple(coarse.tolist()),
        diameter_um=quantiles(np.maximum(2 * real.radius_um, least)),
        elongation=quantiles(np.clip(flat, 1, _LONGEST)),
        axial_elongation=axial,
    )
    for number in range(_TISSUE_ROUNDS):
        labels = tissue(stream(seed, "likeness", "tissue", number), settings).labels
        made, step = measure_labels([labels], settings.spacing_um), 1 / (number + 1)
        taller = (np.median(tall) / np.median(made.axial_elongation)) ** step if len(made.axial_elongation) else 1.0
        if _mean(real.whole) < FEW_WHOLE:
            diameter = _moved(settings.diameter_um, step, 2 * made.radius_um, 2 * real.radius_um, least)
            settings = replace(settings, diameter_um=diameter)
        settings = replace(
            settings,
            elongation=tuple(
                np.minimum(_moved(settings.elongation, step, made.elongation, flat, 1.0), _LONGEST).tolist()
            ),
            axial_elongation=float(np.clip(settings.axial_elongation * taller, *_FLATTEST)),
        )
    canvas = tuple(int(n) for n in (canvas_size or image_shape))
    return replace(settings, canvas_size=canvas, spacing_um=tuple(float(s) for s in spacing_um))


def _solidity_by_deformation(settings: NucleiSettings, seed: int) -> npt.NDArray[Any]:
    """Mean solidity of cells that lie nowhere at each of `_DEFORMATIONS`; it falls."""
    solid = []
    for deformation in _DEFORMATIONS:
        rng, some = stream(seed, "likeness", "alone"), replace(settings, deformation=(deformation,))
        masks = (cell.mask for cell in bodies_of(rng, some, _ALONE))
        solid.append(_mean(measure_masks(masks, settings.spacing_um).solidity))
    return np.minimum.accumulate(solid)


def _deformation(wanted: npt.NDArray[Any], solidity: npt.NDArray[Any]) -> tuple[float, ...]:
    """Quantiles at which cells have these quantiles of solidity."""
    found = np.interp(wanted, solidity[::-1], _DEFORMATIONS[::-1])[::-1]
    return tuple(np.sort(found).round(4).tolist())


def _with_crowding(settings: NucleiSettings, real: Measures, seed: int) -> NucleiSettings:
    """Clustering, by how far the next cell is, and touching, by how many do."""
    if not len(real.nearest_um):
        return settings
    share, moved, middles = np.array(quantiles(real.touching)), 0.0, (-2.0, 2.0)
    widths: tuple[float, ...] = _WIDTHS
    for _ in range(_CROWD_ROUNDS):  # once more at the share of touching cells that was found
        touching = tuple(np.clip(share + moved, 0, 1).round(4).tolist())
        settings = replace(settings, touching=touching)
        tried = [(*_clustered(settings, real, width, middles, seed), width) for width in widths]
        _, clustering, middle, width = min(tried)
        settings, widths, middles = replace(settings, clustering=clustering), (width,), (middle - 0.3, middle + 0.3)
        labels = (one.labels for one in _scenes(settings, seed, "crowd"))
        made = measure_labels(labels, settings.spacing_um, shapes=False)
        moved += _mean(real.touching) - _mean(made.touching)
    return replace(settings, touching=tuple(np.clip(share + moved, 0, 1).round(4).tolist()))


def _clustered(
    settings: NucleiSettings, real: Measures, width: float, middles: tuple[float, float], seed: int
) -> tuple[float, tuple[float, ...], float]:
    """Quantiles of clustering that lie so far about their middle, at which the next cell is as far as in real images on
    average; before them, how far the distances to it are from the real ones, and behind them, their middle."""
    even = replace(settings, deformation=(0.0,))  # outlines do not matter
    low, high = max(middles[0], -1 - width), min(middles[1], 1 + width)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        spread = np.clip(middle + width * np.linspace(-1, 1, _SPREAD if width else 1), -1, 1)
        clustering = tuple(spread.round(4).tolist())
        scenes = _scenes(replace(even, clustering=clustering), seed, "crowd")
        places = (np.array([cell.centroid_um for cell in scene.cells]) for scene in scenes)
        nearest = np.concatenate([nearest_distances(centres) for centres in places])
        low, high = (middle, high) if _mean(nearest) > _mean(real.nearest_um) else (low, middle)
    return float(wasserstein_distance(nearest, real.nearest_um)) if len(nearest) else 0.0, clustering, middle


def _scenes(settings: NucleiSettings, seed: int, what: str) -> Iterator[Annotation]:
    """A few, the same random numbers for the same `what`; their numbers of cells, and the shares of those that touch,
    lie evenly in what can be drawn."""
    cells = max(float(np.mean(settings.num_cells)), 1.0)
    scenes = int(np.clip(np.ceil(_CELLS[len(settings.canvas_size)] / cells), _FEWEST_SCENES, _MOST_SCENES))
    for n in range(scenes):
        rank = (n + 0.5) / scenes
        other = tied(np.array([(_GOLDEN * n + 0.5) % 1]), by=settings.touching_by_number, cause=rank)
        one = replace(settings, touching=(float(at_rank(settings.touching, other)[0]),))
        yield nuclei(stream(seed, "likeness", what, n), one, number_rank=rank)


def _moved(
    given: tuple[float, ...], step: float, made: npt.NDArray[Any], wanted: npt.NDArray[Any], least: float
) -> tuple[float, ...]:
    """Quantiles moved by a share of how far those of what was made are from the wanted ones."""
    moved = np.array(given) + step * _apart(made, wanted, len(given))
    return tuple(np.sort(np.maximum(moved, least)).tolist())


def _apart(made: npt.NDArray[Any], wanted: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """How far so many quantiles of what was made are from the wanted ones, (count,)."""
    if not len(made) or not len(wanted):
        return np.zeros(count)
    ranks = np.linspace(0, 1, count) if count > 1 else np.array([0.5])
    inner = np.clip(ranks, *_INNER)
    return np.asarray(np.quantile(wanted, inner) - np.quantile(made, inner))


def _mean(values: npt.NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
