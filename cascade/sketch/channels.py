"""Sketches of several channels: the same cells, drawn in each by its own rules."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.annotation import Annotation
from cascade.rng import stream
from cascade.sketch.draw import asked, draw_sketch
from cascade.sketch.settings import SketchSettings


def draw_channels(
    annotation: Annotation, settings: Sequence[SketchSettings], seed: int, index: int, cell_channel: int = 1
) -> tuple[Annotation, npt.NDArray[np.float32]]:
    """The annotation as it is asked for, and its sketch in camera units: like its labels of one channel, of several
    (C, …).

    settings: of each channel. cell_channel: number of the one, from 1, that brightness in the records is of; in the
    others it is drawn. Nucleoli lie where they lie in that one, in the channels that have some. Sketch `index` of a
    seed is the same whatever else is drawn. Raises ValueError as `draw_sketch` does.

    >>> labels = np.zeros((32, 32), np.uint16)
    >>> labels[8:24, 8:24] = 1
    >>> both = [SketchSettings(brightness=(light,), background=(100.0,)) for light in (300.0, 50.0)]
    >>> told, sketch = draw_channels(Annotation.of_labels(labels, (0.5, 0.5)), both, 0, 0)
    >>> sketch[:, 16, 16].tolist(), told.cells[0].brightness
    ([400.0, 150.0], 400.0)
    """
    own = cell_channel - 1
    told = asked(annotation, settings[own], stream(seed, "sketch", index))
    drawings = []
    for n, one in enumerate(settings):
        if n == own:
            drawings.append(draw_sketch(annotation, one, stream(seed, "sketch", index)))
        else:
            drawings.append(draw_sketch(_beside(told, one), one, stream(seed, "sketch", index, n)))
    return told, drawings[0] if len(drawings) == 1 else np.stack(drawings)


def _beside(told: Annotation, settings: SketchSettings) -> Annotation:
    """As another channel draws it: with a brightness of its own, and without nucleoli where it has none."""
    without: dict[str, Any] = {} if settings.nucleoli[-1] > 0.5 else {"nucleoli": ()}
    return replace(told, cells=tuple(replace(cell, brightness=None, **without) for cell in told.cells))


def record_of(settings: Sequence[SketchSettings], cell_channel: int = 1) -> dict[str, Any]:
    """Plain numbers and lists: fields of the only channel's settings, or those of all and which shows the cells."""
    if len(settings) == 1:
        return settings[0].record()
    return {"cell_channel": cell_channel, "channels": [one.record() for one in settings]}


def of_record(record: Mapping[str, Any], channels: int) -> tuple[tuple[SketchSettings, ...], int]:
    """Inverse of `record_of`, of so many channels. Raises ValueError for settings that cannot be, or of others.

    >>> both = (SketchSettings(), SketchSettings(structure="membranes"))
    >>> of_record(record_of(both, 2), 2) == (both, 2)
    True
    """
    settings = tuple(SketchSettings(**one) for one in record.get("channels", [record]))
    cell_channel = record.get("cell_channel", 1)
    if len(settings) != channels:
        raise ValueError(f"sketches have {len(settings)} channels, the images {channels}: one for each")
    if not 1 <= cell_channel <= channels:
        raise ValueError(f"cell_channel must be a number from 1 to {channels}, got {cell_channel}")
    return settings, cell_channel
