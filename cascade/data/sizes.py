"""How large crops are, and their pixels, so that nearly all cells fit."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cascade.reading import DataError

USUAL_CROP = 64
"""Pixels; what the embedded models were trained with."""

_LARGEST_CROP = 256  # a crop of more is a scene, and its training takes days
_MARGIN = 4  # pixels of a crop that a cell leaves free
_FEW, _FEW_CELLS = 0.1, 10  # so many may be too large: without more, crops would show another population
_NEARLY_ALL = 95  # percent of the cells that a size is chosen for
_WIDTH = 4  # pixels of a cell that shows anything


@dataclass(frozen=True)
class Sizes:
    """Of crops, in pixels, and of a pixel, in µm."""

    crop_size: int
    pixel_size_um: float
    fitting: int
    """How many of the cells fit,"""
    cells: int
    """and of how many."""

    @property
    def said(self) -> str:
        """In words.

        >>> Sizes(64, 1.3, 398, 402).said
        'crops of 64 pixels, at 1.3 µm per pixel: 398 of 402 cells fit'
        """
        return (
            f"crops of {self.crop_size} pixels, at {self.pixel_size_um:g} µm per pixel: "
            f"{self.fitting} of {self.cells} cells fit"
        )


def choose_sizes(
    source: Path, sides_um: list[float], stored_um: float, crop_size: int | None, pixel_size_um: float | None
) -> Sizes:
    """Sizes with which nearly all cells fit: of what is not given, pixels become coarser, or else crops larger.

    sides_um: the longer side of the box around every whole cell. stored_um: the images' own pixel size, which is kept
    where it serves; crops are then of 64 pixels. Raises DataError where both sizes are given and too many cells are
    larger, naming what would do, where crops of more than 256 pixels would be needed, and for cells of a few pixels.

    >>> choose_sizes(Path("x"), [70.0] * 20, 1.0, None, None).said
    'crops of 64 pixels, at 1.2 µm per pixel: 20 of 20 cells fit'
    >>> choose_sizes(Path("x"), [70.0] * 20, 1.0, None, 0.5).said
    'crops of 144 pixels, at 0.5 µm per pixel: 20 of 20 cells fit'
    """
    sides = np.array(sides_um)
    size, pixel = crop_size or USUAL_CROP, pixel_size_um or stored_um
    large = int((sides > (size - _MARGIN) * pixel).sum())
    chosen = crop_size is None or pixel_size_um is None
    if large == len(sides) > 0 or ((chosen or len(sides) >= _FEW_CELLS) and large > _FEW * len(sides)):
        side = float(np.percentile(sides, _NEARLY_ALL, method="higher"))
        coarser, larger = _pixel_for(side, size), 16 * int(np.ceil((side / pixel + _MARGIN) / 16))
        mends = f"pixel_size_um {coarser:.3g}" + (f", or with crop_size {larger}" if larger <= _LARGEST_CROP else "")
        if not chosen or (pixel_size_um is not None and larger > _LARGEST_CROP):
            raise DataError(
                f"{source}: {large} of {len(sides)} cells are larger than a {size} px crop at {pixel:g} µm per pixel; "
                f"nearly all fit with {mends}"
            )
        size, pixel = (size, coarser) if pixel_size_um is None else (larger, pixel)
    if len(sides) and np.median(sides) < _WIDTH * pixel:
        raise DataError(
            f"{source}: cells are {np.median(sides) / pixel:.2g} pixels wide at {pixel:g} µm per pixel; "
            f"give a smaller pixel_size_um" + ("" if pixel_size_um else ", with which crops are larger")
        )
    return Sizes(size, pixel, int((sides <= (size - _MARGIN) * pixel).sum()), len(sides))


def _pixel_for(side_um: float, crop_size: int) -> float:
    """The finest pixel of two digits at which such a side fits, µm."""
    pixel = side_um / (crop_size - _MARGIN)
    digit = 10 ** (np.floor(np.log10(pixel)) - 1)
    return float(f"{np.ceil(pixel / digit) * digit:.3g}")
