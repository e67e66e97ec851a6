"""The simulators' numbers at which what they make has the measures of real cells."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.data.measures import Measures, measure_labels, measure_masks
from cascade.rng import stream
from cascade.simulators.nuclei import NucleiSettings, bodies_of, nuclei
from cascade.simulators.tissue import TissueSettings

_QUANTILES = 33
_CELLS = {2: 160, 3: 60}  # of scenes that are compared with the real ones
_SHAPES = 120  # single cells that are
_MOST_SCENES = 8
_LONGEST = 3.0  # that a tissue's cells can be
_SHAPE_ROUNDS, _CROWD_ROUNDS = 2, 2
_BISECTIONS = 4
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
    canvas_size: Sequence[int] | None = None,
    seed: int = 0,
) -> NucleiSettings:
    """Settings at which `nuclei` makes what was measured on images of `image_shape`.

    Sizes, elongations, brightness and numbers are taken as they are distributed, numbers in proportion to the canvas.
    Then cells and a few scenes are simulated: `deformation` is what makes cells as solid, elongations are corrected for
    what deformation adds to them, `clustering` is bisected until the next cell is as far, and `touching` corrected
    until as many touch. Cells that touch take from each other and are less solid than alone, so `deformation` is looked
    for once more in scenes.

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
    )
    settings = _with_elongations(settings, real, seed)
    alone = replace(settings, deformation=_deformation(lambda one: _alone(one, seed), settings, real))
    settings = _with_crowding(alone, real, seed)
    deformation = _deformation(lambda one: _simulated(one, seed, "shapes", shapes=True), settings, real)
    settings = replace(settings, deformation=deformation)
    for _ in range(_SHAPE_ROUNDS):
        settings = _with_elongations(settings, real, seed)
    return settings


def tissue_like(real: Measures, canvas_size: Sequence[int], spacing_um: Sequence[float]) -> TissueSettings:
    """Settings at which a tissue's cells are as large and as long, along whichever axis they are longest, as those of
    stacks that were measured. Raises ValueError where no whole cell was."""
    flat, tall = real.elongation, real.axial_elongation
    if not len(tall):
        raise ValueError("no whole cell was measured: all are cut by the border; give larger images")
    middle = np.sqrt(0.5 * (flat**2 + 1))  # of axes in the plane that are as `flat` to 1
    axes = np.stack([flat, np.ones_like(flat), tall * middle])
    return TissueSettings(
        canvas_size=tuple(int(n) for n in canvas_size),
        spacing_um=tuple(float(s) for s in spacing_um),
        diameter_um=quantiles(2 * real.radius_um),
        elongation=quantiles(np.clip(axes.max(0) / axes.min(0), 1, _LONGEST)),
    )


def _alone(settings: NucleiSettings, seed: int) -> Measures:
    """Shapes of cells that lie nowhere, the same random numbers whatever the settings."""
    cells = bodies_of(stream(seed, "likeness", "shapes"), settings, _SHAPES)
    return measure_masks((cell.mask for cell in cells), settings.spacing_um)


def _deformation(made_at: Callable[[NucleiSettings], Measures], settings: NucleiSettings, real: Measures) -> float:
    """At which what is made is as solid as what is real, on average; solidity falls as deformation grows."""
    solid = [_mean(made_at(replace(settings, deformation=d)).solidity) for d in _DEFORMATIONS]
    falling = np.minimum.accumulate(solid)
    return round(float(np.interp(_mean(real.solidity), falling[::-1], _DEFORMATIONS[::-1])), 4)


def _with_elongations(settings: NucleiSettings, real: Measures, seed: int) -> NucleiSettings:
    """Elongations less what deformation makes of them."""
    made = _alone(settings, seed)
    return replace(
        settings,
        elongation=_corrected(settings.elongation, made.elongation, real.elongation, 1.0),
        axial_elongation=_corrected(settings.axial_elongation, made.axial_elongation, real.axial_elongation, 0.2),
    )


def _with_crowding(settings: NucleiSettings, real: Measures, seed: int) -> NucleiSettings:
    """Clustering, by how far the next cell is, and touching."""
    if not len(real.nearest_um):
        return settings
    share, nearest = _mean(real.touching), _mean(real.nearest_um)
    touching, clustering = share, 0.0
    for number in range(_CROWD_ROUNDS):
        low, high = -1.0, 1.0
        for _ in range(_BISECTIONS):
            clustering = 0.5 * (low + high)
            crowded = replace(settings, touching=touching, clustering=clustering)
            made = _simulated(crowded, seed, f"crowd {number}")
            low, high = (clustering, high) if _mean(made.nearest_um) > nearest else (low, clustering)
        touching = float(np.clip(touching + share - _mean(made.touching), 0, 1))
    return replace(settings, touching=round(touching, 4), clustering=round(clustering, 4))


def _simulated(settings: NucleiSettings, seed: int, what: str, *, shapes: bool = False) -> Measures:
    """How crowded a few scenes are, the same random numbers for the same `what`; shapes: and their cells' shapes."""
    cells = max(float(np.mean(settings.num_cells)), 1.0)
    scenes = int(np.clip(np.ceil(_CELLS[len(settings.canvas_size)] / cells), 2, _MOST_SCENES))
    labels = (nuclei(stream(seed, "likeness", what, n), settings).labels for n in range(scenes))
    return measure_labels(labels, settings.spacing_um, shapes=shapes)


def _corrected(
    given: tuple[float, ...], made: npt.NDArray[Any], wanted: npt.NDArray[Any], least: float
) -> tuple[float, ...]:
    """Quantiles moved by how far those of what was made are from the wanted ones."""
    if not len(made) or not len(wanted):
        return given
    ranks = np.linspace(0, 1, len(given)) if len(given) > 1 else np.array([0.5])
    inner = np.clip(ranks, 0.02, 0.98)  # extremes of small samples say nothing
    moved = np.array(given) + np.quantile(wanted, inner) - np.quantile(made, inner)
    return tuple(np.maximum.accumulate(np.maximum(moved, least)).tolist())


def _mean(values: npt.NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
