"""A sketch of an annotation: a rough drawing, without noise, of the picture that is wanted."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.annotation import Annotation, overlapping
from cascade.optics.foreground import background_field, background_mask
from cascade.shapes.membranes import membranes
from cascade.sketch.membranes import measured_single_walls, measured_walls, membrane_light
from cascade.sketch.rules import numbered, overlap_darkening
from cascade.sketch.scene import Scene
from cascade.sketch.settings import SketchSettings


def draw_sketch(annotation: Annotation, settings: SketchSettings, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """The sketch of an annotation, in camera units, like its labels.

    Background and its field, and on it the light of cells or membranes: by their rim, nucleoli, depth in the organism
    and along z. Stray light lies between cells; theirs is what was asked for. What a cell gets, see `asked`, depends on
    rng and its id alone: same rng, same bytes. What the annotation says of brightness and nucleoli wins over the
    settings. Raises ValueError where it asks for what is no brightness, and for `overlap` without cells in layers.

    >>> labels = np.zeros((32, 32), np.uint16)
    >>> labels[8:24, 8:24] = 1
    >>> settings = SketchSettings(brightness=(300.0,), background=(100.0,))
    >>> sketch = draw_sketch(Annotation.of_labels(labels, (0.5, 0.5)), settings, np.random.default_rng(0))
    >>> sketch[0, 0].item(), sketch[16, 16].item()
    (100.0, 400.0)
    """
    scene = Scene.of(annotation, settings, int(rng.integers(2**63)))
    sketch = scene.background() + scene.light()
    if settings.overlap > 0:
        sketch *= overlap_darkening(overlapping(annotation), settings.overlap)
    return np.asarray(sketch, np.float32)


def asked(annotation: Annotation, settings: SketchSettings, rng: np.random.Generator) -> Annotation:
    """The annotation with the brightness and the nucleoli that `draw_sketch` gives its cells with an equal rng, which
    draws the same sketch of it: on the reference background, which is the settings' median one."""
    scene = Scene.of(annotation, settings, int(rng.integers(2**63)))
    reference = float(np.median(settings.background))
    cells = [
        replace(cell, brightness=float(reference + contrast), nucleoli=None if own is None else tuple(own))
        for cell, contrast, own in zip(annotation.cells, scene.contrast, scene.nucleoli, strict=True)
    ]
    return replace(annotation, cells=tuple(cells))


def sketch_of_image(
    labels: npt.NDArray[Any],
    image: npt.NDArray[Any],
    settings: SketchSettings | None = None,
    *,
    spacing_um: Sequence[float] | None = None,
) -> npt.NDArray[np.float32]:
    """The papers' sketch of an annotated image: "the intensity of each cell instance was uniformly set to the mean
    intensity of the corresponding cell within the real image" (workshop), the background to its own mean.

    labels, image: (Y, X) or (Z, Y, X). settings: default flat cells on a flat background; else structure, profile and
    stray light are theirs, and the background follows the image over `field_um` if they have a field. Cells keep their
    means; of membranes, each cell's own wall and its interior do, or each single
    wall where `wall_light` says that they differ. spacing_um: default 1 µm. Raises ValueError where
    labels and image are not equally large.
    """
    if labels.shape != image.shape:
        raise ValueError(f"labels {labels.shape} and image {image.shape} must be equally large")
    settings = settings or SketchSettings()
    spacing = tuple(float(s) for s in spacing_um or (1.0,) * labels.ndim)
    image = np.asarray(image, np.float32)
    annotation = Annotation.of_labels(labels if labels.dtype.kind == "u" else labels.astype(np.uint32), spacing)
    place = numbered(labels, np.array([cell.label for cell in annotation.cells], int))
    background = _background_of(image, place > 0, settings, spacing[-1])
    if settings.structure == "membranes" and settings.wall_light != (1.0,):
        return np.asarray(background + measured_single_walls(place, spacing, settings, image - background), np.float32)
    if settings.structure == "membranes":
        wall = membranes(place, spacing, settings.thickness_um)
        light = membrane_light(
            place, wall, spacing, settings, *measured_walls(place, wall, spacing, settings, image - background)
        )
        return np.asarray(background + light, np.float32)
    light = _cells_of(annotation, place, image - background, settings)
    if any(settings.glow):
        stray = np.where(place > 0, 0, light)
        background = _background_of(image - stray, place > 0, settings, spacing[-1])
        light = _cells_of(annotation, place, image - background, settings)
    return background + light


def _cells_of(
    annotation: Annotation, place: npt.NDArray[np.int32], above: npt.NDArray[np.float32], settings: SketchSettings
) -> npt.NDArray[np.float32]:
    """Light of cells at their means in an image."""
    counts = np.maximum(np.bincount(place.ravel()), 1)
    contrast = (np.bincount(place.ravel(), above.ravel()) / counts)[1:]
    return Scene.given(annotation, place, contrast, settings).light(whole=True)


def _background_of(
    image: npt.NDArray[np.float32], known: npt.NDArray[np.bool_], settings: SketchSettings, pixel_um: float
) -> npt.NDArray[np.float32]:
    """Of an image itself: its mean where there is no cell, or a slow field."""
    if known.all():
        return np.full(image.shape, image.min(), np.float32)
    ground = background_mask(image, known) & ~known if any(settings.glow) or settings.field_sd else ~known
    if settings.field_sd and ground.any():
        counts = ground.reshape(-1, *ground.shape[-2:]).sum(0)
        plane = np.where(ground, image, 0).reshape(-1, *ground.shape[-2:]).sum(0) / np.maximum(counts, 1)
        field = background_field(plane, counts > 0, settings.field_um / pixel_um).astype(np.float32)
        return np.asarray(np.broadcast_to(field, image.shape))
    return np.full(image.shape, image[ground].mean() if ground.any() else image.min(), np.float32)
