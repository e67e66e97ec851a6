"""Bodies whose places are given: where they overlap, each voxel goes to the one that it lies deepest in."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.annotation import Annotation, CellRecord
from cascade.geometry.masks import largest_piece, overlap_windows
from cascade.simulators.bodies import Body


def contest(
    bodies: Sequence[Body],
    centres: npt.NDArray[Any],
    canvas_size: tuple[int, ...],
    spacing_um: tuple[float, ...],
    brightness: npt.NDArray[Any] | None = None,
) -> Annotation:
    """Cells with these centre voxels (N, n), label n + 1 for body n, each in one piece.

    What others cut off from a cell is background, and counted (`counts["cut_by_others"]`). Raises ValueError for a cell
    that others cover whole.
    """
    labels = np.zeros(canvas_size, np.uint16 if len(bodies) < 2**16 else np.uint32)
    best = np.ones(canvas_size, np.float32)  # 1 on a body's surface
    for n, (body, centre) in enumerate(zip(bodies, centres, strict=True)):
        here, there = overlap_windows(centre - body.half, body.depth.shape, canvas_size)
        deeper = body.mask[there] & (body.depth[there] < best[here])
        labels[here][deeper] = n + 1
        best[here][deeper] = body.depth[there][deeper]
    cells, cut, covered = [], 0, []
    for n, box in enumerate(ndimage.find_objects(labels, len(bodies))):
        if box is None:
            covered.append(n)
            continue
        mask = labels[box] == n + 1
        whole = largest_piece(mask, corners=False)
        if whole is not mask:
            labels[box][mask & ~whole] = 0
            cut += 1
        places = zip(np.nonzero(whole), box, spacing_um, strict=True)
        cells.append(
            CellRecord(
                label=n + 1,
                centroid_um=tuple(float((index.mean() + part.start) * s) for index, part, s in places),
                size=float(np.count_nonzero(whole) * np.prod(spacing_um)),
                brightness=None if brightness is None else float(brightness[n]),
            )
        )
    if covered:
        where = " ".join(map(str, centres[covered[0]].tolist()))
        raise ValueError(
            f"{len(covered)} of {len(bodies)} cells are covered whole by others, the first at voxel {where}: give a "
            "smaller `radius_um`, or remove detections of the same cell"
        )
    return Annotation(labels, spacing_um, tuple(cells), counts={"cut_by_others": cut} if cut else {})
