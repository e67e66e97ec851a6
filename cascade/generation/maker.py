"""How the samples of a job are made by the cascade, by seed and numbers, and how they are written."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from cascade.annotation import Sample
from cascade.export.records import SampleRecord
from cascade.generation.load import cells_together, load
from cascade.generation.painting import Make, Write
from cascade.generation.recipe import Recipe
from cascade.generation.shards import Job
from cascade.generation.tiles import compose_tiles
from cascade.pipelines.cascade import CascadePipeline
from cascade.population.bank import stored_bank
from cascade.population.compositing import Cell
from cascade.population.scene import Scene, plan_scene
from cascade.reading import read_image

NO_IMAGE = 1 << 30  # cells of a bank are made under numbers that no image has


class CascadeMaker:
    """Makes and writes the samples of a job.

    The model is loaded, and the bank made, when the first one is asked for. A canvas of tiles is only planned, and
    composed when it is written.
    """

    def __init__(
        self, model: str | Path, job: Job, output_dir: Path, *, device: str | None = None, rank: int = 0, world: int = 1
    ):
        self.model, self.job, self.output_dir, self.device = model, job, output_dir, device
        self.rank, self.world = rank, world
        self.recipe = Recipe.of_record(job.settings)
        self._pipeline: CascadePipeline | None = None
        self._bank: list[Cell] | None = None
        self._region: npt.NDArray[Any] | None = None

    def samples(self, seed: int, numbers: Iterable[int]) -> Iterator[Sample]:
        """Samples of these numbers."""
        pipeline = self._ready()
        yield from pipeline.generate(seed, numbers, self.recipe.images, region=self._region, bank=self._bank)

    def scenes(self, seed: int, numbers: Iterable[int]) -> Iterator[Scene]:
        """Plans of canvases that are composed of tiles."""
        statistics = self._ready().statistics
        for number in numbers:
            yield plan_scene(statistics, self.recipe.images, seed, number, region=self._region)

    def write_tiles(self, scene: Scene, number: int, folder: Path) -> SampleRecord:
        """Compose one canvas of tiles into a folder."""
        path, bank = folder / f"sample_{number:06d}.ome.zarr", self._bank or []
        return compose_tiles(bank, scene, self._ready().statistics, path, self.job.seed, number)

    def _ready(self) -> CascadePipeline:
        if self._pipeline is None:
            recipe = self.recipe
            pipeline = load(self.model, self.device, recipe.dtype, compile=recipe.compile, few_steps=recipe.few_steps)
            pipeline.set_progress_bar_config(disable=True)
            self._region = region_of(self.recipe)
            if self.recipe.bank:
                self._bank = self._made_bank(pipeline, self.recipe.bank)
            self._pipeline = pipeline
        return self._pipeline

    def _made_bank(self, pipeline: CascadePipeline, num_cells: int) -> list[Cell]:
        """The job's bank of cells, made where it is missing, and kept beside the marks of the finished shards."""

        def make(part: int, size: int) -> list[Cell]:
            return pipeline.cells(size, self.job.seed, self.recipe.images, index=NO_IMAGE + part)

        folder = self.output_dir / ".cascade" / "bank"
        return stored_bank(folder, num_cells, make, self.rank, self.world, cells_together(pipeline.device))


def making(maker: CascadeMaker) -> tuple[Make[Any], Write[Any] | None]:
    """How a job's samples are made, and how they are written if not in the job's formats: arguments of `shards.run`."""
    return (maker.scenes, maker.write_tiles) if maker.recipe.tiles else (maker.samples, None)


def region_of(recipe: Recipe) -> npt.NDArray[Any] | None:
    """Where cell centres may lie, read from the recipe's file."""
    return None if recipe.region is None else read_image(recipe.region)
