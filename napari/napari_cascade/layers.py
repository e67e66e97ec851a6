"""Between layers and arrays: images with their labels and voxel size, checked, and the other way round."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer

Array = npt.NDArray[Any]
LayerData = tuple[Any, dict[str, Any], str]
"""Data, options, and kind of a layer, as plugins hand them to napari."""

SEPARATE = "image"
"""Name of a first axis along which images follow each other that have nothing to do with another."""
MICROMETRE, PIXEL = "micrometer", "pixel"


@dataclass(frozen=True)
class Annotated:
    """Images of one dimension with their labels. spacing_um: voxel size, (z), y, x."""

    images: list[Array]
    labels: list[Array]
    spacing_um: tuple[float, ...]


def annotated(
    image: "Image | None", labels: "Labels | None", *, separate: bool = False, spacing_um: Sequence[float] = ()
) -> Annotated:
    """Two layers as images with their labels.

    separate: the first axis counts images; else a third axis is z. spacing_um: default the image layer's scale.
    Raises ValueError, one line that names the layer, for layers that cannot be used.
    """
    if image is None or labels is None:
        missing = [name for name, layer in (("an Image", image), ("a Labels", labels)) if layer is None]
        raise ValueError(f"choose {' and '.join(missing)} layer: open or make one first")
    if image.rgb:
        raise ValueError(f"{image.name} is in colour: choose a layer of one channel (right-click, Split RGB)")
    whole, cells = data_of(image), data_of(labels)
    ndim = whole.ndim - separate
    if ndim not in (2, 3):
        first = "" if separate else ", or tick that the first axis counts images"
        raise ValueError(
            f"{image.name} has {whole.ndim} axes {whole.shape}: choose a plane (y, x) or a stack (z, y, x){first}"
        )
    if cells.shape != whole.shape:
        raise ValueError(
            f"{labels.name} has shape {cells.shape}, {image.name} {whole.shape}: labels must be as large as their image"
        )
    if cells.min(initial=0) < 0:
        raise ValueError(f"{labels.name} has numbers below 0: cells are 1, 2, …, and the background is 0")
    if not cells.any():
        raise ValueError(
            f"{labels.name} is empty: outline some cells, each with a number of its own (M takes a new one)"
        )
    size = tuple(spacing_um) or _scale_um(image, ndim)
    if len(size) != ndim:
        raise ValueError(f"voxel size {' '.join(f'{one:g}' for one in size)}: {image.name} needs {ndim} lengths in µm")
    return Annotated(list(whole) if separate else [whole], list(cells) if separate else [cells], size)


def data_of(layer: "Layer") -> Array:
    """The whole array of a layer, in full resolution."""
    return np.asarray(layer.data[0] if getattr(layer, "multiscale", False) else layer.data)


def is_separate(layer: "Layer | None") -> bool:
    """Whether a layer's first axis counts images, as those of this plugin say."""
    return layer is not None and layer.axis_labels[0] == SEPARATE


def layer_data(
    name: str,
    images: Array | None,
    labels: Array,
    spacing_um: Sequence[float],
    *,
    units: str = MICROMETRE,
    metadata: Mapping[str, Any] | None = None,
) -> list[LayerData]:
    """An image layer, if there is an image, and one of its labels, with their scale.

    With one axis more than `spacing_um` has lengths, the first one counts images.
    """
    separate = labels.ndim - len(spacing_um)
    axes = [SEPARATE] * separate + list("zyx"[-len(spacing_um) :])
    options: dict[str, Any] = {
        "scale": [1.0] * separate + list(spacing_um),
        "axis_labels": axes,
        "units": [PIXEL] * separate + [units] * len(spacing_um),
        "metadata": dict(metadata or {}),
    }
    shown: list[LayerData] = [] if images is None else [(images, {"name": name, **options}, "image")]
    return [*shown, (labels, {"name": f"{name} labels", **options}, "labels")]


def units_of(layers: Iterable["Layer"]) -> str:
    """Those that go with layers that are there: where one has no unit, none has, or napari takes them for pixels."""
    return MICROMETRE if all(str(layer.units[-1]) == MICROMETRE for layer in layers) else PIXEL


def _scale_um(layer: "Layer", ndim: int) -> tuple[float, ...]:
    """Voxel size by a layer's scale, whose unit is taken for µm where it has none."""
    scale, units = layer.scale[-ndim:], layer.units[-ndim:]
    bare = all(str(unit) == PIXEL for unit in units)
    if ndim == 3 and bare and np.all(scale == 1):
        raise ValueError(f"{layer.name} has no voxel size: write z y x in µm into the field")
    if odd := [unit for unit in units if str(unit) != PIXEL and not unit.is_compatible_with("micrometer")]:
        raise ValueError(
            f"{layer.name} has an axis in {odd[0]}, which is no length: write the voxel size in µm into the field, or "
            "tick that the first axis counts images"
        )
    lengths = [
        float(length) * (1.0 if str(unit) == PIXEL else (1 * unit).to("micrometer").magnitude)
        for length, unit in zip(scale, units, strict=True)
    ]
    return tuple(lengths)
