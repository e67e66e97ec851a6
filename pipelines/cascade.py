"""The whole cascade: sparse annotations' models in, densely annotated images out."""

import dataclasses
import difflib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from tqdm.auto import tqdm

from cascade.annotation import Annotation, Sample
from cascade.hub import folders as hub
from cascade.hub.cards import write_cascade_card
from cascade.hub.embedded import embedded
from cascade.hub.folders import FEW_STEPS
from cascade.hub.statistics import saved_statistics
from cascade.neus.settings import NeuSSettings
from cascade.optics.statistics import Statistics
from cascade.pipelines.mask_ddpm import MaskDDPMPipeline
from cascade.pipelines.multiview import MultiviewPipeline
from cascade.pipelines.painter import paint_annotation
from cascade.pipelines.stages import Draw, Stages, draw_cells
from cascade.pipelines.texture import TexturePipeline
from cascade.population.bank import draw_uses, used
from cascade.population.compositing import Cell
from cascade.population.picture import take_picture
from cascade.population.scene import Scene, plan_scene
from cascade.population.settings import CascadeSettings
from cascade.rng import seed_from

log = logging.getLogger(__name__)

_NO_ROOM = "cells without room"


@dataclass
class CascadeOutput(BaseOutput):
    """images, labels: one array (Y, X) or (Z, Y, X) per sample. samples: the same with everything known about them."""

    images: list[npt.NDArray[Any]]
    labels: list[npt.NDArray[Any]]
    samples: list[Sample]

    def save(self, output_dir: str | Path, format: str | tuple[str, ...] = "ctc") -> Path:
        """Write all samples as a data set with a preview; formats: see `cascade.export.formats`."""
        from cascade.export.save import save_samples

        return save_samples(self.samples, output_dir, (format,) if isinstance(format, str) else tuple(format))


