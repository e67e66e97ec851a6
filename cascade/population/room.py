"""Where on a canvas the centres of cells may lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.geometry.masks import ellipsoid_region


@dataclass(frozen=True)
class Room:
    """Where the centres of cells' boxes may lie on a canvas: anywhere, unless it says otherwise.

    region: bool, as large as the canvas. layer: slices (N,) of a stack, one of which is drawn for each cell, where they
    lie in one layer, as on glass. beyond: centres may lie beyond the border of a canvas without a region, as long as a
    tenth of the box is on it: so do those of the cells of an image that is a window of a larger sample.
    """

    region: npt.NDArray[Any] | None = None
    layer: npt.NDArray[Any] | None = None
    beyond: bool = False


def room_of(
    canvas: tuple[int, ...],
    spacing_um: Sequence[float],
    region_um: Sequence[float] | None,
    layer_um: Sequence[float] = (),
    *,
    beyond: bool = False,
) -> Room:
    """The room on a canvas that cells have in real images.

    region_um: semi-axes of the ellipsoid that they fill, None for everywhere; where it is larger than the canvas, as
    large as that. layer_um: heights of their middles above the first slice, if they lie in one layer, which is then of
    the ellipsoid's outline seen along z; empty for any.
    """
    layer, region = None, None
    if len(layer_um):
        layer = np.clip(np.rint(np.array(layer_um) / spacing_um[0]), 0, canvas[0] - 1).astype(int)
    if region_um is not None:
        axes_um = np.minimum(region_um, 0.5 * np.array(canvas) * spacing_um)
        if layer is not None:
            axes_um[0] = np.inf
        region = ellipsoid_region(canvas, spacing_um, axes_um)
    return Room(region, layer, beyond)
