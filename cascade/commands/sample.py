"""`cascade sample`: outlined cells to try everything with, drawn by the embedded weights."""

from pathlib import Path

import torch

from cascade import __version__
from cascade.commands.settings import SampleSettings
from cascade.export.save import check_replaceable, save_samples
from cascade.generation.load import load
from cascade.hub.embedded import embedded

_MODEL = "nuclei2d"
_IMAGES, _CELLS, _SIDE = 3, 10, 256  # which show thirty nuclei, not too many of them touching


def sample(settings: SampleSettings) -> Path:
    """Write three planes with thirty outlined nuclei in all, as `images/` and `masks/`; returns the folder.

    The same seed gives the same images. Raises FileExistsError for a folder that holds something else, `files.Busy` if
    another process is at work in it.
    """
    output = settings.output_dir
    check_replaceable(output)
    pipeline = load(embedded(_MODEL), few_steps=True)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(settings.seed)
    canvas = (_SIDE, _SIDE)
    made = pipeline(num_images=_IMAGES, canvas_size=canvas, cells_per_image=_CELLS, generator=generator).samples
    about = {"made_by": f"cascade-microscopy {__version__}", "model": _MODEL, "seed": settings.seed}
    return save_samples(made, output, ("stardist",), about=about)
