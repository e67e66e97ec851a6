"""Where on a canvas the centres of cells may lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.geometry.masks import ellipsoid_region


@dataclass(frozen=True)
class Room:
    """Where the centres of cells' boxes may lie: anywhere on the canvas, unless it says otherwise.

    region: bool, as large as the canvas, or as a plane of it if there are `middles`. middles: heights (N,) in slices,
    one of which is drawn for each cell of a stack, where no cell lies above another, as on glass. beyond: centres may
    lie beyond the border of a canvas without a region, as long as a tenth of the box is on it: so do those of the cells
    of an image that is a window of a larger sample.
    """

    region: npt.NDArray[Any] | None = None
    middles: npt.NDArray[Any] | None = None
    beyond: bool = False


def room_of(
    canvas: tuple[int, ...],
    spacing_um: Sequence[float],
    region_um: Sequence[float] | None,
    middles_um: Sequence[float] = (),
    *,
    beyond: bool = False,
    shift_um: Sequence[float] | npt.NDArray[Any] | None = None,
    shell: Sequence[float] = (0.0, 1.0),
) -> Room:
    """The room on a canvas that cells have in real images.

    region_um: semi-axes of the ellipsoid that they fill, None for everywhere; where it is larger than the canvas, as
    large as that. middles_um: heights of their middles above the first slice where they lie in one layer, empty for
    anywhere; on a canvas of fewer slices they are squeezed into it. shift_um: of the ellipsoid's middle from the
    canvas's, at most until it is half a semi-axis from the border. shell: of the ellipsoid only what lies between two
    like it, as factors on its semi-axes; where that is no voxel at all, all that the outer one holds.
    """
    middles, region, flat = None, None, 0
    if len(middles_um):
        middles, flat = np.minimum(np.array(middles_um) / spacing_um[0], canvas[0] - 1), 1
    if region_um is not None:
        half_um = 0.5 * np.array(canvas) * spacing_um
        axes_um = np.minimum(shell[1] * np.array(region_um), half_um)
        far = half_um - 0.5 * axes_um
        shift = np.clip(np.zeros(len(canvas)) if shift_um is None else shift_um, -far, far)
        placed = canvas[flat:], spacing_um[flat:]
        region = ellipsoid_region(*placed, axes_um[flat:], shift[flat:])
        if shell[0]:
            hollow = ellipsoid_region(*placed, shell[0] / shell[1] * axes_um[flat:], shift[flat:])
            region = region & ~hollow if (region & ~hollow).any() else region
    return Room(region, middles, beyond)
