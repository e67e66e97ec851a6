"""Images for a page, at their own pixels or whole multiples of them: fields of view, sections, outlines of labels."""

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from skimage import segmentation

from cascade.evaluation.labelled import LabelledImage
from cascade.evenly import evenly
from cascade.optics.window import Window

_SIDE = 256  # pixels shown of a plane at most; smaller ones are shown two or more times as large
_GAP = 4


def predictions_of(kept: dict[str, Path]) -> dict[str, dict[int, npt.NDArray[Any]]]:
    """By condition, labels by number of the test image: what `run_trainings` kept, where it did."""
    found = {}
    for name, path in kept.items():
        if path.is_file():
            with np.load(path) as archive:
                found[name] = {int(key): archive[key] for key in archive.files}
    return found


def errors(
    test: list[LabelledImage], predictions: dict[str, dict[int, npt.NDArray[Any]]], names: dict[str, str]
) -> str:
    """Rows of HTML: each test image after each training, true outlines in white, the segmentation's in red. Of stacks
    the plane that shows most cells, and below it a section along z."""
    rows = []
    for number in sorted({n for found in predictions.values() for n in found if n < len(test)}):
        one = test[number]
        shown = [
            (names[name], _views(one, _times(one), found[number]))
            for name, found in predictions.items()
            if number in found
        ]
        rows.append(_row(shown, f"test image {number}"))
    return "".join(rows)


def side_by_side(real: list[LabelledImage], synthetic: list[LabelledImage], count: int = 4) -> str:
    """Two rows of HTML, real and synthetic images in the same scale and grey values; of stacks with sections along
    z."""
    some = {
        name: [images[n] for n in evenly(len(images), count)]
        for name, images in (("real", real), ("synthetic", synthetic))
    }
    window = window_of(np.concatenate([one.image.ravel()[::3] for one in some["real"]]))
    times = min(_times(one) for images in some.values() for one in images)
    return "".join(
        _row([("", _views(one, times, window=window)) for one in images], name) for name, images in some.items()
    )


def _row(pictures: list[tuple[str, npt.NDArray[Any]]], title: str) -> str:
    figures = []
    for caption, picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG", optimize=True)
        data = base64.b64encode(buffer.getvalue()).decode()
        size = f'width="{picture.shape[1]}" height="{picture.shape[0]}"'
        image = f'<img alt="{html.escape(title)} {html.escape(caption)}" {size} src="data:image/png;base64,{data}">'
        figures.append(f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>")
    return f'<p>{html.escape(title)}</p><div class="row">{"".join(figures)}</div>'


def _times(one: LabelledImage) -> int:
    """How many times as large an image is shown."""
    return max(round(_SIDE / one.image.shape[-1]), 1)


def _views(
    one: LabelledImage, times: int, found: npt.NDArray[Any] | None = None, window: Window | None = None
) -> npt.NDArray[Any]:
    """An image `times` as large, as colours (h, w, 3) uint8, with outlines of its labels and those found if these are
    given; of a stack the plane with most cells, above a section along z through its fullest row, at equal spacing."""
    window = window or window_of(one.image)
    if one.image.ndim == 2:
        cut = (slice(None, _SIDE), slice(None, _SIDE))
        return _drawn(one.image[cut], one.labels[cut], None if found is None else found[cut], window, times)
    z = int((one.labels > 0).sum((1, 2)).argmax())
    y = int((one.labels[z] > 0).sum(1).argmax())
    stretch = one.spacing_um[0] / one.spacing_um[2]
    views = []
    for section, scale in ((np.s_[z, :_SIDE, :_SIDE], None), (np.s_[:, y, :_SIDE], stretch)):
        cut_out = [array[section] for array in (one.image, one.labels, *([] if found is None else [found]))]
        if scale is not None:
            cut_out = [ndimage.zoom(a, (scale, 1), order=0, grid_mode=True, mode="nearest") for a in cut_out]
        image, truth, *others = cut_out
        views.append(_drawn(image, truth, others[0] if others else None, window, times))
    gap = np.full((_GAP, views[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([views[0], gap, views[1]])


def _drawn(
    image: npt.NDArray[Any], truth: npt.NDArray[Any], found: npt.NDArray[Any] | None, window: Window, times: int
) -> npt.NDArray[Any]:
    def large(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return plane.repeat(times, 0).repeat(times, 1)

    colour = np.rint(255 * window.stretch(large(image))).astype(np.uint8)[..., None].repeat(3, -1)
    if found is not None:
        colour[segmentation.find_boundaries(large(truth), mode="inner")] = 255
        colour[segmentation.find_boundaries(large(found), mode="inner")] = (255, 90, 75)
    return colour


def window_of(image: npt.NDArray[Any]) -> Window:
    """Grey values in which an image is shown."""
    low, high = np.percentile(image, [1, 99.7])
    return Window(float(low), float(high if high > low else low + 1), 0.7)
