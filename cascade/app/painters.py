"""Models that paint planes, each loaded when it is first asked for, and once."""

import threading
from functools import cache

from diffusers.utils.logging import disable_progress_bar

from cascade.annotation import Annotation, Sample
from cascade.diffusion.painting import PaintingSettings
from cascade.generation.load import load
from cascade.hub import folders as hub
from cascade.hub.embedded import NAMES
from cascade.hub.few_steps import has_few_steps
from cascade.hub.statistics import saved_statistics
from cascade.memory import keep_freed
from cascade.pipelines.cascade import CascadePipeline
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.population.compositing import Cell
from cascade.population.settings import CascadeSettings
from cascade.processor import best_device

BANK = 48
"""Cells that populations are put together from."""
_TURN = threading.RLock()  # one network at a time: they share the cores anyway


def painters(model: str | None = None) -> list[str]:
    """Names of the models for planes: embedded ones, and one's own. Raises ModelError, or ValueError for one's own that
    paints no planes."""
    names = [name for name in NAMES if len(spacing_of(name)) == 2]
    if model is not None and model not in names:
        if len(spacing_of(model)) != 2:
            raise ValueError(f"model {model} paints stacks, and the page paints planes: use cascade generate")
        if len(hub.model_index(hub.model_folder(model)).get("windows", ())) > 1:
            raise ValueError(f"model {model} paints several channels, and the page shows one: use cascade generate")
        names.insert(0, model)
    return sorted(names, key=lambda name: (name != model, not paints_sketches(name)))


@cache
def paints_sketches(name: str) -> bool:
    """Whether a model is a DDPM from sketches; else it is a cascade, which gives cells their texture one by one."""
    return bool(hub.model_index(hub.model_folder(name)).get("_class_name") == SketchPipeline.__name__)


@cache
def spacing_of(name: str) -> tuple[float, ...]:
    """Voxel size of what a model paints, without loading it."""
    folder = hub.model_folder(name)
    index = hub.model_index(folder)
    own = index if "spacing_um" in index else saved_statistics(folder)
    return tuple(float(one) for one in own["spacing_um"])


def paint(
    annotation: Annotation, name: str, seed: int = 0, *, t_start: int | None = None, steps: int | None = None
) -> Sample:
    """An annotation's image, which depends on annotation, model, seed, t_start and steps alone.

    t_start: of models that paint sketches. steps: network calls; default the model's, with few-step weights where it
    has them. Raises ValueError for settings that cannot be, and annotations that the model does not paint.
    """
    with _TURN:
        if paints_sketches(name):
            how = PaintingSettings(t_start=t_start, num_inference_steps=steps)
            return sketch_pipeline(name).paint(annotation, seed, 0, how)
        settings = CascadeSettings(num_inference_steps=steps)
        return _cascade(name, steps is None and has_few_steps(hub.model_folder(name))).paint(
            annotation, seed, 0, settings
        )


def populate(
    name: str, *, num_cells: int, clustering: float, canvas_size: tuple[int, int], seed: int, bank: bool = True
) -> Sample:
    """A population of a cascade, its outlines drawn by it, too.

    bank: of cells that are made once and turned, which takes a second; else new ones, which takes as long as they do.
    """
    settings = CascadeSettings(canvas_size=canvas_size, cells_per_image=num_cells, clustering_probability=clustering)
    with _TURN:
        pipeline = _cascade(name, has_few_steps(hub.model_folder(name)))
        return next(iter(pipeline.generate(seed, [0], settings, bank=_bank(name) if bank else None)))


def sketch_pipeline(name: str) -> SketchPipeline:
    """A DDPM from sketches."""
    with _TURN:
        return _sketch(name)


@cache
def _sketch(name: str) -> SketchPipeline:
    disable_progress_bar()  # of loading, which takes no time
    keep_freed()
    pipeline = SketchPipeline.from_pretrained(hub.model_folder(name)).to(best_device())
    pipeline.sketch_settings  # noqa: B018 - what the model lacks is said now
    return pipeline


@cache
def _cascade(name: str, few_steps: bool) -> CascadePipeline:
    pipeline = load(hub.model_folder(name), few_steps=few_steps)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@cache
def _bank(name: str) -> list[Cell]:
    return _cascade(name, has_few_steps(hub.model_folder(name))).cells(BANK, 0)
