"""How a conditional GAN paints: what quality is asked for, and in which tiles."""

import math
from dataclasses import dataclass

from cascade.settings import at_least, check_fields

ALPHA = BETA = 100.0
"""Of f_pos, with which the paper trains."""


@dataclass(frozen=True, kw_only=True)
class QualitySettings:
    """Of a painting by a conditional GAN; what is None is as the model has it."""

    alpha: float | None = None
    """Quality: at how many voxels from the specimen's boundary inwards light is as it is deep inside; the smaller, the
    worse. 10 is poor, 100 the paper's; the embedded weights change little above 50."""
    beta: float | None = None
    """The same outwards, of the noise around the specimen."""
    tile_size: tuple[int, ...] = ()
    """Pixels of the tiles that the network sees; default as large as memory has room for."""
    tile_overlap: int | None = None
    """Pixels that tiles share; default what the network reaches on either side of one."""
    tile_crop: int = 0
    """Pixels along a tile's border that are taken from its neighbours alone; the paper's are 30."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_scalings(self.alpha, self.beta)
        at_least(self, tile_overlap=0, tile_crop=0)
        if self.tile_size and (len(self.tile_size) not in (2, 3) or min(self.tile_size) < 1):
            raise ValueError(f"tile_size must be y x or z y x in pixels, got {' '.join(map(str, self.tile_size))}")


def check_scalings(alpha: float | None, beta: float | None) -> None:
    """Raises ValueError for α or β, where given, that are no number above 0."""
    for name, value in (("alpha", alpha), ("beta", beta)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be a number above 0, got {value:g}")