class CascadePipeline(DiffusionPipeline):
    """Outlines → [views → solids → slices] → texture → population; 2D data sets skip the bracket.

    Args:
        mask, texture: the stages' pipelines.
        multiview: for 3D data sets, unless `shapes` are others than its own.
        statistics: of the real data set, see `cascade.optics.statistics.Statistics`, as a dict.
    """

    _optional_components = ["multiview"]  # noqa: RUF012 - as diffusers declares it

    def __init__(
        self,
        mask: MaskDDPMPipeline,
        texture: TexturePipeline,
        statistics: dict[str, Any] | None = None,  # a default, or diffusers takes it for a component
        multiview: MultiviewPipeline | None = None,
    ):
        super().__init__()
        if statistics is None:
            raise ValueError("a cascade needs statistics=…: Statistics.load(crops).to_dict()")
        self.register_modules(mask=mask, multiview=multiview, texture=texture)
        self._statistics = Statistics.from_dict(statistics)

    @property
    def statistics(self) -> Statistics:
        """What was fitted to the real data set."""
        return self._statistics

    @property
    def stages(self) -> list[DiffusionPipeline]:
        """Mask, multiview where there is one, texture."""
        return [stage for stage in (self.mask, self.multiview, self.texture) if stage is not None]

    @property
    def parts(self) -> Stages:
        """The stages with the statistics, as cells are drawn with them."""
        return Stages(self.mask, self.texture, self.multiview, self.statistics)

    @property
    def device(self) -> torch.device:
        """Where the stages are."""
        return self.texture.device

    def to(self, *args: Any, **kwargs: Any) -> "CascadePipeline":
        """Move every stage; diffusers' own `to` does not reach nested pipelines."""
        for stage in self.stages:
            stage.to(*args, **kwargs)
        return self

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """Of the whole and of every stage."""
        super().set_progress_bar_config(**kwargs)
        for stage in self.stages:
            stage.set_progress_bar_config(**kwargs)

    @classmethod
    def from_pretrained(
        cls,
        path_or_repo_id: str | Path,
        revision: str | None = None,
        token: str | None = None,
        dtype: torch.dtype = torch.float32,
        few_steps: bool = False,
        **kwargs: Any,
    ) -> "CascadePipeline":
        """Load a saved cascade, "nuclei2d", "nuclei3d", or a folder that the scripts filled (mask/, texture/, …).

        A 3D folder without its own multiview/ takes the embedded one, which was trained on harmonic shapes and fits
        any data set. few_steps: outlines and texture with the weights that draw in a few steps, which one of them has
        to have. Keyword arguments `mask`, `multiview`, `texture` replace stages. Raises `hub.ModelError` if a stage is
        missing or pickled, or the folder is another pipeline's.
        """
        folder = hub.model_folder(path_or_repo_id, revision, token)
        dtype = kwargs.pop("torch_dtype", dtype)  # as diffusers called it until 0.42
        whole = not kwargs  # or the folder's card does not say what it is made from
        needed = [name for name in ("mask", "texture") if name not in kwargs]
        with hub.naming_class(folder, cls):
            hub.check_components(folder, cls.__name__, dict.fromkeys(needed, "model_index.json"))
        if few_steps and not any((folder / name / FEW_STEPS).is_file() for name in needed):
            raise hub.ModelError(f"{folder}: no stage has weights for few steps ({FEW_STEPS}): leave `few_steps` out")
        statistics = saved_statistics(folder)
        if len(statistics["spacing_um"]) == 3 and "multiview" not in kwargs:
            source = folder / "multiview"
            if not (source / "model_index.json").is_file():
                index = folder / "model_index.json"
                if index.is_file() and json.loads(index.read_text()).get("multiview", [None])[0]:
                    raise hub.ModelError(f"{folder}: multiview/ is missing; copy it there, or pass multiview=…")
                source = embedded("nuclei3d") / "multiview"
                log.info("%s has no multiview stage of its own: using the embedded one", folder)
            kwargs["multiview"] = MultiviewPipeline.from_pretrained(source, dtype=dtype)
        for name, stage in (("mask", MaskDDPMPipeline), ("texture", TexturePipeline)):
            if name not in kwargs:
                kwargs[name] = stage.from_pretrained(folder / name, dtype=dtype, few_steps=few_steps)
        pipeline = cls(statistics=statistics, **kwargs)
        if whole:
            pipeline.register_to_config(_name_or_path=str(folder))
        return pipeline

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write all stages, each loadable on its own, the statistics, and a card that says what they were made from,
        as the stages' own cards do, which are written, too."""
        super().save_pretrained(save_directory, **kwargs)
        folder = Path(save_directory)
        hub.name_package(folder)
        self.statistics.save(folder)
        if self.multiview is None and (folder / "multiview").is_dir():
            log.warning("%s is of another cascade, and no part of this one: remove it", folder / "multiview")
        write_cascade_card(folder, self.statistics)

    def push_to_hub(self, repo_id: str, private: bool | None = None, token: str | None = None) -> str:
        """Upload the whole cascade with its card; returns the commit's address."""
        return hub.push(self, repo_id, private, token)

    def __call__(
        self,
        settings: CascadeSettings | None = None,
        *,
        num_images: int = 1,
        generator: torch.Generator | None = None,
        region: npt.NDArray[Any] | None = None,
        bank: list[Cell] | None = None,
        neus: NeuSSettings | None = None,
        **fields: Any,
    ) -> CascadeOutput:
        """Generate annotated images.

        Args:
            settings: how, and how many cells on which canvas; default as in the real images.
            num_images: how many.
            generator: one seed is drawn from it; image n depends on that seed and n alone.
            region: where cell centres may lie, an array as large as the canvas; default where the real cells lie.
            bank: cells to use again and again, turned, instead of making new ones for every image: those of `cells`.
            neus: how solids are fitted to imagined views.
            fields: of `CascadeSettings`, given one by one: they win over those of `settings`.

        Raises ValueError for settings that do not fit the data set, TypeError for what is no setting.
        """
        if not isinstance(num_images, int) or num_images < 1:
            raise ValueError(f"num_images must be a whole number from 1, got {num_images}")
        changed = with_fields(settings or CascadeSettings(), fields)
        seed = seed_from(generator)
        samples = list(self.generate(seed, range(num_images), changed, region=region, bank=bank, neus=neus))
        return CascadeOutput([s.image for s in samples], [s.labels for s in samples], samples)

    def generate(
        self,
        seed: int,
        indices: Iterable[int],
        settings: CascadeSettings | None = None,
        *,
        region: npt.NDArray[Any] | None = None,
        bank: list[Cell] | None = None,
        neus: NeuSSettings | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> Iterator[Sample]:
        """The same one by one, for data sets larger than memory; `indices` are the images' numbers under `seed`.

        tell: called with each stage of an image, before it is begun; what it raises ends the work.
        """
        settings, statistics = settings or CascadeSettings(), self.statistics
        bar = tqdm(indices, desc="images", unit="image", **getattr(self, "_progress_bar_config", {}))

        def told(stage: str) -> None:
            bar.set_postfix_str(stage)
            if tell is not None:
                tell(stage)

        for index in bar:
            # 1. What the image shows
            scene = plan_scene(statistics, settings, seed, index, region=region)

            # 2. Its cells: new ones, or those of the bank
            if bank is None:
                draw = Draw(scene.num_cells, seed, index, scene.like, neus, told)
                cells, counts = draw_cells(self.parts, draw, settings)
            else:
                level, counts = statistics.background.level, {}
                cells = [used(bank, use, level) for use in draw_uses(bank, scene, statistics, seed, index)]

            # 3. The population, seen by the camera
            told("population")
            sample = take_picture(cells, scene, statistics, seed, index, counts=counts)
            _tell_missing(sample, scene, len(cells))
            yield sample

    def cells(
        self,
        num_cells: int,
        seed: int,
        settings: CascadeSettings | None = None,
        *,
        index: int = 0,
        neus: NeuSSettings | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> list[Cell]:
        """Textured cells that no image has placed yet, as bright as the real images' cells are: a bank.

        There may be fewer than `num_cells`, see `draw_cells`. tell: as for `generate`.
        """
        draw = Draw(num_cells, seed, index, neus=neus, tell=tell or (lambda stage: None))
        return draw_cells(self.parts, draw, settings or CascadeSettings())[0]

    def paint(
        self, annotation: Annotation, seed: int, index: int = 0, settings: CascadeSettings | None = None
    ) -> Sample:
        """Give the cells of any annotation texture and light, and the whole a background and a camera.

        Labels stay as they are, unless `vary` changes the distance of slices. Raises ValueError for an annotation of
        another dimension or voxel size than the model's images, or cells larger than its crops.
        """
        return paint_annotation(self.parts, annotation, seed, index, settings or CascadeSettings())


def with_fields(settings: CascadeSettings, changes: Mapping[str, Any]) -> CascadeSettings:
    """Settings with some fields changed; raises TypeError for a field that there is not, naming the nearest, and for
    what are no settings."""
    if not isinstance(settings, CascadeSettings):
        raise TypeError(f"settings must be CascadeSettings, got {settings!r}: how many images is num_images=…")
    names = [one.name for one in dataclasses.fields(settings)]
    for name in changes:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            mend = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
            raise TypeError(f"no setting {name!r}: {mend}")
    return dataclasses.replace(settings, **changes)


def _tell_missing(sample: Sample, scene: Scene, num_made: int) -> None:
    """Warn of cells that were asked for and are not there."""
    counts, index = sample.counts, sample.index
    if num_made < 0.8 * scene.num_cells:
        why = ", ".join(f"{number} {what}" for what, number in counts.items() if number and what != _NO_ROOM)
        missing = scene.num_cells - num_made
        log.warning("image %d: %d of %d cells could not be made: %s", index, missing, scene.num_cells, why)
    if counts[_NO_ROOM]:
        log.warning(
            "image %d: %d of %d cells found no room on a canvas of %s; enlarge canvas_size or ask for fewer",
            index,
            counts[_NO_ROOM],
            scene.num_cells,
            "×".join(map(str, scene.canvas)),
        )
