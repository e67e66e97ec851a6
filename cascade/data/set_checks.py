"""What the frames of one data set say of each other: mixed kinds or voxel sizes, inverted light, swapped labels."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.data.frames import Frame
from cascade.data.spacing import stored_spacing
from cascade.evenly import evenly

_SAME_SIZE = 0.01  # relative difference of voxel sizes that rounding makes
_CELLS = 30  # looked at in a frame
_GAP_PX = 2  # between a cell and what surrounds it: blur
_DARK_SHARE, _DARK_FEW = 0.9, 3  # of the cells looked at, and so many at least, are darker than what surrounds them
_SIDE = 64  # pixels of a thumbnail: cells are a few pixels wide, thousands of frames fit into memory
_FIT, _BETTER = 0.5, 0.3  # correlations, of labels with another frame's image, and beyond that with their own
_USUAL_FIT, _NO_FIT = 0.4, 0.25  # median correlation of labels with their own image, and the share of it that is none
_FEW_FRAMES = 5  # do not tell what is usual
_TOGETHER = 500  # frames compared at a time


@dataclass(frozen=True)
class Look:
    """What is remembered of a frame."""

    frame: Frame
    ndim: int  # of the image
    spacing_um: tuple[float, ...] | None  # as stored with the image
    dark: int  # of the cells looked at, those darker than what surrounds them
    looked: int
    light: npt.NDArray[Any]  # (h, w) float16, thumbnail, of a stack along z; zero mean and unit length
    cover: npt.NDArray[Any]  # (h, w) the same of what is labelled


def look_at(frame: Frame, image: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Look:
    """Look at a frame that `check_frame` has found sound."""
    spacing = stored_spacing(frame.image_path, image.ndim)
    plane = image if frame.z is None else image[frame.z]
    dark, looked = _count_dark(plane, labels)
    light, cover = _thumbnail(plane), _thumbnail(labels > 0)
    return Look(frame, image.ndim, spacing, dark, looked, _normal(np.sqrt(light - light.min())), _normal(cover))


def mistakes_of(looks: list[Look], spacing_given: bool = False) -> Iterator[str]:
    """What makes the set unfit, one line each; with `spacing_given` voxel sizes may differ."""
    if not looks:
        return
    yield from _mixed_kinds(looks)
    if not spacing_given:
        yield from _mixed_spacing(looks)
    yield from _dark_cells(looks)
    yield from _swapped(looks)


def doubts_of(looks: list[Look]) -> Iterator[str]:
    """What deserves a look, one line each."""
    fits = np.array([_fit_of(look) for look in looks if look.cover.any()])
    if len(fits) < _FEW_FRAMES or np.median(fits) < _USUAL_FIT:  # membranes, dense tissue, and single annotated cells
        return
    for look, fit in zip((look for look in looks if look.cover.any()), fits, strict=True):
        if fit < _NO_FIT * np.median(fits):
            yield (
                f"{look.frame.label_path}: these labels do not lie where {look.frame.image_path.name} is bright, as "
                f"those of other frames do; is one of both shifted, mirrored, or of another frame?"
            )


def _mixed_kinds(looks: list[Look]) -> Iterator[str]:
    first = looks[0]
    other = next((look for look in looks if look.ndim != first.ndim), None)
    if other is not None:
        yield (
            f"{other.frame.image_path}: {other.ndim} axes, but {first.frame.image_path} has {first.ndim}; "
            f"prepare planes and stacks apart"
        )
    kinds = {look.frame.z is None: look.frame for look in looks if look.ndim == 3}
    if len(kinds) == 2:
        yield (
            f"{kinds[True].label_path}: labels of a whole stack, but {kinds[False].label_path} are of one slice; "
            f"prepare whole stacks and single slices apart"
        )


def _mixed_spacing(looks: list[Look]) -> Iterator[str]:
    first: Look | None = None
    for look in looks:
        if look.spacing_um is None or look.ndim != looks[0].ndim:
            continue
        first = first or look
        if not np.allclose(look.spacing_um, first.spacing_um or (), rtol=_SAME_SIZE):
            yield (
                f"{look.frame.image_path}: voxels of {_lengths(look)} µm, but those of {first.frame.image_path} are "
                f"{_lengths(first)}; prepare them apart, or give spacing_um (or write it to dataset.json) if it is "
                f"one for all"
            )
            return


def _dark_cells(looks: list[Look]) -> Iterator[str]:
    dark = [look for look in looks if look.looked >= _DARK_FEW and look.dark >= _DARK_SHARE * look.looked]
    total = sum(look.looked for look in looks)
    if not dark and total >= _DARK_FEW and sum(look.dark for look in looks) >= _DARK_SHARE * total:
        dark = [look for look in looks if look.dark]
    if dark:
        others = f" and {len(dark) - 1} more" if len(dark) > 1 else ""
        counts = f"{sum(look.dark for look in dark)} of {sum(look.looked for look in dark)}"
        yield (
            f"{dark[0].frame.image_path}{others}: {counts} cells are darker than what surrounds them; cells must be "
            f"bright on dark: invert the images (image.max() - image, with one maximum for all)"
        )


def _swapped(looks: list[Look]) -> Iterator[str]:
    """Labels that fit another frame's image much better than their own, where that has labels that do not fit it."""
    groups: dict[tuple[object, ...], list[Look]] = defaultdict(list)
    for look in looks:
        if look.cover.any():
            groups[(look.ndim, look.light.shape)].append(look)
    for alike in groups.values():
        for start in range(0, len(alike), _TOGETHER):
            some = alike[start : start + _TOGETHER]
            light = np.stack([look.light.ravel() for look in some]).astype(np.float32)
            fits = np.stack([look.cover.ravel() for look in some]).astype(np.float32) @ light.T  # labels by images
            own = np.diag(fits)
            better = (fits > _FIT) & (fits > own[:, None] + _BETTER) & (fits > own[None] + _BETTER)
            for n in np.flatnonzero(better.any(1)):
                best = some[int(np.argmax(np.where(better[n], fits[n], -1)))].frame
                yield (
                    f"{some[n].frame.label_path}: these labels fit {best.image_path}, which has {best.label_path}, and "
                    f"not their own image; were label files swapped?"
                )


