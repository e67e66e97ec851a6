"""What a camera sees where there is no cell: level, slow field and noise, fitted from real images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.optics.field import random_field
from cascade.rng import stream


@dataclass(frozen=True)
class Background:
    """Background level and field, camera units.

    levels: mean level of each real image. field_sd, field_px: spread and length in pixels of the slow field within
    an image; haze_sd, haze_px: those of the finer structure of out-of-focus light.
    """

    levels: list[float]
    field_sd: float
    field_px: float
    haze_sd: float
    haze_px: float

    @property
    def level(self) -> float:
        """The data set's reference level: the median over its images."""
        return float(np.median(self.levels))

    def draw(
        self,
        shape: tuple[int, ...],
        seed: int,
        index: int,
        level: float | None = None,
        origin: tuple[int, int] = (0, 0),
    ) -> npt.NDArray[Any]:
        """The noise-free background of image `index`, (Y, X) or (Z, Y, X) float32: level, slow field, haze.

        level: default that of a random real image. The slow field is the same in every slice. origin: of this window
        (y, x) in the whole image: windows of one image, however cut, fit together.
        """
        if level is None:
            level = float(stream(seed, "background level", index).choice(self.levels))
        field = random_field(shape[-2:], self.field_px, (seed, "field", index), origin=origin)
        background = np.full(shape, level, np.float32) + np.float32(self.field_sd) * field
        if self.haze_sd > 0:
            for z, plane in enumerate(background.reshape(-1, *shape[-2:])):
                plane += np.float32(self.haze_sd) * random_field(
                    shape[-2:], self.haze_px, (seed, "haze", index, z), origin=origin
                )
        return background
