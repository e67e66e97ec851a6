"""An annotated stack as it is cut by slices of another distance."""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from cascade.annotation import Annotation, ids_of, measured
from cascade.geometry.masks import largest_piece
from cascade.geometry.resample import at_slices


def resliced(annotation: Annotation, slice_um: float) -> Annotation:
    """Labels, foreground and records at slices `slice_um` apart, the first where it was; planes stay as they are.

    Ids stay. Cells between two slices are gone; of one that slices show in pieces the largest is kept.

    >>> labels = np.zeros((9, 4, 4), np.uint16)
    >>> labels[2:6], labels[7] = 1, 2
    >>> [(cell.label, cell.size) for cell in resliced(Annotation.of_labels(labels, (1.0, 0.5, 0.5)), 2.0).cells]
    [(1, 16.0)]
    """
    if annotation.ndim == 2:
        return annotation
    old_um, *plane_um = annotation.spacing_um
    labels = at_slices(annotation.labels, old_um, slice_um, order=0)
    for label, box in enumerate(ndimage.find_objects(labels.astype(np.int32)), 1):
        if box is not None:
            own = labels[box] == label
            labels[box][own & ~largest_piece(own)] = 0
    spacing, ids = (slice_um, *plane_um), set(ids_of(labels).tolist())
    cells = [cell for cell in annotation.cells if cell.label in ids]
    records = [
        replace(cell, centroid_um=centroid, size=size)
        for cell, centroid, size in zip(cells, *measured(labels, spacing), strict=True)
    ]
    foreground = annotation.foreground
    if foreground is not None:
        foreground = at_slices(foreground, old_um, slice_um, order=0)
    return replace(annotation, labels=labels, spacing_um=spacing, cells=tuple(records), foreground=foreground)
