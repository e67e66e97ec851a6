"""What `cascade generate` makes with a cascade, image by image and in memory, for programs that show it."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from cascade.annotation import Sample
from cascade.generation.load import cells_together, fast_dtype, load
from cascade.generation.maker import NO_IMAGE
from cascade.hub import folders as hub
from cascade.pipelines.cascade import CascadePipeline
from cascade.population.bank import stored_bank
from cascade.population.compositing import Cell
from cascade.population.settings import CascadeSettings


def generate_samples(
    model: str | Path = "nuclei2d",
    settings: CascadeSettings | None = None,
    *,
    num_images: int = 1,
    seed: int = 0,
    bank: int | None = None,
    few_steps: bool = False,
    device: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Sample]:
    """Annotated images one by one: those that `cascade generate` writes of the same model, settings and seed.

    model: folder, Hub id, or an embedded cascade, nuclei2d or nuclei3d. bank: make so many cells first and use them in
    all images; default new ones in every image. few_steps: see `CascadePipeline.from_pretrained`. device: default the
    best there is. tell: called with what is being made, before each stage of it; what it raises ends the work.

    Raises ValueError for numbers below 1, `hub.ModelError` for a folder that holds no cascade, and what
    `CascadePipeline.generate` does.

    >>> generate_samples(num_images=0)
    Traceback (most recent call last):
    ValueError: num_images must be a whole number from 1, got 0
    """
    for name, number in (("num_images", num_images), ("bank", 1 if bank is None else bank)):
        if number < 1:
            raise ValueError(f"{name} must be a whole number from 1, got {number}")
    said = tell or (lambda what: None)
    opened = partial(load, hub.model_folder(model), device, fast_dtype(device), few_steps=few_steps)
    return _samples(opened, settings or CascadeSettings(), num_images, seed, bank, said)


def _samples(
    opened: Callable[[], CascadePipeline],
    settings: CascadeSettings,
    num_images: int,
    seed: int,
    bank: int | None,
    tell: Callable[[str], None],
) -> Iterator[Sample]:
    tell("loading the model")
    pipeline = opened()
    pipeline.set_progress_bar_config(disable=True)
    cells = None if bank is None else _bank(pipeline, settings, seed, bank, tell)
    for index in range(num_images):
        said = partial(_with, tell, f"image {index + 1} of {num_images}")
        yield from pipeline.generate(seed, [index], settings, bank=cells, tell=said)


def _bank(
    pipeline: CascadePipeline, settings: CascadeSettings, seed: int, count: int, tell: Callable[[str], None]
) -> list[Cell]:
    """The cells that a job's bank has."""
    together = cells_together(pipeline.device)

    def make(part: int, size: int) -> list[Cell]:
        said = partial(_with, tell, f"bank, from cell {part * together + 1} of {count}")
        return pipeline.cells(size, seed, settings, index=NO_IMAGE + part, tell=said)

    with TemporaryDirectory(prefix="cascade-bank-") as folder:
        return stored_bank(folder, count, make, together=together)


def _with(tell: Callable[[str], None], where: str, what: str) -> None:
    tell(f"{where}: {what}")
