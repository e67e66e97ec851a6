"""The light of membranes between cells, and of what is inside them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.draws import at_rank
from cascade.rng import stream
from cascade.shapes.membranes import cells_beyond
from cascade.sketch.rules import depth_um, stray_light
from cascade.sketch.settings import SketchSettings
from cascade.sketch.smooth import blurred

_SIGMAS, _DEEP = 2.0, 0.7  # of a wall's blur, and of the depth of a cell: from there on little is seen of its walls
_ROUNDS = 4  # in which light is found that, blurred, has the means of an image


def membrane_light(
    place: npt.NDArray[np.int32],
    wall: npt.NDArray[np.bool_],
    spacing_um: Sequence[float],
    settings: SketchSettings,
    contrast: npt.NDArray[Any],
    inside: npt.NDArray[Any],
    decay: npt.NDArray[Any] | None = None,
    single: npt.NDArray[Any] | None = None,
) -> npt.NDArray[np.float32]:
    """Light above the background of a tissue whose cells are called 1, 2, …: membranes (`wall`), both sides as bright
    as the cell that they belong to, blurred by `settings.softness_um` and casting stray light by `settings.glow`, and
    as bright in the mean as asked for.

    contrast, inside (N,): light of each cell's wall, and of what is inside it. decay: factor on every voxel. single:
    light of the membranes, like `place`, instead of that of their cells.
    """
    walls, insides = (np.append(0, values).astype(np.float32) for values in (contrast, inside))
    within = insides[place]
    bright = np.where(wall, walls[place] if single is None else single, 0).astype(np.float32)
    outer = wall & (place == 0)
    if outer.any() and single is None:  # of the side of the outer wall that belongs to no cell
        near = [settings.thickness_um / s for s in spacing_um]
        share = blurred((place > 0).astype(np.float32), near)
        bright[outer] = (blurred(walls[place], near) / np.maximum(share, 1e-3))[outer]
    excess = np.where(wall, bright - within, 0)
    if decay is not None:
        within, bright, excess = within * decay, bright * decay, excess * decay
    glow = any(settings.glow)
    if settings.softness_um == 0 and not glow:
        return np.asarray(within + excess, np.float32)
    stray = stray_light(excess, spacing_um, settings.glow, settings.glow_um) if glow else np.float32(0)
    if settings.softness_um > 0:
        sigma = [settings.softness_um / s for s in spacing_um]
        within, excess = blurred(within, sigma), blurred(excess, sigma)
    excess = excess + stray
    own = wall & (place > 0)
    got = float(excess[own].sum())
    gain = float((bright[own] - within[own]).sum()) / got if got else 1.0
    return np.asarray(within + np.float32(max(gain, 0)) * excess, np.float32)


def walls_between(
    place: npt.NDArray[np.int32], spacing_um: Sequence[float], thickness_um: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """The cell beyond each voxel of a membrane, -1 elsewhere; to which wall its voxels belong, (M,); and the two cells
    of each wall, (P, 2), 0 for what is outside."""
    beyond = cells_beyond(place, spacing_um, thickness_um)
    one, other = place[beyond >= 0].astype(np.int64), beyond[beyond >= 0]
    count = int(place.max(initial=0)) + 1
    keys, number = np.unique(np.minimum(one, other) * count + np.maximum(one, other), return_inverse=True)
    return beyond, number, np.stack([keys // count, keys % count], 1)


def single_walls(
    place: npt.NDArray[np.int32],
    ids: npt.NDArray[Any],
    spacing_um: Sequence[float],
    settings: SketchSettings,
    contrast: npt.NDArray[Any],
    inside: npt.NDArray[Any],
    seed: int,
) -> npt.NDArray[np.float32] | None:
    """Light of the membranes, like `place`: each wall between two cells has the mean of theirs, above that of their
    insides by a share of `settings.wall_light`; None where all walls of a cell are alike. Which share depends on seed
    and the ids of the two cells alone."""
    if settings.wall_light == (1.0,):
        return None
    beyond, number, pairs = walls_between(place, spacing_um, settings.thickness_um)
    names = np.append(0, ids).astype(np.uint64)[pairs]
    share = at_rank(settings.wall_light, _ranks(names[:, 0], names[:, 1], seed))
    cells = np.where(pairs > 0, pairs, pairs.max(1, keepdims=True))  # the outer wall is that of its cell
    walls, insides = np.append(0, contrast)[cells].mean(1), np.append(0, inside)[pairs].mean(1)
    found = np.zeros(place.shape, np.float32)
    found[beyond >= 0] = (insides + (walls - insides) * share)[number]
    return found


def _ranks(one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) of each pair of ids, in whichever order: the hash of splitmix64 (Steele et al. 2014)."""
    salt = stream(seed, "sketch walls").integers(2**63, dtype=np.uint64)
    with np.errstate(over="ignore"):
        mixed = (np.minimum(one, other) << np.uint64(32)) + np.maximum(one, other) + salt
        for _ in range(2):
            mixed = mixed + np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = mixed ^ (mixed >> np.uint64(31))
    return np.asarray((mixed >> np.uint64(11)) * 2.0**-53)


