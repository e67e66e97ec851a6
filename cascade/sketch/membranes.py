"""The light of membranes between cells, and of what is inside them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.sketch.rules import depth_um
from cascade.sketch.settings import SketchSettings
from cascade.sketch.smooth import blurred

_SIGMAS, _DEEP = 2.0, 0.7  # of a wall's blur, and of the depth of a cell: from there on nothing is seen of its walls


def membrane_light(
    place: npt.NDArray[np.int32],
    wall: npt.NDArray[np.bool_],
    spacing_um: Sequence[float],
    settings: SketchSettings,
    contrast: npt.NDArray[Any],
    inside: npt.NDArray[Any],
    decay: npt.NDArray[Any] | None = None,
) -> npt.NDArray[np.float32]:
    """Light above the background of a tissue whose cells are called 1, 2, …: membranes (`wall`), both sides as bright
    as the cell that they belong to, blurred by `settings.softness_um`, and as bright in the mean as asked for.

    contrast, inside (N,): light of each cell's wall, and of what is inside it. decay: factor on every voxel.
    """
    walls, insides = (np.append(0, values).astype(np.float32) for values in (contrast, inside))
    within = insides[place]
    bright = np.where(wall, walls[place], 0)
    outer = wall & (place == 0)
    if outer.any():  # of the side of the outer wall that belongs to no cell
        near = [settings.thickness_um / s for s in spacing_um]
        share = blurred((place > 0).astype(np.float32), near)
        bright[outer] = (blurred(walls[place], near) / np.maximum(share, 1e-3))[outer]
    excess = np.where(wall, bright - within, 0)
    if decay is not None:
        within, bright, excess = within * decay, bright * decay, excess * decay
    if settings.softness_um == 0:
        return np.asarray(within + excess, np.float32)
    sigma = [settings.softness_um / s for s in spacing_um]
    within, excess = blurred(within, sigma), blurred(excess, sigma)
    own = wall & (place > 0)
    got = float(excess[own].sum())
    gain = float((bright[own] - within[own]).sum()) / got if got else 1.0
    return np.asarray(within + np.float32(max(gain, 0)) * excess, np.float32)


def measured_walls(
    place: npt.NDArray[np.int32],
    wall: npt.NDArray[np.bool_],
    spacing_um: Sequence[float],
    settings: SketchSettings,
    image: npt.NDArray[Any],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean light of each cell's own side of its walls, and of what is inside them, (N,) each.

    What is inside is read off where walls do not shine to, as far as a cell has such a place; cells that are all wall
    are as bright inside.
    """
    count = int(place.max(initial=0)) + 1
    depth = depth_um(place, spacing_um)
    deepest = np.zeros(count, np.float32)
    np.maximum.at(deepest, place[~wall], depth[~wall])
    clear = 0.5 * settings.thickness_um + _SIGMAS * settings.softness_um
    inside = ~wall & (depth >= np.minimum(clear, _DEEP * deepest)[place])
    found = []
    for part in (wall, inside):
        at = place[part]
        number = np.bincount(at, minlength=count)
        found.append(np.where(number > 0, np.bincount(at, image[part], count) / np.maximum(number, 1), np.nan)[1:])
    walls, insides = found
    return np.where(np.isnan(walls), insides, walls), np.where(np.isnan(insides), walls, insides)
