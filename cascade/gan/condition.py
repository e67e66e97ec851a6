"""What the generator is told of an annotation: its membranes, or a sketch of its cells."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cascade.annotation import Annotation
from cascade.gan.position import position
from cascade.optics.window import Window
from cascade.shapes.membranes import membranes
from cascade.sketch.draw import draw_sketch, sketch_of_image
from cascade.sketch.scene import foreground_of
from cascade.sketch.settings import SketchSettings

Condition = Literal["binary", "sketch"]


def condition_of(
    annotation: Annotation, kind: Condition, settings: SketchSettings, window: Window, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """An annotation as the generator sees it, in [−1, 1], like the labels.

    kind: "binary", 1 on cells, or on the membranes between them, and −1 elsewhere (the paper's); "sketch", a sketch in
    the image's window. settings: which of both, how thick membranes are, and how sketches are drawn.
    """
    if kind == "binary":
        return binary(annotation.labels, annotation.spacing_um, settings)
    return seen(draw_sketch(annotation, settings, rng), window)


def condition_of_image(
    annotation: Annotation, image: npt.NDArray[Any], kind: Condition, settings: SketchSettings, window: Window
) -> npt.NDArray[np.float32]:
    """The same of an image's own annotation: in a sketch cells are as bright as they are in the image."""
    if kind == "binary":
        return binary(annotation.labels, annotation.spacing_um, settings)
    sketch = sketch_of_image(annotation.labels, image, settings, spacing_um=annotation.spacing_um)
    return seen(sketch, window)


def binary(
    labels: npt.NDArray[Any], spacing_um: tuple[float, ...], settings: SketchSettings
) -> npt.NDArray[np.float32]:
    """1 on cells or membranes, −1 elsewhere.

    >>> binary(np.array([[0, 0, 3, 3]]), (1.0, 1.0), SketchSettings()).tolist()
    [[-1.0, -1.0, 1.0, 1.0]]
    """
    walls = settings.structure == "membranes"
    inside = membranes(labels, spacing_um, settings.thickness_um) if walls else labels > 0
    return np.where(inside, 1, -1).astype(np.float32)


def seen(image: npt.NDArray[Any], window: Window) -> npt.NDArray[np.float32]:
    """Camera units to [−1, 1]."""
    return np.asarray(2 * window.stretch(image) - 1, np.float32)


def position_of(annotation: Annotation, alpha: float, beta: float, *, asked: bool = False) -> npt.NDArray[np.float32]:
    """f_pos of an annotation, see `position`: of its foreground, else of what its cells fill.

    asked: whether someone wants this very α or β; then ValueError is raised for an annotation that has no foreground,
    or one without an outside.
    """
    foreground = foreground_of(annotation) if annotation.foreground is not None or annotation.cells else None
    share = 0.0 if foreground is None else float(foreground.mean())
    if asked and share in (0, 1):
        raise ValueError(
            "alpha and beta say how light changes with the distance to a specimen's boundary, and this annotation has "
            f"{'no outside' if share else 'no foreground'}: leave them out, or give it one that does not fill the image"
        )
    if foreground is None:
        foreground = np.zeros(annotation.labels.shape, bool)
    return position(foreground, annotation.spacing_um, alpha=alpha, beta=beta)
