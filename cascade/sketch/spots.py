"""Nucleoli: where a cell's dark spots lie that no annotation tells of."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cascade.annotation import Annotation
from cascade.draws import at_rank
from cascade.rng import stream
from cascade.sketch.rules import Spot, ranks
from cascade.sketch.settings import SketchSettings

_DEEP = 0.4  # relative depth from which spots are drawn in cells


def nucleoli_of(
    annotation: Annotation,
    place: npt.NDArray[np.int32],
    depth: npt.NDArray[np.float32] | None,
    settings: SketchSettings,
    seed: int,
) -> list[Sequence[Spot] | None]:
    """Dark spots of each cell: its record's, else as many as the settings draw, deep inside it.

    depth: relative, of each voxel, where spots are to be drawn; see `draws_spots`.
    """
    given: list[Sequence[Spot] | None] = [cell.nucleoli for cell in annotation.cells]
    most = max(int(np.rint(settings.nucleoli[-1])), 0)
    if depth is None:
        return given
    ids = np.array([cell.label for cell in annotation.cells], int)
    rank = ranks(stream(seed, "sketch spots"), ids, 1 + 2 * most)
    counts = np.rint(at_rank(settings.nucleoli, rank[:, 0])).astype(int)
    radii = at_rank(settings.nucleolus_radius, rank[:, 1 : 1 + most])
    inside = np.flatnonzero(depth >= _DEEP)
    inside = inside[np.argsort(place.ravel()[inside], kind="stable")]
    starts = np.searchsorted(place.ravel()[inside], np.arange(1, len(ids) + 2))
    unit = np.pi if annotation.ndim == 2 else 4 / 3 * np.pi
    for n, cell in enumerate(annotation.cells):
        if given[n] is None:
            own = inside[starts[n] : starts[n + 1]]
            many = counts[n] if len(own) else 0  # a cell one voxel thin has no inside
            at = own[(rank[n, 1 + most : 1 + most + many] * len(own)).astype(int)]
            centres = np.stack(np.unravel_index(at, place.shape), 1) * annotation.spacing_um
            whole = (cell.size / unit) ** (1 / annotation.ndim)
            given[n] = [(*map(float, c), float(r * whole)) for c, r in zip(centres, radii[n], strict=False)]
    return given


def draws_spots(annotation: Annotation, settings: SketchSettings) -> bool:
    """Whether any spot is to be drawn that the annotation does not tell of."""
    return settings.nucleoli[-1] > 0.5 and any(cell.nucleoli is None for cell in annotation.cells)
