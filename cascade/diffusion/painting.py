"""How a sketch is painted: from which time, in how many steps, and how near to it."""

from dataclasses import dataclass
from typing import Literal

from cascade.settings import at_least, check_fields

Solver = Literal["ancestral", "ddim", "dpm++"]


@dataclass(frozen=True, kw_only=True)
class PaintingSettings:
    """Of a painting by a DDPM from sketches; what is None is as the model has it."""

    t_start: int | None = None
    """Time, of T = 1000, up to which sketches are noised: later makes finer detail, earlier keeps nearer to them."""
    sigma: float | None = None
    """Pixels of the Gaussian that sketches are smoothed with before."""
    num_inference_steps: int | None = None
    """Network calls from t_start on."""
    solver: Solver | None = None
    """ddim, dpm++ (of second order), or ancestral, the paper's, which wants as many steps as t_start."""
    guidance_um: float | None = None
    """What is coarser than this keeps the sketch's light, so that dim cells stay and none grow that nobody drew; 0 for
    none."""
    tile_size: tuple[int, ...] = ()
    """Pixels of the tiles that the network sees; default as large as memory has room for."""
    tile_overlap: int | None = None
    """Pixels that tiles share; default what the network reaches on either side of one."""

    def __post_init__(self) -> None:
        check_fields(self)
        at_least(self, t_start=1, sigma=0, num_inference_steps=1, guidance_um=0, tile_overlap=0)
        if self.tile_size and (len(self.tile_size) not in (2, 3) or min(self.tile_size) < 1):
            raise ValueError(f"tile_size must be y x or z y x in pixels, got {' '.join(map(str, self.tile_size))}")