def _count_dark(image: npt.NDArray[Any], labels: npt.NDArray[Any]) -> tuple[int, int]:
    """Cells that are clearly darker than the unlabelled pixels around them, and how many were looked at."""
    boxes = [(label, box) for label, box in enumerate(ndimage.find_objects(labels), 1) if box is not None]
    if not boxes:
        return 0, 0
    reach = (1,) * (labels.ndim - 2) + (2 * _GAP_PX + 1,) * 2
    free = ndimage.maximum_filter((labels > 0).view(np.uint8), reach) == 0
    dark = looked = 0
    for label, box in (boxes[n] for n in evenly(len(boxes), _CELLS)):
        margins = [max((side.stop - side.start) // 2, 2 * _GAP_PX) for side in box]
        window = tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(box, margins, strict=True))
        around, inside = image[window][free[window]], image[window][labels[window] == label]
        if min(len(around), len(inside)) < 12:
            continue
        level = float(np.median(around))
        spread = 1.48 * float(np.median(np.abs(around - level)))  # a standard deviation
        looked += 1
        dark += float(np.median(inside)) < level - max(spread, 1.0)
    return dark, looked


def _thumbnail(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Means of blocks, float32, at most `_SIDE` pixels a side; of a stack the mean along z."""
    plane = plane.mean(0, dtype=np.float32) if plane.ndim == 3 else plane
    step = min(-(-max(plane.shape) // _SIDE), *plane.shape)
    height, width = (n // step * step for n in plane.shape)
    blocks = plane[:height, :width].reshape(height // step, step, width // step, step)
    return np.asarray(blocks.mean((1, 3), dtype=np.float32))


def _normal(thumbnail: npt.NDArray[Any]) -> npt.NDArray[Any]:
    centred = thumbnail - thumbnail.mean()
    length = float(np.sqrt((centred**2).sum()))
    return np.asarray(centred / max(length, 1e-9), np.float16)


def _fit_of(look: Look) -> float:
    return float((look.light.astype(np.float32) * look.cover.astype(np.float32)).sum())


def _lengths(look: Look) -> str:
    return " × ".join(f"{length:g}" for length in look.spacing_um or ())