def measured_walls(
    place: npt.NDArray[np.int32],
    wall: npt.NDArray[np.bool_],
    spacing_um: Sequence[float],
    settings: SketchSettings,
    image: npt.NDArray[Any],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Light of each cell's own side of its walls, and of what is inside them, (N,) each, at which `membrane_light` has
    the means of an image there.

    What is inside is read off where walls do not shine to, as far as a cell has such a place; cells that are all wall
    are as bright inside. Blur and stray light are taken into account.
    """
    count = int(place.max(initial=0)) + 1
    depth = depth_um(place, spacing_um)
    deepest = np.zeros(count, np.float32)
    np.maximum.at(deepest, place[~wall], depth[~wall])
    inside = ~wall & (depth >= np.minimum(_clear_um(settings), _DEEP * deepest)[place])

    def means(light: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        found = []
        for part in (wall, inside):
            at = place[part]
            number = np.bincount(at, minlength=count)
            found.append(np.where(number > 0, np.bincount(at, light[part], count) / np.maximum(number, 1), np.nan)[1:])
        walls, insides = found
        return np.where(np.isnan(walls), insides, walls), np.where(np.isnan(insides), walls, insides)

    wanted = np.stack(means(image))
    found = wanted
    if count > 1 and (settings.softness_um > 0 or any(settings.glow)):
        for _ in range(_ROUNDS):
            got = np.stack(means(membrane_light(place, wall, spacing_um, settings, *found)))
            found = np.clip(found + wanted - got, np.minimum(0, 2 * wanted), np.maximum(0, 2 * wanted))
    return found[0], found[1]


def measured_single_walls(
    place: npt.NDArray[np.int32], spacing_um: Sequence[float], settings: SketchSettings, image: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """`membrane_light` of which each wall between two cells has its mean in an image, and each inside of a cell."""
    beyond, number, pairs = walls_between(place, spacing_um, settings.thickness_um)
    wall = beyond >= 0
    walls, insides = measured_walls(place, wall, spacing_um, settings, image)
    wanted = _means(number, image[wall], len(pairs))
    single, found = np.zeros(place.shape, np.float32), wanted
    for _ in range(_ROUNDS):
        single[wall] = found[number]
        light = membrane_light(place, wall, spacing_um, settings, walls, insides, single=single)
        found = found + wanted - _means(number, light[wall], len(pairs))
    return light


def _means(number: npt.NDArray[Any], values: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
    return np.asarray(np.bincount(number, values, count) / np.maximum(np.bincount(number, minlength=count), 1))


def open_cells(
    place: npt.NDArray[np.int32], spacing_um: Sequence[float], settings: SketchSettings
) -> npt.NDArray[np.bool_]:
    """Whether cells are so deep that something is seen of their inside, beside what their walls shine in, (N,)."""
    depth = depth_um(place, spacing_um)
    deepest = np.zeros(int(place.max(initial=0)) + 1, np.float32)
    np.maximum.at(deepest, place, depth)
    return np.asarray(deepest[1:] >= _clear_um(settings))


def _clear_um(settings: SketchSettings) -> float:
    return 0.5 * settings.thickness_um + _SIGMAS * max(settings.softness_um, *settings.glow_um, 0.0)
