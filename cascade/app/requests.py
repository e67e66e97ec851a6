"""What the buttons of the page do: from the values of its fields to pictures and one line each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade import __version__
from cascade.annotation import Annotation, Sample
from cascade.app import painters, scenes
from cascade.app.drawing import labels_of_drawing
from cascade.app.pairs import look_at_pairs
from cascade.app.settings import lengths, whole
from cascade.app.uploads import read_mask
from cascade.export.preview import sample_picture

Picture = npt.NDArray[np.uint8]
FORMATS = ("cellpose", "ctc", "stardist")
"""Of downloads."""
SIDES = (128, 1024)
"""Of a population's canvas, pixels."""
_MOST = 2**31 - 1  # of seeds


@dataclass(frozen=True)
class Made:
    """What was made last, for a download."""

    sample: Sample
    made_by: str


def in_one_line(function: Callable[..., tuple[Any, ...]], results: int) -> Callable[..., tuple[Any, ...]]:
    """The same, but a mistake in the input is the last of the results, in one line, and the others are None."""

    def run(*values: Any) -> tuple[Any, ...]:
        try:
            return function(*values)
        except (ValueError, OSError, ImportError) as error:
            said = " ".join(str(error).split())
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
                raise
            said = "not enough memory: ask for a smaller image"
        return (*(None,) * (results - 1), said)

    run.__name__ = function.__name__  # which the page's interface is called by
    return run


def load_mask(path: str | None) -> tuple[Any, Any, str]:
    """Cells of an uploaded mask, their picture, and what to do next; the file is deleted."""
    if path is None:
        return None, None, "the drawing is painted"
    labels = read_mask(Path(path))
    return (
        labels,
        scenes.coloured(labels),
        f"{labels.max()} cells in {_size(labels)}: they are painted, not the drawing",
    )


def paint(
    drawing: Mapping[str, Any] | None,
    mask: npt.NDArray[np.uint16] | None,
    painter: str,
    t_start: float,
    steps: float,
    seed: float,
) -> tuple[Picture, Picture, Made, str]:
    """The picture of a drawing, or of a mask if there is one; t_start, steps: 0 for the model's own."""
    slips = 0
    if mask is None:
        labels, slips = labels_of_drawing((drawing or {}).get("layers") or [])
    else:
        labels = mask
    start, calls = whole("t_start", t_start, 0, 1000), whole("steps", steps, 0, 200)
    annotation = Annotation.of_labels(labels, painters.spacing_of(painter))
    chosen = (start or None) if painters.paints_sketches(painter) else None
    sample = painters.paint(annotation, painter, whole("seed", seed, 0, _MOST), t_start=chosen, steps=calls or None)
    said = f"{len(sample.cells)} cells in {_size(labels)}"
    said += f"; {slips} strokes were too small for a cell" if slips else ""
    assert sample.image is not None
    return scenes.grey(sample.image), scenes.coloured(labels), Made(sample, painter), said


def populate(
    painter: str, num_cells: float, clustering: float, side: float, seed: float, bank: bool
) -> tuple[Picture, Picture, Made, str]:
    """A population and its labels."""
    sample = scenes.population(
        painter,
        num_cells=whole("cells", num_cells, 1, 10**6),
        clustering=float(clustering),
        side=whole("canvas", side, *SIDES),
        seed=whole("seed", seed, 0, _MOST),
        bank=bank,
    )
    missing = whole("cells", num_cells, 1, 10**6) - len(sample.cells)
    said = f"{len(sample.cells)} cells in {_size(sample.labels)}"
    said += f"; {missing} found no room, or could not be made" if missing > 0 else ""
    assert sample.image is not None
    return scenes.grey(sample.image), scenes.coloured(sample.labels), Made(sample, painter), said


def simulate(organism: str, look: scenes.Look, painter: str, seed: float) -> tuple[Picture, Made, str]:
    """An organism, looked at as labels, as a sketch, or painted."""
    number = whole("seed", seed, 0, _MOST)
    annotation = scenes.simulate(organism, number)
    sample = scenes.shown(annotation, look, painter, number)
    picture = np.rint(np.clip(sample_picture(sample), 0, 1) * 255).astype(np.uint8)
    spacing = " × ".join(f"{one:.3g}" for one in annotation.spacing_um)
    made_by = f"{organism}, painted by {painter}" if look == "painted" else organism
    said = f"{len(sample.cells)} cells in {_size(sample.labels)} voxels of {spacing} µm"
    return picture, Made(sample, made_by), said


def look(
    files: Sequence[str] | None, crop_size: float | None, pixel_size_um: float | None, spacing_um: str, sparse: bool
) -> tuple[None, Picture, str, str]:
    """The crops of dropped images, what was left out and why, and the command that learns from them; the files are
    deleted, and the first of the results empties their field."""
    found = look_at_pairs(
        [Path(one) for one in files or []],
        crop_size=whole("crop size", crop_size or 0, 0, 10**4) or None,
        pixel_size_um=float(pixel_size_um or 0) or None,
        spacing_um=lengths("voxel size", spacing_um),
        sparse=sparse,
    )
    return None, found.crops, found.command, "\n".join([f"{found.used} crops of one cell each", *found.notes])


def download(made: Made | None, format: str, folder: Path) -> Path:
    """A zip of what was made last. Raises ValueError where nothing was."""
    if made is None:
        raise ValueError("there is nothing to download yet: make an image first")
    about = {"made_by": f"cascade-microscopy {__version__}", "source": made.made_by, "seed": made.sample.seed}
    return scenes.saved(made.sample, folder, format, about)


def _size(labels: npt.NDArray[Any]) -> str:
    return "×".join(map(str, labels.shape))
